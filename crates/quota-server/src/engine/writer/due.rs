//! What time alone brings: something to tell, and rows that end. So much of it per group that no caller waits long.

use quota_core::event::Event;
use quota_core::time::Timestamp;

use super::{Undurable, Writer};

/// Rows closed per group while callers wait: about a millisecond of work.
const CLOSE_MAX: usize = 256;
/// Subjects told of per group while callers wait. What is left comes with the next group.
const TELL_MAX: usize = 2048;
/// Rows closed between two looks at the size of the batch.
const CLOSE_STEP: usize = 64;
/// Rows closed per group while nobody does.
pub(super) const CLOSE_IDLE_MAX: usize = 4096;

impl Writer {
    /// Tells what was counted in a second that is over, and of counts that have started anew: more of it when
    /// nobody waits.
    pub(super) fn tell(&mut self, now: Timestamp, idle: bool, group: &mut Undurable) {
        let most = if idle { CLOSE_IDLE_MAX } else { TELL_MAX };
        self.step_by_step(most, group, |writer| {
            let mut told = writer.tally.tell(&writer.ledger, now, CLOSE_STEP);
            told.extend(writer.ledger.announce_due(now, CLOSE_STEP));
            (!told.is_empty()).then_some(told)
        });
    }

    /// Closes rows whose time is over: more of them when nobody waits.
    pub(super) fn close_due(&mut self, now: Timestamp, idle: bool, group: &mut Undurable) {
        let most = if idle { CLOSE_IDLE_MAX } else { CLOSE_MAX };
        self.step_by_step(most, group, |writer| {
            let due = writer.ledger.close_due(now, CLOSE_STEP);
            let swept = writer.ledger.sweep(now, CLOSE_STEP);
            (swept || !due.is_empty()).then_some(due)
        });
    }

    /// Takes steps until there is nothing left to do, or enough was done; what fills a batch is written.
    fn step_by_step(
        &mut self,
        most: usize,
        group: &mut Undurable,
        step: impl Fn(&mut Self) -> Option<Vec<Event>>,
    ) {
        for _ in 0..most / CLOSE_STEP {
            if self.breaker.is_open() {
                return;
            }
            let Some(events) = step(self) else {
                return;
            };
            self.absorb(events, group);
            if self.is_full(group) {
                self.commit(std::mem::take(group));
            }
        }
    }
}
