//! Who makes up a life: random, weighted towards limits, conflicts and repetition, with a temper of its own
//! per seed, because what never happens beside something else is never seen beside it.
//!
//! It leaves out what the contract leaves open: RATE quotas that begin or end by themselves, and holds that
//! ended so long ago that they may be forgotten.

mod admin;
mod charging;

use std::collections::VecDeque;

use fastrand::Rng;
use quota_core::Bounds;
use quota_core::ledger::AutoCreate;
use quota_core::time::Timestamp;

use super::steps::{Caller, Fault, Patience, Step};
use crate::auditor::{Auditor, Known};
use crate::script::Call;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;
/// For so long a hold's id is used; one that ended may be forgotten after the horizon of operations.
const HOLDS_STAY: i64 = 5 * 60 * SECOND;
/// Answers are asked for again up to so many calls later.
const RECENT: usize = 60;

/// What this life is like, in percent unless it says otherwise.
struct Temper {
    /// Steps that break something.
    faults: u8,
    /// Steps in which time passes.
    time: u8,
    /// Calls of Admin.
    admin: u8,
    /// Calls that were made before.
    again: u8,
    /// Whether the clock is off, ever.
    clock: bool,
    /// Largest limit of a quota.
    limit: i64,
    /// Most callers of a group.
    callers: usize,
    subjects: Vec<&'static str>,
    resources: Vec<&'static str>,
}

/// Somebody who makes up a life.
pub struct Generator {
    random: Rng,
    temper: Temper,
    bounds: Bounds,
    made: u64,
    /// What was asked, with when.
    recent: VecDeque<(Call, i64)>,
    /// Rows that were asked for, in vain perhaps.
    rows: VecDeque<Known>,
    holds: VecDeque<Known>,
    /// What has to happen next.
    next: VecDeque<Step>,
    /// Whether nothing may fail now.
    calm: bool,
}

const SUBJECTS: &[&str] = &[
    "tenants/t0",
    "tenants/t1",
    "users/u0",
    "tenants/t0/projects/p0",
    "tenants/t0/projects/p1",
    "tenants/t0/projects/p0/users/x0",
    "tenants/t0/projects/p0/users/x1",
    "tenants/t0/teams/m0",
    "tenants/t0/teams/m0/users/x0",
    "tenants/t0-b",
    "tenants/t1/projects/p0",
    "tenants/t1/users/x0",
];
const RESOURCES: &[&str] = &[
    "compute.cpu",
    "storage.disk",
    "tasks.concurrent",
    "api.calls",
    "cost",
    "api.requests",
    "tasks.file_size",
    "lab.space",
    "lab.events",
];
/// An hour, a day, and lengths that do not divide it.
const PERIODS: &[&str] = &["none", "hour", "day", "month", "600s", "7hours"];

fn is_rate(resource: &str) -> bool {
    resource == "api.requests"
}

fn is_counter(resource: &str) -> bool {
    matches!(resource, "api.calls" | "cost" | "lab.events")
}

fn ends(resource: &str) -> bool {
    resource == "tasks.concurrent"
}

fn stays(resource: &str) -> bool {
    matches!(resource, "compute.cpu" | "storage.disk" | "lab.space") || ends(resource)
}

impl Generator {
    /// One that makes up the same life whenever it is given the same seed and the same answers.
    pub fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let auto_create = match random.u8(..10) {
            0 => AutoCreate::None,
            1..=2 => AutoCreate::BelowTop,
            _ => AutoCreate::All,
        };
        let mut bounds = Bounds {
            auto_create,
            ..Bounds::default()
        };
        if random.u8(..8) == 0 {
            bounds.subjects_max = random.usize(3..12);
        }
        if random.u8(..4) == 0 {
            bounds.memory.outcomes_max = random.usize(4..40);
            bounds.memory.refusals_max = random.usize(2..20);
        }
        bounds.memory.horizon = std::time::Duration::from_secs(random.u64(1..7) * 600);
        let some = |random: &mut Rng, all: &[&'static str], least: usize| {
            let mut some = all.to_vec();
            random.shuffle(&mut some);
            some.truncate(random.usize(least..=all.len()));
            some
        };
        let temper = Temper {
            faults: *random.choice([0, 0, 4, 10, 25].iter()).unwrap_or(&0),
            time: random.u8(5..25),
            admin: random.u8(8..35),
            again: random.u8(2..20),
            clock: random.bool(),
            limit: *random
                .choice([3, 20, 20, 1000, 1 << 50].iter())
                .unwrap_or(&20),
            callers: random.usize(1..7),
            subjects: some(&mut random, SUBJECTS, 3),
            resources: some(&mut random, RESOURCES, 2),
        };
        let mut made = Self {
            random,
            temper,
            bounds,
            made: 0,
            recent: VecDeque::new(),
            rows: VecDeque::new(),
            holds: VecDeque::new(),
            next: VecDeque::new(),
            calm: false,
        };
        made.begin();
        made
    }

    /// The bounds of this life.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The first steps: without a top or a quota little else would happen.
    fn begin(&mut self) {
        if self.bounds.auto_create != AutoCreate::All {
            for at in 0..self.temper.subjects.len() {
                if self.random.u8(..3) > 0 {
                    let subject = self.temper.subjects[at];
                    self.first(format!("subject {subject}"));
                }
            }
        }
        for resource in ["lab.space", "lab.events"] {
            let kind = if is_counter(resource) {
                "counter"
            } else {
                "allocation"
            };
            if self.temper.resources.contains(&resource) {
                let deny = if self.random.bool() { " deny" } else { "" };
                self.first(format!("resource {resource} kind={kind}{deny}"));
            }
        }
    }

    fn first(&mut self, text: String) {
        let call = self.named(text);
        self.next.push_back(Step::call(call));
    }

    /// Calls whose callers were told that they may have been applied; most of them ask again.
    pub fn doubted(&mut self, calls: &[Call]) {
        for call in calls {
            if self.chance(60) {
                self.next.push_back(Step::call(call.clone()));
            }
        }
    }

    /// What happens next. `troubled` is whether the journal may fail.
    pub fn next(&mut self, auditor: &Auditor, now: Timestamp, troubled: bool) -> Step {
        let now = now.nanos();
        self.calm = !troubled;
        if let Some(step) = self.next.pop_front() {
            return step;
        }
        let roll = self.random.u8(..100);
        if roll < self.temper.time {
            return Step::Pass(self.while_passes());
        }
        // What is broken does not stay so for long.
        let faults = match troubled {
            true => self.temper.faults.max(15),
            false => self.temper.faults,
        };
        if roll < self.temper.time + faults {
            let fault = self.fault(troubled);
            return Step::Fault(fault);
        }
        if !troubled && self.random.u8(..100) == 0 {
            return self.long_after(now);
        }
        if self.chance(12) {
            let also = self.also_of_any();
            let text = self.asked(auditor, "check", &also.0, &also.1, 3);
            let mode = *self
                .random
                .choice(["", "", "", " record"].iter())
                .unwrap_or(&"");
            return Step::Check(Call::parse(&format!(
                "{text}{mode} near tightest retry short effective projected"
            )));
        }
        let count = self.random.usize(1..=self.temper.callers);
        let callers = (0..count).map(|_| self.caller(auditor, now)).collect();
        Step::Group(callers)
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.random.usize(..from.len())]
    }

    fn subject(&mut self) -> &'static str {
        let at = self.random.usize(..self.temper.subjects.len());
        self.temper.subjects[at]
    }

    fn resource(&mut self) -> &'static str {
        let at = self.random.usize(..self.temper.resources.len());
        self.temper.resources[at]
    }

    fn while_passes(&mut self) -> i64 {
        match self.random.u8(..40) {
            0..=11 => self.random.i64(1..SECOND),
            12..=29 => self.random.i64(SECOND..60 * SECOND),
            30..=35 => self.random.i64(SECOND..20 * 60 * SECOND),
            36..=37 => SECOND * self.random.i64(1..120),
            38 => self.random.i64(HOUR..30 * HOUR),
            _ => self.random.i64(HOUR..40 * 24 * HOUR),
        }
    }

    /// Something is asked again after the horizon, with its age: it must not be charged a second time.
    fn long_after(&mut self, now: i64) -> Step {
        let horizon = i64::try_from(self.bounds.memory.horizon.as_nanos()).unwrap_or(i64::MAX);
        let old = self
            .recent
            .iter()
            .find(|(call, at)| {
                // Nor is it known what became of a hold.
                let is_hold = matches!(&*call.verb, "reserve" | "commit" | "renew-hold" | "cancel");
                now - at > horizon + SECOND && !call.place.contains('*') && !is_hold
            })
            .cloned();
        let Some((mut call, at)) = old else {
            return Step::Pass(horizon + self.random.i64(0..HOUR));
        };
        // Forgetting is bookkeeping: it happens with the next step of that pair.
        let place = match call.members.first() {
            Some(first) => first.place.clone(),
            None => call.place.clone(),
        };
        let pair: Vec<&str> = place.split('/').take(2).collect();
        let top = match call.verb.as_str() {
            "resource" | "unresource" => "system".to_owned(),
            _ => pair.join("/"),
        };
        let touch = self.named(format!("subject {top}"));
        let age = now - at + SECOND;
        call.options.insert("age".into(), format!("{age}ns"));
        self.next.push_back(Step::call(call));
        Step::call(touch)
    }

    fn caller(&mut self, auditor: &Auditor, now: i64) -> Caller {
        let patience = match self.random.u8(..40) {
            0 => Patience::Gone,
            1 => Patience::Late,
            _ => Patience::Waits,
        };
        let count = match self.random.u8(..12) {
            0 => self.random.usize(2..4),
            _ => 1,
        };
        let mut calls: Vec<Call> = (0..count).map(|_| self.call(auditor, now)).collect();
        if calls.len() > 1 {
            calls.retain(|call| !call.is_read());
            if calls.is_empty() {
                calls.push(self.named("subject tenants/t0".into()));
            }
        }
        Caller { calls, patience }
    }

    /// A call with an operation id of its own.
    fn named(&mut self, text: String) -> Call {
        self.made += 1;
        let mut call = Call::parse(&text);
        call.options.insert("op".into(), format!("o{}", self.made));
        call
    }

    fn call(&mut self, auditor: &Auditor, now: i64) -> Call {
        if self.chance(self.temper.again)
            && let Some(call) = self.again(now)
        {
            return call;
        }
        if self.chance(10) {
            return self.read(auditor, now);
        }
        let text = match self.chance(self.temper.admin) {
            true => self.admin_call(auditor),
            false => self.charging_call(auditor, now),
        };
        let mut call = self.named(text);
        if self.random.u8(..50) == 0 {
            call.flags.push("dry".into());
        }
        if self.calm && self.chance(5) {
            // A server makes an id; a refusal is then not stored.
            call.options.remove("op");
            return call;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((call.clone(), now));
        call
    }

    /// Something that was asked before, in whatever order; sometimes something else under its id.
    fn again(&mut self, now: i64) -> Option<Call> {
        let at = self.random.usize(..self.recent.len().max(1));
        let (call, tried) = self.recent.get(at)?.clone();
        let horizon = i64::try_from(self.bounds.memory.horizon.as_nanos()).unwrap_or(i64::MAX);
        if now - tried > horizon / 2 {
            return None;
        }
        let mut call = call;
        if self.chance(30) {
            call.options
                .insert("age".into(), format!("{}ns", (now - tried).max(0) + 1));
        }
        if self.chance(15) && call.members.is_empty() {
            call.options.insert("label".into(), "other:content".into());
        }
        Some(call)
    }

    fn read(&mut self, auditor: &Auditor, now: i64) -> Call {
        let (subject, resource) = (self.subject(), self.resource());
        let text = match self.random.u8(..5) {
            0 => format!("used {subject} {resource}"),
            1 => format!("held {subject} {resource}"),
            2 => format!("counted {subject} {resource}"),
            _ => {
                let hold = self.hold_name(auditor, now);
                format!("hold {} id={}", hold.subject, hold.id)
            }
        };
        Call::parse(&text)
    }

    fn fault(&mut self, troubled: bool) -> Fault {
        let seed = self.random.u64(..1 << 32);
        if troubled && self.chance(40) {
            return match self.random.u8(..4) {
                0 => Fault::Power(seed),
                1 => Fault::Kill,
                2 => Fault::SyncFails(0),
                _ => Fault::Room,
            };
        }
        match self.random.u8(..34) {
            0..=3 => Fault::Power(seed),
            4..=8 => Fault::PowerAfter(self.random.u64(..14)),
            9 => Fault::PowerInRecovery(self.random.u64(..20), seed),
            10..=11 => Fault::Kill,
            12 => Fault::Stop,
            13..=16 => Fault::SyncFails(self.random.u64(1..4)),
            17..=18 => Fault::Full,
            19 => Fault::Room,
            20..=21 => Fault::Slow(self.random.i64(SECOND / 10..90 * SECOND)),
            22..=23 => Fault::RowsFail(self.random.u64(1..4), seed),
            24 => Fault::RowsLost,
            25 => Fault::BaseFails(self.random.u64(1..3)),
            26..=28 => Fault::Apply,
            _ if !self.temper.clock => Fault::Apply,
            29..=30 => Fault::ClockSteps(match self.random.u8(..4) {
                0 => self.random.i64(-9..9) * SECOND,
                1 => self.random.i64(-48..48) * HOUR,
                2 => 400 * 24 * HOUR,
                _ => self.random.i64(-600..600) * SECOND,
            }),
            31..=32 => Fault::AcceptClock,
            _ => Fault::Reboot(self.random.i64(-2..40) * 60 * SECOND, seed),
        }
    }
}
