//! Every metric moves: each is named here with what moves it, and one that is named nowhere fails.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use quota_client::Client;
use quota_client::v1::watch_service_client::WatchServiceClient;
use quota_client::v1::{
    Amount, BatchItem, BatchRequest, CheckRequest, ConsumeMode, ConsumeRequest, Limit, Quota,
    ReserveRequest, UpdateQuotaRequest, WatchRequest, batch_item, limit,
};
use quota_core::Bounds;
use quota_server::clock::{ClockOptions, ManualMachine, SystemClock};
use quota_server::telemetry::Telemetry;
use quota_server::telemetry::exposition::gather;
use quota_server::telemetry::metrics::Metrics;
use quota_server::telemetry::subjects::{SERIES_MAX, Selection};
use quota_server::telemetry::traces::Traces;
use quota_tests::grpc::InProcess;
use quota_tests::process::Server;
use quota_tests::scrape::{samples, scrape, value};
use quota_tests::worlds::TestStore;
use tokio::runtime::Handle;
use tonic::Code;
use tonic::transport::Endpoint;

const SECOND: i64 = 1_000_000_000;

/// A page before and one after.
type Pages = (String, String);
/// Metrics, and what moves them.
type Mover = (&'static [&'static str], fn(&[&str]) -> Pages);

const MOVERS: &[Mover] = &[
    (
        &[
            "quota_rpc",
            "quota_rpc_duration_seconds",
            "quota_check_duration_seconds",
            "quota_decisions",
            "quota_refusals",
            "quota_violations",
            "quota_usage",
            "quota_limit",
            "quota_utilization",
            "quota_cache_hit_ratio",
            "quota_cache_hits",
            "quota_cache_misses",
            "quota_queue_wait_seconds",
            "quota_group_size",
            "quota_commit_duration_seconds",
            "quota_operations",
            "quota_operation_memory_bytes",
            "quota_subjects_resident",
            "quota_allocations",
            "quota_holds",
            "quota_journal_bytes",
            "quota_connections",
        ],
        calls,
    ),
    (&["quota_queue_depth", "quota_breaker_state"], a_stall),
    (&["quota_commit_failures", "quota_breaker_state"], a_failure),
    (
        &[
            "quota_apply_failing",
            "quota_apply_lag_bytes",
            "quota_apply_lag_batches",
        ],
        rows_that_fail,
    ),
    (&["quota_history_lag_batches"], a_history),
    (&["quota_series_left_out"], many_subjects),
    (
        &["quota_clock_offset_seconds", "quota_clock_suspect"],
        a_step,
    ),
    (&["quota_connections_refused"], many_connections),
    (&["quota_recovery_seconds"], a_start),
    (&["quota_trace_spans"], no_collector),
    (&["quota_watchers", "quota_watchers_cut"], a_watcher),
    (&["quota_journal_dropped"], a_full_journal),
];

#[test]
fn every_metric_moves() {
    for (names, mover) in MOVERS {
        let (before, after) = mover(names);
        assert_eq!(still(names, &before, &after), Vec::<&str>::new(), "{after}");
    }
    let moved: BTreeSet<&str> = MOVERS
        .iter()
        .flat_map(|(names, _)| *names)
        .copied()
        .collect();
    let all = Metrics::names();
    let all: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(
        moved, all,
        "a metric without a mover, or a mover without a metric"
    );
}

/// Those that have not moved.
fn still<'a>(names: &[&'a str], before: &str, after: &str) -> Vec<&'a str> {
    let stands = |name: &&&str| samples(before, name) == samples(after, name);
    names.iter().filter(stands).copied().collect()
}

/// The page once all have moved, or after a while.
fn until_moved(server: &InProcess, names: &[&str], before: &str) -> String {
    for _ in 0..500 {
        let after = gather(&server.engine);
        if still(names, before, &after).is_empty() {
            return after;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    gather(&server.engine)
}

fn serve(store: &TestStore) -> InProcess {
    let server = InProcess::serve(store.start());
    server.engine.views().show(Selection::default());
    server
}

fn cpu(subject: &str, amount: i64) -> ConsumeRequest {
    ConsumeRequest {
        subject: subject.into(),
        amounts: vec![Amount {
            resource: "compute.cpu".into(),
            amount,
        }],
        ..ConsumeRequest::default()
    }
}

async fn set_quota(client: &Client, subject: &str, most: i64) {
    let quota = Quota {
        subject: subject.into(),
        resource: "compute.cpu".into(),
        limit: Some(Limit {
            limit: Some(limit::Limit::Value(most)),
        }),
        ..Quota::default()
    };
    let request = UpdateQuotaRequest {
        quota: Some(quota),
        allow_missing: true,
        ..UpdateQuotaRequest::default()
    };
    client.update_quota(request).await.unwrap();
}

fn calls(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let before = gather(&server.engine);
    let client = server.client();
    server.runtime.block_on(async {
        set_quota(&client, "tenants/a", 10).await;
        client.consume(cpu("tenants/a/users/x", 4)).await.unwrap();
        client.consume(cpu("tenants/a/users/x", 7)).await.unwrap();
        let reserve = ReserveRequest {
            subject: "tenants/a".into(),
            amounts: cpu("", 1).amounts,
            ..ReserveRequest::default()
        };
        client.reserve(reserve).await.unwrap();
        let fact = ConsumeRequest {
            mode: ConsumeMode::Record.into(),
            ..cpu("tenants/a/users/x", 20)
        };
        client.consume(fact).await.unwrap();
        for subject in ["tenants/a", "tenants/b/users/nobody"] {
            let check = CheckRequest {
                subject: subject.into(),
                amounts: cpu("", 1).amounts,
                ..CheckRequest::default()
            };
            client.check(check).await.unwrap();
        }
    });
    // The writer measures what only it knows twice a second.
    store.clock.advance(Duration::from_secs(1));
    let after = until_moved(&server, names, &before);
    let account =
        r#"{entity_id="tenants/a",resource_type="compute.cpu",level="tenants",period=""}"#;
    assert_eq!(value(&after, &format!("quota_usage{account}")), Some(25.0));
    assert_eq!(value(&after, &format!("quota_limit{account}")), Some(10.0));
    assert_eq!(
        value(&after, &format!("quota_utilization{account}")),
        Some(2.5)
    );
    let violation = r#"quota_violations_total{entity_id="tenants/a",resource_type="compute.cpu",level="tenants",reason="TOO_LARGE"}"#;
    assert_eq!(value(&after, violation), Some(1.0), "{after}");
    for (sample, expected) in [
        (
            r#"quota_decisions_total{call="charge",decision="GRANTED"}"#,
            3.0,
        ),
        (
            r#"quota_decisions_total{call="charge",decision="DENIED"}"#,
            1.0,
        ),
        (
            r#"quota_decisions_total{call="check",decision="DENIED"}"#,
            1.0,
        ),
        (r#"quota_refusals_total{call="charge",reason="LIMIT"}"#, 1.0),
        // tenants/a and system; of the other only system is there.
        ("quota_cache_hits_total", 3.0),
        ("quota_cache_misses_total", 2.0),
        ("quota_cache_hit_ratio", 0.6),
        ("quota_subjects_resident", 3.0),
        ("quota_holds", 1.0),
        ("quota_connections ", 1.0),
    ] {
        assert_eq!(value(&after, sample), Some(expected), "{sample}");
    }
    (before, after)
}

/// A flush that hangs: the breaker says 2, and what comes meanwhile waits.
fn a_stall(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let before = gather(&server.engine);
    let client = server.client();
    let stall = store.journal.stall();
    let call = |at: u64| {
        let client = client.clone();
        let call = async move { client.consume(cpu(&format!("tenants/t{at}"), 1)).await };
        server.runtime.spawn(call);
    };
    call(0);
    // What comes now is not of its group.
    stall.reached();
    call(1);
    call(2);
    let queued = until_moved(&server, &["quota_queue_depth"], &before);
    assert!(value(&queued, "quota_queue_depth").unwrap() >= 1.0);
    store.clock.advance(Duration::from_secs(6));
    let after = until_moved(&server, names, &before);
    assert_eq!(value(&after, "quota_breaker_state"), Some(2.0));
    drop(stall);
    (before, after)
}

/// A flush that fails: the breaker says 1 until the clock lets it try again.
fn a_failure(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let before = gather(&server.engine);
    store.journal.fail_syncs(1);
    let client = server.client();
    let refused = server.runtime.block_on(client.consume(cpu("tenants/a", 1)));
    refused.unwrap_err();
    let after = until_moved(&server, names, &before);
    assert_eq!(value(&after, "quota_breaker_state"), Some(1.0));
    store.clock.advance(Duration::from_secs(1));
    let mended = until_moved(&server, &["quota_breaker_state"], &after);
    assert_eq!(value(&mended, "quota_breaker_state"), Some(0.0));
    (before, after)
}

fn rows_that_fail(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    store.clock.advance(Duration::from_secs(1));
    let before = until_moved(&server, &["quota_journal_bytes"], &gather(&server.engine));
    store.rows.fail(u64::MAX, 7);
    let client = server.client();
    let charge = client.consume(cpu("tenants/a", 1));
    server.runtime.block_on(charge).unwrap();
    store.clock.advance(Duration::from_secs(1));
    let after = until_moved(&server, names, &before);
    store.rows.fail(0, 7);
    (before, after)
}

/// What is charged is written down by the history when the clock says so, and until then is its lag.
fn a_history(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let client = server.client();
    let lag = |page: &str| value(page, "quota_history_lag_batches").unwrap();
    let charge = || {
        let charge = client.consume(cpu("tenants/a", 1));
        server.runtime.block_on(charge).unwrap();
    };
    let written = || {
        for _ in 0..10 {
            store.clock.advance(Duration::from_secs(6));
            charge();
            for _ in 0..100 {
                let page = gather(&server.engine);
                if lag(&page) == 0.0 {
                    return page;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        gather(&server.engine)
    };
    let before = written();
    assert_eq!(lag(&before), 0.0);
    for _ in 0..3 {
        charge();
    }
    let after = until_moved(&server, names, &before);
    assert_eq!(lag(&after), 3.0);
    assert_eq!(lag(&written()), 0.0);
    (before, after)
}

/// As many subjects as have series, and one more.
fn many_subjects(_: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let before = gather(&server.engine);
    let client = server.client();
    let subjects: Vec<usize> = (0..SERIES_MAX).collect();
    server.runtime.block_on(async {
        for part in subjects.chunks(1000) {
            let item = |at: &usize| BatchItem {
                item: Some(batch_item::Item::Consume(cpu(&format!("users/u{at}"), 1))),
            };
            let request = BatchRequest {
                items: part.iter().map(item).collect(),
            };
            client.batch(request).await.unwrap();
        }
    });
    let after = gather(&server.engine);
    // The series of `system`, and of all but the last by name.
    assert_eq!(value(&after, "quota_series_left_out"), Some(1.0));
    assert_eq!(samples(&after, "quota_usage").len(), SERIES_MAX);
    (before, after)
}

fn a_step(names: &[&str]) -> Pages {
    let machine = ManualMachine::at(1_790_000_000 * SECOND);
    let options = ClockOptions {
        step_max: Duration::from_secs(10),
        downtime_max: Duration::from_secs(3600),
        accept: false,
    };
    let clock = SystemClock::start(machine.clone(), None, options).unwrap();
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start_by(Arc::new(clock)));
    let before = gather(&server.engine);
    machine.step(3600 * SECOND);
    let after = until_moved(&server, names, &before);
    assert_eq!(value(&after, "quota_clock_offset_seconds"), Some(3600.0));
    assert_eq!(value(&after, "quota_clock_suspect"), Some(1.0));
    (before, after)
}

fn many_connections(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let before = gather(&server.engine);
    let address = server.endpoint.trim_start_matches("http://");
    let open = || TcpStream::connect(address).unwrap();
    // One more than this server lets in.
    let all: Vec<TcpStream> = (0..65).map(|_| open()).collect();
    let after = until_moved(&server, names, &before);
    assert_eq!(value(&after, "quota_connections "), Some(64.0));
    drop(all);
    (before, after)
}

/// Only a start from a directory recovers anything.
fn a_start(_: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let before = gather(&serve(&store).engine);
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    (before, scrape(&server.metrics))
}

/// Spans that nobody takes are counted.
fn no_collector(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve_watched(store.start(), |engine| {
        assert!(Handle::try_current().is_ok());
        let traces = Traces::start("http://127.0.0.1:1", 1.0, engine.metrics()).unwrap();
        Telemetry {
            traces: Some(traces),
            ..Telemetry::default()
        }
    });
    let before = gather(&server.engine);
    let client = server.client();
    let charge = client.consume(cpu("tenants/a", 1));
    server.runtime.block_on(charge).unwrap();
    let after = until_moved(&server, names, &before);
    let failed = value(&after, r#"quota_trace_spans_total{result="failed"}"#);
    assert!(failed.unwrap_or_default() >= 1.0);
    (before, after)
}

/// A watcher that takes nothing is there, and then is cut off.
fn a_watcher(names: &[&str]) -> Pages {
    let store = TestStore::new(Bounds::default());
    let server = serve(&store);
    let empty = gather(&server.engine);
    let client = server.client();
    let before = server.runtime.block_on(async {
        let endpoint = Endpoint::from_shared(server.endpoint.clone()).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535);
        let mut service = WatchServiceClient::new(endpoint.connect().await.unwrap());
        let mut watching = service.watch(WatchRequest::default()).await.unwrap();
        let before = gather(&server.engine);
        assert_eq!(value(&before, "quota_watchers "), Some(1.0));
        let cut = || value(&gather(&server.engine), "quota_watchers_cut_total") == Some(1.0);
        // As many as it takes to fill all that lies between.
        for _ in 0..5000 {
            if cut() {
                break;
            }
            let items = (0..100).map(|_| BatchItem {
                item: Some(batch_item::Item::Consume(cpu("tenants/a", 1))),
            });
            let request = BatchRequest {
                items: items.collect(),
            };
            client.batch(request).await.unwrap();
        }
        assert!(cut());
        // The call ends with the status that its stream ends with, not with the one that it began with.
        let ended = |page: &str, code: &str| {
            let labels = r#"service="quota.v1.WatchService",method="Watch""#;
            value(
                page,
                &format!(r#"quota_rpc_total{{{labels},code="{code}"}}"#),
            )
        };
        let page = gather(&server.engine);
        assert_eq!(ended(&page, "OK"), None, "it goes on");
        let why = loop {
            match watching.get_mut().message().await {
                Ok(response) => assert!(response.is_some(), "it ends with a status"),
                Err(why) => break why,
            }
        };
        assert_eq!(why.code(), Code::ResourceExhausted);
        let page = gather(&server.engine);
        assert_eq!(ended(&page, "RESOURCE_EXHAUSTED"), Some(1.0));
        assert_eq!(ended(&page, "OK"), None);
        before
    });
    assert_eq!(
        still(&["quota_watchers"], &empty, &before),
        Vec::<&str>::new()
    );
    let after = until_moved(&server, names, &before);
    (before, after)
}

/// What is only kept for audit goes when the journal is as large as it may be.
fn a_full_journal(names: &[&str]) -> Pages {
    let mut store = TestStore::new(Bounds::default());
    store.audit_retention = Duration::from_secs(30 * 24 * 3600);
    store.journal_bytes_max = 600_000;
    let server = serve(&store);
    let before = gather(&server.engine);
    let client = server.client();
    for _ in 0..3000 {
        let charge = client.consume(cpu("tenants/a", 1));
        server.runtime.block_on(charge).unwrap();
        store.clock.advance(Duration::from_secs(60));
        if still(names, &before, &gather(&server.engine)).is_empty() {
            break;
        }
    }
    let after = gather(&server.engine);
    (before, after)
}
