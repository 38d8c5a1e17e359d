//! C12 over the wire: every error has its code, its reason and its outcome, and every bad field is named.

use std::collections::BTreeSet;

use quota_client::v1::ErrorReason as R;
use quota_client::v1::{
    self, Amount, CheckRequest, ConsumeRequest, CreateQuotaRequest, GetAllocationRequest,
    GetQuotaRequest, GetUsageRequest, Limit, ListAllocationsRequest, ListSubjectsRequest, Quota,
    ReleaseMatchingRequest, ReleaseRequest, ResizeRequest, UpdateResourceRequest, limit,
};
use quota_client::{Applied, Client, Error, Options};
use quota_proto::v1::consume_service_client::ConsumeServiceClient;
use quota_tests::process::Server;
use tonic::Code;
use tonic_types::StatusExt;

fn amount(resource: &str, amount: i64) -> Amount {
    Amount {
        resource: resource.into(),
        amount,
    }
}

fn consume(subject: &str, id: &str, cpu: i64) -> ConsumeRequest {
    ConsumeRequest {
        subject: subject.into(),
        amounts: vec![amount("compute.cpu", cpu)],
        allocation_id: id.into(),
        ..ConsumeRequest::default()
    }
}

fn is(error: &Error, code: Code, reason: R) {
    assert_eq!(
        (error.code, error.reason),
        (code, Some(reason)),
        "{error:?}"
    );
    assert_eq!(error.applied, Applied::No, "{error:?}");
}

fn fields(error: &Error) -> BTreeSet<&str> {
    is(error, Code::InvalidArgument, R::InvalidFields);
    error.violations.iter().map(|v| v.field.as_str()).collect()
}

/// C5.4
#[tokio::test]
async fn every_bad_field_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    let bad = ConsumeRequest {
        subject: "Tenants/acme".into(),
        also: vec!["tenants/acme".into(), "nonsense".into()],
        amounts: vec![
            amount("compute.cpu", 0),
            amount("compute.cpu", 1),
            amount("no such", 1),
            amount("unknown.thing", -1),
            amount("api.requests", i64::MAX),
        ],
        operation_id: "x".repeat(65),
        allocation_id: "a b".into(),
        mode: 77,
        labels: [("Bad Key".to_owned(), String::new())].into(),
        source: "s".repeat(1000),
        purpose: "\n".into(),
        operation_age: quota_client::ProtoDuration {
            seconds: -1,
            nanos: 0,
        }
        .into(),
        minimum: Some(1),
        ttl: Some(quota_client::ProtoDuration::default()),
    };
    let error = client.consume(bad).await.unwrap_err();
    let expected = [
        "allocation_id",
        "also[1]",
        "amounts[0].amount",
        "amounts[1].resource",
        "amounts[2].resource",
        "amounts[3].amount",
        "amounts[3].resource",
        "amounts[4].amount",
        "labels",
        "minimum",
        "mode",
        "operation_age",
        "operation_id",
        "purpose",
        "source",
        "subject",
        "ttl",
    ];
    assert_eq!(fields(&error), expected.into_iter().collect());

    let error = client.consume(ConsumeRequest::default()).await.unwrap_err();
    assert_eq!(fields(&error), ["amounts", "subject"].into());
    let error = client.check(CheckRequest {
        subject: "tenants/a".into(),
        amounts: vec![amount("unknown.thing", 1)],
        consistent: true,
        minimum: Some(2),
        ..CheckRequest::default()
    });
    let error = error.await.unwrap_err();
    assert_eq!(fields(&error), ["amounts[0].resource", "minimum"].into());
    let error = client.resize(ResizeRequest::default()).await.unwrap_err();
    assert_eq!(
        fields(&error),
        ["allocation_id", "amounts", "subject"].into()
    );
    let error = client.release_matching(ReleaseMatchingRequest {
        subject: "system".into(),
        page_size: 1001,
        ..ReleaseMatchingRequest::default()
    });
    assert_eq!(
        fields(&error.await.unwrap_err()),
        ["labels", "page_size"].into()
    );
    // All subjects of a request share the first pair.
    let mut request = consume("tenants/a", "x", 1);
    request.also = vec!["tenants/b/users/u".into()];
    let error = client.consume(request).await.unwrap_err();
    assert_eq!(fields(&error), ["also[0]"].into());
    let mut request = consume("system", "x", 1);
    request.also = vec!["tenants/a".into(), "tenants/b".into()];
    assert_eq!(
        fields(&client.consume(request).await.unwrap_err()),
        ["also"].into()
    );
}

#[tokio::test]
async fn bad_quotas() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    let bad = Quota {
        subject: "tenants/**".into(),
        resource: "compute.cpu".into(),
        enforcement: 9,
        state: 9,
        near_percent: Some(101),
        max_request: Some(0),
        valid_from_time: Some(quota_client::Timestamp::default()),
        valid_until_time: Some(quota_client::Timestamp::default()),
        period: Some(v1::Period {
            count: 1001,
            time_zone: "Europe/Berlin".into(),
            length: Some(quota_client::ProtoDuration::default()),
            ..v1::Period::default()
        }),
        rate: Some(v1::Rate {
            bucket: Some(0),
            delay_max: Some(quota_client::ProtoDuration::default()),
            ..v1::Rate::default()
        }),
        etag: "1".into(),
        ..Quota::default()
    };
    let create = |quota| CreateQuotaRequest {
        quota: Some(quota),
        ..CreateQuotaRequest::default()
    };
    let error = client.create_quota(create(bad)).await.unwrap_err();
    let expected = [
        "quota.enforcement",
        "quota.etag",
        "quota.limit",
        "quota.max_request",
        "quota.near_percent",
        "quota.period.count",
        "quota.period.length",
        "quota.period.time_zone",
        "quota.period.unit",
        "quota.rate.bucket",
        "quota.rate.delay_max",
        "quota.rate.interval",
        "quota.state",
        "quota.subject",
        "quota.valid_until_time",
    ];
    assert_eq!(fields(&error), expected.into());
    // An unset limit is neither zero nor unlimited (C1.2); a negative one is none.
    for limit in [
        None,
        Some(Limit { limit: None }),
        Some(Limit {
            limit: Some(limit::Limit::Value(-1)),
        }),
    ] {
        let quota = Quota {
            subject: "tenants/a".into(),
            resource: "compute.cpu".into(),
            limit,
            ..Quota::default()
        };
        let error = client.create_quota(create(quota)).await.unwrap_err();
        assert_eq!(fields(&error), ["quota.limit"].into());
    }
    // What a kind cannot have.
    let quota = |resource: &str| Quota {
        subject: "tenants/a".into(),
        resource: resource.into(),
        limit: Some(Limit {
            limit: Some(limit::Limit::Value(1)),
        }),
        ..Quota::default()
    };
    let hour = v1::Period {
        unit: v1::PeriodUnit::Hour.into(),
        ..v1::Period::default()
    };
    let wrong = Quota {
        period: Some(hour),
        enforcement: v1::Enforcement::Throttle.into(),
        ..quota("compute.cpu")
    };
    let error = client.create_quota(create(wrong)).await.unwrap_err();
    assert_eq!(fields(&error), ["quota.enforcement", "quota.period"].into());
    let error = client.create_quota(create(quota("api.requests"))).await;
    assert_eq!(fields(&error.unwrap_err()), ["quota.rate"].into());
    // Of a batch the wrong one is named, and none of it happens. Of two changes of one quota neither can be meant.
    let batch = |resources: &[&str]| v1::BatchUpdateQuotasRequest {
        requests: resources
            .iter()
            .map(|resource| v1::UpdateQuotaRequest {
                quota: Some(quota(resource)),
                allow_missing: true,
                ..v1::UpdateQuotaRequest::default()
            })
            .collect(),
        ..v1::BatchUpdateQuotasRequest::default()
    };
    for (resources, wrong) in [
        (
            ["compute.cpu", "api.calls", "api.requests"],
            "requests[2].quota.rate",
        ),
        (
            ["compute.cpu", "api.calls", "compute.cpu"],
            "requests[2].quota",
        ),
    ] {
        let error = client.batch_update_quotas(batch(&resources)).await;
        assert_eq!(fields(&error.unwrap_err()), [wrong].into());
    }
    let get = || GetQuotaRequest {
        subject: "tenants/a".into(),
        resource: "compute.cpu".into(),
        ..GetQuotaRequest::default()
    };
    let error = client.get_quota(get()).await.unwrap_err();
    is(&error, Code::NotFound, R::QuotaUnknown);
    let done = client
        .batch_update_quotas(batch(&["compute.cpu", "api.calls"]))
        .await;
    assert_eq!(done.unwrap().responses.len(), 2);
    client.get_quota(get()).await.unwrap();
    // A kind that is not kept does not come in by the back door.
    let error = client.update_resource(UpdateResourceRequest {
        resource: Some(v1::Resource {
            key: "r.measured".into(),
            kind: v1::ResourceKind::Measured.into(),
            base_unit: "count".into(),
            ..v1::Resource::default()
        }),
        allow_missing: true,
        ..UpdateResourceRequest::default()
    });
    assert_eq!(fields(&error.await.unwrap_err()), ["resource.kind"].into());
}

#[tokio::test]
async fn codes_and_reasons() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    client.consume(consume("tenants/a", "vm", 3)).await.unwrap();

    let error = client
        .consume(consume("tenants/a", "vm", 3))
        .await
        .unwrap_err();
    is(&error, Code::AlreadyExists, R::Exists);
    let release = |id: &str, cpu| ReleaseRequest {
        subject: "tenants/a".into(),
        allocation_id: id.into(),
        amounts: vec![amount("compute.cpu", cpu)],
        ..ReleaseRequest::default()
    };
    let error = client.release(release("vm", 4)).await.unwrap_err();
    is(&error, Code::FailedPrecondition, R::ReleaseTooLarge);
    let error = client.release(release("no", 1)).await.unwrap_err();
    is(&error, Code::NotFound, R::AllocationUnknown);
    let mut stale = release("vm", 1);
    stale.expected_generation = Some(99);
    let error = client.release(stale).await.unwrap_err();
    is(&error, Code::Aborted, R::GenerationMismatch);
    let error = client.get_allocation(GetAllocationRequest {
        subject: "tenants/a".into(),
        allocation_id: "no".into(),
        ..GetAllocationRequest::default()
    });
    is(
        &error.await.unwrap_err(),
        Code::NotFound,
        R::AllocationUnknown,
    );
    let error = client.get_usage(GetUsageRequest {
        subject: "tenants/nope".into(),
        ..GetUsageRequest::default()
    });
    is(&error.await.unwrap_err(), Code::NotFound, R::SubjectUnknown);
    let error = client.get_quota(GetQuotaRequest {
        subject: "tenants/*".into(),
        resource: "compute.cpu".into(),
        ..GetQuotaRequest::default()
    });
    is(&error.await.unwrap_err(), Code::NotFound, R::QuotaUnknown);
    let error = client.list_subjects(ListSubjectsRequest {
        page_token: "nonsense".into(),
        ..ListSubjectsRequest::default()
    });
    assert_eq!(fields(&error.await.unwrap_err()), ["page_token"].into());
}

/// What is larger than a message may be, or no message, is the caller's mistake and says so.
#[tokio::test]
async fn what_the_transport_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut service = ConsumeServiceClient::connect(server.endpoint.clone())
        .await
        .unwrap();
    let mut large = consume("tenants/a", "x", 1);
    large.purpose = "x".repeat(2 << 20);
    let status = service.consume(large).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(
        details.error_info().unwrap().metadata["outcome"],
        "NOT_APPLIED"
    );
    // A call that does not exist stays UNIMPLEMENTED, whatever is sent.
    server
        .client()
        .consume(consume("tenants/a", "x", 1))
        .await
        .unwrap();
}

/// C6.7: every change bears its actor; one that is no text is refused.
#[tokio::test]
async fn actors() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let as_actor = |actor: &str| {
        Client::new(Options {
            endpoint: server.endpoint.clone(),
            actor: actor.into(),
            ..Options::default()
        })
    };
    let client = as_actor("scheduler-7").unwrap();
    client.consume(consume("tenants/a", "x", 1)).await.unwrap();
    let error = as_actor(&"x".repeat(200)).unwrap();
    let error = error
        .consume(consume("tenants/a", "y", 1))
        .await
        .unwrap_err();
    assert_eq!(fields(&error), ["quota-actor"].into());
    assert!(as_actor("a\nb").is_err());
}

/// Pages show everything once, in order, also where filters leave most of it out.
#[tokio::test]
async fn pages() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let client = server.client();
    let mut expected = Vec::new();
    for number in 0..25 {
        let subject = format!("tenants/t{}/users/u{number:02}", number % 3);
        let mut request = consume(&subject, "vm", 1);
        request.labels = [("third".to_owned(), (number % 3 == 0).to_string())].into();
        client.consume(request).await.unwrap();
        if number % 3 == 0 {
            expected.push(format!("{subject}/allocations/vm"));
        }
    }
    expected.sort();
    let mut request = ListAllocationsRequest {
        labels: [("third".to_owned(), "true".to_owned())].into(),
        page_size: 4,
        ..ListAllocationsRequest::default()
    };
    let mut names = Vec::new();
    loop {
        let page = client.list_allocations(request.clone()).await.unwrap();
        assert!(page.allocations.len() <= 4);
        names.extend(page.allocations.into_iter().map(|row| row.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, expected);
}
