//! Notices in a batch.

use prost::Message;
use quota_core::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use quota_core::notice::{Crossing, Exceeded, Level, Refused, UsageNow};
use quota_core::time::Timestamp;

use super::FormatError;
use super::verdict::{
    FindingBody, WindowBody, body_of_finding, body_of_window, finding_of_body, given, text,
    window_of_body,
};
use super::wire::Wire;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExceededBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(message, optional, tag = "2")]
    finding: Option<FindingBody>,
    #[prost(bool, tag = "3")]
    shadow: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CrossingBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    quota: String,
    #[prost(string, tag = "4")]
    pattern: String,
    #[prost(uint32, tag = "5")]
    from: u32,
    #[prost(uint32, tag = "6")]
    to: u32,
    #[prost(int64, optional, tag = "7")]
    limit: Option<i64>,
    #[prost(int64, tag = "8")]
    used: i64,
    #[prost(int64, tag = "9")]
    held: i64,
    #[prost(message, optional, tag = "10")]
    window: Option<WindowBody>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RefusedBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(message, optional, tag = "2")]
    finding: Option<FindingBody>,
    #[prost(uint64, tag = "3")]
    count: u64,
    #[prost(int64, tag = "4")]
    first: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UsageBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(message, repeated, tag = "2")]
    accounts: Vec<UsageNowBody>,
}

#[derive(Clone, PartialEq, Message)]
struct UsageNowBody {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(int64, tag = "2")]
    used: i64,
    #[prost(int64, tag = "3")]
    held: i64,
}

pub(super) fn body_of_exceeded(exceeded: &Exceeded) -> ExceededBody {
    ExceededBody {
        subject: exceeded.subject.as_str().to_owned(),
        finding: Some(body_of_finding(&exceeded.finding)),
        shadow: exceeded.shadow,
    }
}

pub(super) fn exceeded_of_body(body: ExceededBody) -> Result<Exceeded, FormatError> {
    Ok(Exceeded {
        subject: SubjectName::parse(&body.subject)?,
        finding: found(body.finding)?,
        shadow: body.shadow,
    })
}

pub(super) fn body_of_crossing(crossing: &Crossing) -> CrossingBody {
    CrossingBody {
        subject: crossing.subject.as_str().to_owned(),
        resource: crossing.resource.as_str().to_owned(),
        quota: crossing.quota.as_str().to_owned(),
        pattern: text(crossing.pattern.as_ref()),
        from: number_of_level(crossing.from),
        to: number_of_level(crossing.to),
        limit: crossing.limit,
        used: crossing.used,
        held: crossing.held,
        window: crossing.window.map(body_of_window),
    }
}

pub(super) fn crossing_of_body(body: CrossingBody) -> Result<Crossing, FormatError> {
    let pattern = given(&body.pattern).map(SubjectPattern::parse);
    Ok(Crossing {
        subject: SubjectName::parse(&body.subject)?,
        resource: ResourceKey::parse(&body.resource)?,
        quota: Id::parse(&body.quota)?,
        pattern: pattern.transpose()?,
        from: level_of_number(body.from)?,
        to: level_of_number(body.to)?,
        limit: body.limit,
        used: body.used,
        held: body.held,
        window: body.window.map(window_of_body),
    })
}

pub(super) fn body_of_refused(refused: &Refused) -> RefusedBody {
    RefusedBody {
        subject: refused.subject.as_str().to_owned(),
        finding: Some(body_of_finding(&refused.finding)),
        count: refused.count,
        first: refused.first.nanos(),
    }
}

pub(super) fn refused_of_body(body: RefusedBody) -> Result<Refused, FormatError> {
    Ok(Refused {
        subject: SubjectName::parse(&body.subject)?,
        finding: found(body.finding)?,
        count: body.count,
        first: Timestamp::from_nanos(body.first),
    })
}

pub(super) fn write_usage(usage: &UsageNow, wire: &mut Wire) {
    wire.text(1, usage.subject.as_str());
    for (resource, used, held) in &usage.accounts {
        wire.message(2, |wire| {
            wire.text(1, resource.as_str());
            wire.int(2, *used);
            wire.int(3, *held);
        });
    }
}

pub(super) fn usage_of_body(body: UsageBody) -> Result<UsageNow, FormatError> {
    let accounts = body.accounts.into_iter().map(|account| {
        let resource = ResourceKey::parse(&account.resource)?;
        Ok::<_, FormatError>((resource, account.used, account.held))
    });
    Ok(UsageNow {
        subject: SubjectName::parse(&body.subject)?,
        accounts: accounts.collect::<Result<_, _>>()?,
    })
}

fn found(body: Option<FindingBody>) -> Result<quota_core::verdict::Finding, FormatError> {
    let body = body.ok_or_else(|| FormatError::damaged("a notice without its limit"))?;
    finding_of_body(body)
}

fn number_of_level(level: Level) -> u32 {
    match level {
        Level::Below => 1,
        Level::Near => 2,
        Level::Over => 3,
    }
}

fn level_of_number(number: u32) -> Result<Level, FormatError> {
    Ok(match number {
        1 => Level::Below,
        2 => Level::Near,
        3 => Level::Over,
        other => return Err(FormatError::damaged(format!("level {other}"))),
    })
}
