//! The decisions, one family of commands per file: guards in a column, then the changes.

mod consume;
mod quota;
mod release;
mod resize;
mod resource;
mod subject;

use std::sync::Arc;

use crate::Ledger;
use crate::charge::charge_set;
use crate::command::Amounts;
use crate::event::Change;
use crate::ledger::AutoCreate;
use crate::name::SubjectName;
use crate::outcome::Answer;
use crate::rejection::{Rejection, Violation};
use crate::resource::{Kind, Resources};
use crate::subject::Profile;
use crate::time::Timestamp;

/// A decided command on its way to its reply.
pub(crate) struct Step {
    pub(crate) answer: Answer,
    pub(crate) changes: Vec<Change>,
}

/// Names every amount whose resource is unknown or of a kind that is not held.
pub fn check_held(resources: &Resources, amounts: &Amounts) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (at, (key, _)) in amounts.iter().enumerate() {
        let field = format!("amounts[{at}].resource");
        match resources.get(key.as_str()) {
            None => violations.push(Violation::new(
                field,
                format!("{key} is not a resource; `ListResources` names them"),
            )),
            Some(resource) if resource.kind != Kind::Allocation => {
                violations.push(Violation::new(
                    field,
                    format!(
                        "{key} is of kind {}; this version keeps ALLOCATION resources only",
                        resource.kind.name()
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    violations
}

impl Ledger {
    fn guard_held(&self, amounts: &Amounts) -> Result<(), Rejection> {
        let violations = check_held(&self.resources, amounts);
        if violations.is_empty() {
            Ok(())
        } else {
            Err(Rejection::Invalid(violations))
        }
    }

    /// Guards that all of the charge set exists or may come into being (C2.4).
    fn guard_subjects(&self, subject: &SubjectName, also: &[SubjectName]) -> Result<(), Rejection> {
        let named = || std::iter::once(subject).chain(also);
        match may_be(self.bounds.auto_create, named(), |name| {
            self.subjects.contains_key(name)
        }) {
            Some(unknown) => Err(Rejection::SubjectUnknown(unknown.clone())),
            None => self.guard_capacity(&charge_set(subject, also)),
        }
    }

    fn guard_capacity(&self, names: &[&str]) -> Result<(), Rejection> {
        let unknown = |name: &&&str| !self.subjects.contains_key(**name);
        let coming = names.iter().filter(unknown).count();
        let most = self.bounds.subjects_max;
        if coming > 0 && self.subjects.len().saturating_add(coming) > most {
            return Err(Rejection::Capacity {
                what: "subjects_max",
                most,
            });
        }
        Ok(())
    }

    /// The subjects of `names` that come into being now.
    fn births(&self, now: Timestamp, names: &[&str]) -> Vec<Change> {
        let unknown = names
            .iter()
            .filter(|name| !self.subjects.contains_key(**name));
        unknown
            .map(|name| Change::SubjectCreated {
                name: SubjectName::of_checked(name),
                profile: Arc::new(Profile {
                    display_name: String::new(),
                    labels: Default::default(),
                    incarnation: self.next_revision(),
                    created: now,
                    updated: now,
                    version: self.next_revision(),
                }),
            })
            .collect()
    }

    /// Incarnations of the charge set, in canonical order; those that come into being now included.
    fn incarnations(&self, names: &[&str]) -> Vec<u64> {
        let incarnation = |name: &&str| {
            self.subjects
                .get(*name)
                .map_or(self.next_revision(), |subject| subject.profile.incarnation)
        };
        names.iter().map(incarnation).collect()
    }
}

/// The first of `named` that neither exists nor may come into being with a charge.
pub fn may_be<'a>(
    auto_create: AutoCreate,
    mut named: impl Iterator<Item = &'a SubjectName>,
    exists: impl Fn(&str) -> bool,
) -> Option<&'a SubjectName> {
    named.find(|name| match auto_create {
        AutoCreate::All => false,
        AutoCreate::BelowTop => !exists(name.first_pair()),
        AutoCreate::None => !exists(name.as_str()),
    })
}
