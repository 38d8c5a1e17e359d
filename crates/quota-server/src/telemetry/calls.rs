//! What every call passes on its way in and out: it gets an id, is counted and timed, and its failure inside
//! is logged. The methods are known from the start, so that a call finds its counters with one look-up and a
//! stranger's path cannot make new ones.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prost::Message;
use prost_types::FileDescriptorSet;
use quota_proto::FILE_DESCRIPTOR_SET;
use tonic::Code;
use tower::{Layer, Service};
use tracing::{debug, error};

use super::metrics::{CallLabels, MethodLabels, Metrics, seconds};
use super::traces::{CallSpan, Traces};
use crate::engine::Engine;

/// Metadata that names a call: taken from the caller where it is sane, and always answered.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The method of paths that no service has.
const OTHER: &str = "other";
/// gRPC's codes, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Wraps the services.
#[derive(Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    traces: Option<Traces>,
    methods: HashMap<String, Arc<Method>>,
    other: Arc<Method>,
    /// What makes ids of this process its own.
    process: u64,
    made: AtomicU64,
}

/// One method with its counters, each made by the first call that needs it.
struct Method {
    service: String,
    name: String,
    is_check: bool,
    latency: OnceLock<Histogram>,
    ended: [OnceLock<Counter>; CODES.len()],
}

impl Calls {
    /// Counts in the metrics of an engine, and traces.
    pub fn new(engine: Arc<Engine>, traces: Option<Traces>) -> Self {
        let (_, process) = uuid::Uuid::now_v7().as_u64_pair();
        let shared = Shared {
            engine,
            traces,
            methods: known_methods(),
            other: Arc::new(Method::new(OTHER, OTHER)),
            process,
            made: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl<S> Layer<S> for Calls {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched {
            inner,
            shared: self.shared.clone(),
        }
    }
}

/// Services whose calls are counted.
#[derive(Clone)]
pub struct Watched<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for Watched<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<Watching<R>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = Call::begin(&self.shared, request.uri().path(), request.headers());
        if let Some(span) = &call.span {
            request.extensions_mut().insert(span.clone());
        }
        Answer {
            inner: self.inner.call(request),
            call: Some(call),
        }
    }
}

pin_project! {
    /// The answer to a call that is counted.
    pub struct Answer<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<Watching<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        if let Some(call) = this.call {
            call.answer(response.headers_mut());
        }
        // An answer that is nothing but a status has it at its head; all others have it at their end.
        if let Some(code) = code_of(response.headers()) {
            end(this.call, code);
        } else if response.body().is_end_stream() {
            end(this.call, Code::Ok);
        }
        let call = this.call.take();
        Poll::Ready(Ok(response.map(|inner| Watching { inner, call })))
    }
}

pin_project! {
    /// What is answered, up to the status at its end: a stream may go on for days and fail then.
    pub struct Watching<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for Watching<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(context));
        let status = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().and_then(code_of),
            Some(Err(_)) => Some(Code::Unknown),
            None => None,
        };
        if let Some(code) = status {
            end(this.call, code);
        } else if frame.is_none() || this.inner.is_end_stream() {
            end(this.call, Code::Ok);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The code in the head of an answer, or at its end.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// Ends a call that has not ended.
fn end(call: &mut Option<Call>, code: Code) {
    if let Some(mut call) = call.take() {
        call.code = code;
    }
}

/// A call under way. Dropped before its end, it was cancelled: by the caller, or by its deadline.
struct Call {
    shared: Arc<Shared>,
    method: Arc<Method>,
    id: HeaderValue,
    began_ns: i64,
    /// How long the answer, or its first part, took.
    took_ns: Option<i64>,
    code: Code,
    span: Option<CallSpan>,
}

impl Call {
    fn begin(shared: &Arc<Shared>, path: &str, headers: &HeaderMap) -> Self {
        let method = shared.methods.get(path).unwrap_or(&shared.other);
        let given = headers.get(REQUEST_ID).filter(|id| is_sane(id)).cloned();
        let id = given.unwrap_or_else(|| shared.make_id());
        let span = shared.traces.as_ref().and_then(|traces| {
            let id = id.to_str().unwrap_or_default();
            traces.begin(&method.service, &method.name, headers, id)
        });
        Self {
            method: method.clone(),
            id,
            span,
            began_ns: shared.engine.clock().boot_ns(),
            took_ns: None,
            code: Code::Cancelled,
            shared: shared.clone(),
        }
    }

    fn answer(&mut self, headers: &mut HeaderMap) {
        self.took_ns = Some(self.so_far_ns());
        let mut id = self.id.clone();
        // Kept out of the tables that compress headers: it never comes again.
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
    }

    fn so_far_ns(&self) -> i64 {
        let now_ns = self.shared.engine.clock().boot_ns();
        now_ns.saturating_sub(self.began_ns)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took_ns = self.took_ns.unwrap_or_else(|| self.so_far_ns());
        let metrics = self.shared.engine.metrics();
        self.method.count(self.code, took_ns, metrics);
        let trace_id = self.span.as_ref().map(CallSpan::trace_id);
        if let Some(span) = &self.span {
            span.end(self.code);
        }
        let code = CODES[self.code as usize];
        let request_id = self.id.to_str().unwrap_or_default();
        let (service, method) = (&self.method.service, &self.method.name);
        match self.code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                error!(request_id, trace_id, %service, %method, code, "a call failed inside");
            }
            _ => debug!(request_id, trace_id, %service, %method, code, took_ns, "call"),
        }
    }
}

impl Shared {
    fn make_id(&self) -> HeaderValue {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:016x}-{number:x}", self.process);
        HeaderValue::from_str(&text).expect("hexadecimal digits are a header value")
    }
}

impl Method {
    fn new(service: &str, name: &str) -> Self {
        Self {
            service: service.to_owned(),
            name: name.to_owned(),
            is_check: service == quota_proto::v1::check_service_server::SERVICE_NAME,
            latency: OnceLock::new(),
            ended: Default::default(),
        }
    }

    fn count(&self, code: Code, took_ns: i64, metrics: &Metrics) {
        let ended = self.ended[code as usize].get_or_init(|| {
            metrics.rpc.get_or_create_owned(&CallLabels {
                service: self.service.clone(),
                method: self.name.clone(),
                code: CODES[code as usize],
            })
        });
        ended.inc();
        let latency = self.latency.get_or_init(|| {
            metrics.rpc_duration.get_or_create_owned(&MethodLabels {
                service: self.service.clone(),
                method: self.name.clone(),
            })
        });
        latency.observe(seconds(took_ns));
        if self.is_check {
            metrics.check_duration.observe(seconds(took_ns));
        }
    }
}

/// Every method that is served, by its path.
fn known_methods() -> HashMap<String, Arc<Method>> {
    let mut methods = HashMap::new();
    for encoded in [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        let set =
            FileDescriptorSet::decode(encoded).expect("generated descriptors are well formed");
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let path = format!("/{service_name}/{}", method.name());
                    let known = Method::new(&service_name, method.name());
                    methods.insert(path, Arc::new(known));
                }
            }
        }
    }
    methods
}

/// Whether an id can be logged and sent back as it is.
fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_callers() {
        let long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
        for good in ["a", "4bf92f35-77b3", &long[1..]] {
            assert!(is_sane(&good.parse().unwrap()), "{good}");
        }
        for bad in ["", "a b", "a\tb", "{\"a\"}", &long] {
            assert!(!is_sane(&bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn every_method_is_known() {
        let methods = known_methods();
        assert!(methods["/quota.v1.CheckService/Check"].is_check);
        assert!(!methods["/quota.v1.ConsumeService/Consume"].is_check);
        for served in [
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(methods.contains_key(served), "{served}");
        }
        for (at, code) in CODES.iter().enumerate() {
            let number = i32::try_from(at).unwrap();
            let description = format!("{:?}", Code::from_i32(number)).to_lowercase();
            assert_eq!(description, code.replace('_', "").to_lowercase());
        }
    }
}
