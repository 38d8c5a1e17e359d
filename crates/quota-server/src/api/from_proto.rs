//! Wire to domain: once, strictly, and every bad field is reported (C5.4, C12).

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use quota_core::amount::{AMOUNT_MAX, Limit};
use quota_core::charge::{ALSO_MAX, canonical_also, same_lane};
use quota_core::command::{Amounts, Digest};
use quota_core::decide::check_held;
use quota_core::evaluate::Mode;
use quota_core::labels::{self, Labels};
use quota_core::name::{Id, NameError, OperationId, ResourceKey, SubjectName};
use quota_core::rejection::Violation;
use quota_core::resource::Resources;
use quota_proto::v1;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::status;

/// Most resources in one request.
pub(super) const RESOURCES_MAX: usize = 16;
/// Longest text for people, in bytes.
pub(super) const DISPLAY_BYTES_MAX: usize = 256;
/// Longest name of a calling system or an actor, in bytes.
const SOURCE_BYTES_MAX: usize = 128;
/// Longest purpose, in bytes.
const PURPOSE_BYTES_MAX: usize = 256;
/// Longest age of an operation that a caller may state, in seconds.
const AGE_SECS_MAX: i64 = 365 * 24 * 3600;
/// Metadata that says who asks, until there are tokens (C6.7).
const ACTOR: &str = "quota-actor";

/// What is wrong with a request, as far as it was read.
#[derive(Default)]
pub(super) struct Reader {
    violations: Vec<Violation>,
    /// What only the state says is wrong. A mutation leaves that to the ledger, which first looks whether the
    /// operation was answered before.
    doubts: Vec<Violation>,
}

impl Reader {
    /// The request is well formed, or every bad field of it is reported.
    pub(super) fn finish(mut self) -> Result<(), Status> {
        if self.violations.is_empty() {
            return Ok(());
        }
        self.violations.append(&mut self.doubts);
        Err(status::invalid(&self.violations))
    }

    /// The request is good by the state too; for reads, which no ledger sees.
    pub(super) fn finish_read(mut self) -> Result<(), Status> {
        self.violations.append(&mut self.doubts);
        self.finish()
    }

    pub(super) fn wrong(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations.push(Violation::new(field, description));
    }

    pub(super) fn unsupported(&mut self, field: &str, present: bool, what: &str) {
        if present {
            self.wrong(field, format!("{what} is not supported by this version"));
        }
    }

    fn take<T>(&mut self, field: impl Into<String>, read: Result<T, NameError>) -> Option<T> {
        read.map_err(|error| self.wrong(field, error.0)).ok()
    }

    /// A subject; a stand-in where it is bad, which [`Self::finish`] never lets through.
    pub(super) fn subject(&mut self, field: &str, text: &str) -> SubjectName {
        self.take(field, SubjectName::parse(text))
            .unwrap_or_else(SubjectName::system)
    }

    /// A prefix of names; empty is all.
    pub(super) fn prefix(&mut self, field: &str, text: &str) -> SubjectName {
        match text {
            "" => SubjectName::system(),
            text => self.subject(field, text),
        }
    }

    pub(super) fn also(&mut self, subject: &SubjectName, also: &[String]) -> Vec<SubjectName> {
        if also.len() > ALSO_MAX {
            self.wrong(
                "also",
                format!("has {} names; at most {ALSO_MAX}", also.len()),
            );
            return Vec::new();
        }
        let mut names = Vec::new();
        for (at, text) in also.iter().enumerate() {
            let field = format!("also[{at}]");
            let Some(name) = self.take(field.clone(), SubjectName::parse(text)) else {
                continue;
            };
            if !same_lane(subject, &name) {
                self.wrong(
                    field,
                    format!(
                        "{name} does not share the first pair of {subject}; all subjects of a request do"
                    ),
                );
            }
            names.push(name);
        }
        let first = names.iter().find(|name| !name.is_system());
        if subject.is_system()
            && let Some(first) = first
            && let Some(other) = names.iter().find(|name| !same_lane(first, name))
        {
            let text = format!("{other} does not share the first pair of {first}");
            self.wrong("also", text);
        }
        canonical_also(subject, names)
    }

    /// Amounts, each resource once and known, `least` to [`AMOUNT_MAX`].
    pub(super) fn amounts(
        &mut self,
        resources: &Resources,
        amounts: &[v1::Amount],
        least: i64,
    ) -> Amounts {
        let mut read: Amounts = Vec::new();
        if amounts.len() > RESOURCES_MAX {
            let text = format!("has {} resources; at most {RESOURCES_MAX}", amounts.len());
            self.wrong("amounts", text);
            return read;
        }
        for (at, amount) in amounts.iter().enumerate() {
            if !(least..=AMOUNT_MAX).contains(&amount.amount) {
                self.wrong(
                    format!("amounts[{at}].amount"),
                    format!("is {}; {least} to {AMOUNT_MAX} base units", amount.amount),
                );
            }
            let field = format!("amounts[{at}].resource");
            let Some(key) = self.take(field.clone(), ResourceKey::parse(&amount.resource)) else {
                continue;
            };
            if read.iter().any(|(have, _)| *have == key) {
                self.wrong(field, format!("{key} is named twice; each resource once"));
                continue;
            }
            let one = vec![(key.clone(), amount.amount)];
            for violation in check_held(resources, &one) {
                let doubt = Violation::new(field.clone(), violation.description);
                self.doubts.push(doubt);
            }
            read.push((key, amount.amount));
        }
        read
    }

    pub(super) fn some_amounts(
        &mut self,
        resources: &Resources,
        amounts: &[v1::Amount],
        least: i64,
    ) -> Amounts {
        if amounts.is_empty() {
            self.wrong("amounts", "is empty; at least one resource");
        }
        self.amounts(resources, amounts, least)
    }

    pub(super) fn id(&mut self, field: &str, text: &str) -> Option<Id> {
        match text {
            "" => None,
            text => self.take(field, Id::parse(text)),
        }
    }

    pub(super) fn resource(&mut self, field: &str, text: &str) -> Option<ResourceKey> {
        self.take(field, ResourceKey::parse(text))
    }

    /// A resource to filter by; empty is all.
    pub(super) fn resource_filter(&mut self, text: &str) -> Option<ResourceKey> {
        match text {
            "" => None,
            text => self.resource("resource", text),
        }
    }

    pub(super) fn mode(&mut self, mode: i32) -> Mode {
        match v1::ConsumeMode::try_from(mode) {
            Ok(v1::ConsumeMode::Unspecified | v1::ConsumeMode::Strict) => Mode::Strict,
            Ok(v1::ConsumeMode::Record) => Mode::Record,
            Ok(v1::ConsumeMode::BestEffort) => {
                self.unsupported("mode", true, "BEST_EFFORT");
                Mode::Strict
            }
            Err(_) => {
                self.wrong("mode", format!("{mode} is no mode; STRICT or RECORD"));
                Mode::Strict
            }
        }
    }

    pub(super) fn labels(
        &mut self,
        field: &str,
        labels: BTreeMap<String, String>,
        most: usize,
    ) -> Labels {
        if let Err(why) = labels::check(&labels, most) {
            self.wrong(field, why);
        }
        labels
    }

    pub(super) fn text(&mut self, field: &str, text: String, bytes_max: usize) -> String {
        if text.len() > bytes_max || text.chars().any(char::is_control) {
            self.wrong(
                field,
                format!("at most {bytes_max} bytes, no control characters"),
            );
        }
        text
    }

    pub(super) fn source(&mut self, text: String) -> String {
        self.text("source", text, SOURCE_BYTES_MAX)
    }

    pub(super) fn purpose(&mut self, text: String) -> String {
        self.text("purpose", text, PURPOSE_BYTES_MAX)
    }

    pub(super) fn limit(&mut self, field: &str, limit: Option<v1::Limit>) -> Limit {
        match limit.and_then(|limit| limit.limit) {
            Some(v1::limit::Limit::Unlimited(v1::Unlimited {})) => Limit::Unlimited,
            Some(v1::limit::Limit::Value(value)) if (0..=AMOUNT_MAX).contains(&value) => {
                Limit::Value(value)
            }
            Some(v1::limit::Limit::Value(value)) => {
                self.wrong(field, format!("is {value}; 0 to {AMOUNT_MAX} base units"));
                Limit::Value(0)
            }
            None => {
                self.wrong(field, "is unset; a value (0 admits nothing) or unlimited");
                Limit::Value(0)
            }
        }
    }

    /// The identity of a mutation; `content` is the request without id and age.
    pub(super) fn identity(
        &mut self,
        method: &str,
        content: &impl Message,
        operation_id: &str,
        age: Option<prost_types::Duration>,
        source: String,
    ) -> Identity {
        let given = !operation_id.is_empty();
        let made;
        let text = match given {
            true => operation_id,
            false => {
                made = uuid::Uuid::now_v7().to_string();
                &made
            }
        };
        let id = self
            .take("operation_id", OperationId::parse(text))
            .unwrap_or_else(|| OperationId::parse("-").expect("a dash is printable"));
        Identity {
            id,
            given,
            digest: digest(method, content),
            age: self.age(age),
            source: self.source(source),
        }
    }

    fn age(&mut self, age: Option<prost_types::Duration>) -> Option<Duration> {
        let age = age?;
        let nanos = u32::try_from(age.nanos).ok().filter(|n| *n < 1_000_000_000);
        match (u64::try_from(age.seconds), nanos) {
            (Ok(seconds), Some(nanos)) if age.seconds <= AGE_SECS_MAX => {
                Some(Duration::new(seconds, nanos))
            }
            _ => {
                let text = format!("0 to {AGE_SECS_MAX} seconds");
                self.wrong("operation_age", text);
                None
            }
        }
    }
}

/// What makes a mutation the same over its retries.
pub(super) struct Identity {
    pub(super) id: OperationId,
    pub(super) given: bool,
    pub(super) digest: Digest,
    pub(super) age: Option<Duration>,
    pub(super) source: String,
}

/// Digest of a request's content: the method and the message without id and age.
fn digest(method: &str, content: &impl Message) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(method.as_bytes());
    hasher.update(&[0]);
    hasher.update(&content.encode_to_vec());
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// What the metadata of a call says.
pub(super) struct Caller {
    pub(super) actor: String,
    pub(super) patience: Option<Duration>,
}

impl Caller {
    pub(super) fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let mut reader = Reader::default();
        let actor = match metadata.get(ACTOR).map(|value| value.to_str()) {
            None => String::new(),
            Some(Ok(text)) => reader.text(ACTOR, text.to_owned(), SOURCE_BYTES_MAX),
            Some(Err(_)) => {
                reader.wrong(ACTOR, "printable ASCII");
                String::new()
            }
        };
        reader.finish()?;
        let timeout = metadata
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok());
        Ok(Self {
            actor,
            patience: timeout.and_then(read_timeout).map(super::patience),
        })
    }
}

/// The `grpc-timeout` of a call, as the protocol writes it.
fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(read_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read_timeout("3S"), Some(Duration::from_secs(3)));
        for bad in ["", "S", "3", "3x", "999999999S", "-1S"] {
            assert_eq!(read_timeout(bad), None, "{bad}");
        }
    }

    /// C6.6: the content is the request without id and age, and the method belongs to it.
    #[test]
    fn digests() {
        let request = v1::Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        };
        assert_eq!(digest("Consume", &request), digest("Consume", &request));
        assert_ne!(digest("Consume", &request), digest("Release", &request));
    }
}
