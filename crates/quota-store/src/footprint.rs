//! What a batch leaves in the accounts: as much of it as the history of usage is made of.
//!
//! A busy server writes thousands of answers and rows a second that history has no use for. Reading a batch as
//! [`Contents`](crate::batch::Contents) decodes all of them; here they are passed over unread, so that who follows
//! the journal takes little of the processors that the writer needs.

use std::sync::Arc;

use quota_core::name::{ResourceKey, SubjectName};
use quota_core::quota::{QuotaList, Target};
use quota_core::record::{Record, RecordKey};
use quota_core::time::Timestamp;

use crate::format::{self, Field, Fields, FormatError};

/// What one batch did to accounts.
#[derive(Clone, PartialEq, Debug)]
pub struct Footprint {
    /// When it was decided: the instant that the events bear of what changed accounts.
    pub now: Timestamp,
    /// Accounts of every subject that changed, afterwards.
    pub subjects: Vec<(SubjectName, Option<Standing>)>,
    /// Quotas that changed, afterwards; empty where they are gone.
    pub quotas: Vec<(Target, Arc<QuotaList>)>,
    /// What happened, in order.
    pub acts: Vec<Act>,
}

/// The accounts of a subject that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its incarnation.
    pub incarnation: u64,
    /// Its accounts: in use or ever counted, and held, in base units. Those rows included whose time is over and
    /// that nobody has closed yet.
    pub accounts: Vec<(ResourceKey, i64, i64)>,
}

/// One thing that happened to accounts. Amounts in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// A charge set was charged, or given back to.
    Charged {
        /// The subject.
        subject: SubjectName,
        /// The further subjects, in canonical order.
        also: Vec<SubjectName>,
        /// What changed of what is in use or was counted.
        used: Vec<(ResourceKey, i64)>,
        /// What changed of what is held.
        held: Vec<(ResourceKey, i64)>,
        /// Where time ended it, from when on it did not count any more.
        over: Option<Timestamp>,
    },
    /// What was counted was corrected.
    Corrected {
        /// The subject.
        subject: SubjectName,
        /// The further subjects, in canonical order.
        also: Vec<SubjectName>,
        /// What was added.
        amounts: Vec<(ResourceKey, i64)>,
    },
    /// Counts were set to zero.
    Reset {
        /// The subject.
        subject: SubjectName,
        /// The resource.
        resource: ResourceKey,
    },
    /// Commands were refused.
    Refused {
        /// Who asked.
        subject: SubjectName,
        /// Whose limit it was.
        limit_of: SubjectName,
        /// The resource.
        resource: ResourceKey,
        /// How many.
        count: u64,
    },
}

impl Act {
    /// Whether it changed accounts.
    fn is_of_accounts(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

impl Footprint {
    /// Reads it from the bytes of a batch.
    pub fn read(body: &[u8]) -> Result<Self, FormatError> {
        let mut footprint = Self {
            now: Timestamp::default(),
            subjects: Vec::new(),
            quotas: Vec::new(),
            acts: Vec::new(),
        };
        let mut decided = None;
        for field in Fields::new(format::versioned(body)?) {
            match field? {
                (1, now) => footprint.now = Timestamp::from_nanos(now.int()?),
                (4, event) => {
                    let (at, act) = act(event.bytes()?)?;
                    // What is told besides is a little later, and the batch later still.
                    if act.as_ref().is_some_and(Act::is_of_accounts) {
                        decided.get_or_insert(at);
                    }
                    footprint.acts.extend(act);
                }
                (5, image) => footprint.take(image.bytes()?)?,
                _ => {}
            }
        }
        footprint.now = decided.unwrap_or(footprint.now);
        Ok(footprint)
    }

    fn take(&mut self, image: &[u8]) -> Result<(), FormatError> {
        let (mut key, mut record) = (&[][..], None);
        for field in Fields::new(image) {
            match field? {
                (1, field) => key = field.bytes()?,
                (2, field) => record = Some(field.bytes()?),
                _ => {}
            }
        }
        if format::is_of_a_row(key) {
            return Ok(());
        }
        match format::key_of_bytes(key)? {
            RecordKey::Subject(name) => {
                let standing = record.map(standing).transpose()?;
                self.subjects.push((name, standing));
            }
            key @ RecordKey::Quotas(_) => {
                let read = |bytes| format::record_of_bytes(&key, bytes);
                let list = match record.map(read).transpose()? {
                    Some(Record::Quotas(list)) => list,
                    _ => Arc::default(),
                };
                if let RecordKey::Quotas(target) = key {
                    self.quotas.push((target, list));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn standing(record: &[u8]) -> Result<Standing, FormatError> {
    let mut standing = Standing {
        incarnation: 0,
        accounts: Vec::new(),
    };
    for field in Fields::new(format::versioned(record)?) {
        match field? {
            (1, profile) => {
                for field in Fields::new(profile.bytes()?) {
                    if let (3, incarnation) = field? {
                        standing.incarnation = incarnation.uint()?;
                    }
                }
            }
            (2, account) => {
                let (mut resource, mut used, mut held) = ("", 0, 0);
                for field in Fields::new(account.bytes()?) {
                    match field? {
                        (1, field) => resource = field.text()?,
                        (2, field) => used = field.int()?,
                        (3, field) => held = field.int()?,
                        _ => {}
                    }
                }
                let resource = ResourceKey::parse(resource)?;
                standing.accounts.push((resource, used, held));
            }
            _ => {}
        }
    }
    Ok(standing)
}

/// When an event happened, and what of it matters here: of most nothing is looked at.
fn act(event: &[u8]) -> Result<(Timestamp, Option<Act>), FormatError> {
    let (mut at, mut act) = (Timestamp::default(), None);
    for field in Fields::new(event) {
        match field? {
            (1, field) => at = Timestamp::from_nanos(field.int()?),
            (12, field) => act = Some(charged(field.bytes()?)?),
            (15, field) => act = Some(reset(field.bytes()?)?),
            (16, field) => act = Some(corrected(field.bytes()?)?),
            (22, field) => act = Some(refused(field.bytes()?)?),
            _ => {}
        }
    }
    Ok((at, act))
}

fn charged(body: &[u8]) -> Result<Act, FormatError> {
    let (mut subject, mut over) = ("", None);
    let (mut also, mut used, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for field in Fields::new(body) {
        match field? {
            (1, field) => subject = field.text()?,
            (2, field) => also.push(SubjectName::parse(field.text()?)?),
            (3, field) => used.push(amount(field)?),
            (4, field) => held.push(amount(field)?),
            (10, field) => over = Some(Timestamp::from_nanos(field.int()?)),
            _ => {}
        }
    }
    Ok(Act::Charged {
        subject: SubjectName::parse(subject)?,
        also,
        used,
        held,
        over,
    })
}

fn corrected(body: &[u8]) -> Result<Act, FormatError> {
    let (mut subject, mut also, mut amounts) = ("", Vec::new(), Vec::new());
    for field in Fields::new(body) {
        match field? {
            (1, field) => subject = field.text()?,
            (2, field) => also.push(SubjectName::parse(field.text()?)?),
            (3, field) => amounts.push(amount(field)?),
            _ => {}
        }
    }
    Ok(Act::Corrected {
        subject: SubjectName::parse(subject)?,
        also,
        amounts,
    })
}

fn reset(body: &[u8]) -> Result<Act, FormatError> {
    let (mut subject, mut resource) = ("", "");
    for field in Fields::new(body) {
        match field? {
            (1, field) => subject = field.text()?,
            (2, field) => resource = field.text()?,
            _ => {}
        }
    }
    Ok(Act::Reset {
        subject: SubjectName::parse(subject)?,
        resource: ResourceKey::parse(resource)?,
    })
}

fn refused(body: &[u8]) -> Result<Act, FormatError> {
    let (mut subject, mut limit_of, mut resource, mut count) = ("", "", "", 0);
    for field in Fields::new(body) {
        match field? {
            (1, field) => subject = field.text()?,
            (2, finding) => {
                for field in Fields::new(finding.bytes()?) {
                    match field? {
                        (1, field) => limit_of = field.text()?,
                        (2, field) => resource = field.text()?,
                        _ => {}
                    }
                }
            }
            (3, field) => count = field.uint()?,
            _ => {}
        }
    }
    Ok(Act::Refused {
        subject: SubjectName::parse(subject)?,
        limit_of: SubjectName::parse(limit_of)?,
        resource: ResourceKey::parse(resource)?,
        count,
    })
}

fn amount(field: Field<'_>) -> Result<(ResourceKey, i64), FormatError> {
    let (mut resource, mut amount) = ("", 0);
    for field in Fields::new(field.bytes()?) {
        match field? {
            (1, field) => resource = field.text()?,
            (2, field) => amount = field.int()?,
            _ => {}
        }
    }
    Ok((ResourceKey::parse(resource)?, amount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Contents, Stamp};
    use quota_core::event::{Cause, Change, Charged, Event};
    use quota_core::record::Image;
    use quota_core::subject::Profile;

    fn name(text: &str) -> SubjectName {
        SubjectName::parse(text).unwrap()
    }

    /// What is passed over here and what is read stand in one message: their numbers agree.
    #[test]
    fn it_is_what_the_batch_says() {
        let cpu = ResourceKey::parse("compute.cpu").unwrap();
        let at = Timestamp::from_nanos(77);
        let account = quota_core::account::Account {
            used: 5,
            held: 2,
            ..Default::default()
        };
        let profile = Profile {
            display_name: "A".into(),
            labels: Default::default(),
            incarnation: 9,
            created: at,
            updated: at,
            version: 4,
        };
        let subject = |text: &str, record| Image {
            key: RecordKey::Subject(name(text)),
            record,
            fresh: false,
        };
        let images = [
            subject(
                "tenants/a",
                Some(Record::Subject {
                    profile: Arc::new(profile),
                    accounts: vec![(cpu.clone(), account)],
                }),
            ),
            subject("tenants/b", None),
        ];
        let charged = Charged {
            subject: name("tenants/a"),
            also: vec![name("tenants/a/teams/t")],
            used: vec![(cpu.clone(), 5)],
            held: vec![(cpu.clone(), -1)],
            allocation: None,
            born: false,
            hold: None,
            cause: Cause::Expire,
            facts: Vec::new(),
            shadows: Vec::new(),
            over: Some(at),
        };
        let event = Event {
            at,
            revision: 1,
            operation: None,
            provenance: Arc::default(),
            change: Change::Charged(Box::new(charged)),
        };
        let stamp = Stamp {
            now: at,
            boot_id: [0; 16],
            boot_ns: 1,
            suspect: false,
            waiting: false,
        };
        let batch = Batch::new(Vec::new(), stamp, 1, 1, &[event], &images);
        let footprint = Footprint::read(batch.body()).unwrap();
        assert_eq!(
            footprint.now,
            Contents::read(batch.body()).unwrap().stamp.now
        );
        let standing = Standing {
            incarnation: 9,
            accounts: vec![(cpu.clone(), 5, 2)],
        };
        let expected = [
            (name("tenants/a"), Some(standing)),
            (name("tenants/b"), None),
        ];
        assert_eq!(footprint.subjects, expected);
        let act = Act::Charged {
            subject: name("tenants/a"),
            also: vec![name("tenants/a/teams/t")],
            used: vec![(cpu.clone(), 5)],
            held: vec![(cpu, -1)],
            over: Some(at),
        };
        assert_eq!(footprint.acts, [act]);
    }
}
