//! Open loop. A thread of its own begins each call at its instant; the latency counts from that instant, also
//! where the call began late because something took the processor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::caller::{Caller, numbers};
use super::recorder::Recorder;
use super::{Load, Sample, Target};
use crate::Failure;

/// Calls in flight beyond which the server is taken to be stuck.
const IN_FLIGHT_MAX: usize = 100_000;

pub(super) async fn run(target: &Target, load: &Load, rate: f64) -> Result<Sample, Failure> {
    let began = Instant::now();
    let from = began + load.warm;
    let until = from + load.length;
    let recorder = Arc::new(Recorder::new(from, until, target.channels.len())?);
    let work = Arc::new(load.work.clone());
    let callers = (0..target.channels.len())
        .map(|at| Caller::new(target, at, &work, &recorder))
        .collect();
    let (failed, mut failures) = unbounded_channel();
    let schedule = Schedule {
        runtime: Handle::current(),
        callers,
        began,
        from,
        until,
        interval: Duration::from_secs_f64(1.0 / rate),
        calls: Arc::new(Calls {
            to_release: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            failed,
        }),
    };
    let scheduled = tokio::task::spawn_blocking(move || schedule.run());
    sleep_until(from).await;
    let before = target.server.usage()?;
    sleep_until(until).await;
    let usage = target.server.usage()?.since(before);
    let late = scheduled.await??;
    // Closed once the last call has ended.
    if let Some(failure) = failures.recv().await {
        return Err(failure);
    }
    let sum = recorder.sum()?;
    Ok(Sample {
        charges: sum.charges,
        releases: sum.releases,
        operations: sum.operations,
        late,
        length_s: load.length.as_secs_f64(),
        usage,
    })
}

struct Calls {
    /// Numbers of charges that were answered and not yet given back.
    to_release: Mutex<VecDeque<u64>>,
    in_flight: AtomicUsize,
    failed: UnboundedSender<Failure>,
}

struct Schedule {
    runtime: Handle,
    callers: Vec<Caller>,
    began: Instant,
    from: Instant,
    until: Instant,
    interval: Duration,
    calls: Arc<Calls>,
}

impl Schedule {
    /// Begins every call at its instant; answers how late each was.
    fn run(self) -> Result<Histogram<u64>, Failure> {
        let mut late = Histogram::new(3)?;
        for at in 0_u32.. {
            let intended = self.began + self.interval.mul_f64(f64::from(at));
            if intended >= self.until {
                break;
            }
            let now = Instant::now();
            if let Some(early) = intended.checked_duration_since(now) {
                std::thread::sleep(early);
            }
            if intended >= self.from {
                late.record(u64::try_from(intended.elapsed().as_nanos())?)?;
            }
            if self.calls.in_flight.fetch_add(1, Ordering::Relaxed) > IN_FLIGHT_MAX {
                return Err(format!("more than {IN_FLIGHT_MAX} calls wait for an answer").into());
            }
            let caller = self.callers[at as usize % self.callers.len()].clone();
            let calls = self.calls.clone();
            self.runtime
                .spawn(one(caller, calls, at % 2 == 1, intended));
        }
        Ok(late)
    }
}

/// Every second call gives back what an earlier one took.
async fn one(mut caller: Caller, calls: Arc<Calls>, second: bool, intended: Instant) {
    let to_release = match second {
        true => calls.lock().pop_front(),
        false => None,
    };
    let done = match to_release {
        Some(number) => caller.release(number, intended).await,
        None => {
            let number = numbers(1);
            match caller.charge(number, intended).await {
                Ok(true) => {
                    calls.lock().push_back(number);
                    Ok(())
                }
                Ok(false) => Ok(()),
                Err(failure) => Err(failure),
            }
        }
    };
    calls.in_flight.fetch_sub(1, Ordering::Relaxed);
    if let Err(failure) = done {
        let _ = calls.failed.send(failure);
    }
}

impl Calls {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.to_release
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
