//! Closed loop.

use std::sync::Arc;

use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until};

use super::caller::{Caller, numbers};
use super::recorder::Recorder;
use super::work::Call;
use super::{Load, Sample, Target};
use crate::Failure;

pub(super) async fn run(target: &Target, load: &Load, in_flight: usize) -> Result<Sample, Failure> {
    let from = Instant::now() + load.warm;
    let until = from + load.length;
    let recorder = Arc::new(Recorder::new(from, until, target.channels.len())?);
    let work = Arc::new(load.work.clone());
    let callers: Vec<_> = (0..in_flight)
        .map(|at| tokio::spawn(repeat(Caller::new(target, at, &work, &recorder), work.call)))
        .collect();
    sleep_until(from).await;
    let before = target.server.usage()?;
    sleep_until(until).await;
    let usage = target.server.usage()?.since(before);
    for caller in callers {
        caller.await??;
    }
    let sum = recorder.sum()?;
    Ok(Sample {
        charges: sum.charges,
        releases: sum.releases,
        operations: sum.operations,
        late: Histogram::new(3)?,
        length_s: load.length.as_secs_f64(),
        usage,
    })
}

async fn repeat(mut caller: Caller, call: Call) -> Result<(), Failure> {
    let size = match call {
        Call::Batch(size) => size,
        _ => 1,
    };
    while !caller.is_over() {
        let number = numbers(size);
        if caller.charge(number, Instant::now()).await? {
            caller.release(number, Instant::now()).await?;
        }
    }
    Ok(())
}
