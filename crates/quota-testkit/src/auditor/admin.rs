//! The calls of Admin that are not about quotas.

use super::book::{ACCOUNTS_MOST, Book, Entry, Kind, Resource, What};
use super::calls::{also, amounts};
use super::judge::number;
use super::kind_of;
use crate::script::{self, Call};

impl Book {
    pub(super) fn set_subject(&mut self, call: &Call) -> Result<String, &'static str> {
        let version = self.subjects.get(&call.place).map(|live| live.version);
        self.guard_versions(call, version, "SUBJECT_UNKNOWN")?;
        let names = Self::set(&call.place, &[]);
        self.guard_capacity(&names)?;
        self.be_born(&names);
        if let Some(subject) = self.subjects.get_mut(&call.place) {
            subject.version = self.revision + 1;
        }
        Ok("set".to_owned())
    }

    pub(super) fn delete_subject(&mut self, call: &Call) -> Result<String, &'static str> {
        let name = &call.place;
        if name == "system" {
            return Err("INVALID_FIELDS");
        }
        let live = self.subjects.get(name).ok_or("SUBJECT_UNKNOWN")?;
        self.guard_versions(call, Some(live.version), "SUBJECT_UNKNOWN")?;
        for resource in &self.resources {
            let stays = matches!(resource.kind, Kind::Allocation | Kind::Concurrency);
            if stays && self.used(name, &resource.key) + self.held(name, &resource.key) > 0 {
                return Err("SUBJECT_IN_USE");
            }
        }
        let below = format!("{name}/");
        let gone = |have: &str| have == name || have.starts_with(&below);
        self.subjects.retain(|have, _| !gone(have));
        self.rules.retain(|rule| !gone(&rule.place));
        self.history.push((self.now, self.rules.clone()));
        Ok("deleted".to_owned())
    }

    pub(super) fn set_resource(&mut self, call: &Call) -> Result<String, &'static str> {
        let kind = call.option("kind").unwrap_or("allocation");
        let live = self.resource(&call.place).cloned();
        let version = live.as_ref().map(|live| live.version);
        self.guard_versions(call, version, "RESOURCE_UNKNOWN")?;
        if kind == "measured" {
            return Err("INVALID_FIELDS");
        }
        let kind = kind_of(kind);
        if live.as_ref().is_some_and(|live| live.kind != kind) {
            return Err("INVALID_FIELDS");
        }
        self.resources.retain(|have| have.key != call.place);
        self.resources.push(Resource {
            key: call.place.clone(),
            kind,
            deny: call.has("deny"),
            built_in: live.as_ref().is_some_and(|live| live.built_in),
            version: self.revision + 1,
            charged: live.is_some_and(|live| live.charged),
        });
        Ok("set".to_owned())
    }

    pub(super) fn delete_resource(&mut self, call: &Call) -> Result<String, &'static str> {
        let live = self.resource(&call.place).ok_or("RESOURCE_UNKNOWN")?;
        self.guard_versions(call, Some(live.version), "RESOURCE_UNKNOWN")?;
        let bounded = self.rules.iter().any(|rule| rule.resource == call.place);
        if live.built_in || bounded || live.charged {
            return Err("RESOURCE_IN_USE");
        }
        self.resources.retain(|have| have.key != call.place);
        Ok("deleted".to_owned())
    }

    pub(super) fn reset(&mut self, call: &Call) -> Result<String, &'static str> {
        let resource = call.amounts[0].0.clone();
        self.guard_kinds(&[(resource.clone(), 0)], &[Kind::Counter, Kind::Rate])?;
        let life = self.life(&call.place).ok_or("SUBJECT_UNKNOWN")?;
        let rules = self.in_force(&call.place, &resource);
        let id = call.option("id").map(|id| format!("{resource}.{id}"));
        let taken = |rule| self.taken(&call.place, rule);
        let (was, what) = match &id {
            Some(id) => {
                let rule = rules.iter().find(|rule| rule.id == *id);
                let rule = rule.ok_or("QUOTA_UNKNOWN")?;
                let held = self.held(&call.place, &resource);
                (taken(rule) - held, Some((id.clone(), self.period(rule))))
            }
            None if self.kind(&resource) == Kind::Rate => {
                (rules.iter().map(taken).max().unwrap_or(0), None)
            }
            None => (self.used(&call.place, &resource), None),
        };
        self.entries.push(Entry {
            name: call.place.clone(),
            life,
            resource,
            at: self.now,
            what: What::Reset(what),
        });
        Ok(format!("was {was}"))
    }

    pub(super) fn correct(&mut self, call: &Call) -> Result<String, &'static str> {
        let changes = amounts(call);
        self.guard_kinds(&changes, &[Kind::Counter])?;
        let set = Self::set(&call.place, &also(call)?);
        if set.iter().any(|name| self.life(name).is_none()) {
            return Err("SUBJECT_UNKNOWN");
        }
        let mut before: Vec<(&str, i64)> = Vec::new();
        for (resource, change) in &changes {
            for name in &set {
                let held = self.held(name, resource);
                let mut counts = vec![self.used(name, resource)];
                before.push((name, number(counts[0])));
                if !call.has("past") {
                    let periods = self.periods(name, resource);
                    counts.extend(periods.iter().map(|p| self.counted(name, resource, p)));
                }
                let wrong = |n: i128| n + change < 0 || n + change + held > ACCOUNTS_MOST;
                if counts.into_iter().any(wrong) {
                    return Err("CORRECTION_TOO_LARGE");
                }
            }
        }
        match call.has("past") {
            false => self.count(&set, &changes),
            true => {
                for name in &set {
                    for (resource, change) in &changes {
                        let life = self.life(name).unwrap();
                        self.entries.push(Entry {
                            name: name.clone(),
                            life,
                            resource: resource.clone(),
                            at: self.now,
                            what: What::Past(*change),
                        });
                    }
                }
            }
        }
        Ok(script::corrected(call, &before))
    }
}
