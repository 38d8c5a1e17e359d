//! C3.4, C4.2, C4.4: what bounds a subject, and what does not and why, as GetUsage and ExplainQuota tell it.

use std::time::Duration;

use quota_client::Client;
use quota_client::v1::{
    Amount, CheckRequest, ExplainQuotaRequest, GetUsageRequest, PeriodUnit, limit,
};
use quota_core::time::Timestamp;
use quota_server::clock::Clock as _;
use quota_testkit::bare::BEGINNING;
use quota_testkit::script::Call;
use quota_tests::grpc::{InProcess, ask};
use quota_tests::worlds::TestStore;

const USER: &str = "tenants/a/users/u";

/// Calls, each after so many seconds.
const SETUP: &[(u64, &str)] = &[
    (0, "quota tenants/* api.calls 100 period=hour"),
    (0, "consume tenants/a/users/u api.calls 7"),
    (10, "quota tenants/*/users/* api.calls 50 period=hour"),
    (0, "quota tenants/a/users/* api.calls 40 period=hour force"),
    (
        10,
        "quota tenants/a/users/u api.calls 3 period=day enforce=warn",
    ),
    (
        0,
        "quota tenants/a/users/u api.calls 1 id=.off state=disabled",
    ),
    (0, "quota tenants/a/users/u api.calls 1 id=.later from=60s"),
    (
        0,
        "quota tenants/a/users/u api.calls 1 id=.over until=1s force",
    ),
    (10, "consume tenants/a/users/u api.calls 3"),
];

struct World {
    store: TestStore,
    server: InProcess,
    client: Client,
}

impl World {
    fn new() -> Self {
        let store = TestStore::new(Default::default());
        let server = InProcess::serve(store.start());
        let world = Self {
            client: server.client(),
            store,
            server,
        };
        for (seconds, text) in SETUP {
            world.store.clock.advance(Duration::from_secs(*seconds));
            let now = world.store.clock.now();
            let call = Call::parse(text);
            let asked = world
                .server
                .runtime
                .block_on(ask(&world.client, &call, now));
            let answer = asked.unwrap();
            assert!(answer == "set" || answer.starts_with("granted"), "{answer}");
        }
        world
    }
}

/// Seconds after the beginning.
fn after(time: Option<quota_client::Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds - BEGINNING.whole_second())
}

fn value(of: Option<quota_client::v1::Limit>) -> i64 {
    match of.and_then(|of| of.limit) {
        Some(limit::Limit::Value(value)) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_quota_is_explained() {
    let world = World::new();
    let request = ExplainQuotaRequest {
        subject: USER.into(),
        resource: "api.calls".into(),
        ..ExplainQuotaRequest::default()
    };
    let answer = world.client.explain_quota(request);
    let answer = world.server.runtime.block_on(answer).unwrap();
    let mut told = Vec::new();
    for one in &answer.quotas {
        let quota = one.quota.as_ref().unwrap();
        assert_eq!(one.in_force, one.why_not.is_empty(), "{one:?}");
        told.push(format!(
            "{} {} {} {}{}{}",
            one.subject,
            quota.subject,
            quota.quota_id,
            one.used,
            if one.effective { " effective" } else { "" },
            one.why_not,
        ));
    }
    let due = [
        "tenants/a tenants/* api.calls.hour 10",
        "tenants/a/users/u tenants/a/users/u api.calls.day 3",
        "tenants/a/users/u tenants/a/users/u api.calls.later 0not valid yet",
        "tenants/a/users/u tenants/a/users/u api.calls.off 0DISABLED",
        "tenants/a/users/u tenants/a/users/u api.calls.over 0not valid any more",
        "tenants/a/users/u tenants/a/users/* api.calls.hour 3 effective",
        "tenants/a/users/u tenants/*/users/* api.calls.hour 0covered by another quota of its id",
    ];
    assert_eq!(told, due);
    let [least] = answer.effective_limits.as_slice() else {
        panic!("{:?}", answer.effective_limits);
    };
    let told = (least.subject.as_str(), least.quota.as_str());
    assert_eq!(told, (USER, "api.calls.hour"));
    assert_eq!(value(least.limit), 40);
    assert_eq!(least.period.as_ref().unwrap().unit(), PeriodUnit::Hour);
}

#[test]
fn usage_says_what_bounds_it() {
    let world = World::new();
    let request = GetUsageRequest {
        subject: USER.into(),
        ..GetUsageRequest::default()
    };
    let answer = world.client.get_usage(request);
    let usage = world
        .server
        .runtime
        .block_on(answer)
        .unwrap()
        .usage
        .unwrap();
    let [calls] = usage.resources.as_slice() else {
        panic!("{usage:?}");
    };
    assert_eq!((calls.resource.as_str(), calls.used), ("api.calls", 10));
    let told: Vec<_> = calls
        .quotas
        .iter()
        .map(|quota| {
            let unit = quota.period.as_ref().unwrap().unit();
            let id = quota.quota_id.as_str();
            (id, quota.pattern.as_str(), unit, quota.used, quota.near)
        })
        .collect();
    let due = [
        ("api.calls.day", "", PeriodUnit::Day, 3, true),
        (
            "api.calls.hour",
            "tenants/a/users/*",
            PeriodUnit::Hour,
            3,
            false,
        ),
    ];
    assert_eq!(told, due);
    // The beginning is 800 seconds into its hour, and 51,200 into its day.
    let told: Vec<_> = calls
        .quotas
        .iter()
        .map(|quota| {
            let (start, end) = (quota.period_start_time, quota.period_end_time);
            (after(start), after(end), after(quota.since_time))
        })
        .collect();
    let due = [
        (Some(-51_200), Some(86_400 - 51_200), Some(20)),
        (Some(-800), Some(2800), Some(10)),
    ];
    assert_eq!(told, due);
    assert_eq!(BEGINNING, Timestamp::from_nanos(1_790_000_000_000_000_000));
}

/// What has the least left is told with the pattern that its limit comes from and the period that it counts in.
#[test]
fn headroom_names_pattern_and_period() {
    let world = World::new();
    let request = CheckRequest {
        subject: USER.into(),
        amounts: vec![Amount {
            resource: "api.calls".into(),
            amount: 1,
        }],
        ..CheckRequest::default()
    };
    let answer = world.client.check(request);
    let answer = world.server.runtime.block_on(answer).unwrap();
    let verdict = answer.verdict.unwrap();
    let [tightest] = verdict.tightest_limits.as_slice() else {
        panic!("{verdict:?}");
    };
    assert_eq!(tightest.pattern, "tenants/a/users/*");
    assert_eq!((tightest.limit, tightest.taken), (40, 4));
    let hour = BEGINNING.whole_second().rem_euclid(3600);
    assert_eq!(after(tightest.period_start_time), Some(-hour));
    assert_eq!(after(tightest.period_end_time), Some(3600 - hour));
}
