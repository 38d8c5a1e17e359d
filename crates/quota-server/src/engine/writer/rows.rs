//! What the writer does for the rows behind it: it waits for them where they lag too far, and says how they are.

use std::time::Duration;

use quota_store::applier::Progress;
use tracing::{error, info, warn};

use super::{IDLE, Writer};

/// Longest wait for an applier that is behind, per group.
const LAG_WAIT: Duration = Duration::from_millis(20);

impl Writer {
    /// What waits for the rows is bounded: first commands wait a little, then as long as it takes.
    pub(super) fn wait_for_rows(&mut self) {
        if !self.applier.is_behind() {
            self.behind = false;
            return;
        }
        if !self.behind {
            warn!("rows are written more slowly than the journal; commands wait for them");
        }
        self.behind = true;
        self.applier.wait_until_caught_up(LAG_WAIT);
        while self.applier.is_far_behind() && !self.shared.queue.is_closed() {
            self.applier.wait_until_caught_up(IDLE);
        }
    }

    pub(super) fn report_rows(&mut self, progress: &Progress) {
        if progress.failed == self.rows_failed {
            return;
        }
        match &progress.failed {
            Some(why) if progress.given_up => {
                error!(error = %why, "rows are not written any more; a restart catches up");
            }
            Some(why) => warn!(error = %why, "rows could not be written; trying again"),
            None => info!("rows are written again"),
        }
        self.rows_failed.clone_from(&progress.failed);
    }

    /// The first batch that rows or the older base still need.
    pub(super) fn needed_by_rows(&self, progress: &Progress) -> u64 {
        match progress.bases.as_slice() {
            [older, _, ..] => older.sequence.min(progress.applied).saturating_add(1),
            _ => self.journal.first_sequence(),
        }
    }
}
