//! The ledger: the whole state, and the way of a command through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::allocation::{Allocation, AllocationKey};
use crate::charge::{CHARGE_SET_MAX, charge_set};
use crate::command::{Action, Command, Provenance};
use crate::decide::Step;
use crate::defaults::Defaults;
use crate::event::{Change, Event, Remembered};
use crate::hash::HashMap;
use crate::hold::{Hold, HoldKey};
use crate::name::{ResourceKey, SYSTEM, SubjectName};
use crate::named::Named;
use crate::operation::{Memory, MemoryBounds, Recall};
use crate::outcome::{Answer, Outcome, Reply};
use crate::quota::Target;
use crate::record::{self, Floor, Image, Meta, Misfit, Record, RecordKey, Records};
use crate::rejection::{Rejection, Violation};
use crate::resource::Resources;
use crate::stake::RowKey;
use crate::subject::{Profile, Subject};
use crate::time::Timestamp;
use crate::touched::{Slot, Touched};

/// Which subjects come into being with their first charge (C2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AutoCreate {
    /// All.
    #[default]
    All,
    /// Those whose first pair exists.
    BelowTop,
    /// None.
    None,
}

/// The bounds of a ledger. They are configuration: no event depends on one later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Which subjects come into being with their first charge.
    pub auto_create: AutoCreate,
    /// Most subjects.
    pub subjects_max: usize,
    /// The operation memory's.
    pub memory: MemoryBounds,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            auto_create: AutoCreate::All,
            subjects_max: 20_000_000,
            memory: MemoryBounds::default(),
        }
    }
}

/// The reply to a command and what it did. Nothing has happened until the events are absorbed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// What the caller is told.
    pub reply: Result<Reply, Rejection>,
    /// What happened; empty where nothing did.
    pub events: Vec<Event>,
}

/// About how many bytes the events and images of one command may take; one that would take more is rejected.
pub const COMMAND_BYTES_MAX: usize = 16 << 20;

/// How much there is of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Subjects, those included that are deleted and not swept yet.
    pub subjects: usize,
    /// Allocations, those included whose time is over and that nobody has closed yet.
    pub allocations: usize,
    /// Holds that nobody has closed yet.
    pub holds: usize,
    /// Operations whose outcomes are remembered.
    pub operations: usize,
    /// About how many bytes they take.
    pub operation_bytes: usize,
}

/// The whole state. One thread owns it.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) bounds: Bounds,
    pub(crate) subjects: Named<SubjectName, Slot>,
    pub(crate) defaults: Arc<Defaults>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) allocations: Named<AllocationKey, Arc<Allocation>>,
    pub(crate) holds: Named<HoldKey, Arc<Hold>>,
    /// Ended holds by when they ended.
    pub(crate) ended: BTreeSet<(Timestamp, HoldKey)>,
    /// Rows that end by themselves, by the second since the Unix epoch at which they do.
    pub(crate) due: BTreeSet<(i64, RowKey)>,
    /// Accounts that may stand differently without being charged, by when: a count starts anew, or a quota comes
    /// into force or ends.
    pub(crate) looks_due: BTreeSet<(Timestamp, SubjectName, ResourceKey)>,
    /// Deleted subjects with descendants that are not swept yet, each with the last revision that is dead.
    pub(crate) dying: Arc<BTreeMap<SubjectName, u64>>,
    /// Subjects that are not in this ledger and count against its bound: those of a fork's origin.
    pub(crate) elsewhere: usize,
    pub(crate) by_label: BTreeMap<(String, String), BTreeSet<AllocationKey>>,
    pub(crate) quotas_on: HashMap<ResourceKey, usize>,
    pub(crate) memory: Memory,
    pub(crate) revision: u64,
    /// What changed since the last [`Self::take_images`].
    pub(crate) touched: Touched,
}

impl Ledger {
    /// An empty ledger: the built-in resources and the subject `system`, which came into being at `now`.
    pub fn new(bounds: Bounds, now: Timestamp) -> Self {
        let system = SubjectName::system();
        let profile = Arc::new(Profile {
            display_name: String::new(),
            labels: BTreeMap::new(),
            incarnation: 0,
            created: now,
            updated: now,
            version: 0,
        });
        let mut ledger = Self::bare(bounds);
        ledger.add_subject(Subject::new(system.clone(), profile));
        ledger.touch_subject(system.as_str(), true);
        ledger.touched.record(RecordKey::Meta, true, 0);
        ledger
    }

    /// A ledger out of its records. It is as whole as they are: the caller checks the invariants.
    pub fn from_records(bounds: Bounds, records: Records) -> Result<Self, Misfit> {
        let mut ledger = Self::bare(bounds);
        for (key, record) in records.into_iter_ordered() {
            let text = format!("{key:?}");
            let misfit = |why| Misfit { key: text, why };
            match (key, record) {
                (RecordKey::Meta, Record::Meta(meta)) => {
                    ledger.revision = meta.revision;
                    ledger.memory = Memory::new(bounds.memory, meta.forgotten);
                }
                (RecordKey::Resource(_), Record::Resource(resource)) => {
                    Arc::make_mut(&mut ledger.resources).put(resource);
                }
                (RecordKey::Subject(name), Record::Subject { profile, accounts }) => {
                    let mut subject = Subject::new(name, profile);
                    for (resource, account) in accounts {
                        *subject.account_mut(&resource, &ledger.resources) = account;
                    }
                    ledger.add_subject(subject);
                }
                (RecordKey::Quotas(target), Record::Quotas(quotas)) => {
                    for quota in quotas.iter() {
                        ledger.count_quota(&quota.resource, true);
                    }
                    match target {
                        Target::Subject(name) => match ledger.subjects.get_mut(name.as_str()) {
                            Some(slot) => {
                                slot.change().quotas = quotas;
                                ledger.expect_looks(&name, None, Timestamp::MIN);
                            }
                            None => return Err(misfit("its subject is missing")),
                        },
                        Target::Pattern(pattern) => {
                            let quotas = Arc::unwrap_or_clone(quotas);
                            Arc::make_mut(&mut ledger.defaults).set(pattern, quotas);
                        }
                    }
                }
                (RecordKey::Allocation(key), Record::Allocation(allocation)) => {
                    ledger.index_labels(&allocation, true);
                    ledger.allocations.insert(key, allocation);
                }
                (RecordKey::Hold(key), Record::Hold(hold)) => {
                    ledger.holds.insert(key, hold);
                }
                (RecordKey::Dying(name), Record::Dying(revision)) => {
                    Arc::make_mut(&mut ledger.dying).insert(name, revision);
                }
                (RecordKey::Floor(lane), Record::Floor(floor)) => {
                    ledger.memory.restore_floor(lane, floor);
                }
                _ => return Err(misfit("its key is of another kind")),
            }
        }
        if !ledger.subjects.contains(SYSTEM) {
            return Err(Misfit {
                key: SYSTEM.into(),
                why: "the root is missing",
            });
        }
        ledger.index_ends();
        Ok(ledger)
    }

    fn bare(bounds: Bounds) -> Self {
        Self {
            bounds,
            subjects: Named::default(),
            defaults: Arc::default(),
            resources: Arc::default(),
            allocations: Named::default(),
            holds: Named::default(),
            ended: BTreeSet::new(),
            due: BTreeSet::new(),
            looks_due: BTreeSet::new(),
            dying: Arc::default(),
            elsewhere: 0,
            by_label: BTreeMap::new(),
            quotas_on: HashMap::default(),
            memory: Memory::new(bounds.memory, Floor::default()),
            revision: 0,
            touched: Touched::default(),
        }
    }

    /// A ledger with the tables of this one and none of its subjects and rows yet: somewhere to try out
    /// changes.
    pub(crate) fn fork(&self) -> Self {
        Self {
            defaults: self.defaults.clone(),
            resources: self.resources.clone(),
            revision: self.revision,
            elsewhere: self.subjects_count(),
            ..Self::bare(self.bounds)
        }
    }

    /// Remembers an answer that was given before a restart; answers come in the order of their revisions.
    pub fn recollect(&mut self, mut answered: Arc<Remembered>) {
        if let Some(answered) = Arc::get_mut(&mut answered) {
            self.share_names(answered);
        }
        let mut moved = Vec::new();
        self.memory.remember(answered, &mut moved);
        self.touch_floors(moved);
    }

    /// Forgets answers older than the horizon, at most `most` of them.
    pub fn expire_answers(&mut self, now: Timestamp, most: usize) {
        self.forget_answers_before(now.minus(self.memory.horizon()), most);
    }

    /// Forgets what was answered before `limit`, at most `most` answers.
    pub fn forget_answers_before(&mut self, limit: Timestamp, most: usize) {
        let mut moved = Vec::new();
        self.memory.forget_before(limit, most, &mut moved);
        self.touch_floors(moved);
    }

    /// The instant of the oldest answer that is remembered.
    pub fn oldest_answer(&mut self) -> Option<Timestamp> {
        self.memory.oldest()
    }

    /// Decides a command; pure. Guards come first, each able to reject; what is left cannot fail.
    pub fn decide(&self, now: Timestamp, command: &Command) -> Decided {
        let operation = &command.operation;
        let lane = command.lane();
        let tried = operation.age.map(|age| now.minus(age));
        let rejected = |rejection| Decided {
            reply: Err(rejection),
            events: Vec::new(),
        };
        match self
            .memory
            .recall(lane, &operation.id, &operation.digest, tried, now)
        {
            Recall::New => {}
            Recall::Known(known) => {
                return Decided {
                    reply: Ok(Reply {
                        outcome: known.outcome.clone(),
                        replayed: true,
                    }),
                    events: Vec::new(),
                };
            }
            Recall::Reused => {
                return rejected(Rejection::OperationIdReused(operation.id.to_string()));
            }
            Recall::Forgotten => {
                return rejected(Rejection::OutcomeForgotten {
                    id: operation.id.to_string(),
                    lane: lane.to_owned(),
                });
            }
        }
        let step = match self.step(now, command) {
            Ok(step) => step,
            Err(rejection) => return rejected(rejection),
        };
        let mut decided = self.answered(now, command, step);
        if self.is_too_large(&decided.events) {
            let text = format!(
                "touches records of more than {COMMAND_BYTES_MAX} bytes; ask for less at once"
            );
            return rejected(Rejection::Invalid(vec![Violation::new("request", text)]));
        }
        if command.validate_only {
            decided.events.clear();
        }
        decided
    }

    fn step(&self, now: Timestamp, command: &Command) -> Result<Step, Rejection> {
        let provenance = &command.provenance;
        match &command.action {
            Action::Linked(members) => self.linked(now, members, provenance),
            Action::SetQuotas(sets) => match sets.as_slice() {
                [quota] => self.set_quota(now, quota),
                sets => self.change_quotas_together(now, sets, &[], provenance),
            },
            Action::ChangeQuotas { sets, deletes } => {
                self.change_quotas_together(now, sets, deletes, provenance)
            }
            action => self.single(now, action, provenance),
        }
    }

    /// Decides an action of one step.
    pub(crate) fn single(
        &self,
        now: Timestamp,
        action: &Action,
        provenance: &Provenance,
    ) -> Result<Step, Rejection> {
        match action {
            Action::Consume(consume) => self.consume(now, consume, provenance),
            Action::Release(release) => self.release(now, release),
            Action::Resize(resize) => self.resize(now, resize),
            Action::Renew(renew) => Ok(self.renew(now, renew)),
            Action::ReleaseMatching(matching) => Ok(self.release_matching(now, matching)),
            Action::Reserve(reserve) => self.reserve(now, reserve, provenance),
            Action::CommitHold(commit) => self.commit_hold(now, commit),
            Action::RenewHold { hold, ttl } => self.renew_hold(now, hold, *ttl),
            Action::CancelHold(hold) => self.cancel_hold(now, hold),
            Action::SetSubject(subject) => self.set_subject(now, subject),
            Action::DeleteSubject { name, etag } => self.delete_subject(now, name, etag),
            Action::SetResource(resource) => self.set_resource(resource),
            Action::DeleteResource { key, etag } => self.delete_resource(key, etag),
            Action::DeleteQuota(delete) => self.delete_quota(now, delete),
            Action::ResetUsage(reset) => self.reset_usage(now, reset),
            Action::CorrectUsage(correct) => self.correct_usage(now, correct),
            Action::AcceptClock { offset_ns } => Ok(Step {
                answer: Answer::ClockAccepted {
                    offset_ns: *offset_ns,
                },
                changes: vec![clock_accepted(now, *offset_ns)],
            }),
            Action::Linked(_) | Action::SetQuotas(_) | Action::ChangeQuotas { .. } => {
                unreachable!("a step of several is not a step of another")
            }
        }
    }

    /// Whether the events, and the images of what they touch, take too many bytes.
    fn is_too_large(&self, events: &[Event]) -> bool {
        let bytes = events.iter().map(Event::weight);
        let bytes = bytes.fold(0, usize::saturating_add);
        let charges = events.iter().filter_map(|event| match &event.change {
            Change::Charged(charged) => Some(charged),
            _ => None,
        });
        let at_most = charges
            .clone()
            .count()
            .saturating_mul(CHARGE_SET_MAX)
            .saturating_mul(self.touched.heaviest());
        if bytes.saturating_add(at_most) <= COMMAND_BYTES_MAX {
            return false;
        }
        let sets = charges.flat_map(|charged| charge_set(&charged.subject, &charged.also));
        let mut names: Vec<&str> = sets.collect();
        names.sort_unstable();
        names.dedup();
        let slots = names.into_iter().filter_map(|name| self.subjects.get(name));
        let images = slots.map(|slot| slot.subject.weight());
        images.fold(bytes, usize::saturating_add) > COMMAND_BYTES_MAX
    }

    /// What happens when a server is started with a wall clock that was in doubt; pure, like
    /// [`Self::decide`]. `now` is after the jump.
    pub fn started_by(&self, now: Timestamp, offset_ns: i64) -> Event {
        Event {
            at: now,
            revision: self.next_revision(),
            operation: None,
            provenance: Arc::new(Provenance::default()),
            change: Change::ClockAccepted { offset_ns, to: now },
        }
    }

    fn answered(&self, now: Timestamp, command: &Command, step: Step) -> Decided {
        let operation = &command.operation;
        let outcome = Arc::new(Outcome {
            answer: step.answer,
            // An accepted clock is the one that its answer is remembered by.
            decided: match &command.action {
                Action::AcceptClock { offset_ns } => now.plus(ahead(*offset_ns)),
                _ => now,
            },
        });
        let revision = self.next_revision();
        let event = |change| Event {
            at: now,
            revision,
            operation: Some(operation.id.clone()),
            provenance: command.provenance.clone(),
            change,
        };
        let mut events: Vec<Event> = step.changes.into_iter().map(event).collect();
        if operation.given || !outcome.is_refusal() {
            events.push(event(Change::Answered(Arc::new(Remembered {
                lane: self.memory.lane(command.lane()),
                id: operation.id.clone(),
                digest: operation.digest,
                revision,
                outcome: outcome.clone(),
            }))));
        }
        Decided {
            reply: Ok(Reply {
                outcome,
                replayed: false,
            }),
            events,
        }
    }

    /// The revision that the next command gets.
    pub(crate) fn next_revision(&self) -> u64 {
        self.revision.saturating_add(1)
    }

    /// The new values of all records that changed since the last call, each once, in the order of their keys.
    pub fn take_images(&mut self) -> Vec<Image> {
        let touched = self.touched.take(|name| {
            if let Some(slot) = self.subjects.get_mut(name.as_str()) {
                slot.settle();
            }
        });
        touched
            .into_iter()
            .filter_map(|(key, fresh)| {
                let record = self.record(&key);
                let came_and_went = fresh && record.is_none();
                (!came_and_went).then_some(Image { key, record, fresh })
            })
            .collect()
    }

    /// About how many bytes the images take that [`Self::take_images`] would answer.
    pub fn images_weight(&self) -> usize {
        self.touched.bytes()
    }

    /// The record of that key as it is now.
    pub fn record(&self, key: &RecordKey) -> Option<Record> {
        match key {
            RecordKey::Meta => Some(Record::Meta(Meta {
                revision: self.revision,
                forgotten: self.memory.merged(),
            })),
            RecordKey::Resource(key) => self
                .resources
                .get(key.as_str())
                .map(|resource| Record::Resource(resource.clone())),
            RecordKey::Subject(name) => {
                let slot = self.subjects.get(name.as_str());
                slot.map(|slot| record::of_subject(&slot.subject))
            }
            RecordKey::Quotas(Target::Subject(name)) => self
                .subjects
                .get(name.as_str())
                .filter(|slot| !slot.subject.quotas.is_empty())
                .map(|slot| Record::Quotas(slot.subject.quotas.clone())),
            RecordKey::Quotas(Target::Pattern(pattern)) => self
                .defaults
                .get(pattern)
                .map(|entry| Record::Quotas(Arc::new(entry.quotas.clone()))),
            RecordKey::Allocation(key) => self
                .allocations
                .get(key.as_str())
                .map(|allocation| Record::Allocation(allocation.clone())),
            RecordKey::Hold(key) => self
                .holds
                .get(key.as_str())
                .map(|hold| Record::Hold(hold.clone())),
            RecordKey::Dying(name) => self
                .dying
                .get(name)
                .map(|revision| Record::Dying(*revision)),
            RecordKey::Floor(lane) => self.memory.floor(lane).map(Record::Floor),
        }
    }

    /// Every key of a record that there is, in order; for comparing with rows.
    pub fn record_keys(&self) -> Vec<RecordKey> {
        let mut keys = vec![RecordKey::Meta];
        keys.extend(
            self.resources
                .iter()
                .filter(|resource| resource.version > 0)
                .map(|resource| RecordKey::Resource(resource.key.clone())),
        );
        for name in self.subjects.names() {
            keys.push(RecordKey::Subject(name.clone()));
            keys.push(RecordKey::Quotas(Target::Subject(name.clone())));
        }
        keys.extend(
            self.defaults
                .iter()
                .map(|entry| RecordKey::Quotas(Target::Pattern(entry.pattern.clone()))),
        );
        keys.extend(self.allocations.names().cloned().map(RecordKey::Allocation));
        keys.extend(self.holds.names().cloned().map(RecordKey::Hold));
        keys.extend(self.dying.keys().cloned().map(RecordKey::Dying));
        keys.retain(|key| self.record(key).is_some());
        keys.sort();
        keys
    }
}

fn clock_accepted(now: Timestamp, offset_ns: i64) -> Change {
    Change::ClockAccepted {
        offset_ns,
        to: now.plus(ahead(offset_ns)),
    }
}

/// How far a clock that is accepted jumps forward.
fn ahead(offset_ns: i64) -> std::time::Duration {
    std::time::Duration::from_nanos(offset_ns.max(0).unsigned_abs())
}
