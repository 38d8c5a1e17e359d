//! How a batch becomes durable, what follows from that, and what follows where it does not.

use std::io;
use std::sync::atomic::Ordering;

use quota_store::Batch;
use quota_store::journal::AppendError;
use quota_store::recovery::mark;
use tracing::{error, info};

use super::{EXIT_WRITER_LOST, Undurable, Writer, Written};
use crate::telemetry::metrics::seconds;
use crate::telemetry::traces::CommitSpan;

/// Most bytes of a batch whose room is kept for the next one.
const BODY_KEPT_BYTES: usize = 4 << 20;

/// A batch that is durable and published; its rows are still to be written.
pub(super) struct Durable {
    sequence: u64,
    batch: Batch,
}

impl Writer {
    /// Appends a batch, with a span where one of those it answers has one.
    pub(super) fn append_traced(
        &mut self,
        written: Written,
        group: &Undurable,
    ) -> Result<Durable, (io::Error, Box<Written>)> {
        let span = CommitSpan::begin(&group.spans);
        let sequence = self.journal.next_sequence();
        let appended = self.append(written);
        if let Some(span) = span {
            let durable = appended.is_ok().then_some(sequence);
            span.end(durable, group.answers.len(), &group.spans);
        }
        appended
    }

    /// Appends a batch; once it is durable, publishes it.
    pub(super) fn append(
        &mut self,
        written: Written,
    ) -> Result<Durable, (io::Error, Box<Written>)> {
        let sequence = self.journal.next_sequence();
        let began = self.shared.clock.boot_ns().max(1);
        self.shared.flush_began_ns.store(began, Ordering::Release);
        let appended = self.journal.append(sequence, written.batch.body());
        self.shared.flush_began_ns.store(0, Ordering::Release);
        let took = self.shared.clock.boot_ns().saturating_sub(began);
        let metrics = &self.shared.metrics;
        metrics.commit_duration.observe(seconds(took));
        match appended {
            Ok(()) => {}
            Err(AppendError::Unknown(error)) => {
                metrics.commit_failures.inc();
                return Err((error, Box::new(written)));
            }
            Err(fenced @ AppendError::Fenced { .. }) => {
                error!(error = %fenced, "this server is not the journal's writer any more");
                std::process::exit(EXIT_WRITER_LOST);
            }
        }
        mark(&mut self.marks, written.now, sequence);
        self.shared.views.publish(&self.ledger, &written.images);
        metrics.violated(&written.violations, self.shared.views.shown());
        self.needed_by_answers = written.needed_by_answers;
        Ok(Durable {
            sequence,
            batch: written.batch,
        })
    }

    /// Appends a batch that nobody waits for, and hands its rows on; says whether it is durable.
    pub(super) fn append_whole(&mut self, written: Written) -> bool {
        match self.append(written) {
            Ok(durable) => {
                self.hand_on(durable);
                true
            }
            Err((failure, written)) => {
                self.journal_failed(&failure, *written);
                false
            }
        }
    }

    /// Hands the rows of a durable batch on, and does what else could wait.
    pub(super) fn hand_on(&mut self, durable: Durable) {
        let bytes = durable.batch.body().len();
        let (rows, room) = durable.batch.into_parts();
        self.applier.offer(durable.sequence, rows, bytes);
        self.journal.catch_up();
        if room.capacity() <= BODY_KEPT_BYTES {
            self.body_room = room;
        }
    }

    pub(super) fn journal_failed(&mut self, failure: &io::Error, written: Written) {
        if !self.breaker.is_open() {
            error!(error = %failure, "the journal cannot be written; writes are refused until it can");
        }
        self.failed = Some(written);
        self.breaker.failed(self.shared.clock.boot_ns());
        self.shared.journal_down.store(true, Ordering::Release);
    }

    /// Half-open: tries the failed batch, whole, before anything later. Says whether writes go on.
    pub(super) fn retry(&mut self) -> bool {
        if !self.breaker.is_due(self.shared.clock.boot_ns()) {
            return false;
        }
        if let Some(written) = self.failed.take()
            && !self.append_whole(written)
        {
            return false;
        }
        self.breaker.succeeded();
        self.shared.journal_down.store(false, Ordering::Release);
        info!("the journal can be written again");
        true
    }
}
