//! ResetUsage and CorrectUsage: an administrator changes what was counted (C6, C7.3). Both are commands of
//! the ledger like charges: audited, and idempotent by their operation id.

use crate::Ledger;
use crate::amount::ACCOUNT_MAX;
use crate::charge::charge_set;
use crate::command::{CorrectUsage, ResetUsage};
use crate::decide::Step;
use crate::decide::uses::Use;
use crate::evaluate::Line;
use crate::event::Change;
use crate::name::{ResourceKey, SubjectName};
use crate::outcome::Answer;
use crate::quota::Target;
use crate::rejection::Rejection;
use crate::resource::Kind;
use crate::time::Timestamp;

impl Ledger {
    pub(crate) fn reset_usage(
        &self,
        now: Timestamp,
        reset: &ResetUsage,
    ) -> Result<Step, Rejection> {
        let name = reset.subject.as_str();
        self.guard_use(&vec![(reset.resource.clone(), 0)], Use::Reset)
            .map_err(rename_resource)?;
        let Some(subject) = self.subject(name) else {
            return Err(Rejection::NoSubject(reset.subject.clone()));
        };
        let scene = self.scene(name, &[name], now);
        let gauges = scene
            .lines()
            .first()
            .map(|line| line.gauges(&reset.resource))
            .unwrap_or_default();
        let account = subject.account(&reset.resource);
        let before = match &reset.quota {
            Some(id) => match gauges.iter().find(|gauge| gauge.quota().id == *id) {
                Some(gauge) => gauge.taken.used,
                None => {
                    return Err(Rejection::QuotaUnknown {
                        target: Target::Subject(reset.subject.clone()),
                        resource: reset.resource.clone(),
                        id: id.clone(),
                    });
                }
            },
            None if self.kind(&reset.resource) == Kind::Rate => gauges
                .iter()
                .map(|gauge| gauge.taken.used)
                .max()
                .unwrap_or(0),
            None => account.map_or(0, |account| account.used),
        };
        Ok(Step {
            answer: Answer::Corrected(vec![(
                reset.subject.clone(),
                reset.resource.clone(),
                before,
            )]),
            changes: vec![Change::UsageReset(reset.clone())],
        })
    }

    pub(crate) fn correct_usage(
        &self,
        now: Timestamp,
        correct: &CorrectUsage,
    ) -> Result<Step, Rejection> {
        self.guard_use(&correct.amounts, Use::Correct)?;
        let names = charge_set(&correct.subject, &correct.also);
        let unknown = names.iter().find(|name| self.subject(name).is_none());
        if let Some(unknown) = unknown {
            return Err(Rejection::NoSubject(SubjectName::of_checked(unknown)));
        }
        let scene = self.scene(correct.subject.as_str(), &names, now);
        let mut before = Vec::new();
        for (resource, change) in &correct.amounts {
            for line in scene.lines() {
                let counted = guard_correction(now, line, resource, *change, correct.past)?;
                let name = SubjectName::of_checked(line.name());
                before.push((name, resource.clone(), counted));
            }
        }
        Ok(Step {
            answer: Answer::Corrected(before),
            changes: vec![Change::UsageCorrected(correct.clone())],
        })
    }
}

/// Guards that no count of a subject leaves its bounds; the lifetime count before.
fn guard_correction(
    now: Timestamp,
    line: &Line<'_>,
    resource: &ResourceKey,
    change: i64,
    past: bool,
) -> Result<i64, Rejection> {
    let account = line.account(resource);
    let held = account.map_or(0, |account| account.held);
    let guard = |window, counted: i64| {
        let after = counted.saturating_add(change);
        match after < 0 || after.saturating_add(held) > ACCOUNT_MAX {
            true => Err(Rejection::CorrectionTooLarge {
                subject: line.name().to_owned(),
                resource: resource.clone(),
                window,
                counted,
                change,
            }),
            false => Ok(()),
        }
    };
    let lifetime = account.map_or(0, |account| account.used);
    guard("", lifetime)?;
    if past {
        return Ok(lifetime);
    }
    for (period, since) in line.definitions(resource) {
        let counted = account.map(|account| account.counted(period, since, now));
        if !period.is_none() {
            let counted = counted.map_or(0, |counted| counted.used);
            guard(" in a period that is under way", counted)?;
        }
    }
    Ok(lifetime)
}

/// The field of a request without a list of amounts.
fn rename_resource(rejection: Rejection) -> Rejection {
    match rejection {
        Rejection::Invalid(mut violations) => {
            for violation in &mut violations {
                violation.field = "resource".into();
            }
            Rejection::Invalid(violations)
        }
        other => other,
    }
}
