//! What changed since the last images were taken: which records, and which accounts by which event.
//!
//! A charge touches every level above it, and a busy group touches the upper ones thousands of times. So a subject
//! bears the mark of its place in here, and only the first touch costs more than to look at that mark.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::hash::HashSet;
use crate::name::{ResourceKey, SubjectName};
use crate::record::RecordKey;
use crate::subject::Subject;

/// About what the image of a record takes that does not grow, in bytes.
const SMALL_RECORD_BYTES: usize = 512;
/// Most touched records whose room is kept for the next batch.
const KEPT: usize = 16_384;

/// A subject where the ledger keeps it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The state, shared with whoever shows it to readers.
    pub(crate) subject: Arc<Subject>,
    /// One more than its place among the touched; 0 while it is untouched.
    mark: u32,
}

impl Slot {
    pub(crate) fn new(subject: Arc<Subject>) -> Self {
        Self { subject, mark: 0 }
    }

    /// The state, to be changed: readers keep what they have.
    pub(crate) fn change(&mut self) -> &mut Subject {
        Arc::make_mut(&mut self.subject)
    }

    /// Its image is taken.
    pub(crate) fn settle(&mut self) {
        self.mark = 0;
    }
}

/// An account that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TouchedAccount {
    pub(crate) resource: ResourceKey,
    /// Whether usage changed, and not only a quota.
    pub(crate) usage: bool,
    /// The last event that changed it, as its place among those that were absorbed.
    pub(crate) event: u32,
}

/// A subject of which something changed.
#[derive(Debug)]
struct TouchedSubject {
    name: SubjectName,
    /// Whether its record did: its quotas have one of their own.
    recorded: bool,
    accounts: SmallVec<[TouchedAccount; 1]>,
}

/// Records and accounts that changed.
#[derive(Default, Debug)]
pub(crate) struct Touched {
    /// Each with whether it is new; the first of a record counts, it may be there again.
    records: Vec<(RecordKey, bool)>,
    subjects: Vec<TouchedSubject>,
    meta: bool,
    floors: HashSet<Arc<str>>,
    bytes: usize,
    /// Number of events that were absorbed.
    events: u32,
    /// The most that the image of a subject ever took, about, in bytes.
    heaviest: usize,
}

impl Touched {
    /// Another event is absorbed.
    pub(crate) fn next_event(&mut self) {
        self.events = self.events.saturating_add(1);
    }

    /// About how many bytes the images take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// No subject's image takes more than about this.
    pub(crate) fn heaviest(&self) -> usize {
        self.heaviest
    }

    pub(crate) fn meta(&mut self) {
        if !self.meta {
            self.meta = true;
            self.record(RecordKey::Meta, false, SMALL_RECORD_BYTES);
        }
    }

    /// What a first pair has forgotten, which a busy one does with each answer.
    pub(crate) fn floor(&mut self, lane: Arc<str>) {
        if !self.floors.contains(&lane) {
            self.floors.insert(lane.clone());
            self.record(RecordKey::Floor(lane), false, 0);
        }
    }

    /// A record that does not grow, or of `bytes` bytes.
    pub(crate) fn record(&mut self, key: RecordKey, fresh: bool, bytes: usize) {
        self.records.push((key, fresh));
        self.bytes = self.bytes.saturating_add(bytes.max(SMALL_RECORD_BYTES));
    }

    /// Notes what the image of a subject takes.
    pub(crate) fn weigh(&mut self, subject: &Subject) -> usize {
        let bytes = subject.weight();
        self.heaviest = self.heaviest.max(bytes);
        bytes
    }

    /// The record of a subject that is there.
    pub(crate) fn subject(&mut self, slot: &mut Slot, fresh: bool) {
        let bytes = self.weigh(&slot.subject);
        let recorded = &mut self.place(slot).recorded;
        if !*recorded {
            *recorded = true;
            self.record(RecordKey::Subject(slot.subject.name.clone()), fresh, bytes);
        }
    }

    /// An account of a subject, changed by the event that is absorbed; its usage is in the subject's record, its
    /// quotas are not.
    pub(crate) fn account(&mut self, slot: &mut Slot, resource: &ResourceKey, usage: bool) {
        if usage {
            self.subject(slot, false);
        }
        let event = self.events.saturating_sub(1);
        let accounts = &mut self.place(slot).accounts;
        match accounts.iter_mut().find(|have| have.resource == *resource) {
            Some(account) => {
                account.usage |= usage;
                account.event = event;
            }
            None => accounts.push(TouchedAccount {
                resource: resource.clone(),
                usage,
                event,
            }),
        }
    }

    fn place(&mut self, slot: &mut Slot) -> &mut TouchedSubject {
        if slot.mark == 0 {
            self.subjects.push(TouchedSubject {
                name: slot.subject.name.clone(),
                recorded: false,
                accounts: SmallVec::new(),
            });
            slot.mark = u32::try_from(self.subjects.len()).expect("a group touches fewer");
        }
        let place = (slot.mark as usize).saturating_sub(1);
        self.subjects
            .get_mut(place)
            .expect("a mark is taken away with what it marks")
    }

    /// The accounts that changed, in no order.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (&str, &TouchedAccount)> {
        self.subjects.iter().flat_map(|subject| {
            let accounts = subject.accounts.iter();
            accounts.map(move |account| (subject.name.as_str(), account))
        })
    }

    /// The records, each once, in the order of their keys. From here on nothing is touched, and the slots of
    /// `marked` are to be settled.
    pub(crate) fn take(&mut self, marked: impl FnMut(SubjectName)) -> Vec<(RecordKey, bool)> {
        let room = self.records.len().min(KEPT);
        let mut records = std::mem::replace(&mut self.records, Vec::with_capacity(room));
        let subjects = self.subjects.drain(..).map(|subject| subject.name);
        subjects.for_each(marked);
        self.subjects.shrink_to(KEPT);
        self.floors.clear();
        (self.meta, self.bytes, self.events) = (false, 0, 0);
        // Stable: the first touch of a record stays before the others.
        records.sort_by(|(one, _), (other, _)| one.cmp(other));
        records.dedup_by(|(later, _), (first, _)| later == first);
        records
    }
}
