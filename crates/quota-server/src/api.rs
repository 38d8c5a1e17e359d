//! The services. Handlers convert, call and convert back; they decide nothing.

mod admin;
mod batch;
mod check;
mod consume;
mod events;
mod from_proto;
mod page;
mod reserve;
pub mod status;
mod to_proto;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use quota_core::command::{Action, Command, Operation, Provenance};
use quota_core::outcome::{Answer, Reply};
use tonic::{Request, Status};

use crate::engine::{Engine, the_one};
use from_proto::{Caller, Identity};

pub use admin::Admin;
pub use check::Check;
pub use consume::Consume;
pub use reserve::Reserve;
pub use watch::{Watch, WatchLimits};

/// Answers a command with its reply and the id of its operation.
async fn execute(
    engine: &Arc<Engine>,
    caller: Caller,
    identity: Identity,
    action: Action,
) -> Result<(Reply, String), Status> {
    let id = identity.id.as_str().to_owned();
    let span = caller.span;
    if let Some(span) = &span {
        span.commanded(&action);
    }
    let commands = vec![command(&caller.actor, identity, action)];
    let replies = engine.execute_traced(commands, caller.patience, span.clone());
    match replies.await.and_then(the_one) {
        Ok(reply) => {
            if let Some(span) = &span {
                span.answered([&reply]);
            }
            Ok((reply, id))
        }
        Err(fault) => Err(status::of_fault(&fault)),
    }
}

fn command(actor: &str, identity: Identity, action: Action) -> Command {
    Command {
        operation: Operation {
            id: identity.id,
            given: identity.given,
            digest: identity.digest,
            age: identity.age,
        },
        provenance: Arc::new(Provenance {
            actor: actor.to_owned(),
            source: identity.source,
        }),
        action,
        validate_only: identity.validate_only,
    }
}

/// When a reply was decided.
fn decided(reply: &Reply) -> Option<prost_types::Timestamp> {
    Some(to_proto::timestamp(reply.outcome.decided))
}

/// The answer is of the kind of its command: a bug otherwise.
fn unexpected(answer: &Answer) -> Status {
    tracing::error!(?answer, "an answer of another kind than its command");
    status::bug()
}

/// Steps of a long call after which the others have their turn.
const TURN_STEPS: usize = 64;

/// Lets the other calls of this thread have their turn, now and then in a long one: each thread serves many.
async fn take_turns(step: usize) {
    if step % TURN_STEPS == TURN_STEPS - 1 {
        tokio::task::yield_now().await;
    }
}

/// Splits a request into its message and what its metadata says.
fn split<T>(request: Request<T>) -> Result<(T, Caller), Status> {
    let mut caller = Caller::of(request.metadata())?;
    caller.span = request.extensions().get().cloned();
    Ok((request.into_inner(), caller))
}

/// Least time that is left for an answer to travel: the transport has a timer of its own, which knows nothing of
/// what was done.
const TRAVEL_MIN: Duration = Duration::from_millis(5);

/// The caller's deadline with a little time left for the answer to travel; zero is over before it begins.
fn patience(timeout: Duration) -> Duration {
    timeout.saturating_sub((timeout / 20).max(TRAVEL_MIN))
}
