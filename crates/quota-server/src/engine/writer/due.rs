//! What time alone brings: something to tell, and rows that end. So much of it per group that no caller waits long.

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
        let most = match idle {
            true => CLOSE_IDLE_MAX,
            false => TELL_MAX,
        };
        let mut done = 0;
        while done < most && !self.breaker.is_open() {
            let told = self.tally.tell(&self.ledger, now, CLOSE_STEP);
            let anew = self.ledger.announce_due(now, CLOSE_STEP);
            if told.is_empty() && anew.is_empty() {
                return;
            }
            self.absorb(told, group);
            self.absorb(anew, group);
            done += CLOSE_STEP;
            if self.is_full(group) {
                self.commit(std::mem::take(group));
            }
        }
    }

    /// Closes rows whose time is over: more of them when nobody waits.
    pub(super) fn close_due(&mut self, now: Timestamp, idle: bool, group: &mut Undurable) {
        let most = match idle {
            true => CLOSE_IDLE_MAX,
            false => CLOSE_MAX,
        };
        let mut done = 0;
        while done < most && !self.breaker.is_open() {
            let due = self.ledger.close_due(now, CLOSE_STEP);
            let swept = self.ledger.sweep(now, CLOSE_STEP);
            if due.is_empty() && !swept {
                return;
            }
            self.absorb(due, group);
            done += CLOSE_STEP;
            if self.is_full(group) {
                self.commit(std::mem::take(group));
            }
        }
    }
}
