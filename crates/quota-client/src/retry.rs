//! Trying again: only when the answer was lost, and always with the same operation id (C6.6).

use std::time::Duration;

use quota_proto::v1;
use tokio::time::Instant;

use crate::Error;

const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A request that bears the ids of its operations.
pub(crate) trait Idempotent: Clone {
    /// Gives every operation without an id one, before the first attempt.
    fn name(&mut self);
    /// Says how long ago the operations were first tried, where the request can say it.
    fn set_age(&mut self, age: Duration);
}

fn name(operation_id: &mut String) {
    if operation_id.is_empty() {
        *operation_id = new_operation_id();
    }
}

/// What was stated before, and the time since.
fn older(stated: Option<prost_types::Duration>, age: Duration) -> Option<prost_types::Duration> {
    let stated = stated.and_then(crate::error::positive);
    let age = stated.unwrap_or_default().saturating_add(age);
    prost_types::Duration::try_from(age).ok()
}

/// Requests that can say how old they are.
macro_rules! aged {
    ($($request:ident)*) => {$(
        impl Idempotent for v1::$request {
            fn name(&mut self) {
                name(&mut self.operation_id);
            }
            fn set_age(&mut self, age: Duration) {
                self.operation_age = older(self.operation_age, age);
            }
        }
    )*};
}
aged!(
    ConsumeRequest ReleaseRequest ResizeRequest ReleaseMatchingRequest RenewAllocationsRequest
    LinkedGroup ReserveRequest CommitHoldRequest RenewHoldRequest CancelHoldRequest
);

/// Requests that cannot: administrators try again within seconds.
macro_rules! ageless {
    ($($request:ident)*) => {$(
        impl Idempotent for v1::$request {
            fn name(&mut self) {
                name(&mut self.operation_id);
            }
            fn set_age(&mut self, _: Duration) {}
        }
    )*};
}
ageless!(
    CreateSubjectRequest UpdateSubjectRequest DeleteSubjectRequest
    CreateResourceRequest UpdateResourceRequest DeleteResourceRequest
    CreateQuotaRequest UpdateQuotaRequest DeleteQuotaRequest BatchUpdateQuotasRequest
    ResetUsageRequest CorrectUsageRequest AcceptClockRequest
);

/// Every item is an operation of its own.
impl Idempotent for v1::BatchRequest {
    fn name(&mut self) {
        use v1::batch_item::Item;
        for item in self.items.iter_mut().filter_map(|item| item.item.as_mut()) {
            match item {
                Item::Consume(request) => request.name(),
                Item::Release(request) => request.name(),
                Item::Resize(request) => request.name(),
                Item::Linked(group) => group.name(),
            }
        }
    }

    fn set_age(&mut self, age: Duration) {
        use v1::batch_item::Item;
        for item in self.items.iter_mut().filter_map(|item| item.item.as_mut()) {
            match item {
                Item::Consume(request) => request.set_age(age),
                Item::Release(request) => request.set_age(age),
                Item::Resize(request) => request.set_age(age),
                Item::Linked(group) => group.set_age(age),
            }
        }
    }
}

/// The attempts at one call. It only counts; the caller calls.
pub(crate) struct Attempts {
    first: Instant,
    retry_for: Duration,
    wait: Duration,
}

impl Attempts {
    /// The first attempt begins.
    pub(crate) fn begin(retry_for: Duration) -> Self {
        Self {
            first: Instant::now(),
            retry_for,
            wait: WAIT_MIN,
        }
    }

    /// How long ago the first attempt began.
    pub(crate) fn age(&self) -> Duration {
        self.first.elapsed()
    }

    /// Waits before the next attempt, if the answer was lost and there is time for one.
    pub(crate) async fn wait(&mut self, error: &Error) -> bool {
        if !error.is_lost() || self.age().saturating_add(self.wait) >= self.retry_for {
            return false;
        }
        let wait = error.retry_delay.unwrap_or(self.wait);
        tokio::time::sleep(wait.min(WAIT_MAX)).await;
        self.wait = self.wait.saturating_mul(2).min(WAIT_MAX);
        true
    }
}

/// A new operation id, for callers that keep it beyond one call.
pub fn new_operation_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
