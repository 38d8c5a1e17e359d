//! Decisions with all that led to them.

use std::borrow::Borrow;
use std::time::Duration;

use prost::{Message, Oneof};
use quota_core::amount::Limit;
use quota_core::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use quota_core::period::Window;
use quota_core::time::Timestamp;
use quota_core::verdict::{Decision, Finding, Headroom, Reason, Verdict};

use super::FormatError;
use super::wire::Wire;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VerdictBody {
    #[prost(uint32, tag = "1")]
    decision: u32,
    #[prost(message, repeated, tag = "2")]
    refusals: Vec<FindingBody>,
    #[prost(message, repeated, tag = "3")]
    exceeded: Vec<FindingBody>,
    #[prost(message, repeated, tag = "4")]
    warnings: Vec<FindingBody>,
    #[prost(message, repeated, tag = "5")]
    shadows: Vec<FindingBody>,
    #[prost(message, repeated, tag = "6")]
    near: Vec<HeadroomBody>,
    #[prost(message, repeated, tag = "7")]
    tightest: Vec<HeadroomBody>,
    #[prost(string, repeated, tag = "8")]
    unbounded: Vec<String>,
    #[prost(uint64, tag = "9")]
    delay_ns: u64,
    #[prost(int64, optional, tag = "10")]
    partial: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FindingBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    quota: String,
    #[prost(string, tag = "4")]
    pattern: String,
    #[prost(uint32, tag = "5")]
    reason: u32,
    #[prost(oneof = "LimitBody", tags = "6, 7")]
    limit: Option<LimitBody>,
    #[prost(int64, tag = "8")]
    used: i64,
    #[prost(int64, tag = "9")]
    held: i64,
    #[prost(int64, tag = "10")]
    requested: i64,
    #[prost(int64, tag = "11")]
    shortfall: i64,
    #[prost(message, optional, tag = "12")]
    window: Option<WindowBody>,
    #[prost(message, optional, tag = "14")]
    retry: Option<LengthBody>,
}

/// A length of time; a debt may take longer than fits nanoseconds.
#[derive(Clone, Copy, PartialEq, Message)]
struct LengthBody {
    #[prost(uint64, tag = "1")]
    secs: u64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(super) enum LimitBody {
    #[prost(int64, tag = "6")]
    Value(i64),
    #[prost(bool, tag = "7")]
    Unlimited(bool),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct WindowBody {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, optional, tag = "2")]
    end: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct HeadroomBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    quota: String,
    #[prost(string, tag = "4")]
    pattern: String,
    #[prost(int64, tag = "5")]
    limit: i64,
    #[prost(int64, tag = "6")]
    taken: i64,
    #[prost(message, optional, tag = "7")]
    window: Option<WindowBody>,
}

pub(super) fn write_verdict(verdict: &Verdict, wire: &mut Wire) {
    let decision = match verdict.decision {
        Decision::Granted => 1,
        Decision::Partial => 2,
        Decision::Delayed => 3,
        Decision::Denied => 4,
    };
    wire.uint(1, decision);
    let findings = [
        (2, &verdict.refusals),
        (3, &verdict.exceeded),
        (4, &verdict.warnings),
        (5, &verdict.shadows),
    ];
    for (tag, findings) in findings {
        for finding in findings {
            wire.message(tag, |wire| wire.fields(&body_of_finding(finding)));
        }
    }
    for (tag, headroom) in [(6, &verdict.near), (7, &verdict.tightest)] {
        for headroom in headroom {
            wire.message(tag, |wire| write_headroom(headroom, wire));
        }
    }
    wire.texts(8, verdict.unbounded.iter().map(ResourceKey::as_str));
    wire.uint(9, nanos(verdict.delay));
    wire.given_int(10, verdict.partial);
}

fn write_headroom(headroom: &Headroom, wire: &mut Wire) {
    wire.text(1, headroom.subject.as_str());
    wire.text(2, headroom.resource.as_str());
    wire.text(3, headroom.quota.as_str());
    let pattern = headroom.pattern.as_ref();
    wire.text(4, pattern.map_or("", SubjectPattern::as_str));
    wire.int(5, headroom.limit);
    wire.int(6, headroom.taken);
    if let Some(window) = headroom.window {
        wire.message(7, |wire| wire.fields(&body_of_window(window)));
    }
}

pub(crate) fn verdict_of_body(body: VerdictBody) -> Result<Verdict, FormatError> {
    let headroom = |bodies: Vec<HeadroomBody>| {
        let all = bodies.into_iter().map(headroom_of_body);
        all.collect::<Result<Vec<_>, _>>()
    };
    let keys = body.unbounded.iter().map(|key| ResourceKey::parse(key));
    Ok(Verdict {
        decision: match body.decision {
            1 => Decision::Granted,
            2 => Decision::Partial,
            3 => Decision::Delayed,
            4 => Decision::Denied,
            other => return Err(FormatError::damaged(format!("decision {other}"))),
        },
        refusals: findings_of_bodies(body.refusals)?,
        exceeded: findings_of_bodies(body.exceeded)?,
        warnings: findings_of_bodies(body.warnings)?,
        shadows: findings_of_bodies(body.shadows)?,
        near: headroom(body.near)?,
        tightest: headroom(body.tightest)?,
        unbounded: keys.collect::<Result<_, _>>()?,
        delay: Duration::from_nanos(body.delay_ns),
        partial: body.partial,
    })
}

pub(super) fn body_of_finding(finding: &Finding) -> FindingBody {
    FindingBody {
        subject: finding.subject.as_str().to_owned(),
        resource: finding.resource.as_str().to_owned(),
        quota: text(finding.quota.as_ref()),
        pattern: text(finding.pattern.as_ref()),
        reason: match finding.reason {
            Reason::Limit => 1,
            Reason::Rate => 2,
            Reason::PeriodExhausted => 3,
            Reason::TooLarge => 4,
            Reason::NoQuota => 5,
            Reason::Suspended => 6,
        },
        limit: finding.limit.map(|limit| match limit {
            Limit::Value(value) => LimitBody::Value(value),
            Limit::Unlimited => LimitBody::Unlimited(true),
        }),
        used: finding.used,
        held: finding.held,
        requested: finding.requested,
        shortfall: finding.shortfall,
        window: finding.window.map(body_of_window),
        retry: finding.retry.map(|retry| LengthBody {
            secs: retry.as_secs(),
            nanos: retry.subsec_nanos(),
        }),
    }
}

fn findings_of_bodies(bodies: Vec<FindingBody>) -> Result<Vec<Finding>, FormatError> {
    bodies.into_iter().map(finding_of_body).collect()
}

pub(super) fn finding_of_body(body: FindingBody) -> Result<Finding, FormatError> {
    Ok(Finding {
        subject: SubjectName::parse(&body.subject)?,
        resource: ResourceKey::parse(&body.resource)?,
        quota: given(&body.quota).map(Id::parse).transpose()?,
        pattern: given(&body.pattern)
            .map(SubjectPattern::parse)
            .transpose()?,
        reason: match body.reason {
            1 => Reason::Limit,
            2 => Reason::Rate,
            3 => Reason::PeriodExhausted,
            4 => Reason::TooLarge,
            5 => Reason::NoQuota,
            6 => Reason::Suspended,
            other => return Err(FormatError::damaged(format!("refusal reason {other}"))),
        },
        limit: body.limit.map(|limit| match limit {
            LimitBody::Value(value) => Limit::Value(value),
            LimitBody::Unlimited(_) => Limit::Unlimited,
        }),
        window: body.window.map(window_of_body),
        used: body.used,
        held: body.held,
        requested: body.requested,
        shortfall: body.shortfall,
        retry: body.retry.map(length_of_body).transpose()?,
    })
}

fn headroom_of_body(body: HeadroomBody) -> Result<Headroom, FormatError> {
    Ok(Headroom {
        subject: SubjectName::parse(&body.subject)?,
        resource: ResourceKey::parse(&body.resource)?,
        quota: Id::parse(&body.quota)?,
        pattern: given(&body.pattern)
            .map(SubjectPattern::parse)
            .transpose()?,
        limit: body.limit,
        taken: body.taken,
        window: body.window.map(window_of_body),
    })
}

pub(super) fn body_of_window(window: Window) -> WindowBody {
    WindowBody {
        start: window.start.nanos(),
        end: window.end.map(Timestamp::nanos),
    }
}

pub(super) fn window_of_body(body: WindowBody) -> Window {
    Window {
        start: Timestamp::from_nanos(body.start),
        end: body.end.map(Timestamp::from_nanos),
    }
}

fn length_of_body(body: LengthBody) -> Result<Duration, FormatError> {
    match body.nanos < 1_000_000_000 {
        true => Ok(Duration::new(body.secs, body.nanos)),
        false => Err(FormatError::damaged("a length of time that is none")),
    }
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn text<T: Borrow<str>>(value: Option<&T>) -> String {
    value
        .map(|text| text.borrow().to_owned())
        .unwrap_or_default()
}

pub(super) fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
