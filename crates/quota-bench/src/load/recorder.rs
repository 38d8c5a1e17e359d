//! Where the calls of a round are written down: one part per connection, so that writers seldom meet.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::Failure;

/// What a call did.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Asked or charged.
    Charge,
    /// Gave back.
    Release,
}

pub(super) struct Part {
    pub(super) charges: Histogram<u64>,
    pub(super) releases: Histogram<u64>,
    pub(super) operations: u64,
}

impl Part {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            charges: Histogram::new(3)?,
            releases: Histogram::new(3)?,
            operations: 0,
        })
    }
}

pub(super) struct Recorder {
    from: Instant,
    until: Instant,
    parts: Vec<Mutex<Part>>,
}

impl Recorder {
    /// Records what ends within a time.
    pub(super) fn new(from: Instant, until: Instant, parts: usize) -> Result<Self, Failure> {
        let parts = (0..parts).map(|_| Part::new().map(Mutex::new));
        Ok(Self {
            from,
            until,
            parts: parts.collect::<Result<_, _>>()?,
        })
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// A call that was answered just now, for so many operations.
    pub(super) fn record(&self, part: usize, kind: Kind, began: Instant, operations: usize) {
        let ended = Instant::now();
        if ended < self.from || ended >= self.until {
            return;
        }
        let took = ended.saturating_duration_since(began).as_nanos();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        let mut part = self.parts[part]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        part.operations += operations as u64;
        let times = match kind {
            Kind::Charge => &mut part.charges,
            Kind::Release => &mut part.releases,
        };
        // The histogram grows as needed.
        let _ = times.record(took);
    }

    /// All parts together.
    pub(super) fn sum(&self) -> Result<Part, Failure> {
        let mut sum = Part::new()?;
        for part in &self.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            sum.charges.add(&part.charges)?;
            sum.releases.add(&part.releases)?;
            sum.operations += part.operations;
        }
        match sum.operations {
            0 => {
                let length = self.until.duration_since(self.from);
                Err(format!("no call was answered within a round of {length:?}").into())
            }
            _ => Ok(sum),
        }
    }
}
