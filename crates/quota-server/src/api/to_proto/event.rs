//! Events, as the journal tells them.

use quota_core::event::Cause;
use quota_core::notice::{Crossing, Level};
use quota_core::quota::Target;
use quota_proto::v1;
use quota_proto::v1::event::Detail;
use quota_proto::v1::{EventKind, Severity};
use quota_store::told::{Told, ToldCharge, What};

use super::verdict::{end, finding, start};
use super::{amounts, limit, signed_duration, text, timestamp};

/// The kind of an event.
pub(in crate::api) fn kind(what: &What) -> EventKind {
    match what {
        What::SubjectCreated(_) => EventKind::SubjectCreated,
        What::SubjectChanged(_) => EventKind::SubjectUpdated,
        What::SubjectDeleted(_) => EventKind::SubjectDeleted,
        What::ResourceSet(_) => EventKind::AdminResourceSet,
        What::ResourceDeleted(_) => EventKind::AdminResourceDeleted,
        What::Quota { .. } => EventKind::LimitChanged,
        What::Charged(charge) => kind_of_charge(charge),
        What::UsageReset { .. } => EventKind::AdminUsageReset,
        What::UsageCorrected { .. } => EventKind::AdminUsageCorrected,
        What::ClockAccepted { .. } => EventKind::ClockAccepted,
        What::ClockDoubted { doubted: true, .. } => EventKind::ClockSuspect,
        What::ClockDoubted { doubted: false, .. } => EventKind::ClockResolved,
        What::Started { .. } => EventKind::Recovered,
        What::Exceeded(exceeded) if exceeded.shadow => EventKind::WouldRefuse,
        What::Exceeded(_) => EventKind::Violation,
        What::Crossed(crossing) if crossing.from.max(crossing.to) == Level::Over => {
            EventKind::OverLimit
        }
        What::Crossed(_) => EventKind::NearLimit,
        What::Refused(_) => EventKind::QuotaExceeded,
        What::Usage(_) => EventKind::UsageUpdated,
    }
}

fn kind_of_charge(charge: &ToldCharge) -> EventKind {
    match (charge.cause, &charge.allocation) {
        (Cause::Consume | Cause::Record, Some(row)) if row.born => EventKind::AllocationCreated,
        (Cause::Consume | Cause::Record, None) => EventKind::UsageCounted,
        (Cause::Consume | Cause::Record | Cause::Resize | Cause::ResizeRecord, _) => {
            EventKind::AllocationResized
        }
        (Cause::Release | Cause::ReleaseMatching, _) => EventKind::AllocationReleased,
        (Cause::Renew, _) => EventKind::AllocationRenewed,
        (Cause::Reserve, _) => EventKind::HoldCreated,
        (Cause::RenewHold, _) => EventKind::HoldRenewed,
        (Cause::Commit | Cause::CommitRecord, _) => EventKind::HoldCommitted,
        (Cause::Cancel, _) => EventKind::HoldCancelled,
        (Cause::Expire, Some(_)) => EventKind::AllocationExpired,
        (Cause::Expire, None) => EventKind::HoldExpired,
    }
}

/// How much an event matters.
pub(in crate::api) fn severity(what: &What) -> Severity {
    match what {
        What::Crossed(crossing) => match (crossing.from, crossing.to) {
            (_, Level::Over) => Severity::Critical,
            (Level::Over, Level::Near) | (_, Level::Below) => Severity::Info,
            (Level::Below | Level::Near, Level::Near) => Severity::Warning,
        },
        What::Refused(_) => Severity::Warning,
        What::Exceeded(exceeded) if !exceeded.shadow => Severity::Warning,
        What::ClockDoubted { doubted: true, .. } => Severity::Critical,
        What::Started { rebuilt: true, .. } => Severity::Warning,
        _ => Severity::Info,
    }
}

/// An event with its number.
pub(in crate::api) fn event(sequence: u64, told: &Told) -> v1::Event {
    let mut subjects = told.what.subjects().into_iter();
    let subject = text(subjects.next());
    let also = match &told.what {
        What::Charged(_) | What::UsageCorrected { .. } => {
            subjects.map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    v1::Event {
        sequence,
        time: Some(timestamp(told.at)),
        kind: kind(&told.what).into(),
        severity: severity(&told.what).into(),
        subject,
        also,
        operation_id: told.operation.clone(),
        actor: told.actor.clone(),
        source: told.source.clone(),
        detail: detail(&told.what),
    }
}

fn detail(what: &What) -> Option<Detail> {
    Some(match what {
        What::SubjectCreated(_) | What::SubjectChanged(_) | What::SubjectDeleted(_) => return None,
        What::ResourceSet(key) | What::ResourceDeleted(key) => {
            Detail::ResourceChange(v1::ResourceChange {
                resource: key.to_string(),
            })
        }
        What::Quota {
            target,
            resource,
            id,
            before,
            after,
        } => Detail::LimitChange(v1::LimitChange {
            target: Target::to_string(target),
            resource: resource.to_string(),
            quota: id.to_string(),
            before: before.map(limit),
            after: after.map(limit),
        }),
        What::Charged(charge) => Detail::Charge(charge_detail(charge)),
        What::UsageReset {
            resource,
            quota,
            purpose,
            ..
        } => Detail::UsageChange(v1::UsageChange {
            resource: resource.to_string(),
            quota: text(quota.as_ref()),
            amounts: Vec::new(),
            purpose: purpose.clone(),
        }),
        What::UsageCorrected {
            amounts: added,
            purpose,
            ..
        } => Detail::UsageChange(v1::UsageChange {
            resource: String::new(),
            quota: String::new(),
            amounts: amounts(added),
            purpose: purpose.clone(),
        }),
        What::ClockAccepted { offset_ns } | What::ClockDoubted { offset_ns, .. } => {
            Detail::ClockChange(v1::ClockChange {
                offset: Some(signed_duration(*offset_ns)),
            })
        }
        What::Started { batches, rebuilt } => Detail::Recovery(v1::Recovery {
            batches: *batches,
            rows_rebuilt: *rebuilt,
        }),
        What::Exceeded(exceeded) => Detail::Finding(finding(&exceeded.finding)),
        What::Crossed(crossing) => Detail::Crossing(crossing_detail(crossing)),
        What::Refused(refused) => Detail::Refusal(v1::RefusalDetail {
            finding: Some(finding(&refused.finding)),
            count: refused.count,
            first_time: Some(timestamp(refused.first)),
        }),
        What::Usage(usage) => {
            let accounts = usage.accounts.iter();
            let accounts = accounts.map(|(resource, used, held)| v1::UsageNow {
                resource: resource.to_string(),
                used: *used,
                held: *held,
            });
            Detail::Usage(v1::UsageUpdate {
                accounts: accounts.collect(),
            })
        }
    })
}

fn charge_detail(charge: &ToldCharge) -> v1::ChargeDetail {
    let (row, hold) = (charge.allocation.as_ref(), charge.hold.as_ref());
    let labels = row.map(|row| &row.labels).or(hold.map(|hold| &hold.labels));
    v1::ChargeDetail {
        used: amounts(&charge.used),
        held: amounts(&charge.held),
        allocation: row.map(|row| row.key.clone()).unwrap_or_default(),
        allocation_generation: row.map_or(0, |row| row.generation),
        allocation_ended: row.is_some_and(|row| row.ended),
        hold: hold.map(|hold| hold.key.clone()).unwrap_or_default(),
        labels: labels.cloned().unwrap_or_default(),
        recorded: matches!(
            charge.cause,
            Cause::Record | Cause::ResizeRecord | Cause::CommitRecord
        ),
    }
}

fn crossing_detail(crossing: &Crossing) -> v1::Crossing {
    v1::Crossing {
        resource: crossing.resource.to_string(),
        quota: crossing.quota.to_string(),
        pattern: text(crossing.pattern.as_ref()),
        from: level(crossing.from).into(),
        to: level(crossing.to).into(),
        limit: crossing.limit,
        used: crossing.used,
        held: crossing.held,
        period_start_time: start(crossing.window),
        period_end_time: end(crossing.window),
    }
}

fn level(level: Level) -> v1::LimitLevel {
    match level {
        Level::Below => v1::LimitLevel::Below,
        Level::Near => v1::LimitLevel::Near,
        Level::Over => v1::LimitLevel::Over,
    }
}
