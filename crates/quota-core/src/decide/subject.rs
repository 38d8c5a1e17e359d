//! Subjects: created and described by administrators.

use std::sync::Arc;

use crate::Ledger;
use crate::command::{Existence, SetSubject};
use crate::decide::Step;
use crate::decide::resource::{guard_etag, guard_existence};
use crate::event::Change;
use crate::name::SubjectName;
use crate::outcome::Answer;
use crate::rejection::{Rejection, Violation};
use crate::resource::Kind;
use crate::subject::{Profile, Subject};
use crate::time::Timestamp;

impl Ledger {
    pub(crate) fn set_subject(&self, now: Timestamp, set: &SetSubject) -> Result<Step, Rejection> {
        let what = || format!("subject {}", set.name);
        let live = self.subject(set.name.as_str());
        if live.is_none() && set.existence == Existence::Known {
            return Err(Rejection::NoSubject(set.name.clone()));
        }
        guard_existence(live.is_some(), set.existence, what)?;
        guard_etag(live.map(|live| live.profile.version), &set.etag, what)?;
        let lineup = self.lineup(&set.name, &[]);
        self.guard_capacity(&lineup)?;

        let profile = Arc::new(Profile {
            display_name: set.display_name.clone(),
            labels: set.labels.clone(),
            incarnation: live.map_or(self.next_revision(), |live| live.profile.incarnation),
            created: live.map_or(now, |live| live.profile.created),
            updated: now,
            version: self.next_revision(),
        });
        let name = set.name.clone();
        let answer = Answer::Subject(Box::new(Subject::new(name.clone(), profile.clone())));
        let above = lineup.split_last().map_or(&[][..], |(_, above)| above);
        let mut changes = self.births(now, above);
        changes.push(match live {
            Some(_) => Change::SubjectChanged { name, profile },
            None => Change::SubjectCreated { name, profile },
        });
        Ok(Step { answer, changes })
    }

    pub(crate) fn delete_subject(
        &self,
        now: Timestamp,
        name: &SubjectName,
        etag: &str,
    ) -> Result<Step, Rejection> {
        if name.is_system() {
            let text = "is the root, which cannot be deleted";
            return Err(Rejection::Invalid(vec![Violation::new("name", text)]));
        }
        let Some(live) = self.subject(name.as_str()) else {
            return Err(Rejection::NoSubject(name.clone()));
        };
        guard_etag(Some(live.profile.version), etag, || {
            format!("subject {name}")
        })?;
        for (resource, account) in live.accounts() {
            let kept = matches!(self.kind(resource), Kind::Allocation | Kind::Concurrency);
            let taken = account.at(now);
            if kept && taken.sum() > 0 {
                return Err(Rejection::SubjectInUse {
                    subject: name.clone(),
                    resource: resource.clone(),
                    used: taken.used,
                    held: taken.held,
                });
            }
        }
        Ok(Step {
            answer: Answer::Deleted,
            changes: vec![Change::SubjectDeleted { name: name.clone() }],
        })
    }
}
