//! Records: keys and values of rows, and of images in batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use quota_core::account::{Account, Count};
use quota_core::allocation::AllocationKey;
use quota_core::ends::Ends;
use quota_core::hold::HoldKey;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::notice::{Level, Standing};
use quota_core::quota::{QuotaList, Target};
use quota_core::rate::Bucket;
use quota_core::record::{Floor, Image, Meta, Record, RecordKey};
use quota_core::resource::{Kind, Resource, WithoutQuota};
use quota_core::subject::Profile;
use quota_core::time::Timestamp;

use super::FormatError;
use super::quota::{
    PeriodBody, QuotaBody, body_of_period, body_of_quota, period_of_body, quota_of_body,
};
use super::row::{
    AllocationBody, HoldBody, allocation_of_body, hold_of_body, write_allocation, write_hold,
};
use super::wire::Wire;

const META: u8 = b'm';
const RESOURCE: u8 = b'r';
const SUBJECT: u8 = b's';
const QUOTAS: u8 = b't';
const ALLOCATION: u8 = b'u';
const HOLD: u8 = b'v';
const DYING: u8 = b'w';
const FLOOR: u8 = b'x';

/// The key of a row: a byte for the kind, in the order in which records are laid out, and the name.
pub(crate) fn key_bytes(key: &RecordKey) -> Vec<u8> {
    let (kind, name) = match key {
        RecordKey::Meta => (META, ""),
        RecordKey::Resource(key) => (RESOURCE, key.as_str()),
        RecordKey::Subject(name) => (SUBJECT, name.as_str()),
        RecordKey::Quotas(target) => (QUOTAS, target.as_str()),
        RecordKey::Allocation(key) => (ALLOCATION, key.as_str()),
        RecordKey::Hold(key) => (HOLD, key.as_str()),
        RecordKey::Dying(name) => (DYING, name.as_str()),
        RecordKey::Floor(lane) => (FLOOR, &**lane),
    };
    let mut bytes = Vec::with_capacity(name.len().saturating_add(1));
    bytes.push(kind);
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

/// Whether it is the key of an allocation, a hold or a floor: what is there, not what it adds up to.
pub(crate) fn is_of_a_row(key: &[u8]) -> bool {
    matches!(key.first(), Some(&ALLOCATION | &HOLD | &FLOOR))
}

pub(crate) fn key_of_bytes(bytes: &[u8]) -> Result<RecordKey, FormatError> {
    let Some((kind, name)) = bytes.split_first() else {
        return Err(FormatError::damaged("an empty key"));
    };
    let name = std::str::from_utf8(name)
        .map_err(|error| FormatError::damaged(format!("a key that is no text: {error}")))?;
    Ok(match *kind {
        META => RecordKey::Meta,
        RESOURCE => RecordKey::Resource(ResourceKey::parse(name)?),
        SUBJECT => RecordKey::Subject(SubjectName::parse(name)?),
        QUOTAS => RecordKey::Quotas(Target::parse(name)?),
        ALLOCATION => RecordKey::Allocation(AllocationKey::from_stored(name)),
        HOLD => RecordKey::Hold(HoldKey::from_stored(name)),
        DYING => RecordKey::Dying(SubjectName::parse(name)?),
        FLOOR => RecordKey::Floor(name.into()),
        other => return Err(FormatError::damaged(format!("a key of kind {other}"))),
    })
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageBody {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// Absent where the record is gone.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) record: Option<Vec<u8>>,
    #[prost(bool, tag = "3")]
    pub(crate) fresh: bool,
}

pub(crate) fn image_of_body(body: &ImageBody) -> Result<Image, FormatError> {
    let key = key_of_bytes(&body.key)?;
    let record = match &body.record {
        Some(bytes) => Some(record_of_bytes(&key, bytes)?),
        None => None,
    };
    Ok(Image {
        key,
        record,
        fresh: body.fresh,
    })
}

#[derive(Clone, PartialEq, Message)]
struct MetaBody {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(message, optional, tag = "2")]
    forgotten: Option<FloorBody>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResourceBody {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    base_unit: String,
    #[prost(string, tag = "4")]
    display_unit: String,
    #[prost(int64, tag = "5")]
    display_ratio: i64,
    #[prost(bool, tag = "6")]
    deny_without_quota: bool,
    #[prost(string, tag = "7")]
    display_name: String,
    #[prost(bool, tag = "8")]
    built_in: bool,
    #[prost(uint64, tag = "9")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProfileBody {
    #[prost(string, tag = "1")]
    display_name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(int64, tag = "4")]
    created: i64,
    #[prost(int64, tag = "5")]
    updated: i64,
    #[prost(uint64, tag = "6")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SubjectBody {
    #[prost(message, optional, tag = "1")]
    profile: Option<ProfileBody>,
    #[prost(message, repeated, tag = "2")]
    accounts: Vec<AccountBody>,
}

#[derive(Clone, PartialEq, Message)]
struct AccountBody {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(int64, tag = "2")]
    used: i64,
    #[prost(int64, tag = "3")]
    held: i64,
    #[prost(message, repeated, tag = "4")]
    counts: Vec<CountBody>,
    #[prost(message, repeated, tag = "5")]
    buckets: Vec<BucketBody>,
    #[prost(message, repeated, tag = "6")]
    standings: Vec<StandingBody>,
}

/// What was last told of an account against a limit.
#[derive(Clone, PartialEq, Message)]
struct StandingBody {
    #[prost(string, tag = "1")]
    quota: String,
    #[prost(bool, tag = "2")]
    over: bool,
    #[prost(int64, optional, tag = "3")]
    until: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct CountBody {
    #[prost(message, optional, tag = "1")]
    period: Option<PeriodBody>,
    #[prost(int64, tag = "2")]
    start: i64,
    #[prost(int64, tag = "3")]
    opened: i64,
    #[prost(int64, tag = "4")]
    used: i64,
}

/// What is owed is 128 bits wide: units × nanoseconds of the interval.
#[derive(Clone, PartialEq, Message)]
struct BucketBody {
    #[prost(string, tag = "1")]
    quota: String,
    #[prost(uint64, tag = "2")]
    owed_high: u64,
    #[prost(uint64, tag = "3")]
    owed_low: u64,
    #[prost(int64, tag = "4")]
    interval_ns: i64,
    #[prost(int64, tag = "5")]
    at: i64,
}

/// A deleted subject whose subtree is not swept yet.
#[derive(Clone, Copy, PartialEq, Message)]
struct DyingBody {
    #[prost(uint64, tag = "1")]
    revision: u64,
}

#[derive(Clone, PartialEq, Message)]
struct QuotasBody {
    #[prost(message, repeated, tag = "1")]
    quotas: Vec<QuotaBody>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AmountBody {
    #[prost(string, tag = "1")]
    pub(crate) resource: String,
    #[prost(int64, tag = "2")]
    pub(crate) amount: i64,
}

#[derive(Clone, PartialEq, Message)]
struct FloorBody {
    #[prost(int64, tag = "1")]
    since: i64,
    #[prost(uint64, tag = "2")]
    outcomes: u64,
    #[prost(uint64, tag = "3")]
    refusals: u64,
}

/// A record on its own, as it stands in a row.
pub(crate) fn record_bytes(record: &Record) -> Vec<u8> {
    let mut wire = Wire::default();
    write_record(record, &mut wire);
    wire.into_bytes()
}

/// The version byte and the record.
pub(crate) fn write_record(record: &Record, wire: &mut Wire) {
    wire.byte(super::VERSION);
    match record {
        Record::Meta(meta) => {
            wire.uint(1, meta.revision);
            wire.message(2, |wire| write_floor(&meta.forgotten, wire));
        }
        Record::Resource(resource) => wire.fields(&body_of_resource(resource)),
        Record::Subject { profile, accounts } => {
            wire.message(1, |wire| write_profile(profile, wire));
            for (resource, account) in accounts {
                wire.message(2, |wire| write_account(resource, account, wire));
            }
        }
        Record::Quotas(quotas) => {
            for quota in quotas.iter() {
                wire.message(1, |wire| wire.fields(&body_of_quota(quota)));
            }
        }
        Record::Allocation(allocation) => write_allocation(allocation, wire),
        Record::Hold(hold) => write_hold(hold, wire),
        Record::Dying(revision) => wire.uint(1, *revision),
        Record::Floor(floor) => write_floor(floor, wire),
    }
}

pub(crate) fn record_of_bytes(key: &RecordKey, bytes: &[u8]) -> Result<Record, FormatError> {
    let bytes = super::versioned(bytes)?;
    Ok(match key {
        RecordKey::Meta => {
            let body = MetaBody::decode(bytes)?;
            Record::Meta(Meta {
                revision: body.revision,
                forgotten: body.forgotten.map(floor_of_body).unwrap_or_default(),
            })
        }
        RecordKey::Resource(_) => {
            Record::Resource(Arc::new(resource_of_body(ResourceBody::decode(bytes)?)?))
        }
        RecordKey::Subject(_) => {
            let body = SubjectBody::decode(bytes)?;
            let profile = body
                .profile
                .ok_or_else(|| FormatError::damaged("a subject without a profile"))?;
            let accounts = body.accounts.into_iter().map(account_of_body);
            Record::Subject {
                profile: Arc::new(profile_of_body(profile)),
                accounts: accounts.collect::<Result<_, FormatError>>()?,
            }
        }
        RecordKey::Quotas(_) => {
            let mut quotas = QuotaList::default();
            for body in QuotasBody::decode(bytes)?.quotas {
                quotas.put(Arc::new(quota_of_body(body)?));
            }
            Record::Quotas(Arc::new(quotas))
        }
        RecordKey::Allocation(_) => Record::Allocation(Arc::new(allocation_of_body(
            AllocationBody::decode(bytes)?,
        )?)),
        RecordKey::Hold(_) => Record::Hold(Arc::new(hold_of_body(HoldBody::decode(bytes)?)?)),
        RecordKey::Dying(_) => Record::Dying(DyingBody::decode(bytes)?.revision),
        RecordKey::Floor(_) => Record::Floor(floor_of_body(FloorBody::decode(bytes)?)),
    })
}

fn write_account(resource: &ResourceKey, account: &Account, wire: &mut Wire) {
    wire.text(1, resource.as_str());
    wire.int(2, account.used);
    wire.int(3, account.held);
    for count in &account.counts {
        wire.message(4, |wire| {
            wire.message(1, |wire| wire.fields(&body_of_period(&count.period)));
            wire.int(2, count.start.nanos());
            wire.int(3, count.opened.nanos());
            wire.int(4, count.used);
        });
    }
    for (quota, bucket) in &account.buckets {
        let (owed, interval_ns, at) = bucket.parts();
        let bytes = owed.to_be_bytes();
        let (high, low) = bytes.split_at(8);
        let half = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("half of 16 bytes"));
        wire.message(5, |wire| {
            wire.text(1, quota.as_str());
            wire.uint(2, half(high));
            wire.uint(3, half(low));
            wire.int(4, interval_ns);
            wire.int(5, at.nanos());
        });
    }
    for (quota, standing) in &account.standings {
        wire.message(6, |wire| {
            wire.text(1, quota.as_str());
            wire.bool(2, standing.level == Level::Over);
            wire.given_int(3, standing.until.map(Timestamp::nanos));
        });
    }
}

fn account_of_body(body: AccountBody) -> Result<(ResourceKey, Account), FormatError> {
    let counts = body.counts.into_iter().map(|count| {
        Ok::<_, FormatError>(Count {
            period: period_of_body(count.period.as_ref())?,
            start: Timestamp::from_nanos(count.start),
            opened: Timestamp::from_nanos(count.opened),
            used: count.used,
        })
    });
    let buckets = body.buckets.into_iter().map(|bucket| {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&bucket.owed_high.to_be_bytes());
        low.copy_from_slice(&bucket.owed_low.to_be_bytes());
        let owed = i128::from_be_bytes(bytes);
        let at = Timestamp::from_nanos(bucket.at);
        let bucket_then = Bucket::of_parts(owed, bucket.interval_ns, at);
        Ok::<_, FormatError>((Id::parse(&bucket.quota)?, bucket_then))
    });
    let standings = body.standings.into_iter().map(|body| {
        let standing = Standing {
            level: match body.over {
                true => Level::Over,
                false => Level::Near,
            },
            until: body.until.map(Timestamp::from_nanos),
        };
        Ok::<_, FormatError>((Id::parse(&body.quota)?, standing))
    });
    let account = Account {
        used: body.used,
        held: body.held,
        ends: Ends::default(),
        counts: counts.collect::<Result<_, _>>()?,
        buckets: buckets.collect::<Result<_, _>>()?,
        standings: standings.collect::<Result<_, _>>()?,
    };
    Ok((ResourceKey::parse(&body.resource)?, account))
}

fn write_floor(floor: &Floor, wire: &mut Wire) {
    wire.int(1, floor.since.nanos());
    wire.uint(2, floor.outcomes);
    wire.uint(3, floor.refusals);
}

fn floor_of_body(body: FloorBody) -> Floor {
    Floor {
        since: Timestamp::from_nanos(body.since),
        outcomes: body.outcomes,
        refusals: body.refusals,
    }
}

pub(crate) fn body_of_resource(resource: &Resource) -> ResourceBody {
    ResourceBody {
        key: resource.key.as_str().to_owned(),
        kind: match resource.kind {
            Kind::Allocation => 1,
            Kind::Concurrency => 2,
            Kind::Counter => 3,
            Kind::Rate => 4,
            Kind::PerRequest => 5,
            Kind::Measured => 6,
        },
        base_unit: resource.base_unit.clone(),
        display_unit: resource.display_unit.clone(),
        display_ratio: resource.display_ratio,
        deny_without_quota: resource.without_quota == WithoutQuota::Deny,
        display_name: resource.display_name.clone(),
        built_in: resource.built_in,
        version: resource.version,
    }
}

pub(crate) fn resource_of_body(body: ResourceBody) -> Result<Resource, FormatError> {
    Ok(Resource {
        key: ResourceKey::parse(&body.key)?,
        kind: match body.kind {
            1 => Kind::Allocation,
            2 => Kind::Concurrency,
            3 => Kind::Counter,
            4 => Kind::Rate,
            5 => Kind::PerRequest,
            6 => Kind::Measured,
            other => return Err(FormatError::damaged(format!("resource kind {other}"))),
        },
        base_unit: body.base_unit,
        display_unit: body.display_unit,
        display_ratio: body.display_ratio,
        without_quota: match body.deny_without_quota {
            true => WithoutQuota::Deny,
            false => WithoutQuota::Allow,
        },
        display_name: body.display_name,
        built_in: body.built_in,
        version: body.version,
    })
}

pub(super) fn write_profile(profile: &Profile, wire: &mut Wire) {
    wire.text(1, &profile.display_name);
    write_labels(2, &profile.labels, wire);
    wire.uint(3, profile.incarnation);
    wire.int(4, profile.created.nanos());
    wire.int(5, profile.updated.nanos());
    wire.uint(6, profile.version);
}

pub(super) fn write_labels(tag: u32, labels: &BTreeMap<String, String>, wire: &mut Wire) {
    for (key, value) in labels {
        wire.message(tag, |wire| {
            wire.text(1, key);
            wire.text(2, value);
        });
    }
}

pub(crate) fn profile_of_body(body: ProfileBody) -> Profile {
    Profile {
        display_name: body.display_name,
        labels: body.labels,
        incarnation: body.incarnation,
        created: Timestamp::from_nanos(body.created),
        updated: Timestamp::from_nanos(body.updated),
        version: body.version,
    }
}

pub(super) fn write_amounts(tag: u32, amounts: &[(ResourceKey, i64)], wire: &mut Wire) {
    for (resource, amount) in amounts {
        wire.message(tag, |wire| {
            wire.text(1, resource.as_str());
            wire.int(2, *amount);
        });
    }
}

pub(crate) fn bodies_of_amounts(amounts: &[(ResourceKey, i64)]) -> Vec<AmountBody> {
    amounts
        .iter()
        .map(|(resource, amount)| AmountBody {
            resource: resource.as_str().to_owned(),
            amount: *amount,
        })
        .collect()
}

pub(crate) fn amounts_of_bodies(
    bodies: Vec<AmountBody>,
) -> Result<Vec<(ResourceKey, i64)>, FormatError> {
    bodies
        .into_iter()
        .map(|body| Ok((ResourceKey::parse(&body.resource)?, body.amount)))
        .collect()
}
