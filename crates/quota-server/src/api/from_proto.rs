//! Wire to domain: once, strictly, and every bad field is reported (C5.4, C12).

mod quota;

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use quota_core::amount::{AMOUNT_MAX, Limit};
use quota_core::charge::{ALSO_MAX, canonical_also, same_lane};
use quota_core::command::Uncovered;
use quota_core::command::{Amounts, Digest};
use quota_core::decide::{Use, check_use};
use quota_core::hold::TTL_MAX;
use quota_core::labels::{self, Labels};
use quota_core::name::{Id, NameError, OperationId, ResourceKey, SubjectName};
use quota_core::rejection::{Rejection, Violation};
use quota_core::resource::Resources;
use quota_core::time::{SECOND_NS, Timestamp};
use quota_core::verdict::Mode;
use quota_proto::v1;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::status;
use crate::telemetry::traces::CallSpan;
pub(super) use quota::{read_quota, read_target};

/// Most resources in one request.
pub(super) const RESOURCES_MAX: usize = 16;
/// Longest text for people, in bytes.
pub(super) const DISPLAY_BYTES_MAX: usize = 256;
/// Longest name of a calling system or an actor, in bytes.
const SOURCE_BYTES_MAX: usize = 128;
/// Longest purpose, in bytes.
const PURPOSE_BYTES_MAX: usize = 256;
/// Longest age of an operation that a caller may state.
const AGE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Metadata that says who asks, until there are tokens (C6.7).
const ACTOR: &str = "quota-actor";

/// What is wrong with a request, as far as it was read.
#[derive(Default)]
pub(super) struct Reader {
    violations: Vec<Violation>,
    /// What only the state says is wrong. A mutation leaves that to the ledger, which first looks whether the
    /// operation was answered before.
    doubts: Vec<Violation>,
    /// Where the amounts that were read stand in the request.
    positions: Vec<usize>,
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

    /// What is wrong with one item of a list, or why there is nothing.
    pub(super) fn finish_item(mut self) -> Result<(), Rejection> {
        match self.violations.is_empty() {
            true => Ok(()),
            false => {
                self.violations.append(&mut self.doubts);
                Err(Rejection::Invalid(self.violations))
            }
        }
    }

    /// The same for an item that is only read.
    pub(super) fn finish_read_item(mut self) -> Result<(), Rejection> {
        self.violations.append(&mut self.doubts);
        self.finish_item()
    }

    /// Takes over what is wrong with a part of the request.
    pub(super) fn take_over(&mut self, prefix: &str, part: Self) {
        let under = |mut violation: Violation| {
            violation.field = format!("{prefix}.{}", violation.field);
            violation
        };
        self.violations
            .extend(part.violations.into_iter().map(under));
        self.doubts.extend(part.doubts.into_iter().map(under));
    }

    /// Notes what the resources say is wrong.
    pub(super) fn doubt(&mut self, resources: &Resources, amounts: &Amounts, purpose: Use) {
        for mut doubt in check_use(resources, amounts, purpose) {
            let read = doubt.field.strip_prefix("amounts[");
            let read = read.and_then(|rest| rest.split_once(']'));
            if let Some((at, rest)) = read
                && let Some(at) = at.parse().ok().and_then(|at: usize| self.positions.get(at))
            {
                doubt.field = format!("amounts[{at}]{rest}");
            }
            self.doubts.push(doubt);
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

    /// Amounts, each resource once, `least` to [`AMOUNT_MAX`].
    pub(super) fn amounts(&mut self, amounts: &[v1::Amount], least: i64) -> Amounts {
        let mut read: Amounts = Vec::new();
        self.positions.clear();
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
            self.positions.push(at);
            read.push((key, amount.amount));
        }
        read
    }

    pub(super) fn some_amounts(&mut self, amounts: &[v1::Amount], least: i64) -> Amounts {
        if amounts.is_empty() {
            self.wrong("amounts", "is empty; at least one resource");
        }
        self.amounts(amounts, least)
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

    /// How growth is decided; a best effort is of one resource and has a minimum.
    pub(super) fn mode(&mut self, mode: i32, minimum: Option<i64>, amounts: &Amounts) -> Mode {
        let read = match v1::ConsumeMode::try_from(mode) {
            Ok(v1::ConsumeMode::Unspecified | v1::ConsumeMode::Strict) => Mode::Strict,
            Ok(v1::ConsumeMode::Record) => Mode::Record,
            Ok(v1::ConsumeMode::BestEffort) => Mode::BestEffort {
                minimum: minimum.unwrap_or(1),
            },
            Err(_) => {
                let text = format!("{mode} is no mode; STRICT, BEST_EFFORT or RECORD");
                self.wrong("mode", text);
                Mode::Strict
            }
        };
        let best_effort = matches!(read, Mode::BestEffort { .. });
        if best_effort && amounts.len() > 1 {
            let text = format!(
                "has {} resources; BEST_EFFORT is of exactly one",
                amounts.len()
            );
            self.wrong("amounts", text);
        }
        if let Some(minimum) = minimum {
            let most = amounts.first().map_or(AMOUNT_MAX, |(_, amount)| *amount);
            if !best_effort {
                self.wrong("minimum", "is given; only BEST_EFFORT has one");
            } else if !(1..=most).contains(&minimum) {
                self.wrong("minimum", format!("is {minimum}; 1 to the amount, {most}"));
            }
        }
        read
    }

    /// A mode where nothing but all or a fact makes sense.
    pub(super) fn whole_mode(&mut self, mode: i32) -> Mode {
        if mode == i32::from(v1::ConsumeMode::BestEffort) {
            self.wrong("mode", "is BEST_EFFORT; STRICT or RECORD here");
            return Mode::Strict;
        }
        self.mode(mode, None, &Amounts::new())
    }

    pub(super) fn uncovered(&mut self, field: &str, policy: i32) -> Uncovered {
        match v1::UncoveredPolicy::try_from(policy) {
            Ok(v1::UncoveredPolicy::Unspecified | v1::UncoveredPolicy::Refuse) => Uncovered::Refuse,
            Ok(v1::UncoveredPolicy::Check) => Uncovered::Check,
            Ok(v1::UncoveredPolicy::Record) => Uncovered::Record,
            Err(_) => {
                self.wrong(
                    field,
                    format!("{policy} is no policy; REFUSE, CHECK or RECORD"),
                );
                Uncovered::Refuse
            }
        }
    }

    /// A time to live, above zero and up to [`TTL_MAX`].
    pub(super) fn ttl(&mut self, ttl: Option<prost_types::Duration>) -> Option<Duration> {
        self.duration("ttl", ttl, Duration::from_nanos(1), TTL_MAX)
    }

    pub(super) fn some_ttl(&mut self, ttl: Option<prost_types::Duration>) -> Duration {
        if ttl.is_none() {
            self.wrong("ttl", "is not given; how long from now on");
        }
        self.ttl(ttl).unwrap_or(TTL_MAX)
    }

    pub(super) fn duration(
        &mut self,
        field: &str,
        length: Option<prost_types::Duration>,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let length = length?;
        let read = u64::try_from(length.seconds).ok().and_then(|seconds| {
            let nanos = u32::try_from(length.nanos)
                .ok()
                .filter(|n| *n < 1_000_000_000)?;
            Some(Duration::new(seconds, nanos))
        });
        let read = read.filter(|read| (least..=most).contains(read));
        if read.is_none() {
            let seconds = |length: Duration| format!("{}s", length.as_secs_f64());
            let given = format!("{}.{:09}s", length.seconds, length.nanos.unsigned_abs());
            let text = format!("is {given}; {} to {}", seconds(least), seconds(most));
            self.wrong(field, text);
        }
        read
    }

    pub(super) fn instant(
        &mut self,
        field: &str,
        at: Option<prost_types::Timestamp>,
    ) -> Option<Timestamp> {
        let at = at?;
        let nanos = i64::from(at.nanos);
        let whole = at.seconds.checked_mul(SECOND_NS);
        let read = whole
            .and_then(|whole| whole.checked_add(nanos))
            .filter(|_| (0..SECOND_NS).contains(&nanos));
        if read.is_none() {
            self.wrong(field, "is no instant between the years 1678 and 2261");
        }
        read.map(Timestamp::from_nanos)
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
            age: self.duration("operation_age", age, Duration::ZERO, AGE_MAX),
            validate_only: false,
            source: self.source(source),
        }
    }
}

/// The identity of a request that names its operation, its source and its age, which are taken out of it.
macro_rules! identity {
    ($reader:ident, $method:literal, $request:ident) => {{
        let id = std::mem::take(&mut $request.operation_id);
        let age = $request.operation_age.take();
        $reader.identity($method, &$request, &id, age, $request.source.clone())
    }};
}
pub(super) use identity;

/// The same for an administrator's request, which may ask only to be validated.
macro_rules! admin_identity {
    ($reader:ident, $method:literal, $request:ident) => {{
        let id = std::mem::take(&mut $request.operation_id);
        let identity = $reader.identity($method, &$request, &id, None, String::new());
        crate::api::from_proto::Identity {
            validate_only: $request.validate_only,
            ..identity
        }
    }};
}
pub(super) use admin_identity;

/// What makes a mutation the same over its retries.
pub(super) struct Identity {
    pub(super) id: OperationId,
    pub(super) given: bool,
    pub(super) digest: Digest,
    pub(super) age: Option<Duration>,
    pub(super) source: String,
    /// Only say what would be answered.
    pub(super) validate_only: bool,
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
    /// The span of the call, where it has one.
    pub(super) span: Option<CallSpan>,
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
            span: None,
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
