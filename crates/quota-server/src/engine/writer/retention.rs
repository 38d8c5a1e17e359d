//! What of the journal is kept though neither rows nor answers need it: what is young enough for audit, and what a
//! projection has pinned. Both yield to `journal_bytes_max`.

use std::sync::Arc;
use std::time::Duration;

use quota_core::time::Timestamp;
use quota_store::batch::Head;
use quota_store::journal::{JournalReader, Pins};
use tracing::warn;

/// Distance of two looks at the age of the segments. It is counted in days.
const LOOK_APART: Duration = Duration::from_secs(60);

pub(super) struct Retention {
    reader: Arc<dyn JournalReader>,
    pins: Pins,
    keep: Duration,
    /// When the segments were last looked at, by the boot-time clock.
    looked_ns: Option<i64>,
    /// The first batch of the oldest segment with one that is young enough, when it was looked.
    young_from: u64,
    failed: bool,
    has_dropped: bool,
}

impl Retention {
    pub(super) fn new(reader: Arc<dyn JournalReader>, pins: Pins, keep: Duration) -> Self {
        Self {
            reader,
            pins,
            keep,
            looked_ns: None,
            young_from: 0,
            failed: false,
            has_dropped: false,
        }
    }

    /// The first batch that is wanted.
    pub(super) fn wanted(&mut self, now: Timestamp, boot_ns: i64) -> u64 {
        let apart = i64::try_from(LOOK_APART.as_nanos()).unwrap_or(i64::MAX);
        let is_due = |looked: i64| boot_ns.saturating_sub(looked) >= apart;
        if self.looked_ns.is_none_or(is_due) {
            self.looked_ns = Some(boot_ns);
            self.look(now);
        }
        self.pins
            .lowest()
            .map_or(self.young_from, |pinned| pinned.min(self.young_from))
    }

    /// Batches that were wanted went, because the journal was at its bound.
    pub(super) fn dropped(&mut self, batches: u64) {
        if !std::mem::replace(&mut self.has_dropped, true) {
            warn!(
                batches,
                "the journal is at journal_bytes_max: batches go before audit_retention or a pin lets them"
            );
        }
    }

    fn look(&mut self, now: Timestamp) {
        if self.keep.is_zero() {
            self.young_from = u64::MAX;
            return;
        }
        let limit = now.minus(self.keep);
        let found = self
            .reader
            .seek(&mut |sequence, body| Ok(Head::of_batch(sequence, body)?.now <= limit));
        match found {
            Ok(cursor) => {
                self.young_from = cursor.sequence();
                self.failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    warn!(%error, "the age of the journal cannot be seen; nothing goes for its age");
                }
            }
        }
    }
}
