//! The history of usage over the wire: what it says of which kind, and what may be asked.

use quota_client::Timestamp;
use quota_client::v1::batch_item::Item;
use quota_client::v1::{
    Amount, BatchItem, BatchRequest, ConsumeRequest, GetUsageHistoryRequest, GetUsageRequest,
    HistoryStep, ReleaseRequest, ResourceUsage,
};
use quota_core::Bounds;
use quota_testkit::bare::BEGINNING;
use quota_tests::grpc::InProcess;
use quota_tests::lives::PATIENCE;
use quota_tests::process::{Server, quotactl};
use quota_tests::worlds::TestStore;
use tokio::time::Instant;
use tonic::Code;

fn history_of(resource: &str) -> GetUsageHistoryRequest {
    GetUsageHistoryRequest {
        subject: "tenants/a".into(),
        resource: resource.into(),
        step: HistoryStep::Hour.into(),
        start_time: at(0),
        ..GetUsageHistoryRequest::default()
    }
}

fn at(secs: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: BEGINNING.nanos() / 1_000_000_000 + secs,
        nanos: 0,
    })
}

/// A count has no peak: the most that it ever was is what it is.
#[test]
fn only_what_is_given_back_has_a_peak() {
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start());
    let client = server.client();
    let charge = |resource: &str| ConsumeRequest {
        subject: "tenants/a".into(),
        amounts: vec![Amount {
            resource: resource.into(),
            amount: 7,
        }],
        ..ConsumeRequest::default()
    };
    let keys = ["api.calls", "compute.cpu"];
    let accounts = server.runtime.block_on(async {
        for key in keys {
            client.consume(charge(key)).await.unwrap();
        }
        for key in keys {
            while !client
                .get_usage_history(history_of(key))
                .await
                .unwrap()
                .complete
            {}
        }
        let request = GetUsageRequest {
            subject: "tenants/a".into(),
            ..GetUsageRequest::default()
        };
        let usage = client.get_usage(request).await.unwrap().usage;
        usage.unwrap().resources
    });
    let told = |account: &ResourceUsage| {
        let key = account.resource.clone();
        (key, account.used_peak_day, account.unit_hours.is_some())
    };
    let told: Vec<_> = accounts.iter().map(told).collect();
    let due = [
        ("api.calls".to_owned(), None, false),
        ("compute.cpu".to_owned(), Some(7), true),
    ];
    assert_eq!(told, due);
}

/// What comes and goes between two commits was there all the same, and counts from the instant of its event.
#[test]
fn what_one_commit_brings_and_takes() {
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start());
    let client = server.client();
    let consume = |amount, id: &str| {
        Item::Consume(ConsumeRequest {
            subject: "tenants/a".into(),
            amounts: vec![Amount {
                resource: "compute.cpu".into(),
                amount,
            }],
            allocation_id: id.into(),
            ..ConsumeRequest::default()
        })
    };
    let release = |id: &str| {
        Item::Release(ReleaseRequest {
            subject: "tenants/a".into(),
            allocation_id: id.into(),
            ..ReleaseRequest::default()
        })
    };
    let steps = [
        vec![consume(7, "stays")],
        vec![
            release("stays"),
            consume(5000, "large"),
            consume(1, "small"),
            release("large"),
        ],
    ];
    let (points, usage) = server.runtime.block_on(async {
        for items in steps {
            let items = items.into_iter().map(|item| BatchItem { item: Some(item) });
            let request = BatchRequest {
                items: items.collect(),
            };
            client.batch(request).await.unwrap();
        }
        let history = loop {
            let history = client.get_usage_history(history_of("compute.cpu"));
            let history = history.await.unwrap();
            if history.complete {
                break history;
            }
        };
        let request = GetUsageRequest {
            subject: "tenants/a".into(),
            ..GetUsageRequest::default()
        };
        let usage = client.get_usage(request).await.unwrap().usage;
        (history.points, usage.unwrap().resources)
    });
    let point = points.last().unwrap();
    let told = (point.used_min, point.used_max, point.used_last);
    assert_eq!(told, (0, 5001, 1), "{point:?}");
    assert_eq!(usage[0].used_peak_day, Some(5001));
}

/// Every bad field of a request is named.
#[test]
fn what_may_not_be_asked() {
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start());
    let client = server.client();
    let good = history_of("compute.cpu");
    let bad: [(&[&str], GetUsageHistoryRequest); 5] = [
        (
            &["end_time"],
            GetUsageHistoryRequest {
                end_time: at(-1),
                ..good.clone()
            },
        ),
        (
            &["end_time"],
            GetUsageHistoryRequest {
                end_time: at(0),
                ..good.clone()
            },
        ),
        (
            &["step", "start_time"],
            GetUsageHistoryRequest {
                step: 0,
                start_time: None,
                ..good.clone()
            },
        ),
        (
            &["page_size", "page_token"],
            GetUsageHistoryRequest {
                page_size: 5001,
                page_token: "of another".into(),
                ..good.clone()
            },
        ),
        (
            &["subject", "resource"],
            GetUsageHistoryRequest {
                step: HistoryStep::Hour.into(),
                start_time: at(0),
                ..GetUsageHistoryRequest::default()
            },
        ),
    ];
    for (fields, request) in bad {
        let answer = client.get_usage_history(request);
        let error = server.runtime.block_on(answer).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
        let named: Vec<&str> = error.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(named, fields, "{error:?}");
    }
}

/// A young account has its mean since it came into being, and what is small is not nothing.
#[test]
fn what_quotactl_says_of_a_young_account() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let say = |arguments: &[&str]| {
        let done = quotactl(&server.endpoint, arguments);
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    say(&["consume", "tenants/a", "compute.cpu=4cores"]);
    let arguments = ["usage", "tenants/a", "--history", "1h"];
    let asked = Instant::now();
    let mut shown = say(&arguments);
    while !shown.contains("mean") && asked.elapsed() < PATIENCE {
        shown = say(&arguments);
    }
    assert!(shown.contains("mean 4 cores, now 4 cores, "), "{shown}");
    assert!(!shown.contains(", 0 cores × h"), "{shown}");
    let events = say(&["events", "--kind", "allocation_created"]);
    assert!(
        events.contains("compute.cpu +4 cores, (anonymous)"),
        "{events}"
    );
}
