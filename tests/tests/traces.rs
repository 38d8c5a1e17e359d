//! Traces, as a collector gets them: a span for the call and one for the commit of its group, linked both ways,
//! under the caller's own trace.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use quota_proto::v1::check_service_client::CheckServiceClient;
use quota_proto::v1::consume_service_client::ConsumeServiceClient;
use quota_proto::v1::{Amount, BatchItem, BatchRequest, CheckRequest, ConsumeRequest, batch_item};
use quota_tests::process::{Launch, Server};
use quota_tests::scrape::{scrape, value};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            for attribute in of_resource.resource.unwrap_or_default().attributes {
                if attribute.key == "service.name" {
                    let name = text(attribute.value.and_then(|any| any.value));
                    self.services.lock().unwrap().push(name);
                }
            }
            for of_scope in of_resource.scope_spans {
                self.spans.lock().unwrap().extend(of_scope.spans);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A collector on a free port, and its URL.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        (collector, url)
    }

    /// The spans, once there are so many of that name.
    async fn until(&self, name: &str, count: usize) -> Vec<Span> {
        for _ in 0..500 {
            let spans = self.spans.lock().unwrap().clone();
            if spans.iter().filter(|span| span.name == name).count() >= count {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name}: {:?}", self.spans.lock().unwrap());
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key);
    found.map_or("none".into(), |attribute| {
        text(attribute.value.clone().and_then(|any| any.value))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn launch(directory: &std::path::Path, url: &str, ratio: &str) -> Server {
    let launch = Launch {
        settings: &[
            ("QUOTA_OTLP_ENDPOINT", url),
            ("QUOTA_TRACE_SAMPLE_RATIO", ratio),
        ],
        ..Launch::default()
    };
    Server::launch(directory, &launch).unwrap()
}

fn request<T>(message: T, sampled: Option<bool>) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "call-1".parse().unwrap());
    if let Some(sampled) = sampled {
        let parent = format!("00-{TRACE}-{PARENT}-0{}", u8::from(sampled));
        metadata.insert("traceparent", parent.parse().unwrap());
    }
    request
}

fn consume(amount: i64) -> ConsumeRequest {
    let cpu = |resource: &str| Amount {
        resource: resource.into(),
        amount,
    };
    ConsumeRequest {
        subject: "tenants/acme/projects/web".into(),
        amounts: vec![cpu("compute.cpu"), cpu("compute.memory")],
        ..ConsumeRequest::default()
    }
}

#[tokio::test]
async fn a_charge_is_linked_to_its_commit() {
    let (collector, url) = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    // Only what a caller has chosen.
    let server = launch(directory.path(), &url, "0");
    let mut client = ConsumeServiceClient::connect(server.endpoint.clone())
        .await
        .unwrap();
    client.consume(request(consume(1), None)).await.unwrap();
    client
        .consume(request(consume(1), Some(false)))
        .await
        .unwrap();
    client
        .consume(request(consume(2), Some(true)))
        .await
        .unwrap();
    let name = "quota.v1.ConsumeService/Consume";
    let spans = collector.until(name, 1).await;
    let spans = if spans.len() < 2 {
        collector.until("commit", 1).await
    } else {
        spans
    };
    assert_eq!(spans.len(), 2, "one call was chosen: {spans:?}");
    let call = spans.iter().find(|span| span.name == name).unwrap();
    let commit = spans.iter().find(|span| span.name == "commit").unwrap();

    assert_eq!(hex(&call.trace_id), TRACE);
    assert_eq!(hex(&call.parent_span_id), PARENT);
    assert_eq!(call.kind(), SpanKind::Server);
    for (key, expected) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "quota.v1.ConsumeService"),
        ("rpc.method", "Consume"),
        ("rpc.grpc.status_code", "0"),
        ("quota.request_id", "call-1"),
        ("quota.decision", "GRANTED"),
        ("quota.subject_level", "projects"),
        ("quota.resources", "2"),
    ] {
        assert_eq!(attribute(call, key), expected, "{key}");
    }
    let group: u64 = attribute(call, "quota.group").parse().unwrap();
    assert!(group >= 1);
    assert_eq!(attribute(commit, "quota.group"), group.to_string());
    assert_eq!(attribute(commit, "quota.commands"), "1");
    assert_ne!(commit.trace_id, call.trace_id);
    let ends = |span: &Span| {
        let links = span.links.iter();
        links
            .map(|link| (link.trace_id.clone(), link.span_id.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ends(call),
        [(commit.trace_id.clone(), commit.span_id.clone())]
    );
    assert_eq!(
        ends(commit),
        [(call.trace_id.clone(), call.span_id.clone())]
    );
    let within = call.start_time_unix_nano <= commit.start_time_unix_nano
        && commit.end_time_unix_nano <= call.end_time_unix_nano;
    assert!(within, "{spans:?}");
    assert!(
        collector
            .services
            .lock()
            .unwrap()
            .iter()
            .all(|name| name == "quota-server")
    );

    // A Check has no group, a denial of a batch is its strongest decision.
    let mut checks = CheckServiceClient::connect(server.endpoint.clone())
        .await
        .unwrap();
    let check = CheckRequest {
        subject: "tenants/acme".into(),
        amounts: consume(1).amounts,
        ..CheckRequest::default()
    };
    checks.check(request(check, Some(true))).await.unwrap();
    let items = [1, 3].map(|amount| BatchItem {
        item: Some(batch_item::Item::Consume(consume(amount))),
    });
    let batch = BatchRequest {
        items: items.into(),
    };
    client.batch(request(batch, Some(true))).await.unwrap();
    let spans = collector.until("quota.v1.ConsumeService/Batch", 1).await;
    let batch = spans
        .iter()
        .find(|span| span.name.ends_with("/Batch"))
        .unwrap();
    assert_eq!(attribute(batch, "quota.decision"), "GRANTED");
    let spans = collector.until("quota.v1.CheckService/Check", 1).await;
    let check = spans
        .iter()
        .find(|span| span.name.ends_with("/Check"))
        .unwrap();
    assert_eq!(attribute(check, "quota.decision"), "GRANTED");
    assert_eq!(attribute(check, "quota.subject_level"), "tenants");
    assert_eq!(attribute(check, "quota.group"), "none");
    assert_eq!(check.links.len(), 0);
    let page = scrape(&server.metrics);
    let sent = value(&page, r#"quota_trace_spans_total{result="exported"}"#);
    assert!(sent.unwrap() >= 4.0, "{sent:?}");
}

/// A call without a trace begins one; what a stop interrupts is sent before the end.
#[tokio::test]
async fn every_call_where_all_are_chosen() {
    let (collector, url) = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let server = launch(directory.path(), &url, "1");
    let mut client = ConsumeServiceClient::connect(server.endpoint.clone())
        .await
        .unwrap();
    for _ in 0..20 {
        client.consume(request(consume(1), None)).await.unwrap();
    }
    let mut bad = request(consume(0), None);
    let broken = "00-00000000000000000000000000000000-0000000000000000-01";
    bad.metadata_mut()
        .insert("traceparent", broken.parse().unwrap());
    client.consume(bad).await.unwrap_err();
    drop(client);
    let ended = tokio::task::spawn_blocking(move || server.terminate());
    assert_eq!(ended.await.unwrap(), Some(0));
    let spans = collector.spans.lock().unwrap().clone();
    let calls: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name.ends_with("/Consume"))
        .collect();
    assert_eq!(calls.len(), 21);
    assert!(calls.iter().all(|span| span.parent_span_id.is_empty()));
    let refused = calls
        .iter()
        .filter(|span| attribute(span, "rpc.grpc.status_code") == "3");
    assert_eq!(refused.count(), 1);
    let mut traces: Vec<&[u8]> = calls.iter().map(|span| span.trace_id.as_slice()).collect();
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), 21);
}
