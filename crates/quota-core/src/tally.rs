//! What is told once a second: who was refused how often, and what each subject that changed has now.
//!
//! It is counted here until its second is over, and then becomes events. Nothing that is decided depends on it: a
//! kill loses the counts of at most a second of refusals, which changed nothing. Whose usage changed stands in the
//! journal, and is told after a start.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::Ledger;
use crate::command::{Action, Command};
use crate::event::{Change, Event};
use crate::hash::HashMap;
use crate::name::{ResourceKey, SubjectName};
use crate::notice::{Cause, Changed, Refused, UsageNow};
use crate::outcome::Answer;
use crate::resource::Kind;
use crate::time::{SECOND_NS, Timestamp};
use crate::verdict::{Finding, Reason, Verdict};

/// Most refusals of different subjects and limits that are told apart in one second; others are counted under the
/// limit alone. An abuser who makes up subjects fills no disk.
pub const REFUSALS_MAX: usize = 1024;

/// A limit that refused, and whom.
type Key = (SubjectName, SubjectName, ResourceKey, String, u8);

/// What happened in the second that is under way, and what is left to tell of those that are over.
#[derive(Default, Debug)]
pub struct Tally {
    /// The second since the Unix epoch that is counted.
    second: i64,
    counted: Counted,
    over: Over,
}

/// What changed of a subject.
type Resources = SmallVec<[ResourceKey; 1]>;

/// Found by hash while it is counted: a busy group looks for thousands.
#[derive(Default, Debug)]
struct Counted {
    refused: BTreeMap<Key, (Refused, Cause)>,
    stirred: HashMap<SubjectName, Resources>,
}

/// In the order in which it is told.
#[derive(Default, Debug)]
struct Over {
    refused: BTreeMap<Key, (Refused, Cause)>,
    stirred: BTreeMap<SubjectName, Resources>,
}

impl Over {
    /// Takes over what came later.
    fn add(&mut self, later: Counted) {
        for (key, (refused, cause)) in later.refused {
            match self.refused.get_mut(&key) {
                Some((have, by)) => {
                    have.count = have.count.saturating_add(refused.count);
                    have.finding = refused.finding;
                    *by = cause;
                }
                None => {
                    self.refused.insert(key, (refused, cause));
                }
            }
        }
        if self.stirred.is_empty() {
            self.stirred = later.stirred.into_iter().collect();
            return;
        }
        for (name, resources) in later.stirred {
            let known = self.stirred.entry(name).or_default();
            resources.iter().for_each(|resource| put(known, resource));
        }
    }
}

impl Tally {
    /// Counts a refusal of a command, if it is one.
    pub fn refused(&mut self, now: Timestamp, command: &Command, answer: &Answer) {
        let cause = || -> Cause {
            let operation = Some(command.operation.id.clone());
            (operation, command.provenance.clone())
        };
        match (&command.action, answer) {
            (Action::Linked(members), Answer::Linked(answers)) => {
                for (member, answer) in members.iter().zip(answers) {
                    if let (Some(subject), Some(verdict)) = (member.asks_for(), verdict(answer)) {
                        self.count(now, subject, verdict, cause());
                    }
                }
            }
            (action, answer) => {
                if let (Some(subject), Some(verdict)) = (action.asks_for(), verdict(answer)) {
                    self.count(now, subject, verdict, cause());
                }
            }
        }
    }

    fn count(&mut self, now: Timestamp, subject: &SubjectName, verdict: &Verdict, cause: Cause) {
        self.note(now);
        for finding in &verdict.refusals {
            let mut finding = finding.clone();
            let mut key = key_of(subject, &finding);
            let known = &self.counted.refused;
            if known.len() >= REFUSALS_MAX && !known.contains_key(&key) {
                // Under the limit alone; a default has one for each that it is a default of.
                if finding.pattern.is_some() {
                    finding.subject = SubjectName::of_checked(finding.subject.first_pair());
                }
                key = key_of(&finding.subject, &finding);
                if known.len() >= REFUSALS_MAX.saturating_mul(2) && !known.contains_key(&key) {
                    finding.subject = SubjectName::system();
                    key = key_of(&finding.subject, &finding);
                }
            }
            let subject = key.0.clone();
            let (refused, by) = self.counted.refused.entry(key).or_insert_with(|| {
                let refused = Refused {
                    subject,
                    finding: finding.clone(),
                    count: 0,
                    first: now,
                };
                (refused, cause.clone())
            });
            refused.count = refused.count.saturating_add(1);
            refused.finding = finding;
            *by = cause.clone();
        }
    }

    /// Notes whose usage changed.
    pub fn stirred<'a>(&mut self, now: Timestamp, changed: impl Iterator<Item = Changed<'a>>) {
        for account in changed {
            if account.usage {
                self.stir(now, account.name, account.resource);
            }
        }
    }

    /// Notes that an account changed.
    pub fn stir(&mut self, now: Timestamp, name: &str, resource: &ResourceKey) {
        self.note(now);
        let stirred = &mut self.counted.stirred;
        match stirred.get_mut(name) {
            Some(resources) => put(resources, resource),
            None => {
                let name = SubjectName::of_checked(name);
                stirred.insert(name, Resources::from_iter([resource.clone()]));
            }
        }
    }

    /// Notes that what a subject has was told by somebody else.
    pub fn was_told(&mut self, subject: &SubjectName) {
        self.counted.stirred.remove(subject);
        self.over.stirred.remove(subject);
    }

    /// Begins a new second where the one that is counted is over.
    fn note(&mut self, now: Timestamp) {
        if self.second != now.whole_second() {
            self.end();
            self.second = now.whole_second();
        }
    }

    /// Ends the second that is counted, over or not: nothing more is to come.
    pub fn end(&mut self) {
        self.over.add(std::mem::take(&mut self.counted));
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.counted.refused.is_empty() && self.counted.stirred.is_empty() && self.is_told()
    }

    /// Whether there is nothing to tell of seconds that are over.
    fn is_told(&self) -> bool {
        self.over.refused.is_empty() && self.over.stirred.is_empty()
    }

    /// When there is something to tell.
    pub fn due(&self) -> Option<Timestamp> {
        let second = match self.is_told() {
            true => self.second.saturating_add(1),
            false => self.second,
        };
        (!self.is_empty()).then(|| Timestamp::from_nanos(second.saturating_mul(SECOND_NS)))
    }

    /// What there is to tell of seconds that are over, at most `most` events; what is left comes with the next
    /// call.
    pub fn tell(&mut self, ledger: &Ledger, now: Timestamp, most: usize) -> Vec<Event> {
        self.note(now);
        let mut told = Vec::new();
        while told.len() < most
            && let Some((_, (refused, cause))) = self.over.refused.pop_first()
        {
            told.push(ledger.notice(now, cause, Change::Refused(Box::new(refused))));
        }
        while told.len() < most
            && let Some((subject, resources)) = self.over.stirred.pop_first()
        {
            if let Some(usage) = usage(ledger, now, subject, resources) {
                let change = Change::Usage(Box::new(usage));
                told.push(ledger.notice(now, Cause::default(), change));
            }
        }
        told
    }
}

fn put(resources: &mut Resources, resource: &ResourceKey) {
    if let Err(at) = resources.binary_search(resource) {
        resources.insert(at, resource.clone());
    }
}

/// What a subject has now of these resources; none where it is gone, or has accounts of none of them.
fn usage(
    ledger: &Ledger,
    now: Timestamp,
    subject: SubjectName,
    resources: Resources,
) -> Option<UsageNow> {
    let known = ledger.subject(subject.as_str())?;
    let accounts: Vec<_> = resources
        .into_iter()
        .filter(|resource| ledger.kind(resource) != Kind::Rate)
        .filter_map(|resource| {
            let taken = known.account(&resource)?.at(now);
            Some((resource, taken.used, taken.held))
        })
        .collect();
    (!accounts.is_empty()).then_some(UsageNow { subject, accounts })
}

fn key_of(subject: &SubjectName, finding: &Finding) -> Key {
    let quota = finding.quota.as_ref().map(ToString::to_string);
    let reason = match finding.reason {
        Reason::Limit => 0,
        Reason::Rate => 1,
        Reason::PeriodExhausted => 2,
        Reason::TooLarge => 3,
        Reason::NoQuota => 4,
        Reason::Suspended => 5,
    };
    (
        subject.clone(),
        finding.subject.clone(),
        finding.resource.clone(),
        quota.unwrap_or_default(),
        reason,
    )
}

fn verdict(answer: &Answer) -> Option<&Verdict> {
    let verdict = match answer {
        Answer::Charged { verdict, .. }
        | Answer::Reserved { verdict, .. }
        | Answer::Committed { verdict, .. } => verdict,
        _ => return None,
    };
    verdict.is_denied().then_some(verdict)
}
