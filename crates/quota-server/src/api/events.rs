//! Which events a caller wants.

use quota_core::name::{SubjectName, is_within};
use quota_core::quota::Target;
use quota_proto::v1;
use quota_proto::v1::{EventKind, Severity};
use quota_store::told::{Told, What};

use super::from_proto::Reader;
use super::to_proto;

/// Most kinds in a filter.
const KINDS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    prefix: SubjectName,
    kinds: Vec<EventKind>,
    severity_min: Severity,
    /// Only what this actor caused; empty for all.
    pub(super) actor: String,
    /// Only what this operation caused; empty for all.
    pub(super) operation: String,
}

impl Filter {
    /// Reads the fields that every request for events has.
    pub(super) fn read(
        reader: &mut Reader,
        prefix: &str,
        kinds: &[i32],
        severity_min: i32,
    ) -> Self {
        if kinds.len() > KINDS_MAX {
            let text = format!("has {} kinds; at most {KINDS_MAX}", kinds.len());
            reader.wrong("kinds", text);
        }
        let mut known = Vec::new();
        for (at, number) in kinds.iter().enumerate().take(KINDS_MAX) {
            match EventKind::try_from(*number) {
                Ok(EventKind::Unspecified) | Err(_) => {
                    let text = format!("is {number}; a kind of event, such as NEAR_LIMIT");
                    reader.wrong(format!("kinds[{at}]"), text);
                }
                Ok(kind) => known.push(kind),
            }
        }
        let severity_min = Severity::try_from(severity_min).unwrap_or_else(|_| {
            let text = format!("is {severity_min}; INFO, WARNING or CRITICAL");
            reader.wrong("severity_min", text);
            Severity::Unspecified
        });
        Self {
            prefix: reader.prefix("subject_prefix", prefix),
            kinds: known,
            severity_min,
            actor: String::new(),
            operation: String::new(),
        }
    }

    /// Whether an event is asked for.
    fn wants(&self, told: &Told) -> bool {
        let kinds = &self.kinds;
        (kinds.is_empty() || kinds.contains(&to_proto::event_kind(&told.what)))
            && to_proto::severity(&told.what) >= self.severity_min
            && (self.actor.is_empty() || self.actor == told.actor)
            && (self.operation.is_empty() || self.operation == told.operation)
            && self.is_about(&told.what)
    }

    fn is_about(&self, what: &What) -> bool {
        if self.prefix.is_system() {
            return true;
        }
        let prefix = self.prefix.as_str();
        match what {
            What::Quota {
                target: Target::Pattern(pattern),
                ..
            } => is_within(pattern.as_str(), prefix),
            // It takes all below it.
            What::SubjectDeleted(name) => {
                name.is_within(prefix) || self.prefix.is_within(name.as_str())
            }
            what => what.subjects().iter().any(|name| name.is_within(prefix)),
        }
    }

    /// The event as it is sent, if it is asked for.
    pub(super) fn pick(&self, number: u64, told: &Told) -> Option<v1::Event> {
        self.wants(told).then(|| to_proto::event(number, told))
    }
}
