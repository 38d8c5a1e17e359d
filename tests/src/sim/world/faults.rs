//! What breaks, and how it is mended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use quota_server::clock::{Clock, Machine as _};
use quota_server::engine::Fault as EngineFault;
use quota_testkit::script::Call;
use quota_testkit::sim::steps::{Caller, Fault, Patience, Step};

use super::{Running, World, options, poll};
/// `clock_step_max`, as it comes.
const STEP_MAX_NS: i128 = 10_000_000_000;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Power(seed) => self.lose_power(seed),
            Fault::PowerAfter(calls) => {
                self.troubled = true;
                self.store.journal.lose_power_after(calls);
                Ok(())
            }
            Fault::PowerInRecovery(calls, seed) => {
                self.died();
                let mut random = Rng::with_seed(seed);
                self.store.crash(&mut random);
                self.troubled = true;
                self.store.journal.lose_power_after(calls);
                self.start()
            }
            Fault::Kill => {
                self.died();
                self.start()
            }
            Fault::Stop => self.stop(),
            Fault::SyncFails(count) => {
                self.troubled |= count > 0;
                self.store.journal.fail_syncs(count);
                Ok(())
            }
            Fault::Full => {
                self.troubled = true;
                self.store.journal.fill(true);
                self.store.bases.fill(true);
                Ok(())
            }
            Fault::Room => {
                self.store.journal.fill(false);
                self.store.bases.fill(false);
                Ok(())
            }
            Fault::Slow(nanos) => self.slow(nanos),
            Fault::RowsFail(rounds, seed) => {
                self.store.rows.fail(rounds, seed);
                Ok(())
            }
            Fault::RowsLost => {
                self.rows_lost = true;
                Ok(())
            }
            Fault::BaseFails(count) => {
                self.store.bases.fail_syncs(count);
                Ok(())
            }
            Fault::Apply => {
                self.up().rows.step();
                self.note_rows();
                Ok(())
            }
            Fault::ClockSteps(nanos) => {
                let before = self.now();
                self.machine.step(nanos);
                // C1.3: no time went by, so none goes by for the server, however far the wall clock is off.
                if self.now() != before {
                    return Err(format!("{before:?} before a step, then {:?}", self.now()));
                }
                let state = self.up().clock.state();
                let far = i128::from(state.offset_ns).abs() > STEP_MAX_NS;
                if state.suspect != (far && !state.waiting) {
                    return Err(format!("the wall clock stepped: {state:?}"));
                }
                if state.suspect {
                    self.coverage.note("turn", "clock suspect");
                }
                Ok(())
            }
            Fault::Reboot(nanos, seed) => {
                self.died();
                self.machine.reboot(nanos);
                self.died_at = None;
                self.lose_power(seed)
            }
            Fault::AcceptClock => self.accept_clock(),
        }
    }

    pub(super) fn note_rows(&mut self) {
        let names = self.store.journal.names();
        if names.first().is_some_and(|oldest| *oldest > self.oldest) {
            self.coverage.note("turn", "journal trimmed");
            self.oldest.clone_from(&names[0]);
        }
        let (bases, given_up) = {
            let up = self.up();
            let progress = up.engine.progress();
            let bases = progress
                .bases
                .last()
                .map_or(0, |base| base.sequence as usize);
            let grown = up.progress.bases.replace(bases) < bases;
            (
                grown,
                progress.given_up && !up.progress.given_up.replace(true),
            )
        };
        if bases {
            self.coverage.note("turn", "base written");
        }
        if given_up {
            self.coverage.note("turn", "rows given up");
        }
    }

    pub(super) fn mend(&mut self) {
        self.store.journal.fill(false);
        self.store.bases.fill(false);
        self.store.journal.fail_syncs(0);
        self.store.bases.fail_syncs(0);
        self.store.journal.keep_power();
        self.troubled = false;
    }

    fn lose_power(&mut self, seed: u64) -> Result<(), String> {
        self.died();
        self.store.crash(&mut Rng::with_seed(seed));
        self.troubled = false;
        self.start()
    }

    /// The process is gone.
    fn died(&mut self) {
        if self.running.is_some() {
            self.died_at = Some(self.now());
        }
        self.running = None;
    }

    fn stop(&mut self) -> Result<(), String> {
        self.died_at = Some(self.now());
        let Running { engine, driver, .. } = self.running.take().expect("the server is up");
        engine.refuse_new();
        let mut late = Box::pin(engine.read(|_| ()));
        match poll(late.as_mut()) {
            Some(Err(EngineFault::Draining)) => self.coverage.note("engine", "draining"),
            _ => return Err("a call was taken while the server shuts down".into()),
        }
        drop(late);
        engine.drain();
        driver.finish();
        self.start()
    }

    /// The next sync takes long, which is seen from outside while it does.
    fn slow(&mut self, nanos: i64) -> Result<(), String> {
        let seen = Arc::new(AtomicBool::new(false));
        let synced = Arc::new(AtomicBool::new(false));
        let (machine, engine, seen_by) =
            (self.machine.clone(), self.up().engine.clone(), seen.clone());
        let synced_by = synced.clone();
        self.store.journal.during_sync(move || {
            machine.pass(nanos);
            synced_by.store(true, Ordering::Release);
            seen_by.store(engine.is_journal_down(), Ordering::Release);
        });
        let was_down = self.doubt.is_some();
        let call = self.own_call("subject users/slow");
        let result = self.step(&Step::call(call));
        // Whatever was not synced has not been slow.
        self.store.journal.during_sync(|| {});
        let stall_max = i64::try_from(options().commit_stall_max.as_nanos()).expect("seconds");
        let seen = seen.load(Ordering::Acquire);
        if seen {
            self.coverage.note("turn", "stall seen");
        }
        let synced = synced.load(Ordering::Acquire);
        if synced && !was_down && !self.troubled && seen != (nanos > stall_max) {
            return Err(format!("a sync of {nanos} ns is seen as a stall: {seen}"));
        }
        result
    }

    /// A call that the world makes itself.
    pub(super) fn own_call(&mut self, text: &str) -> Call {
        self.made += 1;
        Call::parse(&format!("{text} op=w{}", self.made))
    }

    fn accept_clock(&mut self) -> Result<(), String> {
        let offset_ns = self.up().clock.state().offset_ns;
        let call = self.own_call(&format!("accept-clock system offset={offset_ns}"));
        let began_ns = self.machine.boot_ns();
        self.group(&[Caller {
            calls: vec![call.clone()],
            patience: Patience::Waits,
        }])?;
        let took_ns = self.machine.boot_ns().saturating_sub(began_ns);
        if self.history.last().is_some_and(|last| last.call == call) {
            if self.up().clock.state().suspect {
                return Err("the clock was accepted, and is in doubt".into());
            }
            // Acknowledged, so not forgotten (C11.1): the server never goes on from before it was decided, which was
            // as long ago as its flush took, by a clock that may be steered meanwhile.
            let took = Duration::from_nanos(took_ns.unsigned_abs());
            self.durable_at = self.now().minus(took + took / 8);
        }
        Ok(())
    }
}
