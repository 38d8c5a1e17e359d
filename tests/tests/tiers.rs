//! An API with tiers against the live server: calls per hour by default quotas on patterns, warned at 90 %,
//! refused at the limit; and per two seconds, so that a test can see them fresh in the next.

use std::time::Duration;

use quota_client::v1::{
    self, Amount, CheckRequest, ConsumeRequest, Decision, Quota, RefusalReason, UpdateQuotaRequest,
    Verdict,
};
use quota_client::{Client, ProtoDuration};
use quota_tests::process::Server;

const TIERS: [(&str, i64); 3] = [("freemium", 10), ("standard", 100), ("enterprise", 500)];

fn seconds(seconds: i64) -> ProtoDuration {
    ProtoDuration { seconds, nanos: 0 }
}

fn calls(amount: i64) -> Vec<Amount> {
    vec![Amount {
        resource: "api.calls".into(),
        amount,
    }]
}

async fn set(client: &Client, subject: &str, resource: &str, limit: i64, period: v1::Period) {
    let quota = Quota {
        subject: subject.into(),
        resource: resource.into(),
        limit: Some(v1::Limit {
            limit: Some(v1::limit::Limit::Value(limit)),
        }),
        near_percent: Some(90),
        period: Some(period),
        ..Quota::default()
    };
    let request = UpdateQuotaRequest {
        quota: Some(quota),
        allow_missing: true,
        ..UpdateQuotaRequest::default()
    };
    client.update_quota(request).await.unwrap();
}

async fn call(client: &Client, subject: &str, amounts: Vec<Amount>) -> Verdict {
    let request = ConsumeRequest {
        subject: subject.into(),
        amounts,
        ..ConsumeRequest::default()
    };
    client.consume(request).await.unwrap().verdict.unwrap()
}

#[tokio::test]
async fn by_the_hour() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    let hour = v1::Period {
        unit: v1::PeriodUnit::Hour.into(),
        ..v1::Period::default()
    };
    for (tier, limit) in TIERS {
        let users = format!("tiers/{tier}/users/*");
        set(&client, &users, "api.calls", limit, hour.clone()).await;
    }
    for (tier, limit) in TIERS {
        for user in ["ann", "bob"] {
            let name = format!("tiers/{tier}/users/{user}");
            let nearly = limit * 9 / 10;
            let mut counted = 0;
            while counted < limit {
                let verdict = call(&client, &name, calls(1)).await;
                counted += 1;
                // The hour may end while this runs; then the count begins anew.
                let taken = verdict.tightest_limits[0].taken;
                counted = counted.min(taken);
                assert_eq!(verdict.decision(), Decision::Granted, "{name} {counted}");
                assert_eq!(
                    !verdict.near_limits.is_empty(),
                    taken >= nearly,
                    "{name} {taken}"
                );
            }
            let verdict = call(&client, &name, calls(1)).await;
            if verdict.decision() == Decision::Denied {
                let refusal = &verdict.refusals[0];
                assert_eq!(refusal.reason(), RefusalReason::PeriodExhausted);
                assert_eq!(refusal.pattern, format!("tiers/{tier}/users/*"));
                assert_eq!(
                    (refusal.used, refusal.requested, refusal.shortfall),
                    (limit, 1, 1)
                );
                assert!(refusal.retry_delay.unwrap().seconds < 3600);
            }
        }
    }
}

/// Fresh in the next period, for one who only checks as well, and over a kill.
#[tokio::test]
async fn fresh_in_the_next_period() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    let period = v1::Period {
        unit: v1::PeriodUnit::Fixed.into(),
        length: Some(seconds(2)),
        ..v1::Period::default()
    };
    let messages = |amount| {
        vec![Amount {
            resource: "api.messages".into(),
            amount,
        }]
    };
    set(
        &client,
        "tiers/freemium/users/*",
        "api.messages",
        10,
        period,
    )
    .await;
    let name = "tiers/freemium/users/ann";
    let refusal = loop {
        let verdict = call(&client, name, messages(10)).await;
        if verdict.decision() == Decision::Denied {
            break verdict.refusals[0].clone();
        }
    };
    server.kill();
    let server = Server::start(directory.path());
    let client = server.client();
    let check = || async {
        let request = CheckRequest {
            subject: name.into(),
            amounts: messages(10),
            ..CheckRequest::default()
        };
        client.check(request).await.unwrap().verdict.unwrap()
    };
    let end = refusal.period_end_time.unwrap();
    loop {
        let verdict = check().await;
        if verdict.decision() == Decision::Granted {
            break;
        }
        assert_eq!(verdict.refusals[0].period_end_time, Some(end));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        call(&client, name, messages(10)).await.decision(),
        Decision::Granted
    );
}
