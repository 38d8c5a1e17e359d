//! A simulated life: bounds and steps, one a line.
//!
//! ```text
//! with auto_create=all horizon=3600s
//! quota tenants/t0 compute.cpu 10 op=o1
//! pass 2500000000
//! consume tenants/t0 compute.cpu 4 id=a op=o2 | gone release tenants/t0 id=a op=o3
//! fault sync-fails 2
//! check tenants/t0 compute.cpu 1
//! fault power 77
//! ```
//!
//! A line of calls is a group: all of them wait when the writer wakes up, parted by ` | `; ` & ` parts what
//! one caller sends in one request. Nothing is said of answers: the auditor knows them.

use std::fmt;

use quota_core::Bounds;
use quota_core::ledger::AutoCreate;

use crate::script::{self, Call};

/// A life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Life {
    /// The ledger's bounds.
    pub bounds: Bounds,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Both clocks of the machine go on by so many nanoseconds.
    Pass(i64),
    /// Callers wait when the writer wakes up.
    Group(Vec<Caller>),
    /// Somebody checks over what is published.
    Check(Call),
    /// Something breaks, or is mended.
    Fault(Fault),
}

/// A caller with its request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// What it asks, in order; more than one call is a batch.
    pub calls: Vec<Call>,
    /// Whether it waits for the answer.
    pub patience: Patience,
}

/// How long a caller waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// As long as it takes.
    Waits,
    /// It vanishes before the writer wakes up.
    Gone,
    /// Its deadline has passed.
    Late,
}

/// What breaks, or is mended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The power goes and comes back; the seed says which of the unsynced blocks are lost.
    Power(u64),
    /// The power goes after so many calls of the disk. It comes back with the next [`Fault::Power`].
    PowerAfter(u64),
    /// The power goes after so many calls of the disk while what is there is recovered, and comes back.
    PowerInRecovery(u64, u64),
    /// The process is killed; the disk keeps what was written.
    Kill,
    /// The process ends in order.
    Stop,
    /// So many syncs of the journal fail, and forget what they failed to write.
    SyncFails(u64),
    /// The disk is full.
    Full,
    /// There is room again.
    Room,
    /// The next sync of the journal takes so many nanoseconds.
    Slow(i64),
    /// So many rounds of rows fail half-way; the seed says where.
    RowsFail(u64, u64),
    /// The rows are gone when the process starts again.
    RowsLost,
    /// Syncs of bases fail.
    BaseFails(u64),
    /// Rows are written now.
    Apply,
    /// The wall clock steps by so many nanoseconds.
    ClockSteps(i64),
    /// The machine starts again, so many nanoseconds later by its wall clock; the seed is the power's.
    Reboot(i64, u64),
    /// An operator accepts the wall clock.
    AcceptClock,
}

impl Step {
    /// A group of one.
    pub fn call(call: Call) -> Self {
        Self::Group(vec![Caller {
            calls: vec![call],
            patience: Patience::Waits,
        }])
    }
}

impl Life {
    /// Reads a life. A malformed one stops the test.
    pub fn parse(text: &str) -> Self {
        let mut life = Self {
            bounds: Bounds::default(),
            steps: Vec::new(),
        };
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.strip_prefix("with ") {
                Some(settings) => life.bounds = script::bounds(settings),
                None => life.steps.push(parse(line)),
            }
        }
        life
    }
}

fn parse(line: &str) -> Step {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "pass" => Step::Pass(rest.parse().expect("nanoseconds")),
        "check" => Step::Check(Call::parse(line)),
        "fault" => Step::Fault(parse_fault(rest)),
        _ => Step::Group(line.split(" | ").map(parse_caller).collect()),
    }
}

fn parse_caller(text: &str) -> Caller {
    let (patience, text) = match text.split_once(' ') {
        Some(("gone", rest)) => (Patience::Gone, rest),
        Some(("late", rest)) => (Patience::Late, rest),
        _ => (Patience::Waits, text),
    };
    let calls = text.split(" & ").map(Call::parse).collect();
    Caller { calls, patience }
}

fn parse_fault(text: &str) -> Fault {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let numbers: Vec<i64> = words.map(|n| n.parse().expect("a number")).collect();
    let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
    let count = |at: usize| number(at).unsigned_abs();
    match name {
        "power" => Fault::Power(count(0)),
        "power-after" => Fault::PowerAfter(count(0)),
        "power-in-recovery" => Fault::PowerInRecovery(count(0), count(1)),
        "kill" => Fault::Kill,
        "stop" => Fault::Stop,
        "sync-fails" => Fault::SyncFails(count(0)),
        "full" => Fault::Full,
        "room" => Fault::Room,
        "slow" => Fault::Slow(number(0)),
        "rows-fail" => Fault::RowsFail(count(0), count(1)),
        "rows-lost" => Fault::RowsLost,
        "base-fails" => Fault::BaseFails(count(0)),
        "apply" => Fault::Apply,
        "clock-steps" => Fault::ClockSteps(number(0)),
        "reboot" => Fault::Reboot(number(0), count(1)),
        "accept-clock" => Fault::AcceptClock,
        other => panic!("no fault is called {other}"),
    }
}

impl Fault {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Power(_) => "power",
            Self::PowerAfter(_) => "power-after",
            Self::PowerInRecovery(..) => "power-in-recovery",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::SyncFails(_) => "sync-fails",
            Self::Full => "full",
            Self::Room => "room",
            Self::Slow(_) => "slow",
            Self::RowsFail(..) => "rows-fail",
            Self::RowsLost => "rows-lost",
            Self::BaseFails(_) => "base-fails",
            Self::Apply => "apply",
            Self::ClockSteps(_) => "clock-steps",
            Self::Reboot(..) => "reboot",
            Self::AcceptClock => "accept-clock",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Power(one) | Self::PowerAfter(one) | Self::SyncFails(one) => {
                write!(f, "{name} {one}")
            }
            Self::BaseFails(one) => write!(f, "{name} {one}"),
            Self::Slow(one) | Self::ClockSteps(one) => write!(f, "{name} {one}"),
            Self::RowsFail(one, two) | Self::PowerInRecovery(one, two) => {
                write!(f, "{name} {one} {two}")
            }
            Self::Reboot(one, two) => write!(f, "{name} {one} {two}"),
            Self::Kill
            | Self::Stop
            | Self::Full
            | Self::Room
            | Self::RowsLost
            | Self::Apply
            | Self::AcceptClock => f.write_str(name),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.patience {
            Patience::Waits => "",
            Patience::Gone => "gone ",
            Patience::Late => "late ",
        })?;
        f.write_str(&joined(&self.calls, " & "))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass(nanos) => write!(f, "pass {nanos}"),
            Self::Group(callers) => f.write_str(&joined(callers, " | ")),
            Self::Check(call) => write!(f, "{call}"),
            Self::Fault(fault) => write!(f, "fault {fault}"),
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds {
            auto_create,
            subjects_max,
            memory,
        } = self.bounds;
        let auto_create = match auto_create {
            AutoCreate::All => "all",
            AutoCreate::BelowTop => "below-top",
            AutoCreate::None => "none",
        };
        writeln!(
            f,
            "with auto_create={auto_create} subjects_max={subjects_max} horizon={}s outcomes_max={} \
             refusals_max={}",
            memory.horizon.as_secs(),
            memory.outcomes_max,
            memory.refusals_max
        )?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

fn joined<T: fmt::Display>(parts: &[T], between: &str) -> String {
    let parts: Vec<String> = parts.iter().map(T::to_string).collect();
    parts.join(between)
}
