//! Trying again: only when the answer was lost, and always with the same operation id (C6.6).

use std::time::Duration;

use quota_proto::v1;
use tokio::time::Instant;

use crate::Error;

const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A request that bears an operation id.
pub(crate) trait Idempotent: Clone {
    /// The id.
    fn operation_id(&mut self) -> &mut String;
    /// Says how long ago the operation was first tried, where the request can say it.
    fn set_age(&mut self, age: Duration);
}

/// Requests that can say how old they are.
macro_rules! aged {
    ($($request:ident)*) => {$(
        impl Idempotent for v1::$request {
            fn operation_id(&mut self) -> &mut String {
                &mut self.operation_id
            }
            fn set_age(&mut self, age: Duration) {
                let stated = self.operation_age.and_then(|age| Duration::try_from(age).ok());
                let age = stated.unwrap_or_default().saturating_add(age);
                self.operation_age = prost_types::Duration::try_from(age).ok();
            }
        }
    )*};
}
aged!(ConsumeRequest ReleaseRequest ResizeRequest ReleaseMatchingRequest);

/// Requests that cannot: administrators try again within seconds.
macro_rules! ageless {
    ($($request:ident)*) => {$(
        impl Idempotent for v1::$request {
            fn operation_id(&mut self) -> &mut String {
                &mut self.operation_id
            }
            fn set_age(&mut self, _: Duration) {}
        }
    )*};
}
ageless!(
    CreateSubjectRequest UpdateSubjectRequest
    CreateResourceRequest UpdateResourceRequest DeleteResourceRequest
    CreateQuotaRequest UpdateQuotaRequest DeleteQuotaRequest
);

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

/// Gives a mutation its operation id, before the first attempt.
pub(crate) fn name(request: &mut impl Idempotent) {
    if request.operation_id().is_empty() {
        *request.operation_id() = new_operation_id();
    }
}
