//! The one place where a `tonic::Status` is made (C12). Each carries an ErrorInfo that says why and whether
//! anything was changed.

use std::collections::HashMap;
use std::time::Duration;

use quota_core::rejection::{Rejection, Violation};
use quota_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::engine::Fault;
use crate::engine::breaker;

const DOMAIN: &str = "quota.v1";
const REASON_PREFIX: &str = "ERROR_REASON_";
/// When a caller should ask again.
const RETRY: Duration = breaker::WAIT_MIN;

/// A command that was not answered.
pub(super) fn of_fault(fault: &Fault) -> Status {
    use ErrorReason as R;
    let message = fault.to_string();
    match fault {
        Fault::Rejected(rejection) => of_rejection(rejection),
        Fault::Overloaded(_) => build(
            Code::ResourceExhausted,
            R::Overloaded,
            message,
            false,
            |d| {
                d.set_retry_info(Some(RETRY));
            },
        ),
        Fault::Draining => build(Code::Unavailable, R::Draining, message, false, |d| {
            d.set_retry_info(Some(RETRY));
        }),
        Fault::JournalDown { unknown } => build(
            Code::Unavailable,
            R::JournalUnavailable,
            message,
            *unknown,
            |d| {
                d.set_retry_info(Some(RETRY));
            },
        ),
        Fault::Deadline { unknown } => build(
            Code::DeadlineExceeded,
            R::Deadline,
            message,
            *unknown,
            |_| {},
        ),
    }
}

/// A command that the ledger rejected.
pub(super) fn of_rejection(rejection: &Rejection) -> Status {
    use ErrorReason as R;
    let (code, reason) = match rejection {
        Rejection::Invalid(violations) => return invalid(violations),
        Rejection::SubjectUnknown(_) | Rejection::NoSubject(_) => {
            (Code::NotFound, R::SubjectUnknown)
        }
        Rejection::AllocationUnknown(_) => (Code::NotFound, R::AllocationUnknown),
        Rejection::QuotaUnknown { .. } => (Code::NotFound, R::QuotaUnknown),
        Rejection::ResourceUnknown(_) => (Code::NotFound, R::ResourceUnknown),
        Rejection::Exists(_) => (Code::AlreadyExists, R::Exists),
        Rejection::OperationIdReused(_) => (Code::AlreadyExists, R::OperationIdReused),
        Rejection::ReleaseTooLarge { .. } => (Code::FailedPrecondition, R::ReleaseTooLarge),
        Rejection::ForceNeeded(_) => (Code::FailedPrecondition, R::ForceNeeded),
        Rejection::OutcomeForgotten { .. } => (Code::FailedPrecondition, R::OutcomeForgotten),
        Rejection::ResourceInUse { .. } => (Code::FailedPrecondition, R::ResourceInUse),
        Rejection::EtagMismatch { .. } => (Code::Aborted, R::EtagMismatch),
        Rejection::GenerationMismatch { .. } => (Code::Aborted, R::GenerationMismatch),
        Rejection::Capacity { .. } => (Code::ResourceExhausted, R::Capacity),
    };
    build(code, reason, rejection.to_string(), false, |_| {})
}

/// A request with bad fields, all of them named.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let texts: Vec<String> = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    let fields: Vec<FieldViolation> = violations
        .iter()
        .map(|violation| FieldViolation::new(&violation.field, &violation.description))
        .collect();
    build(
        Code::InvalidArgument,
        ErrorReason::InvalidFields,
        texts.join("; "),
        false,
        |details| {
            details.set_bad_request(fields);
        },
    )
}

/// A bug: the text says nothing about the inside.
pub(super) fn bug() -> Status {
    let text = "internal error; it was logged".to_owned();
    build(Code::Internal, ErrorReason::Bug, text, true, |_| {})
}

/// Statuses that the transport makes by itself, before a handler sees the request, say why as well. A message
/// that is too large or cannot be decoded is the caller's mistake.
pub fn complete<B: Default>(response: http::Response<B>) -> http::Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let code = status.code();
    let made_here = matches!(
        code,
        Code::OutOfRange | Code::Internal | Code::ResourceExhausted
    );
    if !made_here || !status.details().is_empty() {
        return response;
    }
    let field = Violation::new("message", status.message());
    invalid(&[field]).into_http()
}

fn build(
    code: Code,
    reason: ErrorReason,
    message: String,
    unknown: bool,
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let reason = reason.as_str_name();
    let reason = reason.strip_prefix(REASON_PREFIX).unwrap_or(reason);
    let outcome = if unknown { "UNKNOWN" } else { "NOT_APPLIED" };
    let metadata = HashMap::from([("outcome".to_owned(), outcome.to_owned())]);
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    more(&mut details);
    Status::with_error_details(code, message, details)
}
