//! CommitHold: a hold becomes use (C6.3). What the hold covers is not refused any more (C4.8); what it does
//! not cover, because it is more or because the hold's time is over, is refused unless the caller says what
//! to do with it.

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::{Allocation, AllocationKey};
use crate::charge::charge_set;
use crate::command::{Amounts, CommitHold, Uncovered};
use crate::decide::renew::guard_live;
use crate::decide::uses::Use;
use crate::decide::{Step, negative};
use crate::event::{Cause, Change, Charged};
use crate::hold::{End, Hold, HoldKey};
use crate::outcome::Answer;
use crate::rejection::{Rejection, Violation};
use crate::resource::Kind;
use crate::stake::{RowKey, Stake};
use crate::time::Timestamp;
use crate::verdict::Mode;

/// What a commit charges.
struct Due {
    /// All of it, zeros dropped.
    amounts: Amounts,
    /// What the hold does not cover.
    uncovered: Amounts,
    /// How that is decided.
    how: Uncovered,
}

impl Ledger {
    pub(crate) fn commit_hold(
        &self,
        now: Timestamp,
        commit: &CommitHold,
    ) -> Result<Step, Rejection> {
        self.guard_use(&commit.amounts, Use::Commit)?;
        let live = self.known_hold(&HoldKey::new(&commit.hold.subject, &commit.hold.id))?;
        let late =
            live.end(now) == Some(End::Expired) && commit.late != Uncovered::Refuse && !live.late;
        if !late {
            guard_live(live, now, "committed")?;
        }
        guard_spent(live, &commit.amounts)?;
        let due = due(live, commit, late)?;
        let kept = self.of_kind(&due.amounts, &[Kind::Allocation, Kind::Concurrency]);
        self.guard_ttl(&kept, commit)?;
        if !kept.is_empty() {
            self.guard_free(&live.subject, &live.allocation, now)?;
        }
        let names = charge_set(&live.subject, &live.also);
        let mode = match due.how {
            Uncovered::Record => Mode::Record,
            Uncovered::Refuse | Uncovered::Check => Mode::Strict,
        };
        // Late, the hold's own capacity is not held against it, whether it has been closed or not.
        let without = (late && live.ended.is_none()).then(|| self.without(live, &names));
        let verdict = without
            .as_ref()
            .unwrap_or(self)
            .scene(live.subject.as_str(), &names, now)
            .evaluate(&due.uncovered, mode);
        if verdict.is_denied() {
            return Ok(Step {
                answer: Answer::Committed {
                    verdict,
                    hold: live.clone(),
                    allocation: None,
                },
                changes: Vec::new(),
            });
        }

        let end = if late { End::Expired } else { End::Committed };
        let hold = Arc::new(Hold {
            late,
            ..live.closed(end, now, self.next_revision())
        });
        let allocation =
            (!kept.is_empty()).then(|| Arc::new(self.committed(live, kept, commit, now)));
        let recorded = mode == Mode::Record && !due.uncovered.is_empty();
        let cause = match recorded {
            true => Cause::CommitRecord,
            false => Cause::Commit,
        };
        let freed = match live.ended {
            None => negative(&live.amounts),
            Some(_) => Vec::new(),
        };
        let mut changes = Vec::new();
        if let Some(allocation) = &allocation {
            changes.extend(self.closed_first(now, RowKey::Allocation(allocation.key.clone())));
        }
        let charged = Charged {
            used: due.amounts,
            held: freed,
            allocation: allocation.clone(),
            born: allocation.is_some(),
            hold: Some(hold.clone()),
            ..Charged::new(&live.subject, &live.also, cause).noting(&verdict)
        };
        changes.push(Change::Charged(Box::new(charged)));
        Ok(Step {
            answer: Answer::Committed {
                verdict,
                hold,
                allocation,
            },
            changes,
        })
    }

    /// The subjects of a hold as they are without it.
    fn without(&self, hold: &Hold, names: &[&str]) -> Self {
        let mut fork = self.fork();
        self.copy_subjects(names, &mut fork);
        fork.stake(&Stake::of_hold(hold), -1, None);
        fork
    }

    /// The allocation of a committed hold, on the charge set that the hold recorded (C2.3).
    fn committed(
        &self,
        hold: &Hold,
        amounts: Amounts,
        commit: &CommitHold,
        now: Timestamp,
    ) -> Allocation {
        let mut amounts = amounts;
        amounts.sort();
        Allocation {
            key: AllocationKey::new(&hold.subject, Some(&hold.allocation), &[]),
            subject: hold.subject.clone(),
            also: hold.also.clone(),
            incarnations: hold.incarnations.clone(),
            id: Some(hold.allocation.clone()),
            amounts,
            generation: self.next_revision(),
            labels: hold.labels.clone(),
            source: hold.source.clone(),
            purpose: hold.purpose.clone(),
            created: now,
            updated: now,
            expires: commit.ttl.map(|ttl| now.plus(ttl)),
        }
    }

    fn guard_ttl(&self, kept: &Amounts, commit: &CommitHold) -> Result<(), Rejection> {
        let ending = kept
            .iter()
            .find(|(key, _)| self.kind(key) == Kind::Concurrency);
        let wrong = |text: String| Err(Rejection::Invalid(vec![Violation::new("ttl", text)]));
        match (ending, commit.ttl) {
            (Some((key, _)), None) => wrong(format!(
                "is not given; {key} is of kind CONCURRENCY, and its allocation needs a TTL"
            )),
            (None, Some(_)) => {
                wrong("is given, and nothing of kind CONCURRENCY is committed".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What was debited when the hold was made cannot be committed again.
fn guard_spent(hold: &Hold, amounts: &Amounts) -> Result<(), Rejection> {
    let spent = |(at, (key, _)): (usize, &(_, i64))| {
        let found = hold.spent.iter().any(|(spent, _)| spent == key);
        found.then(|| {
            let text = format!("{key} was checked and debited when the hold was made");
            Violation::new(format!("amounts[{at}].resource"), text)
        })
    };
    let violations: Vec<Violation> = amounts.iter().enumerate().filter_map(spent).collect();
    match violations.is_empty() {
        true => Ok(()),
        false => Err(Rejection::Invalid(violations)),
    }
}

fn due(hold: &Hold, commit: &CommitHold, late: bool) -> Result<Due, Rejection> {
    let unnamed = hold
        .amounts
        .iter()
        .filter(|(key, _)| !commit.amounts.iter().any(|(named, _)| named == key));
    let mut amounts: Amounts = unnamed.chain(&commit.amounts).cloned().collect();
    amounts.retain(|(_, amount)| *amount > 0);
    let mut uncovered = Amounts::new();
    for (key, amount) in &amounts {
        let held = hold.amount(key);
        if *amount > held {
            if commit.more == Uncovered::Refuse {
                return Err(Rejection::HoldTooSmall {
                    hold: hold.key.as_str().to_owned(),
                    resource: key.clone(),
                    held,
                    requested: *amount,
                });
            }
            uncovered.push((key.clone(), amount.saturating_sub(held)));
        }
    }
    if late {
        // All of it is uncovered; more than was held as well, by the stricter of the two.
        let checked = commit.late == Uncovered::Check
            || (!uncovered.is_empty() && commit.more == Uncovered::Check);
        return Ok(Due {
            uncovered: amounts.clone(),
            amounts,
            how: if checked {
                Uncovered::Check
            } else {
                commit.late
            },
        });
    }
    Ok(Due {
        amounts,
        uncovered,
        how: commit.more,
    })
}
