//! Operation memory: answers kept so that a retried call gets the first one's (C6.6).
//!
//! Bounded three ways: by age, by number per first pair (outcomes and refusals apart, so an abuser's
//! refusals cannot push out an honest caller's charge), and by bytes in all, where the pair that holds
//! most forgets first. What is forgotten leaves an instant behind, the pair's *floor*, so that an old retry
//! is refused rather than charged twice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::command::Digest;
use crate::event::Remembered;
use crate::hash::HashMap;
use crate::name::OperationId;
use crate::outcome::{shared, text};
use crate::record::Floor;
use crate::time::Timestamp;

/// Most floors of pairs that remember nothing any more; beyond it the oldest are merged into one for all.
const IDLE_FLOORS_MAX: usize = 65_536;
/// Of two pairs that differ by less than a part of 1 / 2 ^ this, neither holds more.
const STEP_BITS: u32 = 4;

/// The bounds of the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryBounds {
    /// How long an outcome is remembered.
    pub horizon: Duration,
    /// Most outcomes per first pair.
    pub outcomes_max: usize,
    /// Most refusals per first pair.
    pub refusals_max: usize,
    /// About how many bytes in all.
    pub bytes_max: usize,
}

impl Default for MemoryBounds {
    fn default() -> Self {
        Self {
            horizon: Duration::from_secs(3600),
            outcomes_max: 65_536,
            refusals_max: 16_384,
            bytes_max: 512 << 20,
        }
    }
}

/// What the memory says of an operation.
#[derive(Debug)]
pub(crate) enum Recall<'a> {
    /// It was answered.
    Known(&'a Arc<Remembered>),
    /// Its id was used for something else.
    Reused,
    /// It is unknown and would be known if it were new.
    New,
    /// It is unknown and may have been forgotten.
    Forgotten,
}

/// All remembered operations. The three orders of pairs follow what happens to them at a distance, so that an answer
/// costs no place in a tree.
#[derive(Debug)]
pub(crate) struct Memory {
    bounds: MemoryBounds,
    lanes: HashMap<Arc<str>, Lane>,
    /// Pairs that remember something, by their [`Lane::steps`].
    by_bytes: BTreeSet<(usize, Arc<str>)>,
    /// The same, by an instant not after that of their oldest answer: their [`Lane::aged`].
    by_age: BTreeSet<(Timestamp, Arc<str>)>,
    /// Pairs that remember nothing any more, by their floor.
    idle: BTreeSet<(Timestamp, Arc<str>)>,
    count: usize,
    bytes: usize,
    /// What pairs without a floor of their own have forgotten.
    merged: Floor,
}

#[derive(Default, Debug)]
struct Lane {
    known: HashMap<OperationId, Arc<Remembered>>,
    outcomes: VecDeque<Arc<Remembered>>,
    refusals: VecDeque<Arc<Remembered>>,
    bytes: usize,
    floor: Floor,
    /// Where it stands among the pairs by age.
    aged: Timestamp,
}

impl Lane {
    /// The next that is forgotten: whether it is a refusal, and the entry.
    fn oldest(&self) -> Option<(bool, &Arc<Remembered>)> {
        let refusal = self.refusals.front().map(|entry| (true, entry));
        let outcome = self.outcomes.front().map(|entry| (false, entry));
        let fronts = refusal.into_iter().chain(outcome);
        fronts.min_by_key(|(_, entry)| entry.revision)
    }

    /// What it holds, as it is compared with others: a sixteenth more or less moves a busy pair to another place,
    /// and a few bytes one that holds little.
    fn steps(&self) -> usize {
        let bits = usize::BITS.saturating_sub(self.bytes.leading_zeros());
        let lower = bits.saturating_sub(STEP_BITS.saturating_add(1));
        (self.bytes >> lower) << lower
    }

    fn since(&self, limit: Timestamp) -> Timestamp {
        let forgotten = [&self.outcomes, &self.refusals].map(|queue| {
            let over = queue.partition_point(|entry| entry.outcome.decided < limit);
            let last = over.checked_sub(1).and_then(|last| queue.get(last));
            last.map_or(Timestamp::MIN, |entry| entry.outcome.decided)
        });
        forgotten.into_iter().fold(self.floor.since, Timestamp::max)
    }
}

impl Memory {
    pub(crate) fn new(bounds: MemoryBounds, merged: Floor) -> Self {
        Self {
            bounds,
            lanes: HashMap::default(),
            by_bytes: BTreeSet::new(),
            by_age: BTreeSet::new(),
            idle: BTreeSet::new(),
            count: 0,
            bytes: 0,
            merged,
        }
    }

    /// What is known of an operation at `now`. An answer beyond the horizon is forgotten by then, whether it still
    /// takes room or not: nothing but time decides that.
    pub(crate) fn recall(
        &self,
        lane: &str,
        id: &OperationId,
        digest: &Digest,
        tried: Option<Timestamp>,
        now: Timestamp,
    ) -> Recall<'_> {
        let limit = now.minus(self.bounds.horizon);
        let known = self.lanes.get(lane).and_then(|lane| lane.known.get(id));
        match known.filter(|known| known.outcome.decided >= limit) {
            Some(known) if known.digest == *digest => Recall::Known(known),
            Some(_) => Recall::Reused,
            None if tried.is_some_and(|tried| tried <= self.since(lane, limit)) => {
                Recall::Forgotten
            }
            None => Recall::New,
        }
    }

    /// Completely remembered since, for one first pair, where what was answered before `limit` is forgotten.
    fn since(&self, lane: &str, limit: Timestamp) -> Timestamp {
        self.lanes.get(lane).map_or(self.merged.since, |lane| {
            lane.since(limit).max(self.merged.since)
        })
    }

    /// The floor of pairs without one of their own.
    pub(crate) fn merged(&self) -> Floor {
        self.merged
    }

    pub(crate) fn floor(&self, lane: &str) -> Option<Floor> {
        self.lanes
            .get(lane)
            .map(|lane| lane.floor)
            .filter(|floor| *floor != Floor::default())
    }

    pub(crate) fn restore_floor(&mut self, lane: Arc<str>, floor: Floor) {
        self.idle.insert((floor.since, lane.clone()));
        self.lanes.entry(lane).or_default().floor = floor;
    }

    /// The clock jumps to `to`: an age that a caller states from then on may reach over the jump, where nothing
    /// says how long ago it was. What is not known is taken for forgotten.
    pub(crate) fn jumped(&mut self, to: Timestamp) {
        self.merged.since = self.merged.since.max(to);
    }

    /// Number of remembered operations and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    /// The name of a pair, shared where it is known.
    pub(crate) fn lane(&self, name: &str) -> Arc<str> {
        let known = self.lanes.get_key_value(name);
        known.map_or_else(|| name.into(), |(known, _)| known.clone())
    }

    /// Remembers an answer; what goes beyond a bound is forgotten. Names the pairs whose floor moved.
    pub(crate) fn remember(&mut self, entry: Arc<Remembered>, moved: &mut Vec<Arc<str>>) {
        let name = entry.lane.clone();
        let (most, refusal) = match entry.outcome.is_refusal() {
            true => (self.bounds.refusals_max, true),
            false => (self.bounds.outcomes_max, false),
        };
        let own = self.lanes.get(&name).map(|lane| lane.floor);
        let floor = own
            .filter(|floor| *floor != Floor::default())
            .unwrap_or(self.merged);
        let forgotten = match refusal {
            true => entry.revision <= floor.refusals,
            false => entry.revision <= floor.outcomes,
        };
        if forgotten {
            return;
        }
        // A pair that comes anew begins with what was forgotten for all: its own floor stands alone later.
        let merged = self.merged;
        let lane = self.lanes.entry(name.clone()).or_insert_with(|| Lane {
            floor: merged,
            ..Lane::default()
        });
        // One of the same id was beyond the horizon, and still takes room.
        let known = lane.known.get(&entry.id);
        if known.is_some_and(|known| known.revision >= entry.revision) {
            return;
        }
        let before = lane.oldest().is_some().then(|| lane.steps());
        let weight = weight(&entry);
        lane.bytes = lane.bytes.saturating_add(weight);
        self.bytes = self.bytes.saturating_add(weight);
        self.count = self.count.saturating_add(1);
        if before != Some(lane.steps()) {
            match before {
                Some(before) => drop(self.by_bytes.remove(&(before, name.clone()))),
                None => {
                    self.idle.remove(&(lane.floor.since, name.clone()));
                    lane.aged = entry.outcome.decided;
                    self.by_age.insert((lane.aged, name.clone()));
                }
            }
            self.by_bytes.insert((lane.steps(), name.clone()));
        }
        lane.known.insert(entry.id.clone(), entry.clone());
        let queue = match refusal {
            true => &mut lane.refusals,
            false => &mut lane.outcomes,
        };
        queue.push_back(entry);
        if queue.len() > most {
            self.forget_oldest(&name, refusal, moved);
        }
        while self.bytes > self.bounds.bytes_max {
            let Some((_, heaviest)) = self.by_bytes.last().cloned() else {
                break;
            };
            let lane = self.lanes.get(&heaviest);
            match lane.and_then(|lane| lane.oldest()) {
                Some((refusal, _)) => self.forget_oldest(&heaviest, refusal, moved),
                None => break,
            }
        }
    }

    /// The pair with the oldest answer, if any, and when that was decided. Pairs whose oldest answer is another by
    /// now are put where they belong, which is done once for all that they forgot.
    fn oldest_lane(&mut self) -> Option<(Timestamp, Arc<str>)> {
        loop {
            let first = self.by_age.first()?;
            let lane = self.lanes.get_mut(&first.1)?;
            let (_, oldest) = lane.oldest()?;
            let at = oldest.outcome.decided;
            if at <= first.0 {
                return Some((at, first.1.clone()));
            }
            lane.aged = at;
            let (_, name) = self.by_age.pop_first()?;
            self.by_age.insert((at, name));
        }
    }

    /// The instant of the oldest remembered answer.
    pub(crate) fn oldest(&mut self) -> Option<Timestamp> {
        self.oldest_lane().map(|(at, _)| at)
    }

    /// How long an answer is remembered.
    pub(crate) fn horizon(&self) -> Duration {
        self.bounds.horizon
    }

    /// Forgets what was answered before `limit`, at most `most` operations.
    pub(crate) fn forget_before(
        &mut self,
        limit: Timestamp,
        most: usize,
        moved: &mut Vec<Arc<str>>,
    ) {
        for _ in 0..most {
            // Most of the time one look says that nothing is so old.
            if self.by_age.first().is_none_or(|(at, _)| *at >= limit) {
                return;
            }
            let Some((at, name)) = self.oldest_lane() else {
                return;
            };
            if at >= limit {
                return;
            }
            let lane = self.lanes.get(&name);
            if let Some((refusal, _)) = lane.and_then(|lane| lane.oldest()) {
                self.forget_oldest(&name, refusal, moved);
            }
        }
    }

    /// Within a pair and a class answers are remembered in the order of their revisions and instants, so
    /// the oldest is at the front.
    fn forget_oldest(&mut self, name: &Arc<str>, refusal: bool, moved: &mut Vec<Arc<str>>) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        let queue = match refusal {
            true => &mut lane.refusals,
            false => &mut lane.outcomes,
        };
        let Some(entry) = queue.pop_front() else {
            return;
        };
        let known = lane.known.get(&entry.id);
        if known.is_some_and(|known| known.revision == entry.revision) {
            lane.known.remove(&entry.id);
        }
        let before = lane.steps();
        let weight = weight(&entry);
        lane.bytes = lane.bytes.saturating_sub(weight);
        self.bytes = self.bytes.saturating_sub(weight);
        self.count = self.count.saturating_sub(1);
        match refusal {
            true => lane.floor.refusals = entry.revision,
            false => lane.floor.outcomes = entry.revision,
        }
        lane.floor.since = lane.floor.since.max(entry.outcome.decided);
        moved.push(name.clone());
        let remembers = lane.oldest().is_some();
        if !remembers || lane.steps() != before {
            self.by_bytes.remove(&(before, name.clone()));
        }
        if !remembers {
            self.by_age.remove(&(lane.aged, name.clone()));
            self.idle.insert((lane.floor.since, name.clone()));
            self.merge_idle(moved);
        } else if lane.steps() != before {
            self.by_bytes.insert((lane.steps(), name.clone()));
        }
    }

    fn merge_idle(&mut self, moved: &mut Vec<Arc<str>>) {
        while self.idle.len() > IDLE_FLOORS_MAX {
            let Some((since, name)) = self.idle.pop_first() else {
                return;
            };
            let floor = self.lanes.remove(&name).map(|lane| lane.floor);
            let floor = floor.unwrap_or_default();
            self.merged.since = self.merged.since.max(since);
            self.merged.outcomes = self.merged.outcomes.max(floor.outcomes);
            self.merged.refusals = self.merged.refusals.max(floor.refusals);
            moved.push(name);
        }
    }
}

/// What an entry takes, in bytes: the entry itself, its outcome, and its places in a table that is between half and
/// full and in a queue.
fn weight(entry: &Remembered) -> usize {
    const PLACES: usize = (size_of::<(OperationId, Arc<Remembered>)>() + 1) * 3 / 2 + 12;
    entry
        .outcome
        .weight()
        .saturating_add(shared::<Remembered>())
        .saturating_add(text(entry.id.as_str()))
        .saturating_add(PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever holds more is never before one who holds less, and a sixteenth makes a difference at any size.
    #[test]
    fn pairs_are_compared_to_a_sixteenth() {
        let steps = |bytes| {
            Lane {
                bytes,
                ..Lane::default()
            }
            .steps()
        };
        let mut before = 0;
        for bytes in (0..100_000).chain((100_000..1 << 30).step_by(99_991)) {
            let now = steps(bytes);
            assert!(before <= now && now <= bytes, "{bytes}");
            assert!(bytes - now <= bytes / 16, "{bytes} is taken for {now}");
            before = now;
        }
    }
}
