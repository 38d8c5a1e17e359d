//! Commands of several steps, all of which happen or none (C5.5): decided one after the other on a fork, a
//! small ledger of exactly the records that they can touch, which is dropped afterwards.

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::AllocationKey;
use crate::charge::charge_set;
use crate::command::{Action, DeleteQuota, Provenance, SetQuota};
use crate::decide::Step;
use crate::event::{Change, Event};
use crate::name::SubjectName;
use crate::outcome::{Answer, QuotaAnswer};
use crate::quota::Target;
use crate::rejection::{Rejection, Violation};
use crate::time::Timestamp;
use crate::touched::Slot;

impl Ledger {
    pub(crate) fn linked(
        &self,
        now: Timestamp,
        members: &[Action],
        provenance: &Arc<Provenance>,
    ) -> Result<Step, Rejection> {
        let mut fork = self.fork();
        for member in members {
            self.copy_for(member, &mut fork);
        }
        let mut answers: Vec<Answer> = Vec::new();
        let mut changes = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let step = match fork.single(now, member, provenance) {
                Ok(step) => step,
                // It may be wrong only because of what was denied before it.
                Err(_) if answers.iter().any(Answer::is_refusal) => {
                    answers.push(Answer::Undecided);
                    continue;
                }
                Err(rejection) => return Err(member_rejected("items", at, rejection)),
            };
            fork.try_out(now, provenance, &step.changes);
            changes.extend(step.changes);
            answers.push(step.answer);
        }
        if answers.iter().any(Answer::is_refusal) {
            changes.clear();
            for answer in &mut answers {
                withdraw(answer);
            }
        }
        Ok(Step {
            answer: Answer::Linked(answers),
            changes,
        })
    }

    pub(crate) fn change_quotas_together(
        &self,
        now: Timestamp,
        sets: &[SetQuota],
        deletes: &[DeleteQuota],
        provenance: &Arc<Provenance>,
    ) -> Result<Step, Rejection> {
        guard_each_once(sets)?;
        let mut fork = self.fork();
        let targets = sets.iter().map(|set| &set.target);
        for target in targets.chain(deletes.iter().map(|delete| &delete.target)) {
            if let Target::Subject(name) = target {
                self.copy_subjects(&charge_set(name, &[]), &mut fork);
            }
        }
        let mut answers: Vec<QuotaAnswer> = Vec::new();
        let mut changes = Vec::new();
        for (at, quota) in sets.iter().enumerate() {
            let step = fork
                .set_quota(now, quota)
                .map_err(|rejection| member_rejected("requests", at, rejection))?;
            fork.try_out(now, provenance, &step.changes);
            changes.extend(step.changes);
            if let Answer::Quotas(answer) = step.answer {
                answers.extend(answer);
            }
        }
        for (at, delete) in deletes.iter().enumerate() {
            let step = fork
                .delete_quota(now, delete)
                .map_err(|rejection| member_rejected("deletes", at, rejection))?;
            fork.try_out(now, provenance, &step.changes);
            changes.extend(step.changes);
        }
        Ok(Step {
            answer: Answer::Quotas(answers),
            changes,
        })
    }

    /// Lets changes happen here that happen nowhere else yet. All of them are of one revision, the next.
    fn try_out(&mut self, now: Timestamp, provenance: &Arc<Provenance>, changes: &[Change]) {
        for change in changes {
            let event = Event {
                at: now,
                revision: self.revision,
                operation: None,
                provenance: provenance.clone(),
                change: change.clone(),
            };
            self.absorb(&event);
        }
    }

    /// Copies what a member can read and change.
    fn copy_for(&self, member: &Action, fork: &mut Self) {
        let (subject, also, allocation): (&SubjectName, &[SubjectName], _) = match member {
            Action::Consume(consume) => {
                (&consume.subject, &consume.also, consume.allocation.as_ref())
            }
            Action::Release(release) => {
                (&release.subject, &release.also, release.allocation.as_ref())
            }
            Action::Resize(resize) => (&resize.subject, &[], Some(&resize.allocation)),
            _ => return,
        };
        self.copy_subjects(&charge_set(subject, also), fork);
        let key = AllocationKey::new(subject, allocation, also);
        if let Some(row) = self.allocations.get(key.as_str()) {
            self.copy_subjects(&charge_set(&row.subject, &row.also), fork);
            if !fork.allocations.contains(key.as_str()) {
                fork.allocations.insert(key, row.clone());
            }
        }
    }

    pub(super) fn copy_subjects(&self, names: &[&str], fork: &mut Self) {
        for name in names {
            if let Some(subject) = self.shared_subject(name)
                && fork.subject(name).is_none()
            {
                let slot = Slot::new(subject.clone());
                fork.subjects.insert(subject.name.clone(), slot);
                fork.elsewhere = fork.elsewhere.saturating_sub(1);
            }
        }
    }
}

/// Of two changes of one quota only one can be meant.
fn guard_each_once(quotas: &[SetQuota]) -> Result<(), Rejection> {
    let mut seen = crate::hash::HashSet::default();
    let mut violations = Vec::new();
    for (at, quota) in quotas.iter().enumerate() {
        if !seen.insert((&quota.target, &quota.resource, &quota.id)) {
            let text = format!(
                "is quota {} on {} of {} again; each once",
                quota.id, quota.resource, quota.target
            );
            violations.push(Violation::new(format!("requests[{at}].quota"), text));
        }
    }
    match violations.is_empty() {
        true => Ok(()),
        false => Err(Rejection::Invalid(violations)),
    }
}

fn member_rejected(list: &str, at: usize, rejection: Rejection) -> Rejection {
    let field = format!("{list}[{at}]");
    match rejection {
        Rejection::Invalid(mut violations) => {
            for violation in &mut violations {
                violation.field = format!("{field}.{}", violation.field);
            }
            Rejection::Invalid(violations)
        }
        other => Rejection::Member {
            field,
            rejection: Box::new(other),
        },
    }
}

/// What would have been answered to a member, without the rows that did not come to be.
fn withdraw(answer: &mut Answer) {
    match answer {
        Answer::Charged { allocation, .. } | Answer::Released { allocation, .. } => {
            *allocation = None;
        }
        _ => {}
    }
    if let Answer::Released { amounts, .. } = answer {
        amounts.clear();
    }
}
