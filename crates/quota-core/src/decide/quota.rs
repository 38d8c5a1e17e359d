//! Quotas: set and deleted by administrators. Usage is never touched (C4.9).

use std::sync::Arc;

use crate::Ledger;
use crate::amount::Limit;
use crate::command::{Existence, SetQuota};
use crate::decide::Step;
use crate::decide::resource::{guard_etag, guard_existence};
use crate::event::Change;
use crate::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use crate::outcome::Answer;
use crate::quota::{
    PATTERNS_MAX, QUOTAS_PER_PAIR_MAX, QUOTAS_PER_TARGET_MAX, Quota, QuotaList, Target,
};
use crate::rejection::{Rejection, Violation};
use crate::resource::Kind;
use crate::time::Timestamp;

impl Ledger {
    pub(crate) fn set_quota(&self, now: Timestamp, set: &SetQuota) -> Result<Step, Rejection> {
        let what = || format!("quota {} on {} of {}", set.id, set.resource, set.target);
        let have = self.quotas(&set.target);
        let live = have.and_then(|quotas| quotas.find(&set.resource, &set.id));
        self.guard_quota_resource(&set.resource)?;
        if live.is_none() && set.existence == Existence::Known {
            return Err(self.quota_unknown(&set.target, &set.resource, &set.id));
        }
        guard_existence(live.is_some(), set.existence, what)?;
        guard_etag(live.map(|live| live.version), &set.etag, what)?;
        if live.is_none() {
            self.guard_room(&set.target, &set.resource, have)?;
        }
        let quota = Arc::new(Quota {
            resource: set.resource.clone(),
            id: set.id.clone(),
            limit: set.limit,
            max_request: set.max_request,
            display_name: set.display_name.clone(),
            labels: set.labels.clone(),
            origin: set.origin,
            created: live.map_or(now, |live| live.created),
            updated: now,
            version: self.next_revision(),
        });
        if !set.force {
            match &set.target {
                // What does not lower the limit cuts nothing.
                Target::Subject(_) if live.is_some_and(|l| !set.limit.is_below(l.limit)) => {}
                Target::Subject(name) => self.guard_cut(name, &set.resource, set.limit)?,
                Target::Pattern(pattern) => self.guard_default_lowered(pattern, &quota)?,
            }
        }

        let (warnings, mut changes) = match &set.target {
            Target::Subject(name) => {
                let mut names: Vec<&str> = name.lineage().collect();
                names.reverse();
                self.guard_capacity(&names)?;
                (self.above_parent(name, &quota), self.births(now, &names))
            }
            Target::Pattern(_) => (Vec::new(), Vec::new()),
        };
        changes.push(Change::QuotaSet {
            target: set.target.clone(),
            quota: quota.clone(),
        });
        Ok(Step {
            answer: Answer::Quota {
                target: set.target.clone(),
                quota,
                warnings,
            },
            changes,
        })
    }

    pub(crate) fn delete_quota(
        &self,
        target: &Target,
        resource: &ResourceKey,
        id: &Id,
        etag: &str,
        force: bool,
    ) -> Result<Step, Rejection> {
        let Some(live) = self
            .quotas(target)
            .and_then(|quotas| quotas.find(resource, id))
        else {
            return Err(self.quota_unknown(target, resource, id));
        };
        guard_etag(Some(live.version), etag, || {
            format!("quota {id} on {resource} of {target}")
        })?;
        if !force {
            self.guard_uncovered(target, live)?;
        }
        Ok(Step {
            answer: Answer::Deleted,
            changes: vec![Change::QuotaDeleted {
                target: target.clone(),
                resource: resource.clone(),
                id: id.clone(),
            }],
        })
    }

    fn guard_quota_resource(&self, key: &ResourceKey) -> Result<(), Rejection> {
        let wrong = match self.resources.get(key.as_str()) {
            None => format!("{key} is not a resource; `ListResources` names them"),
            Some(resource) if resource.kind != Kind::Allocation => format!(
                "{key} is of kind {}; this version keeps ALLOCATION resources only",
                resource.kind.name()
            ),
            Some(_) => return Ok(()),
        };
        let violation = Violation::new("quota.resource", wrong);
        Err(Rejection::Invalid(vec![violation]))
    }

    fn guard_room(
        &self,
        target: &Target,
        resource: &ResourceKey,
        have: Option<&QuotaList>,
    ) -> Result<(), Rejection> {
        let full = |what, most| Err(Rejection::Capacity { what, most });
        if have.is_some_and(|quotas| quotas.len() >= QUOTAS_PER_TARGET_MAX) {
            return full("quotas of one subject or pattern", QUOTAS_PER_TARGET_MAX);
        }
        let same = |quotas: &QuotaList| quotas.iter().filter(|q| q.resource == *resource).count();
        if have.map_or(0, same) >= QUOTAS_PER_PAIR_MAX {
            return full("quotas on one resource of one subject", QUOTAS_PER_PAIR_MAX);
        }
        let new_pattern = have.is_none() && matches!(target, Target::Pattern(_));
        if new_pattern && self.defaults.len() >= PATTERNS_MAX {
            return full("patterns with default quotas", PATTERNS_MAX);
        }
        Ok(())
    }

    /// A limit below what is taken stops all growth until it is given back: not by accident (C4.9).
    fn guard_cut(
        &self,
        name: &SubjectName,
        resource: &ResourceKey,
        limit: Limit,
    ) -> Result<(), Rejection> {
        let account = self
            .subjects
            .get(name)
            .map(|subject| subject.account(resource))
            .unwrap_or_default();
        match limit {
            Limit::Value(limit) if limit < account.taken() => Err(Rejection::ForceNeeded(format!(
                "{name} has {} of {resource} used and {} held, above the limit of {limit}",
                account.used, account.held
            ))),
            _ => Ok(()),
        }
    }

    /// Lowering a default may put any number of subjects above it and looks at none (C4.9). It is lowered
    /// where the pattern had a higher one, or where a less specific pattern's higher one applied.
    fn guard_default_lowered(
        &self,
        pattern: &SubjectPattern,
        quota: &Quota,
    ) -> Result<(), Rejection> {
        let own = self
            .defaults
            .get(pattern)
            .and_then(|entry| entry.quotas.find(&quota.resource, &quota.id))
            .map(|live| (pattern, live));
        let covered = self
            .defaults
            .overlapping(pattern, quota)
            .filter(|(other, _)| pattern.is_more_specific_than(other));
        // Where the pattern has one of its own, that is what applied so far.
        let applied: Vec<_> = match own {
            Some(own) => vec![own],
            None => covered.collect(),
        };
        let higher = applied
            .into_iter()
            .find(|(_, live)| quota.limit.is_below(live.limit));
        match higher {
            Some((other, live)) => Err(Rejection::ForceNeeded(format!(
                "the default {} of {} on {other} is {}; {pattern} would lower it to {} for subjects that are not looked at",
                quota.id, quota.resource, live.limit, quota.limit
            ))),
            None => Ok(()),
        }
    }

    /// Without this quota a default of the same id may come into force; a lower one needs force (C4.9).
    fn guard_uncovered(&self, target: &Target, quota: &Quota) -> Result<(), Rejection> {
        let lower = match target {
            Target::Subject(name) => self
                .defaults
                .applying(name.as_str(), &quota.resource, &quota.id)
                .filter(|default| default.limit.is_below(quota.limit))
                .map(|default| default.limit),
            Target::Pattern(pattern) => self
                .defaults
                .overlapping(pattern, quota)
                .filter(|(other, _)| pattern.is_more_specific_than(other))
                .find(|(_, default)| default.limit.is_below(quota.limit))
                .map(|(_, default)| default.limit),
        };
        match lower {
            Some(lower) => Err(Rejection::ForceNeeded(format!(
                "without it a default of {lower} comes into force where {} was",
                quota.limit
            ))),
            None => Ok(()),
        }
    }

    /// A child limit above its parent's is accepted: the parent bounds it all the same (C4.4).
    fn above_parent(&self, name: &SubjectName, quota: &Quota) -> Vec<String> {
        let mut above: Vec<&str> = name.lineage().skip(1).collect();
        above.reverse();
        let bound = self
            .scene(name.as_str(), &above)
            .effective_limit(&quota.resource);
        bound
            .filter(|bound| bound.limit.is_below(quota.limit))
            .map(|bound| {
                format!(
                    "the limit {} is above the {} that {} allows; the lower one bounds",
                    quota.limit, bound.limit, bound.subject
                )
            })
            .into_iter()
            .collect()
    }

    fn quota_unknown(&self, target: &Target, resource: &ResourceKey, id: &Id) -> Rejection {
        Rejection::QuotaUnknown {
            target: target.clone(),
            resource: resource.clone(),
            id: id.clone(),
        }
    }
}
