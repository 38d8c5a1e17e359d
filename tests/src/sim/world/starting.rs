//! Starting on what is there, and comparing everything.

use std::sync::Arc;

use fastrand::Rng;
use quota_core::defaults::Defaults;
use quota_core::time::Timestamp;
use quota_core::{Ledger, invariants};
use quota_server::clock::{Clock, ClockOptions, SystemClock};
use quota_server::config::Config;
use quota_server::engine::{Engine, EngineOptions, Fault as EngineFault, Parts};
use quota_store::Journal as _;
use quota_store::Rows;
use quota_store::applier::{Applier, ApplierOptions};
use quota_testkit::auditor::Auditor;
use quota_testkit::bare;
use quota_testkit::script::{Call, World as _};

use super::{Decided, Progress, QUEUE_MAX, Running, STARTS_MAX, World, options, poll, same};
use crate::worlds::STORE_ID;
enum StartError {
    Disk(String),
    Clock(String),
    Wrong(String),
}

impl World {
    /// Starts the server on what is there, and settles what was in doubt.
    pub(in crate::sim) fn start(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.rows_lost) {
            self.store.rows.clear().map_err(|error| error.to_string())?;
        }
        let mut why = String::new();
        let mut accept = false;
        for tried in 0..STARTS_MAX {
            let is_broken = self.store.is_broken();
            match self.try_start(accept) {
                Ok(running) => {
                    self.sequence = running.driver.next_sequence();
                    self.running = Some(running);
                    return self.compare_live();
                }
                Err(StartError::Clock(error)) => {
                    self.coverage.note("turn", "clock refused");
                    why = error;
                    accept = true;
                }
                Err(StartError::Disk(error)) if !is_broken => {
                    return Err(format!("nothing is broken, and it does not start: {error}"));
                }
                Err(StartError::Disk(error)) => {
                    why = error;
                    // Whatever was broken is mended, and the power may have gone again.
                    self.store.crash(&mut Rng::with_seed(tried as u64));
                    self.mend();
                }
                Err(StartError::Wrong(error)) => return Err(error),
            }
        }
        Err(format!("does not start: {why}"))
    }

    fn try_start(&mut self, accept: bool) -> Result<Running, StartError> {
        let disk = |error: &dyn std::fmt::Display| StartError::Disk(error.to_string());
        let (journal, recovered) = self.store.recover().map_err(|error| disk(&error))?;
        let config = ClockOptions {
            accept,
            ..Config::default().clock()
        };
        let clock = SystemClock::start(self.machine.clone(), recovered.last, config)
            .map_err(|error| StartError::Clock(error.to_string()))?;
        let clock = Arc::new(clock);
        let now = clock.now();
        if recovered.report.rebuilt.is_some() {
            self.coverage.note("turn", "rows rebuilt");
        } else if recovered.report.batches > 0 {
            self.coverage.note("turn", "rows laid over");
        }
        let ledger = recovered.ledger.as_ref();
        self.settle(ledger, journal.next_sequence(), now, clock.accepted_ns())?;
        let rows: Arc<dyn Rows> = self.store.rows.clone();
        let applier_options = ApplierOptions {
            lag_bytes_max: 1 << 12,
            base_bytes: 1 << 14,
            store_id: STORE_ID,
            ..ApplierOptions::default()
        };
        let bases = Arc::new(self.store.bases.clone());
        let applier =
            Applier::driven(rows, bases, applier_options, 0).map_err(|error| disk(&error))?;
        let rows = applier.driver();
        let journal = Box::new(journal);
        let parts = Parts {
            clock_accepted_ns: clock.accepted_ns(),
            ..Parts::new(recovered, self.store.bounds, now, journal, applier)
        };
        compare(&parts.ledger, &mut self.auditor, now).map_err(StartError::Wrong)?;
        let options = EngineOptions {
            bounds: self.store.bounds,
            queue_max: QUEUE_MAX,
            ..options()
        };
        let (engine, driver) =
            Engine::driven(parts, options, clock.clone()).map_err(|error| disk(&error))?;
        Ok(Running {
            engine: Arc::new(engine),
            driver,
            rows,
            progress: Progress::default(),
            clock,
        })
    }

    /// Finds out whether a batch in doubt is there. Its operations are known only where it is, and not for ever.
    fn settle(
        &mut self,
        ledger: Option<&Ledger>,
        next_sequence: u64,
        now: Timestamp,
        accepted_ns: Option<i64>,
    ) -> Result<(), StartError> {
        let last = self.durable_at;
        if let Some(doubt) = self.doubt.take() {
            let there = next_sequence > doubt.sequence;
            let is_known = |ledger: &Ledger, probe| {
                let reply = ledger.decide(now, probe).reply;
                reply.is_ok_and(|reply| reply.replayed)
            };
            if let (Some(ledger), Some(probe), false) = (ledger, &doubt.probe, there)
                && is_known(ledger, probe)
            {
                let why = "an operation is known whose batch is not there";
                return Err(StartError::Wrong(why.into()));
            }
            self.coverage.note(
                "turn",
                if there {
                    "in doubt, there"
                } else {
                    "in doubt, gone"
                },
            );
            if there {
                self.adopt(doubt);
            }
        }
        if now < last {
            return Err(StartError::Wrong(format!(
                "the clock went back from {last:?}, when a batch became durable, to {now:?}"
            )));
        }
        // In the same boot the time since the last batch went by, steered or not, and no more.
        if let (Some(died), None) = (self.died_at.take(), accepted_ns) {
            let since = died.since(last).as_nanos() as i128;
            let ahead = i128::from(now.nanos()) - i128::from(died.nanos());
            if ahead > since / 9 + 1 {
                return Err(StartError::Wrong(format!(
                    "the clock said {died:?} when the process died, and {now:?} at once afterwards"
                )));
            }
        }
        self.auditor.restarted_at(now);
        if let Some(offset_ns) = accepted_ns.filter(|offset| *offset > 0) {
            self.auditor.jumped(now);
            self.history.push(Decided {
                at: now,
                call: Call::parse(&format!("started system offset={offset_ns}")),
                text: String::new(),
            });
        }
        Ok(())
    }

    /// Compares everything with what the engine and its views have.
    pub(super) fn compare_live(&mut self) -> Result<(), String> {
        if self.doubt.is_some() {
            return Ok(());
        }
        let now = self.now();
        self.auditor.set_now(now);
        self.woke_at = now;
        let mut auditor = self.auditor.clone();
        let up = self.up_mut();
        let engine = up.engine.clone();
        let views = engine.clone();
        let mut read = Box::pin(engine.read(move |ledger| {
            compare(ledger, &mut auditor, now)?;
            same_views(ledger, &views)
        }));
        if poll(read.as_mut()).is_some() {
            return Err("a read did not wait for its turn".into());
        }
        up.driver.step();
        match poll(read.as_mut()) {
            Some(Ok(result)) => result?,
            Some(Err(EngineFault::JournalDown { .. })) if self.troubled => {}
            Some(Err(other)) => return Err(format!("a read: {other}")),
            None => return Err("no answer to a read".into()),
        }
        drop(read);
        self.written_later();
        self.closed_in_vain();
        self.note_rows();
        self.same_health()
    }
}

/// Every account, hold and invariant.
fn compare(ledger: &Ledger, auditor: &mut Auditor, now: Timestamp) -> Result<(), String> {
    let broken = invariants::check_state(ledger);
    if !broken.is_empty() {
        return Err(broken.join("\n"));
    }
    auditor.set_now(now);
    let subjects = auditor.subjects();
    let mut asked: Vec<String> = Vec::new();
    for subject in &subjects {
        for resource in auditor.resources() {
            for verb in ["used", "held", "counted"] {
                asked.push(format!("{verb} {subject} {resource}"));
            }
        }
    }
    for subject in &subjects {
        if ledger.subject(subject).is_none() {
            return Err(format!("{subject} is not there"));
        }
        for resource in auditor.resources() {
            for id in auditor.quota_ids(subject, &resource) {
                asked.push(format!("counted {subject} {resource} id={id}"));
            }
        }
    }
    // One that ended long ago may be forgotten.
    let live = auditor.holds(false);
    asked.extend(
        live.iter()
            .map(|hold| format!("hold {} id={}", hold.subject, hold.id)),
    );
    for text in asked {
        let call = Call::parse(&text);
        same(&call, &auditor.call(&call), &bare::read(ledger, &call, now))?;
    }
    let alive = ledger
        .subjects()
        .filter(|subject| ledger.subject(subject.name.as_str()).is_some())
        .count();
    match alive == subjects.len() {
        true => Ok(()),
        false => Err(format!(
            "{alive} subjects, of {} that should be",
            subjects.len()
        )),
    }
}

/// What is published is what is durable.
fn same_views(ledger: &Ledger, engine: &Engine) -> Result<(), String> {
    for subject in ledger.subjects() {
        let name = subject.name.as_str();
        if engine.views().subject(name).as_deref() != ledger.subject(name) {
            return Err(format!("the view of {name} differs"));
        }
    }
    let tables = engine.views().tables();
    let pairs = |defaults: &Defaults| -> Vec<_> {
        let entries = defaults.iter();
        entries
            .map(|entry| (entry.pattern.clone(), entry.quotas.clone()))
            .collect()
    };
    let same = pairs(&tables.defaults) == pairs(ledger.defaults())
        && tables.resources == *ledger.resources();
    match same {
        true => Ok(()),
        false => Err("the published tables differ".into()),
    }
}
