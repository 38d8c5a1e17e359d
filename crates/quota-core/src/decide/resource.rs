//! Resources: created, described and deleted by administrators (C3.1).

use std::sync::Arc;

use crate::Ledger;
use crate::command::{Existence, SetResource};
use crate::decide::Step;
use crate::event::Change;
use crate::name::{ResourceKey, SYSTEM};
use crate::outcome::Answer;
use crate::rejection::{Rejection, Violation};
use crate::resource::{Kind, RESOURCES_MAX, Resource};

impl Ledger {
    pub(crate) fn set_resource(&self, set: &SetResource) -> Result<Step, Rejection> {
        let what = || format!("resource {}", set.key);
        let live = self.resources.get(set.key.as_str());
        if live.is_none() && set.existence == Existence::Known {
            return Err(Rejection::ResourceUnknown(set.key.clone()));
        }
        guard_existence(live.is_some(), set.existence, what)?;
        guard_etag(live.map(|live| live.version), &set.etag, what)?;
        match live {
            Some(live) => guard_fixed(live, set)?,
            None if set.kind == Kind::Measured => {
                let text = "MEASURED is not supported by this version; the other kinds are";
                let violation = Violation::new("resource.kind", text);
                return Err(Rejection::Invalid(vec![violation]));
            }
            None if self.resources.count() >= RESOURCES_MAX => {
                return Err(Rejection::Capacity {
                    what: "resources",
                    most: RESOURCES_MAX,
                });
            }
            None => {}
        }

        let resource = Arc::new(Resource {
            key: set.key.clone(),
            kind: set.kind,
            base_unit: set.base_unit.clone(),
            display_unit: set.display_unit.clone(),
            display_ratio: set.display_ratio,
            without_quota: set.without_quota,
            display_name: set.display_name.clone(),
            built_in: live.is_some_and(|live| live.built_in),
            version: self.next_revision(),
        });
        Ok(Step {
            answer: Answer::Resource(resource.clone()),
            changes: vec![Change::ResourceSet(resource)],
        })
    }

    pub(crate) fn delete_resource(&self, key: &ResourceKey, etag: &str) -> Result<Step, Rejection> {
        let Some(live) = self.resources.get(key.as_str()) else {
            return Err(Rejection::ResourceUnknown(key.clone()));
        };
        guard_etag(Some(live.version), etag, || format!("resource {key}"))?;
        let in_use = |why| {
            let key = key.clone();
            Err(Rejection::ResourceInUse { key, why })
        };
        if live.built_in {
            return in_use("is built in");
        }
        if self.quotas_on.get(key).is_some_and(|count| *count > 0) {
            return in_use("has quotas; delete them first");
        }
        let charged = self
            .subject(SYSTEM)
            .is_some_and(|root| root.accounts().iter().any(|(have, _)| have == key));
        if charged {
            return in_use("was charged; its accounts cannot be read without it");
        }
        Ok(Step {
            answer: Answer::Deleted,
            changes: vec![Change::ResourceDeleted(key.clone())],
        })
    }
}

fn guard_fixed(live: &Resource, set: &SetResource) -> Result<(), Rejection> {
    let mut violations = Vec::new();
    if set.kind != live.kind {
        let kind = live.kind.name();
        let text = format!("is {kind} and cannot change");
        violations.push(Violation::new("resource.kind", text));
    }
    if set.base_unit != live.base_unit {
        let text = format!("is {:?} and cannot change", live.base_unit);
        violations.push(Violation::new("resource.base_unit", text));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Rejection::Invalid(violations))
    }
}

pub(super) fn guard_existence(
    exists: bool,
    existence: Existence,
    what: impl Fn() -> String,
) -> Result<(), Rejection> {
    if exists && existence == Existence::New {
        return Err(Rejection::Exists(what()));
    }
    Ok(())
}

/// An etag is the decimal version; an empty one fits every version, none fits what does not exist.
pub(super) fn guard_etag(
    version: Option<u64>,
    etag: &str,
    what: impl Fn() -> String,
) -> Result<(), Rejection> {
    let actual = version
        .map(|version| version.to_string())
        .unwrap_or_default();
    if !etag.is_empty() && etag != actual {
        return Err(Rejection::EtagMismatch {
            what: what(),
            expected: etag.to_owned(),
            actual,
        });
    }
    Ok(())
}
