//! Operation memory: answers kept so that a retried call gets the first one's (C6.6).
//!
//! Bounded three ways: by age, by number per first pair (outcomes and refusals apart, so an abuser's
//! refusals cannot push out an honest caller's charge), and by bytes in all, where the pair that holds
//! most forgets first. What is forgotten leaves an instant behind, the pair's *floor*, so that an old retry
//! is refused rather than charged twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::command::Digest;
use crate::event::Remembered;
use crate::hash::HashMap;
use crate::name::OperationId;
use crate::record::Floor;
use crate::time::Timestamp;

/// Most floors of pairs that remember nothing any more; beyond it the oldest are merged into one for all.
const IDLE_FLOORS_MAX: usize = 65_536;
/// About what an entry takes beside its outcome, in bytes.
const ENTRY_BYTES: usize = 192;

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

/// All remembered operations.
#[derive(Debug)]
pub(crate) struct Memory {
    bounds: MemoryBounds,
    lanes: HashMap<Arc<str>, Lane>,
    by_bytes: BTreeSet<(usize, Arc<str>)>,
    by_age: BTreeMap<(Timestamp, u64), Arc<Remembered>>,
    idle: BTreeSet<(Timestamp, Arc<str>)>,
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
}

impl Lane {
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
            by_age: BTreeMap::new(),
            idle: BTreeSet::new(),
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
        (self.by_age.len(), self.bytes)
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
        self.idle.remove(&(lane.floor.since, name.clone()));
        let weight = weight(&entry);
        self.by_bytes.remove(&(lane.bytes, name.clone()));
        lane.bytes = lane.bytes.saturating_add(weight);
        self.bytes = self.bytes.saturating_add(weight);
        self.by_bytes.insert((lane.bytes, name.clone()));
        lane.known.insert(entry.id.clone(), entry.clone());
        self.by_age
            .insert((entry.outcome.decided, entry.revision), entry.clone());
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
            let oldest = self.lanes.get(&heaviest).and_then(|lane| {
                match (lane.refusals.front(), lane.outcomes.front()) {
                    (Some(refusal), Some(outcome)) => Some(refusal.revision < outcome.revision),
                    (refusal, outcome) => refusal.or(outcome).map(|_| refusal.is_some()),
                }
            });
            match oldest {
                Some(refusal) => self.forget_oldest(&heaviest, refusal, moved),
                None => break,
            }
        }
    }

    /// The instant of the oldest remembered answer.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.first_key_value().map(|((at, _), _)| *at)
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
            let Some((&(at, _), oldest)) = self.by_age.first_key_value() else {
                return;
            };
            if at >= limit {
                return;
            }
            let (lane, refusal) = (oldest.lane.clone(), oldest.outcome.is_refusal());
            self.forget_oldest(&lane, refusal, moved);
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
        let weight = weight(&entry);
        if lane
            .known
            .get(&entry.id)
            .is_some_and(|known| known.revision == entry.revision)
        {
            lane.known.remove(&entry.id);
        }
        self.by_age.remove(&(entry.outcome.decided, entry.revision));
        self.by_bytes.remove(&(lane.bytes, name.clone()));
        lane.bytes = lane.bytes.saturating_sub(weight);
        self.bytes = self.bytes.saturating_sub(weight);
        match refusal {
            true => lane.floor.refusals = entry.revision,
            false => lane.floor.outcomes = entry.revision,
        }
        lane.floor.since = lane.floor.since.max(entry.outcome.decided);
        moved.push(name.clone());
        if lane.known.is_empty() {
            self.idle.insert((lane.floor.since, name.clone()));
            self.merge_idle(moved);
        } else {
            self.by_bytes.insert((lane.bytes, name.clone()));
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

fn weight(entry: &Remembered) -> usize {
    entry
        .outcome
        .weight()
        .saturating_add(entry.id.as_str().len())
        .saturating_add(ENTRY_BYTES)
}
