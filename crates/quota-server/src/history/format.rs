//! Rows of the history: keys and values.
//!
//! An account has one row with what is open, and *pages* of buckets that are over, 24 to a page: a month of hours
//! is thirty-one rows side by side. A row per bucket would take twenty times the room, for sled spends some six
//! hundred bytes on a row whatever is in it.

use prost::Message;
use quota_core::amount::Limit;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::resource::Kind;
use quota_core::time::Timestamp;
use quota_store::rows::RowsError;

use super::book::Account;
use super::limits::OwnLimit;
use super::rollup::{Area, Bucket, Level, Rollup, Step};

/// Buckets of a page.
pub const PAGE_BUCKETS: i64 = 24;
/// Version of every value below.
const VERSION: u8 = 1;
const ACCOUNT: u8 = b'a';
const PAGE: u8 = b'p';
/// Stands between the parts of a key; no name has it.
const PART: u8 = 1;

/// What the keys of all accounts begin with.
pub fn accounts_prefix() -> Vec<u8> {
    vec![ACCOUNT]
}

/// What the keys of a subject's accounts begin with.
pub fn subject_prefix(subject: &SubjectName) -> Vec<u8> {
    let mut key = accounts_prefix();
    key.extend_from_slice(subject.as_str().as_bytes());
    key.push(PART);
    key
}

/// The key of an account.
pub fn account_key(subject: &SubjectName, resource: &ResourceKey) -> Vec<u8> {
    let mut key = subject_prefix(subject);
    key.extend_from_slice(resource.as_str().as_bytes());
    key
}

/// Whose account a key is of.
pub fn account_of_key(key: &[u8]) -> Result<(SubjectName, ResourceKey), RowsError> {
    let read = || {
        let text = std::str::from_utf8(key.strip_prefix(&[ACCOUNT])?).ok()?;
        let (subject, resource) = text.split_once(char::from(PART))?;
        let subject = SubjectName::parse(subject).ok()?;
        Some((subject, ResourceKey::parse(resource).ok()?))
    };
    read().ok_or_else(|| damaged("a key of no account"))
}

/// What the keys of an account's pages of a step begin with.
pub fn pages_prefix(subject: &SubjectName, resource: &ResourceKey, step: Step) -> Vec<u8> {
    let mut key = vec![PAGE];
    key.extend_from_slice(subject.as_str().as_bytes());
    key.push(PART);
    key.extend_from_slice(resource.as_str().as_bytes());
    key.push(PART);
    key.push(match step {
        Step::FiveMinutes => b'a',
        Step::Hour => b'b',
        Step::Day => b'c',
    });
    key
}

/// The page that a bucket stands on.
pub fn page_of(bucket: i64) -> i64 {
    bucket.div_euclid(PAGE_BUCKETS)
}

/// The key of a page: in the order of time, before 1970 too.
pub fn page_key(prefix: &[u8], page: i64) -> Vec<u8> {
    let ordered = page.cast_unsigned() ^ (1 << 63);
    [prefix, format!("{ordered:016x}").as_bytes()].concat()
}

/// The page that a key is of.
pub fn page_of_key(prefix: &[u8], key: &[u8]) -> Result<i64, RowsError> {
    let read = || {
        let text = std::str::from_utf8(key.strip_prefix(prefix)?).ok()?;
        let ordered = u64::from_str_radix(text, 16).ok()?;
        Some((ordered ^ (1 << 63)).cast_signed())
    };
    read().ok_or_else(|| damaged("a key of no page"))
}

#[derive(Clone, PartialEq, Message)]
struct AccountBody {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(int64, tag = "3")]
    born: i64,
    #[prost(int64, tag = "4")]
    at: i64,
    #[prost(int64, tag = "5")]
    used: i64,
    #[prost(int64, tag = "6")]
    held: i64,
    #[prost(message, optional, tag = "7")]
    limit: Option<LimitBody>,
    #[prost(message, optional, tag = "8")]
    total: Option<AreaBody>,
    #[prost(message, repeated, tag = "9")]
    own: Vec<OwnBody>,
    /// One of each step.
    #[prost(message, repeated, tag = "10")]
    open: Vec<BucketBody>,
}

/// Unlimited without a value.
#[derive(Clone, Copy, PartialEq, Message)]
struct LimitBody {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
}

/// Units × nanoseconds, 128 bits wide.
#[derive(Clone, Copy, PartialEq, Message)]
struct AreaBody {
    #[prost(int64, tag = "1")]
    used_high: i64,
    #[prost(uint64, tag = "2")]
    used_low: u64,
    #[prost(int64, tag = "3")]
    held_high: i64,
    #[prost(uint64, tag = "4")]
    held_low: u64,
}

#[derive(Clone, PartialEq, Message)]
struct OwnBody {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    limit: Option<LimitBody>,
    #[prost(int64, optional, tag = "3")]
    from: Option<i64>,
    #[prost(int64, optional, tag = "4")]
    until: Option<i64>,
    #[prost(bool, tag = "5")]
    vetoes: bool,
}

#[derive(Clone, PartialEq, Message)]
struct BucketBody {
    #[prost(int64, tag = "1")]
    number: i64,
    #[prost(int64, tag = "2")]
    first_used: i64,
    #[prost(int64, tag = "3")]
    first_held: i64,
    #[prost(message, optional, tag = "4")]
    limit_first: Option<LimitBody>,
    #[prost(int64, tag = "5")]
    last_used: i64,
    #[prost(int64, tag = "6")]
    last_held: i64,
    #[prost(message, optional, tag = "7")]
    limit: Option<LimitBody>,
    #[prost(int64, tag = "8")]
    used_min: i64,
    #[prost(int64, tag = "9")]
    used_max: i64,
    #[prost(int64, tag = "10")]
    held_max: i64,
    #[prost(message, optional, tag = "11")]
    area: Option<AreaBody>,
    #[prost(int64, tag = "12")]
    counted: i64,
    #[prost(uint64, tag = "13")]
    granted: u64,
    #[prost(uint64, tag = "14")]
    refused: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PageBody {
    #[prost(message, repeated, tag = "1")]
    buckets: Vec<BucketBody>,
}

/// The value of an account's row.
pub fn account_bytes(account: &Account) -> Vec<u8> {
    let rollup = &account.rollup;
    bytes(&AccountBody {
        kind: match account.kind {
            Kind::Allocation => 1,
            Kind::Concurrency => 2,
            Kind::Counter => 3,
            Kind::Rate => 4,
            Kind::PerRequest => 5,
            Kind::Measured => 6,
        },
        incarnation: account.incarnation,
        born: rollup.born.nanos(),
        at: rollup.at.nanos(),
        used: rollup.level.used,
        held: rollup.level.held,
        limit: rollup.limit.map(body_of_limit),
        total: Some(body_of_area(rollup.total)),
        own: account.own.iter().map(body_of_own).collect(),
        open: rollup.open.iter().map(body_of_bucket).collect(),
    })
}

/// An account's row.
pub fn account_of_bytes(bytes: &[u8]) -> Result<Account, RowsError> {
    let body: AccountBody = message(bytes)?;
    let open: Vec<Bucket> = body.open.into_iter().map(bucket_of_body).collect();
    let own = body.own.into_iter().map(own_of_body);
    Ok(Account {
        kind: match body.kind {
            1 => Kind::Allocation,
            2 => Kind::Concurrency,
            3 => Kind::Counter,
            4 => Kind::Rate,
            5 => Kind::PerRequest,
            6 => Kind::Measured,
            _ => return Err(damaged("a kind that this version does not know")),
        },
        incarnation: body.incarnation,
        own: own.collect::<Result<_, _>>()?,
        rollup: Rollup {
            born: Timestamp::from_nanos(body.born),
            at: Timestamp::from_nanos(body.at),
            level: Level {
                used: body.used,
                held: body.held,
            },
            limit: body.limit.map(limit_of_body),
            total: area_of_body(body.total),
            open: open
                .try_into()
                .map_err(|_| damaged("an account without an open bucket of each step"))?,
        },
    })
}

/// The value of a page: buckets in the order of their numbers.
pub fn page_bytes(buckets: &[Bucket]) -> Vec<u8> {
    bytes(&PageBody {
        buckets: buckets.iter().map(body_of_bucket).collect(),
    })
}

/// The buckets of a page.
pub fn page_of_bytes(bytes: &[u8]) -> Result<Vec<Bucket>, RowsError> {
    let body: PageBody = message(bytes)?;
    Ok(body.buckets.into_iter().map(bucket_of_body).collect())
}

fn bytes(message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(message.encode_to_vec());
    bytes
}

fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, RowsError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => M::decode(body).map_err(|error| damaged(&error.to_string())),
        Some((version, _)) => Err(damaged(&format!("format version {version}"))),
        None => Err(damaged("an empty row")),
    }
}

fn damaged(what: &str) -> RowsError {
    RowsError(what.to_owned())
}

fn body_of_limit(limit: Limit) -> LimitBody {
    LimitBody {
        value: limit.value(),
    }
}

fn limit_of_body(body: LimitBody) -> Limit {
    body.value.map_or(Limit::Unlimited, Limit::Value)
}

fn body_of_area(area: Area) -> AreaBody {
    let low = |wide: i128| u64::try_from(wide & i128::from(u64::MAX)).unwrap_or_default();
    let high = |wide: i128| i64::try_from(wide >> 64).unwrap_or_default();
    AreaBody {
        used_high: high(area.used),
        used_low: low(area.used),
        held_high: high(area.held),
        held_low: low(area.held),
    }
}

fn area_of_body(body: Option<AreaBody>) -> Area {
    let body = body.unwrap_or_default();
    let wide = |high: i64, low: u64| (i128::from(high) << 64) | i128::from(low);
    Area {
        used: wide(body.used_high, body.used_low),
        held: wide(body.held_high, body.held_low),
    }
}

fn body_of_own(own: &OwnLimit) -> OwnBody {
    OwnBody {
        id: own.id.to_string(),
        limit: Some(body_of_limit(own.limit)),
        from: own.from.map(Timestamp::nanos),
        until: own.until.map(Timestamp::nanos),
        vetoes: own.vetoes,
    }
}

fn own_of_body(body: OwnBody) -> Result<OwnLimit, RowsError> {
    Ok(OwnLimit {
        id: Id::parse(&body.id).map_err(|error| damaged(&error.to_string()))?,
        limit: body.limit.map_or(Limit::Unlimited, limit_of_body),
        from: body.from.map(Timestamp::from_nanos),
        until: body.until.map(Timestamp::from_nanos),
        vetoes: body.vetoes,
    })
}

fn body_of_bucket(bucket: &Bucket) -> BucketBody {
    BucketBody {
        number: bucket.number,
        first_used: bucket.first.used,
        first_held: bucket.first.held,
        limit_first: bucket.limit_first.map(body_of_limit),
        last_used: bucket.last.used,
        last_held: bucket.last.held,
        limit: bucket.limit.map(body_of_limit),
        used_min: bucket.used_min,
        used_max: bucket.used_max,
        held_max: bucket.held_max,
        area: Some(body_of_area(bucket.area)),
        counted: bucket.counted,
        granted: bucket.granted,
        refused: bucket.refused,
    }
}

fn bucket_of_body(body: BucketBody) -> Bucket {
    Bucket {
        number: body.number,
        first: Level {
            used: body.first_used,
            held: body.first_held,
        },
        limit_first: body.limit_first.map(limit_of_body),
        last: Level {
            used: body.last_used,
            held: body.last_held,
        },
        limit: body.limit.map(limit_of_body),
        used_min: body.used_min,
        used_max: body.used_max,
        held_max: body.held_max,
        area: area_of_body(body.area),
        counted: body.counted,
        granted: body.granted,
        refused: body.refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::rollup::Change;

    #[test]
    fn what_is_written_is_read() {
        let change = Change {
            level: Level {
                used: i64::MAX / 2,
                held: 3,
            },
            range: None,
            limit: Some(Limit::Unlimited),
            counted: -4,
            granted: 5,
            refused: 6,
        };
        let mut rollup = Rollup::born(Timestamp::from_nanos(-5), &change);
        let mut closed = Vec::new();
        rollup.apply(Timestamp::from_nanos(i64::MAX / 2), &change, &mut closed);
        let account = Account {
            kind: Kind::Counter,
            incarnation: 7,
            own: vec![OwnLimit {
                id: Id::parse("a").unwrap(),
                limit: Limit::Value(0),
                from: Some(Timestamp::from_nanos(1)),
                until: None,
                vetoes: true,
            }],
            rollup,
        };
        let bytes = account_bytes(&account);
        assert_eq!(account_of_bytes(&bytes).unwrap(), account);
        let buckets: Vec<Bucket> = closed.into_iter().map(|(_, bucket)| bucket).collect();
        assert_eq!(page_of_bytes(&page_bytes(&buckets)).unwrap(), buckets);
        for bad in [&[][..], &[VERSION + 1], &[VERSION, 0xff], &[VERSION]] {
            assert!(account_of_bytes(bad).is_err(), "{bad:?}");
        }
        let area = Area {
            used: -(1 << 100) + 3,
            held: (1 << 100) + 3,
        };
        assert_eq!(area_of_body(Some(body_of_area(area))), area);
    }

    /// The order of keys is that of time, and no key is taken for another's.
    #[test]
    fn keys_are_in_the_order_of_time() {
        let subject = SubjectName::parse("tenants/a").unwrap();
        let resource = ResourceKey::parse("compute.cpu").unwrap();
        let prefix = pages_prefix(&subject, &resource, Step::Hour);
        let pages = [i64::MIN, -1, 0, 1, 20_000, i64::MAX];
        let keys: Vec<Vec<u8>> = pages.iter().map(|page| page_key(&prefix, *page)).collect();
        assert!(keys.is_sorted());
        for (page, key) in pages.iter().zip(&keys) {
            assert_eq!(page_of_key(&prefix, key).unwrap(), *page);
            assert!(!key.contains(&0), "a row in parts has a zero in its keys");
        }
        let key = account_key(&subject, &resource);
        assert_eq!(account_of_key(&key).unwrap(), (subject, resource));
        let longer = SubjectName::parse("tenants/ab").unwrap();
        assert!(!key.starts_with(&subject_prefix(&longer)));
        assert!(account_of_key(b"p").is_err() && account_of_key(b"ax").is_err());
    }
}
