//! What simulated lives came by: each verb, decision, reason, error and fault, counted.

use std::collections::BTreeMap;

use super::steps::{Fault, Step};
use crate::script::Call;

/// Counts by kind and name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Coverage(BTreeMap<(&'static str, String), u64>);

const VERBS: &[&str] = &[
    "consume",
    "release",
    "resize",
    "renew",
    "release-matching",
    "linked",
    "reserve",
    "commit",
    "renew-hold",
    "cancel",
    "subject",
    "unsubject",
    "resource",
    "unresource",
    "quota",
    "unquota",
    "reset",
    "correct",
    "check",
    "used",
    "held",
    "counted",
    "hold",
    "batch",
];
const DECISIONS: &[&str] = &[
    "granted",
    "denied",
    "delayed",
    "partial",
    "held",
    "committed",
    "undecided",
    "exceeding",
    "warning",
    "shadow",
    "near",
    "tightest",
    "unbounded",
    "replayed",
    "warned",
    "retry",
    "late",
    "more",
    "dry",
];
const REASONS: &[&str] = &[
    "LIMIT",
    "RATE",
    "PERIOD_EXHAUSTED",
    "TOO_LARGE",
    "NO_QUOTA",
    "SUSPENDED",
];
const HOLDS: &[&str] = &["LIVE", "COMMITTED", "CANCELLED", "EXPIRED"];
const ERRORS: &[&str] = &[
    "INVALID_FIELDS",
    "SUBJECT_UNKNOWN",
    "ALLOCATION_UNKNOWN",
    "HOLD_UNKNOWN",
    "HOLD_ENDED",
    "HOLD_TOO_SMALL",
    "SUBJECT_IN_USE",
    "CORRECTION_TOO_LARGE",
    "QUOTA_UNKNOWN",
    "RESOURCE_UNKNOWN",
    "EXISTS",
    "OPERATION_ID_REUSED",
    "RELEASE_TOO_LARGE",
    "FORCE_NEEDED",
    "OUTCOME_FORGOTTEN",
    "RESOURCE_IN_USE",
    "ETAG_MISMATCH",
    "GENERATION_MISMATCH",
    "CAPACITY",
];
/// What an engine says that the ledger does not.
const FAULTS: &[&str] = &[
    "overloaded",
    "draining",
    "deadline",
    "journal-down",
    "journal-down-unknown",
    "withdrawn",
];
const BROKEN: &[&str] = &[
    "power",
    "power-after",
    "power-in-recovery",
    "kill",
    "stop",
    "sync-fails",
    "full",
    "room",
    "slow",
    "rows-fail",
    "rows-lost",
    "base-fails",
    "apply",
    "clock-steps",
    "reboot",
    "accept-clock",
];
/// What came of faults.
const TURNS: &[&str] = &[
    "in doubt, there",
    "in doubt, gone",
    "in doubt, written later",
    "rows rebuilt",
    "rows laid over",
    "rows given up",
    "clock suspect",
    "clock refused",
    "stall seen",
    "base written",
    "journal trimmed",
];

const ALL: &[(&str, &[&str])] = &[
    ("call", VERBS),
    ("decision", DECISIONS),
    ("reason", REASONS),
    ("hold", HOLDS),
    ("error", ERRORS),
    ("engine", FAULTS),
    ("fault", BROKEN),
    ("turn", TURNS),
];

impl Coverage {
    /// Counts something.
    pub fn note(&mut self, kind: &'static str, name: &str) {
        *self.0.entry((kind, name.to_owned())).or_default() += 1;
    }

    /// Counts a call with its answer.
    pub fn answered(&mut self, call: &Call, text: &str) {
        self.note("call", &call.verb);
        if call.has("dry") {
            self.note("decision", "dry");
        }
        if let Some(reason) = text.strip_prefix("error ") {
            return self.note("error", reason);
        }
        for word in text.split([' ', '[', ']', ';', ',']) {
            for (kind, names) in [
                ("decision", DECISIONS),
                ("reason", REASONS),
                ("hold", HOLDS),
            ] {
                if names.contains(&word) {
                    self.note(kind, word);
                }
            }
        }
    }

    /// Counts a step.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Fault(fault) => self.note("fault", Fault::name(fault)),
            Step::Group(callers) if callers.iter().any(|caller| caller.calls.len() > 1) => {
                self.note("call", "batch");
            }
            _ => {}
        }
    }

    /// Adds what another life came by.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }

    /// Everything that should be come by, with how often it was.
    pub fn table(&self) -> Vec<(&'static str, &'static str, u64)> {
        let count = |kind, name: &str| self.0.get(&(kind, name.to_owned())).copied();
        let rows = ALL.iter().flat_map(|(kind, names)| {
            let of = |name: &&'static str| (*kind, *name, count(*kind, name).unwrap_or_default());
            names.iter().map(of).collect::<Vec<_>>()
        });
        rows.collect()
    }

    /// What nothing came by.
    pub fn missing(&self) -> Vec<String> {
        let never = self.table().into_iter().filter(|(_, _, count)| *count == 0);
        never
            .map(|(kind, name, _)| format!("{kind} {name}"))
            .collect()
    }
}
