//! Lists below a prefix: whole pairs count, not letters, at every page.

use quota_client::Client;
use quota_client::v1::{
    Amount, ConsumeRequest, Limit, ListAllocationsRequest, ListQuotasRequest, ListSubjectsRequest,
    ListUsageRequest, Quota, UpdateQuotaRequest, limit,
};
use quota_core::Bounds;
use quota_tests::grpc::InProcess;
use quota_tests::worlds::TestStore;

const CPU: &str = "compute.cpu";
const PREFIX: &str = "tenants/1";
const BELOW: [&str; 3] = ["tenants/1", "tenants/1/users/a", "tenants/1/users/b"];
const BESIDE: [&str; 3] = ["tenants/1-a", "tenants/10", "tenants/10/users/a"];

async fn fill(client: &Client, subject: &str) {
    let quota = Quota {
        subject: subject.into(),
        resource: CPU.into(),
        limit: Some(Limit {
            limit: Some(limit::Limit::Value(5)),
        }),
        ..Quota::default()
    };
    let consume = ConsumeRequest {
        subject: subject.into(),
        amounts: vec![Amount {
            resource: CPU.into(),
            amount: 1,
        }],
        allocation_id: "x".into(),
        ..ConsumeRequest::default()
    };
    client.consume(consume).await.unwrap();
    let request = UpdateQuotaRequest {
        quota: Some(quota),
        allow_missing: true,
        ..UpdateQuotaRequest::default()
    };
    client.update_quota(request).await.unwrap();
}

/// The subjects of all pages of a list.
macro_rules! listed {
    ($client:ident.$list:ident($request:ident), $entries:ident, $subject:ident, $size:ident) => {{
        let mut request = $request {
            subject_prefix: PREFIX.into(),
            page_size: $size,
            ..$request::default()
        };
        let mut names = Vec::new();
        loop {
            let page = $client.$list(request.clone()).await.unwrap();
            names.extend(page.$entries.into_iter().map(|entry| entry.$subject));
            if page.next_page_token.is_empty() {
                break names;
            }
            request.page_token = page.next_page_token;
        }
    }};
}

#[test]
fn a_neighbour_whose_name_begins_alike_is_not_below() {
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start());
    let client = server.client();
    server.runtime.block_on(async {
        for subject in BELOW.iter().chain(&BESIDE) {
            fill(&client, subject).await;
        }
        for size in [1, 2, 100] {
            let all = [
                listed!(
                    client.list_subjects(ListSubjectsRequest),
                    subjects,
                    name,
                    size
                ),
                listed!(client.list_usage(ListUsageRequest), usage, subject, size),
                listed!(client.list_quotas(ListQuotasRequest), quotas, subject, size),
                listed!(
                    client.list_allocations(ListAllocationsRequest),
                    allocations,
                    subject,
                    size
                ),
            ];
            for names in all {
                assert_eq!(names, BELOW);
            }
        }
    });
}
