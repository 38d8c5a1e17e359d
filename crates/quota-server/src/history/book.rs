//! The book: what is open of the history, and how a batch goes into it. It reads no clock and keeps no thread.
//!
//! An account that changed is loaded, stays while it does, and goes when its row is written. Each bears the batch
//! up to which it is told, so a batch that comes a second time, after a crash that lost the position but not the
//! row, changes nothing: no two rows need be written at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use quota_core::amount::Limit;
use quota_core::charge::charge_set;
use quota_core::hash::HashMap;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::quota::{QuotaList, Target};
use quota_core::resource::Kind;
use quota_core::time::Timestamp;
use quota_store::Rows;
use quota_store::footprint::{Act, Footprint, Standing};
use quota_store::rows::RowsError;

use super::few::Few;
use super::format;
use super::limits::{Limits, OwnLimit, own_limits};
use super::rollup::{Bucket, Change, Level, Range, Rollup, Step};

/// Subjects that are loaded at most, but for those of one batch; then they are written down and let go. One takes
/// about a kilobyte; to load it and write it down again with every change takes as long as to decide the change.
const SUBJECTS_MAX: usize = 131_072;

/// What the history has to know of the present.
pub trait Known: Send + Sync {
    /// The kind of a resource: it does not change while there are accounts.
    fn kind(&self, resource: &ResourceKey) -> Kind;
    /// Whether there is such a subject.
    fn exists(&self, subject: &SubjectName) -> bool;
    /// A subject's own quotas, for where the journal no longer tells of them.
    fn quotas(&self, subject: &SubjectName) -> Option<Arc<QuotaList>>;
}

/// An account as far as its history is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The kind of its resource.
    pub kind: Kind,
    /// The life of its subject that it was last told of.
    pub incarnation: u64,
    /// Its subject's own limits.
    pub own: Vec<OwnLimit>,
    /// Its levels.
    pub rollup: Rollup,
}

/// A loaded account.
pub(super) struct Loaded {
    pub(super) account: Account,
    /// The last batch that it was told.
    pub(super) through: u64,
    /// It changed since its row was written.
    pub(super) dirty: bool,
    /// Buckets that are over and stand on no page yet.
    pub(super) closed: Vec<(Step, Bucket)>,
    /// When its limit was last worked out, in terms of [`Limits::epoch`].
    epoch: Option<u64>,
}

/// An account, with its buckets that stand on no page yet.
pub(super) type AsLoaded = (Account, Vec<(Step, Bucket)>);

/// What a batch did to one account.
#[derive(Default)]
struct Told {
    granted: u64,
    refused: u64,
    /// What was counted by what happened; what the accounts say is preferred where they can tell.
    counted: i64,
    reset: bool,
    /// What ended by itself, and when.
    ended: Vec<(Timestamp, Level)>,
    /// How the level went otherwise.
    swing: Swing,
    /// The subject's own limits changed.
    own: Option<Vec<OwnLimit>>,
}

/// How a level went within a batch, from where it was before.
#[derive(Default)]
struct Swing {
    sum: Level,
    range: Option<Range>,
}

impl Swing {
    fn go(&mut self, by: Level) {
        self.sum.used = self.sum.used.saturating_add(by.used);
        self.sum.held = self.sum.held.saturating_add(by.held);
        let Level { used, held } = self.sum;
        let so_far = self.range.unwrap_or(Range {
            used_min: used,
            used_max: used,
            held_max: held,
        });
        self.range = Some(Range {
            used_min: so_far.used_min.min(used),
            used_max: so_far.used_max.max(used),
            held_max: so_far.held_max.max(held),
        });
    }

    /// Where a level was on its way; nothing is known where it did not go so, because an earlier life of the name
    /// was charged.
    fn range(&self, from: Level, to: Level) -> Option<Range> {
        let ends = from.used.checked_add(self.sum.used) == Some(to.used)
            && from.held.checked_add(self.sum.held) == Some(to.held);
        self.range.filter(|_| ends).map(|range| Range {
            used_min: from.used.saturating_add(range.used_min),
            used_max: from.used.saturating_add(range.used_max),
            held_max: from.held.saturating_add(range.held_max),
        })
    }
}

type Tales<'a> = HashMap<&'a str, Few<Box<Told>>>;

/// What is open of the history.
#[derive(Default)]
pub struct Book {
    pub(super) subjects: HashMap<SubjectName, Few<Box<Loaded>>>,
    pub(super) limits: Limits,
    /// The last batch that was told.
    pub position: u64,
    /// Its time.
    pub now: Option<Timestamp>,
    /// Batches before this one were not all told: what accounts counted since they were last told is not known.
    pub gap: u64,
}

impl Book {
    /// A book at a position, with the defaults that were written down.
    pub fn open(rows: &dyn Rows) -> Result<Self, RowsError> {
        let mut book = Self {
            position: rows.applied(),
            ..Self::default()
        };
        let damaged = |error: &dyn std::fmt::Display| RowsError(error.to_string());
        rows.scan(b"t", &mut |row| {
            let read = quota_store::batch::record_of_row(&row.key, &row.value);
            match read.map_err(|error| damaged(&error))? {
                (
                    quota_core::record::RecordKey::Quotas(Target::Pattern(pattern)),
                    quota_core::record::Record::Quotas(quotas),
                ) => book.limits.lay(pattern, (*quotas).clone()),
                _ => return Err(damaged(&"a row that is no default")),
            }
            Ok(())
        })?;
        Ok(book)
    }

    /// Whether so much is loaded that it should be written down before more is.
    pub fn is_full(&self) -> bool {
        self.subjects.len() > SUBJECTS_MAX
    }

    /// Lets go what is written down, where there is too much of it.
    pub fn let_go(&mut self) {
        if self.is_full() {
            self.subjects
                .retain(|_, accounts| accounts.iter().any(|(_, account)| account.dirty));
        }
    }

    /// Tells a batch. After an error nothing was told.
    pub fn tell(
        &mut self,
        sequence: u64,
        footprint: &Footprint,
        known: &dyn Known,
        rows: &dyn Rows,
    ) -> Result<(), RowsError> {
        self.load_for(footprint, rows)?;
        for (target, quotas) in &footprint.quotas {
            if let Target::Pattern(pattern) = target {
                self.limits.change(pattern.clone(), quotas.clone());
            }
        }
        let when = (sequence, footprint.now);
        let mut tales = self.tales(footprint, known);
        for (name, standing) in &footprint.subjects {
            let told = tales.remove(name.as_str()).unwrap_or_default();
            self.tell_subject(when, name, standing.as_ref(), told, known);
        }
        // Subjects whose accounts did not change. What charged none of them charged an earlier life of the name.
        for (name, told) in tales {
            let name = SubjectName::parse(name).map_err(|error| RowsError(error.to_string()))?;
            for (resource, told) in told {
                if told.refused > 0 || told.own.is_some() {
                    let told = Told {
                        refused: told.refused,
                        own: told.own,
                        ..Told::default()
                    };
                    let have = self.account(&name, &resource);
                    let to = have.map(|have| (have.rollup.level, have.incarnation));
                    self.tell_account(
                        when,
                        (&name, &resource),
                        to.unwrap_or_default(),
                        told,
                        known,
                    );
                }
            }
        }
        self.position = sequence;
        self.now = Some(footprint.now);
        Ok(())
    }

    fn load_for(&mut self, footprint: &Footprint, rows: &dyn Rows) -> Result<(), RowsError> {
        for (name, _) in &footprint.subjects {
            self.load(name, rows)?;
        }
        for (target, _) in &footprint.quotas {
            if let Target::Subject(name) = target {
                self.load(name, rows)?;
            }
        }
        for act in &footprint.acts {
            if let Act::Refused {
                subject, limit_of, ..
            } = act
            {
                self.load(subject, rows)?;
                self.load(limit_of, rows)?;
            }
        }
        Ok(())
    }

    /// Loads the accounts of a subject where they are not.
    fn load(&mut self, name: &SubjectName, rows: &dyn Rows) -> Result<(), RowsError> {
        if self.subjects.contains_key(name) {
            return Ok(());
        }
        let mut accounts = Few::default();
        rows.scan(&format::subject_prefix(name), &mut |row| {
            let (_, resource) = format::account_of_key(&row.key)?;
            let loaded = Loaded {
                account: format::account_of_bytes(&row.value)?,
                through: row.sequence,
                dirty: false,
                closed: Vec::new(),
                epoch: None,
            };
            accounts.insert(resource, Box::new(loaded));
            Ok(())
        })?;
        self.subjects.insert(name.clone(), accounts);
        Ok(())
    }

    /// An account that is loaded, with its buckets that stand on no page yet: none where there is no such account.
    /// Nothing where its subject is not loaded.
    pub(super) fn loaded(
        &self,
        name: &SubjectName,
        resource: &ResourceKey,
    ) -> Option<Option<AsLoaded>> {
        let accounts = self.subjects.get(name)?;
        let found = accounts.get(resource);
        Some(found.map(|loaded| (loaded.account.clone(), loaded.closed.clone())))
    }

    /// An account that is loaded.
    fn account(&self, name: &SubjectName, resource: &ResourceKey) -> Option<&Account> {
        let accounts = self.subjects.get(name)?;
        Some(&accounts.get(resource)?.account)
    }

    /// What happened, by account.
    fn tales<'a>(&self, footprint: &'a Footprint, known: &dyn Known) -> Tales<'a> {
        let mut tales = Tales::default();
        for act in &footprint.acts {
            match act {
                Act::Charged {
                    subject,
                    also,
                    used,
                    held,
                    over,
                } => {
                    for name in charge_set(subject, also) {
                        charge(tales.entry(name).or_default(), used, held, *over);
                    }
                }
                Act::Corrected {
                    subject,
                    also,
                    amounts,
                } => {
                    for name in charge_set(subject, also) {
                        let tales = tales.entry(name).or_default();
                        for (resource, amount) in amounts {
                            let told = tales.entry(resource, Box::default);
                            told.counted = told.counted.saturating_add(*amount);
                            told.swing.go(Level {
                                used: *amount,
                                held: 0,
                            });
                        }
                    }
                }
                Act::Reset { subject, resource } => {
                    let tales = tales.entry(subject.as_str()).or_default();
                    tales.entry(resource, Box::default).reset = true;
                }
                Act::Refused {
                    subject,
                    limit_of,
                    resource,
                    count,
                } => {
                    let also = (subject != limit_of).then_some(subject);
                    for name in std::iter::once(limit_of).chain(also) {
                        // Whoever makes up names makes no rows.
                        if known.exists(name) || self.account(name, resource).is_some() {
                            let tales = tales.entry(name.as_str()).or_default();
                            let told = tales.entry(resource, Box::default);
                            told.refused = told.refused.saturating_add(*count);
                        }
                    }
                }
            }
        }
        for (target, quotas) in &footprint.quotas {
            if let Target::Subject(name) = target {
                let tales = tales.entry(name.as_str()).or_default();
                self.own_changed(name, quotas, tales);
            }
        }
        tales
    }

    /// The own limits of a subject that are not what they were.
    fn own_changed(&self, name: &SubjectName, quotas: &QuotaList, tales: &mut Few<Box<Told>>) {
        let bounded = quotas.iter().map(|quota| &quota.resource);
        let had = self.subjects.get(name).into_iter().flat_map(Few::keys);
        let resources: BTreeSet<&ResourceKey> = bounded.chain(had).collect();
        for resource in resources {
            let own = own_limits(quotas, resource);
            let have = self.account(name, resource);
            if have.map_or(&[][..], |have| &have.own) != own {
                tales.entry(resource, Box::default).own = Some(own);
            }
        }
    }

    fn tell_subject(
        &mut self,
        when: (u64, Timestamp),
        name: &SubjectName,
        standing: Option<&Standing>,
        mut tales: Few<Box<Told>>,
        known: &dyn Known,
    ) {
        let mut levels: Few<Level> = Few::default();
        for (resource, used, held) in standing.iter().flat_map(|now| &now.accounts) {
            let (used, held) = (*used, *held);
            levels.insert(resource.clone(), Level { used, held });
        }
        // What it has no account of any more, and what has no level.
        let had = self.subjects.get(name).into_iter().flat_map(Few::keys);
        let without = had.chain(tales.keys());
        for resource in without {
            levels.entry(resource, Level::default);
        }
        for (resource, level) in levels {
            let told = tales.remove(&resource);
            let have = self.account(name, &resource);
            let before = have.map(|have| (have.rollup.level, have.incarnation));
            let (level_before, incarnation_before) = before.unwrap_or_default();
            let incarnation = standing.map_or(incarnation_before, |now| now.incarnation);
            let to = (level, incarnation);
            let same = level == level_before && (have.is_none() || before == Some(to));
            if !same || told.is_some() {
                let of = (name, &resource);
                let mut told = told.unwrap_or_default();
                // A count that goes with its subject was counted all the same.
                told.reset |= standing.is_none();
                self.tell_account(when, of, to, *told, known);
            }
        }
    }

    fn tell_account(
        &mut self,
        (sequence, now): (u64, Timestamp),
        (name, resource): (&SubjectName, &ResourceKey),
        (level, incarnation): (Level, u64),
        told: Told,
        known: &dyn Known,
    ) {
        let accounts = self.subjects.entry(name.clone()).or_default();
        let Some(loaded) = accounts.get_mut(resource) else {
            let kind = known.kind(resource);
            let own = told.own.unwrap_or_else(|| match self.gap {
                0 => Vec::new(),
                _ => known
                    .quotas(name)
                    .map_or_else(Vec::new, |quotas| own_limits(&quotas, resource)),
            });
            let level = Some(level).filter(|_| has_level(kind));
            let change = Change {
                level: level.unwrap_or_default(),
                range: level.and_then(|level| told.swing.range(Level::default(), level)),
                limit: self.limits.of(name, resource, &own, now),
                counted: if is_counted(kind) { told.counted } else { 0 },
                granted: told.granted,
                refused: told.refused,
            };
            let account = Account {
                kind,
                incarnation,
                own,
                rollup: Rollup::born(now, &change),
            };
            let loaded = Loaded {
                account,
                through: sequence,
                dirty: true,
                closed: Vec::new(),
                epoch: self.limits.epoch(),
            };
            accounts.insert(resource.clone(), Box::new(loaded));
            return;
        };
        if loaded.through >= sequence {
            return;
        }
        loaded.tell(
            now,
            (level, incarnation),
            told,
            self.gap,
            |own, limit, then| {
                let epoch = self.limits.epoch();
                let timed = own.iter().any(|own| own.from.or(own.until).is_some());
                match timed || epoch.is_none() || epoch != then {
                    true => (self.limits.of(name, resource, own, now), epoch),
                    false => (limit, epoch),
                }
            },
        );
        loaded.through = sequence;
    }
}

impl Loaded {
    /// `limit_of` answers the limit and its epoch, of the own limits, the limit until now, and its epoch.
    fn tell(
        &mut self,
        now: Timestamp,
        (level, incarnation): (Level, u64),
        told: Told,
        gap: u64,
        limit_of: impl FnOnce(&[OwnLimit], Option<Limit>, Option<u64>) -> (Option<Limit>, Option<u64>),
    ) {
        let kind = self.account.kind;
        let level = if has_level(kind) {
            level
        } else {
            Level::default()
        };
        let rollup = &mut self.account.rollup;
        let same_life = self.account.incarnation == incarnation;
        // What accounts say is right even where a charge touched an earlier life of a name. Where a count began
        // anew, or was not followed, only what happened says what was counted.
        let known = same_life && !told.reset && self.through >= gap;
        let counted = match kind {
            Kind::Counter if known => level.used.saturating_sub(rollup.level.used),
            kind if is_counted(kind) => told.counted,
            _ => 0,
        };
        if let Some(own) = told.own {
            self.account.own = own;
            self.epoch = None;
        }
        let (limit, epoch) = limit_of(&self.account.own, rollup.limit, self.epoch);
        self.epoch = epoch;
        // What time ended did not count from then on, however late it was closed: a server that was down for a
        // weekend adds none of it.
        let mut ended = told.ended;
        ended.sort_by_key(|(at, _)| *at);
        let mut left = rollup.level;
        for (at, by) in ended.into_iter().filter(|_| same_life && has_level(kind)) {
            left.used = left.used.saturating_add(by.used).max(0);
            left.held = left.held.saturating_add(by.held).max(0);
            let change = Change {
                level: left,
                limit: rollup.limit,
                ..Change::default()
            };
            rollup.apply(at.min(now), &change, &mut self.closed);
        }
        let change = Change {
            level,
            range: told.swing.range(left, level).filter(|_| has_level(kind)),
            limit,
            counted,
            granted: told.granted,
            refused: told.refused,
        };
        rollup.apply(now, &change, &mut self.closed);
        self.account.incarnation = incarnation;
        self.dirty = true;
    }
}

/// Whether an account of this kind has a level; a bucket that refills has none.
fn has_level(kind: Kind) -> bool {
    matches!(kind, Kind::Allocation | Kind::Concurrency | Kind::Counter)
}

/// Whether what is charged is counted.
fn is_counted(kind: Kind) -> bool {
    matches!(kind, Kind::Counter | Kind::Rate)
}

/// Notes a charge of one subject of its charge set.
fn charge(
    tales: &mut Few<Box<Told>>,
    used: &[(ResourceKey, i64)],
    held: &[(ResourceKey, i64)],
    over: Option<Timestamp>,
) {
    let of = |amounts: &[(ResourceKey, i64)], resource: &ResourceKey| {
        let found = amounts.iter().find(|(have, _)| have == resource);
        found.map_or(0, |(_, amount)| *amount)
    };
    let only_held = held
        .iter()
        .filter(|(key, _)| !used.iter().any(|(have, _)| have == key));
    for (resource, _) in used.iter().chain(only_held) {
        let by = Level {
            used: of(used, resource),
            held: of(held, resource),
        };
        let told = tales.entry(resource, Box::default);
        told.counted = told.counted.saturating_add(by.used);
        // A commit turns what is held into use and makes nothing grow: it was granted when it was held.
        told.granted += u64::from(by.used.saturating_add(by.held) > 0);
        match over {
            Some(over) => told.ended.push((over, by)),
            None => told.swing.go(by),
        }
    }
}
