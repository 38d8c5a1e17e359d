//! What a batch leaves in the accounts: as much of it as the history of usage is made of.
//!
//! A busy server writes thousands of answers and rows a second that history has no use for. Reading a batch as
//! [`Contents`](crate::batch::Contents) decodes all of them; here they are passed over unread, so that who follows
//! the journal takes little of the processors that the writer needs.

use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::quota::{QuotaList, Target};
use quota_core::record::{Record, RecordKey};
use quota_core::time::Timestamp;

use crate::format::{self, FormatError};

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

#[derive(Clone, PartialEq, Message)]
struct FootprintBody {
    #[prost(int64, tag = "1")]
    now: i64,
    #[prost(message, repeated, tag = "4")]
    events: Vec<EventPart>,
    #[prost(message, repeated, tag = "5")]
    images: Vec<ImagePart>,
}

/// An image as it lies in the batch: most are of rows that nobody here looks at.
#[derive(Clone, PartialEq, Message)]
struct ImagePart {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", optional, tag = "2")]
    record: Option<Bytes>,
}

/// The events that matter here; of the others nothing is decoded. In boxes, because there are thousands of them of which
/// most matter not.
#[derive(Clone, PartialEq, Message)]
struct EventPart {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(message, optional, boxed, tag = "12")]
    charged: Option<Box<ChargedPart>>,
    #[prost(message, optional, boxed, tag = "15")]
    reset: Option<Box<ResetPart>>,
    #[prost(message, optional, boxed, tag = "16")]
    corrected: Option<Box<CorrectedPart>>,
    #[prost(message, optional, boxed, tag = "22")]
    refused: Option<Box<RefusedPart>>,
}

#[derive(Clone, PartialEq, Message)]
struct ChargedPart {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, repeated, tag = "2")]
    also: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    used: Vec<format::AmountBody>,
    #[prost(message, repeated, tag = "4")]
    held: Vec<format::AmountBody>,
    #[prost(int64, optional, tag = "10")]
    over: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct ResetPart {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
}

#[derive(Clone, PartialEq, Message)]
struct CorrectedPart {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, repeated, tag = "2")]
    also: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    amounts: Vec<format::AmountBody>,
}

#[derive(Clone, PartialEq, Message)]
struct RefusedPart {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(message, optional, tag = "2")]
    finding: Option<FindingPart>,
    #[prost(uint64, tag = "3")]
    count: u64,
}

#[derive(Clone, PartialEq, Message)]
struct FindingPart {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
}

#[derive(Clone, PartialEq, Message)]
struct SubjectPart {
    #[prost(message, optional, tag = "1")]
    profile: Option<ProfilePart>,
    #[prost(message, repeated, tag = "2")]
    accounts: Vec<AccountPart>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ProfilePart {
    #[prost(uint64, tag = "3")]
    incarnation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AccountPart {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(int64, tag = "2")]
    used: i64,
    #[prost(int64, tag = "3")]
    held: i64,
}

impl Footprint {
    /// Reads it from the bytes of a batch.
    pub fn read(body: Vec<u8>) -> Result<Self, FormatError> {
        let body = Bytes::from(body);
        let message = FootprintBody::decode(body.slice_ref(format::versioned(&body)?))?;
        let mut footprint = Self {
            now: Timestamp::from_nanos(message.now),
            subjects: Vec::new(),
            quotas: Vec::new(),
            acts: Vec::new(),
        };
        let mut decided = None;
        for event in message.events {
            let at = Timestamp::from_nanos(event.at);
            let act = act(event)?;
            // What is told besides is a little later, and the batch later still.
            if act.as_ref().is_some_and(Act::is_of_accounts) {
                decided.get_or_insert(at);
            }
            footprint.acts.extend(act);
        }
        footprint.now = decided.unwrap_or(footprint.now);
        for image in &message.images {
            footprint.take(image)?;
        }
        Ok(footprint)
    }

    fn take(&mut self, image: &ImagePart) -> Result<(), FormatError> {
        if format::is_of_a_row(&image.key) {
            return Ok(());
        }
        match format::key_of_bytes(&image.key)? {
            RecordKey::Subject(name) => {
                let standing = image.record.as_deref().map(standing).transpose()?;
                self.subjects.push((name, standing));
            }
            key @ RecordKey::Quotas(_) => {
                let read = |bytes: &Bytes| format::record_of_bytes(&key, bytes);
                let list = match image.record.as_ref().map(read).transpose()? {
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
    let body = SubjectPart::decode(format::versioned(record)?)?;
    let accounts = body.accounts.into_iter().map(|account| {
        let resource = ResourceKey::parse(&account.resource)?;
        Ok::<_, FormatError>((resource, account.used, account.held))
    });
    Ok(Standing {
        incarnation: body.profile.map_or(0, |profile| profile.incarnation),
        accounts: accounts.collect::<Result<_, _>>()?,
    })
}

fn act(event: EventPart) -> Result<Option<Act>, FormatError> {
    if let Some(body) = event.charged {
        let body = *body;
        return Ok(Some(Act::Charged {
            subject: SubjectName::parse(&body.subject)?,
            also: format::names(&body.also)?,
            used: format::amounts_of_bodies(body.used)?,
            held: format::amounts_of_bodies(body.held)?,
            over: body.over.map(Timestamp::from_nanos),
        }));
    }
    if let Some(body) = event.corrected {
        let body = *body;
        return Ok(Some(Act::Corrected {
            subject: SubjectName::parse(&body.subject)?,
            also: format::names(&body.also)?,
            amounts: format::amounts_of_bodies(body.amounts)?,
        }));
    }
    if let Some(body) = event.reset {
        return Ok(Some(Act::Reset {
            subject: SubjectName::parse(&body.subject)?,
            resource: ResourceKey::parse(&body.resource)?,
        }));
    }
    if let Some(body) = event.refused {
        let finding = body
            .finding
            .ok_or_else(|| FormatError::damaged("a refusal without its limit"))?;
        return Ok(Some(Act::Refused {
            subject: SubjectName::parse(&body.subject)?,
            limit_of: SubjectName::parse(&finding.subject)?,
            resource: ResourceKey::parse(&finding.resource)?,
            count: body.count,
        }));
    }
    Ok(None)
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
        let batch = Batch::new(stamp, 1, 1, &[event], &images);
        let footprint = Footprint::read(batch.body().to_vec()).unwrap();
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
