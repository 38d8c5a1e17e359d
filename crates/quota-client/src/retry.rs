//! Trying again: only when the answer was lost, and always with the same operation id (C6.6).

use std::cell::Cell;
use std::time::Duration;

use quota_proto::v1;
use tokio::time::Instant;

use crate::Error;

const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A request that bears an operation id.
pub trait Idempotent: Clone {
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

/// Calls a mutation; while its answer is lost, again.
pub(crate) async fn mutate<R: Idempotent, A>(
    retry_for: Duration,
    mut request: R,
    call: impl AsyncFn(R) -> Result<A, Error>,
) -> Result<A, Error> {
    if request.operation_id().is_empty() {
        *request.operation_id() = uuid::Uuid::now_v7().to_string();
    }
    let first = now();
    let tried = Cell::new(false);
    attempt(retry_for, first, async || {
        let mut request = request.clone();
        if tried.replace(true) {
            request.set_age(first.elapsed());
        }
        call(request).await
    })
    .await
}

/// Calls a read; while its answer is lost, again.
pub(crate) async fn read<R: Clone, A>(
    retry_for: Duration,
    request: R,
    call: impl AsyncFn(R) -> Result<A, Error>,
) -> Result<A, Error> {
    attempt(retry_for, now(), async || call(request.clone()).await).await
}

async fn attempt<A>(
    retry_for: Duration,
    first: Instant,
    call: impl AsyncFn() -> Result<A, Error>,
) -> Result<A, Error> {
    let mut wait = WAIT_MIN;
    loop {
        match call().await {
            Err(error) if error.is_lost() && first.elapsed().saturating_add(wait) < retry_for => {
                tokio::time::sleep(error.retry_delay.unwrap_or(wait).min(WAIT_MAX)).await;
                wait = wait.saturating_mul(2).min(WAIT_MAX);
            }
            other => return other,
        }
    }
}

/// Durations only: nothing here is decided by a clock.
fn now() -> Instant {
    Instant::now()
}
