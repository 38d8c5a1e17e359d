//! What of an account ends by itself, as sums per second (C6.3).
//!
//! A hold or a CONCURRENCY allocation gives its capacity back with the first whole second at or after its
//! expiry, whether or not anybody has closed it by then: an evaluation leaves out the seconds that are over.
//! A million of them that end together are one sum. The sums are kept in chunks behind shared pointers: a
//! reader's copy of an account costs one pointer, a change copies one chunk and the list of chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::time::Timestamp;

/// Seconds in a chunk.
const CHUNK_SECS: i64 = 64;

/// Amounts in base units that end together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ending {
    /// Of what is in use.
    pub used: i64,
    /// Of what is held.
    pub held: i64,
}

impl Ending {
    fn plus(self, other: Self) -> Self {
        Self {
            used: self.used.saturating_add(other.used),
            held: self.held.saturating_add(other.held),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Chunk {
    total: Ending,
    seconds: BTreeMap<i64, Ending>,
}

/// Sums per second; empty takes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ends(Option<Arc<BTreeMap<i64, Arc<Chunk>>>>);

impl Ends {
    /// Adds to what ends at a second since the Unix epoch; `by` may be negative.
    pub(crate) fn add(&mut self, second: i64, by: Ending) {
        if by == Ending::default() {
            return;
        }
        let chunks = Arc::make_mut(self.0.get_or_insert_default());
        let at = second.div_euclid(CHUNK_SECS);
        let chunk = Arc::make_mut(chunks.entry(at).or_default());
        chunk.total = chunk.total.plus(by);
        let sum = chunk.seconds.entry(second).or_default();
        *sum = sum.plus(by);
        if *sum == Ending::default() {
            chunk.seconds.remove(&second);
        }
        if chunk.seconds.is_empty() {
            chunks.remove(&at);
        }
        if chunks.is_empty() {
            self.0 = None;
        }
    }

    /// The sum of the seconds that are over at `now`.
    pub fn over(&self, now: Timestamp) -> Ending {
        let Some(chunks) = &self.0 else {
            return Ending::default();
        };
        let second = now.whole_second();
        let last = second.div_euclid(CHUNK_SECS);
        let mut sum = chunks
            .range(..last)
            .fold(Ending::default(), |sum, (_, chunk)| sum.plus(chunk.total));
        if let Some(chunk) = chunks.get(&last) {
            for (_, ending) in chunk.seconds.range(..=second) {
                sum = sum.plus(*ending);
            }
        }
        sum
    }

    /// The sum of all seconds.
    pub fn total(&self) -> Ending {
        let chunks = self.0.iter().flat_map(|chunks| chunks.values());
        chunks.fold(Ending::default(), |sum, chunk| sum.plus(chunk.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(held: i64) -> Ending {
        Ending { used: 0, held }
    }

    /// C6.3: nothing before its second, everything from it on, across chunks and before the epoch.
    #[test]
    fn leaves_out_what_is_over() {
        let mut ends = Ends::default();
        for second in [-1, 0, 63, 64, 65, 1000] {
            ends.add(second, held(1 << (second & 7)));
        }
        let over = |nanos| ends.over(Timestamp::from_nanos(nanos)).held;
        assert_eq!(over(-1_000_000_001), 0);
        assert_eq!(over(-1_000_000_000), 128);
        assert_eq!(over(0), 129);
        assert_eq!(over(63_999_999_999), 129 + 128);
        assert_eq!(over(64_000_000_000), 129 + 128 + 1);
        assert_eq!(over(i64::MAX), ends.total().held);
        for second in [-1, 0, 63, 64, 65, 1000] {
            ends.add(second, held(-(1 << (second & 7))));
        }
        assert_eq!(ends, Ends::default());
    }
}
