//! Errors, and a refusal as a status for callers that want one.

use std::time::Duration;

use quota_proto::v1::{ErrorReason, LimitFinding, RefusalReason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, QuotaViolation, StatusExt};

/// Whether a call that failed changed anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// This attempt changed nothing. An earlier attempt with the same operation id whose outcome was
    /// unknown stays unknown.
    No,
    /// It may have been applied: ask again with the same operation id.
    Unknown,
}

/// A call without an answer. A refusal is no error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The status.
    pub code: Code,
    /// For people.
    pub message: String,
    /// Why, as the server says; absent where none was reached.
    pub reason: Option<ErrorReason>,
    /// Whether anything was changed.
    pub applied: Applied,
    /// The bad fields of the request.
    pub violations: Vec<FieldViolation>,
    /// When to ask again.
    pub retry_delay: Option<Duration>,
}

/// A bad field of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldViolation {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

impl Error {
    pub(crate) fn local(message: String) -> Self {
        Self {
            code: Code::InvalidArgument,
            message,
            reason: None,
            applied: Applied::No,
            violations: Vec::new(),
            retry_delay: None,
        }
    }

    /// Whether the answer was lost, so that the same operation may be asked again.
    pub fn is_lost(&self) -> bool {
        match self.code {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => true,
            // A connection that breaks within an answer; the server itself gives a reason.
            Code::Internal => self.reason.is_none(),
            _ => false,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.and_then(|info| {
            let name = format!("ERROR_REASON_{}", info.reason);
            ErrorReason::from_str_name(&name)
        });
        let applied = info.and_then(|info| info.metadata.get("outcome")).map_or(
            Applied::Unknown,
            |outcome| match outcome.as_str() {
                "NOT_APPLIED" => Applied::No,
                _ => Applied::Unknown,
            },
        );
        let violations = details.bad_request().map(|request| {
            let fields = request.field_violations.iter();
            fields
                .map(|violation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect()
        });
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason,
            applied,
            violations: violations.unwrap_or_default(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

/// A refusal as RESOURCE_EXHAUSTED with QuotaFailure, and RetryInfo where waiting helps, for services whose
/// own callers expect a status.
pub fn refusal_status(refusals: &[LimitFinding]) -> Status {
    let texts: Vec<String> = refusals.iter().map(describe).collect();
    let violations: Vec<QuotaViolation> = refusals
        .iter()
        .zip(&texts)
        .map(|(finding, text)| QuotaViolation::new(&finding.subject, text))
        .collect();
    let mut details = ErrorDetails::with_quota_failure(violations);
    let delays: Vec<Duration> = refusals
        .iter()
        .filter_map(|finding| positive(finding.retry_delay?))
        .collect();
    // Waiting helps only if it helps against every limit.
    if delays.len() == refusals.len() {
        details.set_retry_info(delays.into_iter().max());
    }
    Status::with_error_details(Code::ResourceExhausted, texts.join("; "), details)
}

/// One limit that refuses, in words; amounts in base units.
fn describe(finding: &LimitFinding) -> String {
    let LimitFinding {
        subject,
        resource,
        used,
        held,
        requested,
        shortfall,
        ..
    } = finding;
    match finding.reason() {
        RefusalReason::NoQuota => format!("{subject} has no quota on {resource}, which needs one"),
        reason => format!(
            "{subject}: {resource}: {used} used, {held} held, {requested} requested, {shortfall} too much ({})",
            reason.as_str_name().trim_start_matches("REFUSAL_REASON_")
        ),
    }
}

/// A duration from the wire, if it is not negative. `std`'s own conversion overflows at the most negative one.
pub fn positive(length: prost_types::Duration) -> Option<Duration> {
    let length = Some(length).filter(|length| length.seconds >= 0)?;
    Duration::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_a_status_with_its_limits() {
        let finding = LimitFinding {
            subject: "tenants/acme".into(),
            resource: "compute.cpu".into(),
            reason: RefusalReason::Limit.into(),
            used: 3,
            requested: 2,
            shortfall: 1,
            ..LimitFinding::default()
        };
        let status = refusal_status(&[finding]);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(
            details.quota_failure().unwrap().violations[0].subject,
            "tenants/acme"
        );
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn no_duration_on_the_wire_is_too_much() {
        for (seconds, nanos) in [(i64::MIN, i32::MIN), (0, i32::MIN), (i64::MIN, 0), (-1, 0)] {
            assert_eq!(positive(prost_types::Duration { seconds, nanos }), None);
        }
        let length = prost_types::Duration {
            seconds: i64::MAX,
            nanos: i32::MAX,
        };
        assert!(positive(length).is_some());
        let length = prost_types::Duration {
            seconds: 1,
            nanos: 5,
        };
        assert_eq!(positive(length), Some(Duration::new(1, 5)));
    }
}
