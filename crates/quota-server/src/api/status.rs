//! The one place where a `tonic::Status` is made (C12). Each carries an ErrorInfo that says why and whether
//! anything was changed.

use std::collections::HashMap;
use std::time::Duration;

use quota_core::rejection::{Rejection, Violation};
use quota_proto::v1::{self, ErrorReason};
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
    if let Rejection::Invalid(violations) = rejection {
        return invalid(violations);
    }
    let (code, reason) = code_and_reason(rejection);
    build(code, reason, rejection.to_string(), false, |_| {})
}

/// One item of a batch that the ledger rejected.
pub(super) fn item_error(rejection: &Rejection) -> v1::ItemError {
    let (code, reason) = code_and_reason(rejection);
    let violations = match rejection {
        Rejection::Invalid(violations) => violations.as_slice(),
        _ => &[],
    };
    let field = |violation: &Violation| v1::ItemFieldViolation {
        field: violation.field.clone(),
        description: violation.description.clone(),
    };
    v1::ItemError {
        code: code.into(),
        reason: reason.into(),
        message: match violations.is_empty() {
            true => rejection.to_string(),
            false => texts(violations).join("; "),
        },
        field_violations: violations.iter().map(field).collect(),
    }
}

fn code_and_reason(rejection: &Rejection) -> (Code, ErrorReason) {
    use ErrorReason as R;
    match rejection {
        Rejection::Invalid(_) => (Code::InvalidArgument, R::InvalidFields),
        Rejection::SubjectUnknown(_) | Rejection::NoSubject(_) => {
            (Code::NotFound, R::SubjectUnknown)
        }
        Rejection::AllocationUnknown(_) => (Code::NotFound, R::AllocationUnknown),
        Rejection::HoldUnknown(_) => (Code::NotFound, R::HoldUnknown),
        Rejection::HoldEnded { .. } => (Code::FailedPrecondition, R::HoldEnded),
        Rejection::HoldTooSmall { .. } => (Code::FailedPrecondition, R::HoldTooSmall),
        Rejection::SubjectInUse { .. } => (Code::FailedPrecondition, R::SubjectInUse),
        Rejection::CorrectionTooLarge { .. } => (Code::FailedPrecondition, R::CorrectionTooLarge),
        Rejection::Member { rejection, .. } => code_and_reason(rejection),
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
    }
}

fn texts(violations: &[Violation]) -> Vec<String> {
    let text = |violation: &Violation| format!("{}: {}", violation.field, violation.description);
    violations.iter().map(text).collect()
}

/// A request with bad fields, all of them named.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let fields: Vec<FieldViolation> = violations
        .iter()
        .map(|violation| FieldViolation::new(&violation.field, &violation.description))
        .collect();
    build(
        Code::InvalidArgument,
        ErrorReason::InvalidFields,
        texts(violations).join("; "),
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
