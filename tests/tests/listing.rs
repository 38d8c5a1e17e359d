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
            assert_eq!(listed(&client, size, subjects).await, BELOW);
            assert_eq!(listed(&client, size, usage).await, BELOW);
            assert_eq!(listed(&client, size, quotas).await, BELOW);
            assert_eq!(listed(&client, size, allocations).await, BELOW);
        }
    });
}

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

/// Names on a page, and the token of the next.
type Page = (Vec<String>, String);

/// The subjects of all pages.
async fn listed<F: Future<Output = Page>>(
    client: &Client,
    size: i32,
    page: impl Fn(Client, i32, String) -> F,
) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (names, next) = page(client.clone(), size, token).await;
        all.extend(names);
        if next.is_empty() {
            return all;
        }
        token = next;
    }
}

async fn subjects(client: Client, page_size: i32, page_token: String) -> Page {
    let request = ListSubjectsRequest {
        subject_prefix: PREFIX.into(),
        page_size,
        page_token,
        ..ListSubjectsRequest::default()
    };
    let page = client.list_subjects(request).await.unwrap();
    let names = page.subjects.into_iter().map(|subject| subject.name);
    (names.collect(), page.next_page_token)
}

async fn usage(client: Client, page_size: i32, page_token: String) -> Page {
    let request = ListUsageRequest {
        subject_prefix: PREFIX.into(),
        page_size,
        page_token,
        ..ListUsageRequest::default()
    };
    let page = client.list_usage(request).await.unwrap();
    let names = page.usage.into_iter().map(|usage| usage.subject);
    (names.collect(), page.next_page_token)
}

async fn quotas(client: Client, page_size: i32, page_token: String) -> Page {
    let request = ListQuotasRequest {
        subject_prefix: PREFIX.into(),
        page_size,
        page_token,
        ..ListQuotasRequest::default()
    };
    let page = client.list_quotas(request).await.unwrap();
    let names = page.quotas.into_iter().map(|quota| quota.subject);
    (names.collect(), page.next_page_token)
}

async fn allocations(client: Client, page_size: i32, page_token: String) -> Page {
    let request = ListAllocationsRequest {
        subject_prefix: PREFIX.into(),
        page_size,
        page_token,
        ..ListAllocationsRequest::default()
    };
    let page = client.list_allocations(request).await.unwrap();
    let names = page.allocations.into_iter().map(|row| row.subject);
    (names.collect(), page.next_page_token)
}
