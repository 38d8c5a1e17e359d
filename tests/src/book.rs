//! What callers of the real server know of what they asked for, compared with what is there.

use std::collections::BTreeSet;
use std::path::Path;

use quota_client::v1::{
    Allocation, Amount, CheckRequest, ConsumeRequest, ListAllocationsRequest, ListUsageRequest,
    SubjectUsage, VerifyInvariantsRequest,
};
use quota_client::{Applied, Client, Error};

use crate::process::{Server, verify_store};

/// What every operation charges of an allocation; it counts one call as well, so that a charge that was made
/// twice shows.
const CPU: i64 = 3;

/// The operations that were asked for: those that were answered, and those whose answer was lost.
#[derive(Clone, Default, Debug)]
pub struct Book {
    answered: BTreeSet<String>,
    open: BTreeSet<String>,
}

/// The operation of a name. The same name is the same operation.
pub fn request(name: &str) -> ConsumeRequest {
    let sum: u32 = name.bytes().map(u32::from).sum();
    let amount = |resource: &str, amount| Amount {
        resource: resource.into(),
        amount,
    };
    ConsumeRequest {
        subject: format!("tenants/t{}/users/u{}", sum % 3, sum % 5),
        amounts: vec![amount("compute.cpu", CPU), amount("api.calls", 1)],
        allocation_id: name.into(),
        operation_id: name.into(),
        ..ConsumeRequest::default()
    }
}

impl Book {
    /// Asks once; answers whether it was a stored answer.
    pub async fn ask(&mut self, client: &Client, name: &str) -> Result<bool, Error> {
        let asked = client.consume(request(name)).await;
        match &asked {
            Ok(_) => {
                self.open.remove(name);
                self.answered.insert(name.to_owned());
            }
            Err(error) if error.applied == Applied::Unknown => self.is_open(name),
            Err(_) => {}
        }
        Ok(asked?.replayed)
    }

    /// An operation was sent whose answer nobody has seen.
    pub fn is_open(&mut self, name: &str) {
        if !self.answered.contains(name) {
            self.open.insert(name.to_owned());
        }
    }

    /// Takes in what another caller knows.
    pub fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        self.open.extend(other.open);
    }

    /// How many operations were answered.
    pub fn answered(&self) -> usize {
        self.answered.len()
    }

    /// How many operations have no answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Asks again for what was lost, with the same operation ids: now everything is known. Answers how many
    /// of them had been applied.
    pub async fn settle(&mut self, client: &Client) -> usize {
        let mut applied = 0;
        for name in self.open.clone() {
            applied += usize::from(self.ask(client, &name).await.unwrap());
        }
        assert!(self.open.is_empty());
        applied
    }

    /// Kills the server: everything is there after a start, and the store is whole.
    pub async fn survives_a_kill(&mut self, server: Server, data: &Path) {
        server.kill();
        let server = Server::start(data);
        let client = server.client();
        self.agrees(&client).await;
        self.settle(&client).await;
        self.agrees(&client).await;
        server.kill();
        verify_store(data);
    }

    /// What was answered is there, nothing else is but operations without an answer, each wholly and once.
    pub async fn agrees(&self, client: &Client) {
        let there: BTreeSet<String> = allocations(client)
            .await
            .into_iter()
            .map(|row| row.allocation_id)
            .collect();
        let lost: Vec<_> = self.answered.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let known: BTreeSet<_> = self.answered.union(&self.open).cloned().collect();
        let extra: Vec<_> = there.difference(&known).collect();
        assert!(extra.is_empty(), "never asked for and there: {extra:?}");
        let count = i64::try_from(there.len()).unwrap();
        let all = usage(client).await;
        let system = all.iter().find(|usage| usage.subject == "system");
        for (resource, each) in [("compute.cpu", CPU), ("api.calls", 1)] {
            let lines = system.map(|system| system.resources.as_slice());
            let line = lines
                .unwrap_or_default()
                .iter()
                .find(|line| line.resource == resource);
            let used = line.map_or(0, |line| line.used);
            assert_eq!(used, count * each, "{resource} of {count} operations");
        }
        let request = VerifyInvariantsRequest {};
        let verified = client.verify_invariants(request).await.unwrap();
        assert_eq!(verified.violations, Vec::<String>::new());
    }
}

/// A Check is answered.
pub async fn check(client: &Client) {
    let request = request("check");
    let check = CheckRequest {
        subject: request.subject,
        amounts: request.amounts,
        ..CheckRequest::default()
    };
    assert!(client.check(check).await.unwrap().verdict.is_some());
}

/// Every allocation, in order.
pub async fn allocations(client: &Client) -> Vec<Allocation> {
    let mut all = Vec::new();
    let mut request = ListAllocationsRequest {
        page_size: 1000,
        ..ListAllocationsRequest::default()
    };
    loop {
        let page = client.list_allocations(request.clone()).await.unwrap();
        all.extend(page.allocations);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

/// Every account, in order.
pub async fn usage(client: &Client) -> Vec<SubjectUsage> {
    let mut all = Vec::new();
    let mut request = ListUsageRequest {
        page_size: 1000,
        ..ListUsageRequest::default()
    };
    loop {
        let page = client.list_usage(request.clone()).await.unwrap();
        all.extend(page.usage);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}
