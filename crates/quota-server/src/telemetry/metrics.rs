//! Every metric, with its name, its help and its unit; no other file names one. Whoever counts holds a handle,
//! so that nothing on the way of a decision looks a label up.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use quota_core::event::{Change, Event};
use quota_core::ledger::Sizes;
use quota_core::outcome::{Answer, Reply};
use quota_core::rejection::Rejection;
use quota_core::verdict::{Decision, Finding, Reason, Verdict};

use super::subjects::{ShownSubjects, level_of};

/// Most series of violations: beyond it they are counted in one series without labels.
pub const VIOLATION_SERIES_MAX: usize = 1000;

/// Seconds of calls and of waits.
const CALL_SECONDS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 5.0,
];
/// Seconds of a Check, which waits for nobody.
const CHECK_SECONDS: [f64; 12] = [
    0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.005, 0.025, 0.1,
    1.0,
];
/// Commands of a group.
const GROUP_SIZES: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// A gauge with a fraction.
pub type Fraction = Gauge<f64, AtomicU64>;
/// Histograms that are made by the first call of their method.
pub type Latencies = Family<MethodLabels, Histogram, fn() -> Histogram>;

/// A method.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct MethodLabels {
    /// The full name of the service.
    pub service: String,
    /// The method.
    pub method: String,
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct CallLabels {
    /// The full name of the service.
    pub service: String,
    /// The method.
    pub method: String,
    /// The code as gRPC writes it.
    pub code: &'static str,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct DecisionLabels {
    /// `check` or `charge`.
    pub call: &'static str,
    /// The decision.
    pub decision: &'static str,
}

/// Why a limit refused.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RefusalLabels {
    /// `check` or `charge`.
    pub call: &'static str,
    /// The reason.
    pub reason: &'static str,
}

/// An account of a subject. `period` is empty for what is there, and for a count of a lifetime.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct AccountLabels {
    /// Name of the subject.
    pub entity_id: String,
    /// Key of the resource.
    pub resource_type: String,
    /// Last collection of the name.
    pub level: String,
    /// Period of a counter, or interval of a rate.
    pub period: String,
}

/// Where and why a limit was violated.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ViolationLabels {
    /// Name of the subject; empty where it has no series of its own.
    pub entity_id: String,
    /// Key of the resource.
    pub resource_type: String,
    /// Last collection of the name.
    pub level: String,
    /// Why.
    pub reason: &'static str,
}

/// What became of spans.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct SpanLabels {
    /// `exported` or `failed`.
    pub result: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal, $unit:expr, $make:expr;)*) => {
        /// The metrics of one server.
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: $type,)*
            pub(super) registry: Registry,
            /// One scrape at a time: gauges are set for it.
            pub(super) scraping: Mutex<()>,
            charges: Verdicts,
            checks: Verdicts,
            /// How many series of violations there are.
            violation_series: Mutex<usize>,
        }

        impl Metrics {
            /// All at zero.
            pub fn new() -> Self {
                let mut registry = Registry::default();
                $(
                    let $field: $type = $make;
                    let help = concat!($($help),+);
                    register(&mut registry, $name, help, $unit, $field.clone());
                )*
                Self {
                    $($field,)*
                    registry,
                    scraping: Mutex::new(()),
                    charges: Verdicts::of("charge"),
                    checks: Verdicts::of("check"),
                    violation_series: Mutex::new(0),
                }
            }

            /// Every name as it is exposed, without the endings of counters and histograms.
            pub fn names() -> Vec<String> {
                vec![$(exposed($name, $unit)),*]
            }
        }
    };
}

metrics! {
    /// Calls that ended, by the code with which they did; CANCELLED where the caller or its deadline ended the
    /// call first.
    rpc: Family<CallLabels, Counter> = "quota_rpc", None, Family::default();
    /// Time from the arrival of a call to its answer; of a stream to where that begins.
    rpc_duration: Latencies = "quota_rpc_duration", Some(Unit::Seconds),
        Latencies::new_with_constructor(|| Histogram::new(CALL_SECONDS));
    /// Time from the arrival of a Check or BatchCheck to its answer.
    check_duration: Histogram = "quota_check_duration", Some(Unit::Seconds), Histogram::new(CHECK_SECONDS);
    /// Decisions, answers from memory left out; `charge` is what may change accounts.
    decisions: Family<DecisionLabels, Counter> = "quota_decisions", None, Family::default();
    /// Limits that refused, by reason; one denial names all of its limits.
    refusals: Family<RefusalLabels, Counter> = "quota_refusals", None, Family::default();
    /// Limits that were exceeded by facts, and WARN limits that were violated, once durable; without an
    /// entity_id where the subject has no series of its own.
    violations: Family<ViolationLabels, Counter> = "quota_violations", None, Family::default();
    /// What is used and held, counted in the period, or taken from the bucket; in base units.
    usage: Family<AccountLabels, Gauge> = "quota_usage", None, Family::default();
    /// The least limit that refuses or throttles, of the subject and all above it; in base units.
    limit: Family<AccountLabels, Gauge> = "quota_limit", None, Family::default();
    /// Usage divided by the limit.
    utilization: Family<AccountLabels, Fraction> = "quota_utilization", None, Family::default();
    /// Series of usage, limit and utilization that are left out because there would be too many, counting one
    /// for each subject that is left out whole.
    series_left_out: Gauge = "quota_series_left_out", None, Gauge::default();
    /// Subjects that Checks looked up and found resident, as a share of all they looked up.
    cache_hit_ratio: Fraction = "quota_cache_hit_ratio", None, Fraction::default();
    /// Subjects that Checks looked up and found resident.
    cache_hits: Counter = "quota_cache_hits", None, Counter::default();
    /// Subjects that Checks looked up and that are not resident.
    cache_misses: Counter = "quota_cache_misses", None, Counter::default();
    /// Weight of the commands that wait for the writer.
    queue_depth: Gauge = "quota_queue_depth", None, Gauge::default();
    /// Time that commands waited for the writer.
    queue_wait: Histogram = "quota_queue_wait", Some(Unit::Seconds), Histogram::new(CALL_SECONDS);
    /// Commands that were decided and made durable together.
    group_size: Histogram = "quota_group_size", None, Histogram::new(GROUP_SIZES);
    /// Time to append a group to the journal and to flush it.
    commit_duration: Histogram = "quota_commit_duration", Some(Unit::Seconds), Histogram::new(CALL_SECONDS);
    /// Appends to the journal that failed.
    commit_failures: Counter = "quota_commit_failures", None, Counter::default();
    /// The breaker before the journal: 0 closed, 1 open, 2 a flush hangs. Writes are refused unless it is 0.
    breaker_state: Gauge = "quota_breaker_state", None, Gauge::default();
    /// What the journal takes.
    journal_size: Gauge = "quota_journal", Some(Unit::Bytes), Gauge::default();
    /// Batches that were dropped although `audit_retention` or a projection wants them.
    journal_dropped: Counter = "quota_journal_dropped", None, Counter::default();
    /// Changed rows that wait to be written.
    apply_lag: Gauge = "quota_apply_lag", Some(Unit::Bytes), Gauge::default();
    /// Batches whose rows are not written.
    apply_lag_batches: Gauge = "quota_apply_lag_batches", None, Gauge::default();
    /// 1 while rows or a base cannot be written.
    apply_failing: Gauge = "quota_apply_failing", None, Gauge::default();
    /// Durable batches that the history of usage has not written down: it still needs them.
    history_lag_batches: Gauge = "quota_history_lag_batches", None, Gauge::default();
    /// Time that the last start took to recover the state.
    recovery: Fraction = "quota_recovery", Some(Unit::Seconds), Fraction::default();
    /// Operations whose outcomes are remembered.
    operations: Gauge = "quota_operations", None, Gauge::default();
    /// What the outcomes that are remembered take.
    operation_memory: Gauge = "quota_operation_memory", Some(Unit::Bytes), Gauge::default();
    /// The wall clock less the server's.
    clock_offset: Fraction = "quota_clock_offset", Some(Unit::Seconds), Fraction::default();
    /// 1 while the wall clock has stepped, is not followed, and waits to be accepted.
    clock_suspect: Gauge = "quota_clock_suspect", None, Gauge::default();
    /// Subjects that are resident.
    subjects: Gauge = "quota_subjects_resident", None, Gauge::default();
    /// Allocations, those included that are over and not closed yet.
    allocations: Gauge = "quota_allocations", None, Gauge::default();
    /// Holds that are not closed yet.
    holds: Gauge = "quota_holds", None, Gauge::default();
    /// Watchers of events.
    watchers: Gauge = "quota_watchers", None, Gauge::default();
    /// Watchers that were cut off because they took nothing for too long.
    watchers_cut: Counter = "quota_watchers_cut", None, Counter::default();
    /// Spans that were sent to the collector, and that could not be.
    trace_spans: Family<SpanLabels, Counter> = "quota_trace_spans", None, Family::default();
    /// gRPC connections.
    connections: Gauge = "quota_connections", None, Gauge::default();
    /// gRPC connections that were closed at once because there were too many.
    connections_refused: Counter = "quota_connections_refused", None, Counter::default();
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Notes how long the state took to recover.
    pub fn recovered_in(&self, nanos: i64) {
        self.recovery.set(seconds(nanos));
    }

    /// Counts what the callers of a group are told, once it is durable.
    pub(crate) fn answered<'a>(
        &self,
        replies: impl IntoIterator<Item = &'a Result<Reply, Rejection>>,
    ) {
        let mut commands: u32 = 0;
        for reply in replies {
            commands = commands.saturating_add(1);
            if let Ok(reply) = reply
                && !reply.replayed
            {
                self.count_answer(&reply.outcome.answer);
            }
        }
        if commands > 0 {
            self.group_size.observe(f64::from(commands));
        }
    }

    fn count_answer(&self, answer: &Answer) {
        match answer {
            Answer::Charged { verdict, .. }
            | Answer::Reserved { verdict, .. }
            | Answer::Committed { verdict, .. } => self.charges.count(verdict, self),
            Answer::Linked(members) => {
                for member in members {
                    self.count_answer(member);
                }
            }
            _ => {}
        }
    }

    /// Counts the answer to a Check.
    pub(crate) fn checked(&self, verdict: &Verdict) {
        self.checks.count(verdict, self);
    }

    /// Counts subjects that a Check looked up.
    pub(crate) fn looked_up(&self, found: usize, missed: usize) {
        self.cache_hits.inc_by(found as u64);
        if missed > 0 {
            self.cache_misses.inc_by(missed as u64);
        }
    }

    /// What only the writer knows.
    pub(crate) fn measured(&self, sizes: &Sizes, journal_bytes: u64, batches_behind: u64) {
        self.journal_size.set(whole(journal_bytes));
        self.apply_lag_batches.set(whole(batches_behind));
        self.operations.set(whole(sizes.operations));
        self.operation_memory.set(whole(sizes.operation_bytes));
        self.allocations.set(whole(sizes.allocations));
        self.holds.set(whole(sizes.holds));
    }

    /// Counts limits that a durable change violated. `shown` are the subjects with series of their own.
    pub(crate) fn violated(&self, findings: &[Finding], shown: Option<&ShownSubjects>) {
        for finding in findings {
            let name = finding.subject.as_str();
            let has = |shown: &ShownSubjects| shown.has(&finding.subject);
            let entity = if shown.is_some_and(has) { name } else { "" };
            let labels = ViolationLabels {
                entity_id: entity.to_owned(),
                resource_type: finding.resource.to_string(),
                level: level_of(name).to_owned(),
                reason: reason(finding.reason).1,
            };
            self.count_violation(labels);
        }
    }

    fn count_violation(&self, labels: ViolationLabels) {
        let mut series = self.violation_series.lock();
        if let Some(known) = self.violations.get(&labels) {
            known.inc();
            return;
        }
        if *series < VIOLATION_SERIES_MAX {
            *series += 1;
            self.violations.get_or_create(&labels).inc();
            return;
        }
        let rest = ViolationLabels {
            entity_id: String::new(),
            resource_type: String::new(),
            level: String::new(),
            ..labels
        };
        self.violations.get_or_create(&rest).inc();
    }
}

/// Counters of verdicts, each made when it is first needed.
struct Verdicts {
    call: &'static str,
    by_decision: [OnceLock<Counter>; 4],
    by_reason: [OnceLock<Counter>; 6],
}

impl Verdicts {
    fn of(call: &'static str) -> Self {
        Self {
            call,
            by_decision: Default::default(),
            by_reason: Default::default(),
        }
    }

    fn count(&self, verdict: &Verdict, metrics: &Metrics) {
        let call = self.call;
        let (at, decision) = decision(verdict.decision);
        let counter = self.by_decision[at].get_or_init(|| {
            let labels = DecisionLabels { call, decision };
            metrics.decisions.get_or_create_owned(&labels)
        });
        counter.inc();
        for finding in &verdict.refusals {
            let (at, reason) = reason(finding.reason);
            let counter = self.by_reason[at].get_or_init(|| {
                let labels = RefusalLabels { call, reason };
                metrics.refusals.get_or_create_owned(&labels)
            });
            counter.inc();
        }
    }
}

/// Limits that facts exceeded, and WARN limits that were violated.
pub(crate) fn violations(events: &[Event]) -> Vec<Finding> {
    let mut found = Vec::new();
    for event in events {
        if let Change::Charged(charged) = &event.change {
            found.extend_from_slice(&charged.facts);
        }
    }
    found
}

/// The words of the wire.
pub(crate) fn decision(decision: Decision) -> (usize, &'static str) {
    match decision {
        Decision::Denied => (0, "DENIED"),
        Decision::Delayed => (1, "DELAYED"),
        Decision::Partial => (2, "PARTIAL"),
        Decision::Granted => (3, "GRANTED"),
    }
}

fn reason(reason: Reason) -> (usize, &'static str) {
    match reason {
        Reason::Limit => (0, "LIMIT"),
        Reason::Rate => (1, "RATE"),
        Reason::PeriodExhausted => (2, "PERIOD_EXHAUSTED"),
        Reason::TooLarge => (3, "TOO_LARGE"),
        Reason::NoQuota => (4, "NO_QUOTA"),
        Reason::Suspended => (5, "SUSPENDED"),
    }
}

fn register(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    metric: impl Metric,
) {
    // The registry adds a full stop of its own.
    let help = help.trim().trim_end_matches('.');
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}

fn exposed(name: &str, unit: Option<Unit>) -> String {
    match unit {
        Some(unit) => format!("{name}_{}", unit.as_str()),
        None => name.to_owned(),
    }
}

/// A size as a gauge takes it.
pub(crate) fn whole(size: impl TryInto<i64>) -> i64 {
    size.try_into().unwrap_or(i64::MAX)
}

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
