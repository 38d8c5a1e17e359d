//! The circuit breaker between the writer and the journal: after a failure nothing is tried but the failed
//! batch, at growing distances, until it is durable. It reads no clock; it is told the time.

use std::time::Duration;

/// First wait after a failure.
pub const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// The state of the breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Breaker {
    /// Work passes.
    #[default]
    Closed,
    /// Work is refused until the next try.
    Open {
        /// When to try, in nanoseconds of the boot-time clock.
        until_ns: i64,
        /// How long the next wait is.
        wait: Duration,
    },
}

impl Breaker {
    /// Whether work is refused.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Whether a try is due (half-open).
    pub fn is_due(&self, now_ns: i64) -> bool {
        matches!(self, Self::Open { until_ns, .. } if now_ns >= *until_ns)
    }

    /// The work failed.
    pub fn failed(&mut self, now_ns: i64) {
        let wait = match self {
            Self::Closed => WAIT_MIN,
            Self::Open { wait, .. } => (*wait).saturating_mul(2).min(WAIT_MAX),
        };
        let nanos = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        *self = Self::Open {
            until_ns: now_ns.saturating_add(nanos),
            wait,
        };
    }

    /// The work succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::Closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_waits_longer_each_time_and_closes() {
        let mut breaker = Breaker::default();
        assert!(!breaker.is_open());
        breaker.failed(0);
        assert!(breaker.is_open() && !breaker.is_due(99_999_999));
        assert!(breaker.is_due(100_000_000));
        breaker.failed(100_000_000);
        assert!(!breaker.is_due(299_999_999) && breaker.is_due(300_000_000));
        for _ in 0..20 {
            breaker.failed(0);
        }
        assert!(breaker.is_due(5_000_000_000) && !breaker.is_due(4_999_999_999));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::Closed);
    }
}
