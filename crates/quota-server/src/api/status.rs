//! The one place where a `tonic::Status` is made (C12). Each carries an ErrorInfo that says why and whether
//! anything was changed.

use std::collections::HashMap;
use std::time::Duration;

use quota_core::rejection::{Rejection, Violation};
use quota_proto::v1::{self, ErrorReason};
use quota_store::journal::JournalError;
use quota_store::rows::RowsError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::engine::Fault;
use crate::engine::breaker;
use crate::feed::FeedError;

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

/// Events that cannot be read.
pub(super) fn of_feed(error: &FeedError) -> Status {
    use ErrorReason as R;
    let message = error.to_string();
    match error {
        FeedError::Trimmed { first } => {
            let code = Code::FailedPrecondition;
            let more = [("first_sequence", first.to_string())];
            build_with(code, R::EventsTrimmed, message, false, &more, |_| {})
        }
        FeedError::Ahead { .. } => invalid(&[Violation::new("from_sequence", message)]),
        FeedError::Journal(JournalError::Trimmed { .. }) => {
            let text = "the events are not kept any more".to_owned();
            build(
                Code::FailedPrecondition,
                R::EventsTrimmed,
                text,
                false,
                |_| {},
            )
        }
        FeedError::Journal(error) => {
            tracing::error!(%error, "the journal cannot be read");
            let text = "the journal cannot be read there; it was logged".to_owned();
            build(Code::Internal, R::JournalDamaged, text, false, |_| {})
        }
    }
}

/// The history cannot be read now.
pub(super) fn of_history(error: &RowsError) -> Status {
    tracing::warn!(%error, "the history cannot be read");
    let text = "the history cannot be read now; it was logged".to_owned();
    let code = Code::Unavailable;
    build(code, ErrorReason::HistoryUnavailable, text, false, |d| {
        d.set_retry_info(Some(RETRY));
    })
}

/// One watcher too many.
pub(super) fn too_many_watchers(most: usize) -> Status {
    let text = format!("{most} watchers are connected, which is all that may (watchers_max)");
    build(
        Code::ResourceExhausted,
        ErrorReason::Overloaded,
        text,
        false,
        |d| {
            d.set_retry_info(Some(RETRY));
        },
    )
}

/// A watcher that took nothing for too long.
pub(super) fn watcher_too_slow(stall_max: Duration, next: u64) -> Status {
    let stall_max = humantime::format_duration(stall_max);
    let text =
        format!("nothing was taken for {stall_max} (watch_stall_max); go on from event {next}");
    let code = Code::ResourceExhausted;
    let more = [("next_sequence", next.to_string())];
    build_with(
        code,
        ErrorReason::WatcherTooSlow,
        text,
        false,
        &more,
        |_| {},
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
    build_with(code, reason, message, unknown, &[], more)
}

fn build_with(
    code: Code,
    reason: ErrorReason,
    message: String,
    unknown: bool,
    metadata: &[(&str, String)],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let reason = reason.as_str_name();
    let reason = reason.strip_prefix(REASON_PREFIX).unwrap_or(reason);
    let outcome = if unknown { "UNKNOWN" } else { "NOT_APPLIED" };
    let mut metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    metadata.insert("outcome".to_owned(), outcome.to_owned());
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    more(&mut details);
    Status::with_error_details(code, message, details)
}
