//! The one evaluation behind every decision: pure, over whatever state it is shown (C5.1). The writer
//! shows it the ledger, a Check shows it published copies, and both get the same answer.

use std::sync::Arc;

use crate::amount::{ACCOUNT_MAX, Account, Limit};
use crate::defaults::{Defaults, PatternQuotas};
use crate::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use crate::quota::Quota;
use crate::resource::{Resources, WithoutQuota};
use crate::subject::Subject;

/// Why a limit refuses (C5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The account is too full.
    Limit,
    /// The amount alone cannot fit, or the account would pass [`ACCOUNT_MAX`].
    TooLarge,
    /// The resource must have a quota and has none.
    NoQuota,
}

/// One limit that refuses, with the numbers that say why; amounts in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The subject whose account it bounds.
    pub subject: SubjectName,
    /// The resource.
    pub resource: ResourceKey,
    /// The quota; absent where none is involved.
    pub quota: Option<Id>,
    /// The pattern that the quota was set on; absent for the subject's own.
    pub pattern: Option<SubjectPattern>,
    /// Why.
    pub reason: Reason,
    /// The limit; absent where no quota is involved.
    pub limit: Option<Limit>,
    /// In use before.
    pub used: i64,
    /// Held before.
    pub held: i64,
    /// Asked of this account.
    pub requested: i64,
    /// What is missing; at least 1.
    pub shortfall: i64,
}

/// How growth is decided (C6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// All or nothing, within every limit.
    Strict,
    /// It has happened: limits are reported and do not refuse.
    Record,
}

/// What the authority decides (C5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Everything asked for.
    Granted,
    /// Nothing.
    Denied,
}

/// A decision with all that led to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Every limit that refuses; empty when granted.
    pub refusals: Vec<Finding>,
    /// Every limit that a fact exceeds.
    pub exceeded: Vec<Finding>,
    /// Resources that no quota bounds.
    pub unbounded: Vec<ResourceKey>,
}

/// The least limit on a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EffectiveLimit {
    /// The limit.
    pub limit: Limit,
    /// The subject whose account it bounds.
    pub subject: SubjectName,
    /// The quota.
    pub quota: Id,
}

/// A quota in force on one subject.
#[derive(Clone, Debug)]
pub struct InForce<'a> {
    /// The quota.
    pub quota: &'a Arc<Quota>,
    /// The pattern that it was set on; absent for the subject's own.
    pub pattern: Option<&'a SubjectPattern>,
}

/// One subject of a charge set, as the evaluation sees it.
pub struct Line<'a> {
    name: &'a str,
    subject: Option<&'a Subject>,
    defaults: Vec<&'a Arc<PatternQuotas>>,
}

/// A charge set in its canonical order, with the state to evaluate.
pub struct Scene<'a> {
    lines: Vec<Line<'a>>,
    /// Name of the subject that the request names first.
    subject: &'a str,
    resources: &'a Resources,
}

impl<'a> Scene<'a> {
    /// Shows the subjects of a charge set; a subject that does not exist yet has empty accounts, and the
    /// defaults of its name apply to it.
    pub fn new(
        subject: &'a str,
        names: impl IntoIterator<Item = (&'a str, Option<&'a Subject>)>,
        defaults: &'a Defaults,
        resources: &'a Resources,
    ) -> Self {
        let lines = names
            .into_iter()
            .map(|(name, subject)| Line {
                name,
                subject,
                defaults: defaults.matching(name),
            })
            .collect();
        Self {
            lines,
            subject,
            resources,
        }
    }

    /// Decides growth by `amounts` (base units, each positive) of every account in the charge set.
    pub fn evaluate(&self, amounts: &[(ResourceKey, i64)], mode: Mode) -> Verdict {
        let mut refusals = Vec::new();
        let mut exceeded = Vec::new();
        let mut unbounded = Vec::new();
        for (resource, requested) in amounts {
            let mut bounded = false;
            for line in &self.lines {
                let account = line.account(resource);
                if account.taken().saturating_add(*requested) > ACCOUNT_MAX {
                    refusals.push(line.overflow(resource, account, *requested));
                }
                for in_force in line.in_force(resource) {
                    bounded = true;
                    let found = line.exceeds(&in_force, account, *requested);
                    match mode {
                        Mode::Strict => refusals.extend(found),
                        Mode::Record => exceeded.extend(found),
                    }
                }
            }
            if !bounded {
                match (self.without_quota(resource), mode) {
                    (WithoutQuota::Allow, _) => unbounded.push(resource.clone()),
                    (WithoutQuota::Deny, Mode::Strict) => {
                        refusals.extend(self.no_quota(resource, *requested));
                    }
                    (WithoutQuota::Deny, Mode::Record) => {
                        exceeded.extend(self.no_quota(resource, *requested));
                    }
                }
            }
        }
        let decision = if refusals.is_empty() {
            Decision::Granted
        } else {
            exceeded.clear();
            Decision::Denied
        };
        Verdict {
            decision,
            refusals,
            exceeded,
            unbounded,
        }
    }

    /// The least limit on the path, the one nearest the root where several are least (C4.4).
    pub fn effective_limit(&self, resource: &ResourceKey) -> Option<EffectiveLimit> {
        let mut least: Option<EffectiveLimit> = None;
        for line in &self.lines {
            for in_force in line.in_force(resource) {
                let limit = in_force.quota.limit;
                if least
                    .as_ref()
                    .is_none_or(|least| limit.is_below(least.limit))
                {
                    least = Some(EffectiveLimit {
                        limit,
                        subject: SubjectName::of_checked(line.name),
                        quota: in_force.quota.id.clone(),
                    });
                }
            }
        }
        least
    }

    /// The subjects, in canonical order.
    pub fn lines(&self) -> &[Line<'a>] {
        &self.lines
    }

    fn without_quota(&self, resource: &ResourceKey) -> WithoutQuota {
        self.resources
            .get(resource.as_str())
            .map_or(WithoutQuota::Allow, |resource| resource.without_quota)
    }

    fn no_quota(&self, resource: &ResourceKey, requested: i64) -> Option<Finding> {
        let line = self.lines.iter().find(|line| line.name == self.subject)?;
        let account = line.account(resource);
        let finding = line.finding(resource, account, requested);
        Some(Finding {
            reason: Reason::NoQuota,
            shortfall: requested,
            ..finding
        })
    }
}

impl<'a> Line<'a> {
    /// What the subject has of a resource.
    pub fn account(&self, resource: &ResourceKey) -> Account {
        self.subject
            .map(|subject| subject.account(resource))
            .unwrap_or_default()
    }

    /// Quotas in force on this subject: its own, and of the matching defaults those whose id neither it
    /// nor a more specific pattern has (C4.2).
    pub fn in_force(&self, resource: &ResourceKey) -> Vec<InForce<'a>> {
        let mut found: Vec<InForce<'a>> = Vec::new();
        if let Some(subject) = self.subject {
            found.extend(
                subject
                    .quotas
                    .iter()
                    .filter(|quota| quota.resource == *resource)
                    .map(|quota| InForce {
                        quota,
                        pattern: None,
                    }),
            );
        }
        for entry in &self.defaults {
            for quota in entry.quotas.iter() {
                let covered = || found.iter().any(|have| have.quota.id == quota.id);
                if quota.resource == *resource && !covered() {
                    found.push(InForce {
                        quota,
                        pattern: Some(&entry.pattern),
                    });
                }
            }
        }
        found
    }

    /// Every resource with an account or a quota in force here, by key.
    pub fn resources(&self) -> Vec<ResourceKey> {
        let own = self.subject.into_iter().flat_map(|subject| {
            let accounts = subject.accounts().iter().map(|(key, _)| key.clone());
            accounts.chain(subject.quotas.iter().map(|quota| quota.resource.clone()))
        });
        let defaults = self
            .defaults
            .iter()
            .flat_map(|entry| entry.quotas.iter().map(|quota| quota.resource.clone()));
        let mut keys: Vec<ResourceKey> = own.chain(defaults).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn exceeds(&self, in_force: &InForce<'_>, account: Account, requested: i64) -> Vec<Finding> {
        let quota = in_force.quota;
        let finding = |reason, limit, shortfall| Finding {
            quota: Some(quota.id.clone()),
            pattern: in_force.pattern.cloned(),
            reason,
            limit: Some(Limit::Value(limit)),
            shortfall,
            ..self.finding(&quota.resource, account, requested)
        };
        let mut found = Vec::new();
        if let Some(most) = quota.max_request.filter(|most| requested > *most) {
            found.push(finding(
                Reason::TooLarge,
                most,
                requested.saturating_sub(most),
            ));
        }
        if let Limit::Value(limit) = quota.limit {
            let shortfall = account
                .taken()
                .saturating_add(requested)
                .saturating_sub(limit);
            if shortfall > 0 {
                let alone = requested > limit;
                let reason = if alone {
                    Reason::TooLarge
                } else {
                    Reason::Limit
                };
                found.push(finding(reason, limit, shortfall));
            }
        }
        found
    }

    fn overflow(&self, resource: &ResourceKey, account: Account, requested: i64) -> Finding {
        let beyond = account.taken().saturating_add(requested);
        Finding {
            reason: Reason::TooLarge,
            shortfall: beyond.saturating_sub(ACCOUNT_MAX),
            ..self.finding(resource, account, requested)
        }
    }

    fn finding(&self, resource: &ResourceKey, account: Account, requested: i64) -> Finding {
        Finding {
            subject: SubjectName::of_checked(self.name),
            resource: resource.clone(),
            quota: None,
            pattern: None,
            reason: Reason::Limit,
            limit: None,
            used: account.used,
            held: account.held,
            requested,
            shortfall: 0,
        }
    }
}
