//! The server itself: its clock, and how it is.

use quota_core::command::Action;
use quota_core::outcome::Answer;
use quota_core::rejection::Violation;
use quota_proto::v1;
use tonic::Status;
use tracing::warn;

use super::Admin;
use crate::api::from_proto::{Caller, Reader};
use crate::api::{execute, status, to_proto, unexpected};
use crate::clock::{Clock, ClockState};
use crate::telemetry::logs;

impl Admin {
    pub(super) async fn accept_clock(
        &self,
        mut request: v1::AcceptClockRequest,
        caller: Caller,
    ) -> Result<v1::AcceptClockResponse, Status> {
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let identity = reader.identity("AcceptClock", &request, &id, None, String::new());
        reader.finish()?;
        let clock = self.engine.clock();
        let previous = clock_info(clock, clock.state());
        let action = Action::AcceptClock {
            offset_ns: clock.state().offset_ns,
        };
        // The writer makes the record and the accepted clock durable together.
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::ClockAccepted { .. } = &reply.outcome.answer else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(v1::AcceptClockResponse {
            previous: Some(previous),
            clock: Some(clock_info(clock, clock.state())),
            operation_id,
            replayed: reply.replayed,
        })
    }

    /// Nothing of the ledger: it is over with the process.
    pub(super) async fn set_log_filter(
        &self,
        request: v1::SetLogFilterRequest,
        caller: Caller,
    ) -> Result<v1::SetLogFilterResponse, Status> {
        let filter = request.log_filter;
        let previous = self.log_filter.set(&filter).map_err(|why| {
            let violation = Violation::new("log_filter", why);
            status::invalid(&[violation])
        })?;
        warn!(
            target: logs::CHANGES,
            filter,
            previous,
            actor = caller.actor,
            "the log filter was changed"
        );
        Ok(v1::SetLogFilterResponse { previous })
    }

    pub(super) async fn get_server_info(
        &self,
        _: v1::GetServerInfoRequest,
        _: Caller,
    ) -> Result<v1::GetServerInfoResponse, Status> {
        let engine = &self.engine;
        let sizes = engine.sizes().await;
        let patterns = engine.views().tables().defaults.len();
        let count = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let progress = engine.progress();
        let clock = engine.clock();
        Ok(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: Some(to_proto::duration(engine.uptime())),
            clock: Some(clock_info(clock, clock.state())),
            subjects: count(sizes.subjects),
            allocations: count(sizes.allocations),
            holds: count(sizes.holds),
            patterns: count(patterns),
            operations: count(sizes.operations),
            queued: count(engine.queued()),
            journal_unavailable: engine.is_journal_down(),
            applied_sequence: progress.applied,
            rows_failure: progress.failed.unwrap_or_default(),
            store_id: uuid::Uuid::from_bytes(engine.store_id()).to_string(),
        })
    }
}

fn clock_info(clock: &dyn Clock, state: ClockState) -> v1::ClockInfo {
    v1::ClockInfo {
        now: Some(to_proto::timestamp(clock.now())),
        offset: Some(to_proto::signed_duration(state.offset_ns)),
        suspect: state.suspect,
        waiting: state.waiting,
    }
}
