//! The one clock (C1.3). It advances with the machine's boot-time clock, suspended time included, and is
//! steered towards the wall clock by at most a tenth of the elapsed time; it never goes back. Every other
//! use of a system clock in this project is refused by clippy.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota_core::time::Timestamp;
use quota_store::Stamp;
use rustix::time::{ClockId, clock_gettime};

/// A clock.
pub trait Clock: Send + Sync {
    /// All clocks at one instant.
    fn stamp(&self) -> Stamp;

    /// The server's clock.
    fn now(&self) -> Timestamp {
        self.stamp().now
    }

    /// Nanoseconds since the machine's boot, for measuring durations.
    fn boot_ns(&self) -> i64;
}

/// The machine's clocks.
pub struct SystemClock {
    boot_id: [u8; 16],
    step_max: Duration,
    state: Mutex<State>,
}

struct State {
    now: i64,
    boot_ns: i64,
}

impl SystemClock {
    /// Goes on from `last`, the clocks of the last batch: in the same boot by the time since, in another by
    /// the wall clock, never backwards. A wall clock that is off by more than `step_max` is not followed.
    pub fn new(last: Option<Stamp>, step_max: Duration) -> Self {
        let boot_id = read_boot_id();
        let boot_ns = nanos(ClockId::Boottime);
        let wall = nanos(ClockId::Realtime);
        let now = match last {
            Some(last) if last.boot_id == boot_id && last.boot_ns <= boot_ns => last
                .now
                .nanos()
                .saturating_add(boot_ns.saturating_sub(last.boot_ns)),
            Some(last) => wall.max(last.now.nanos()),
            None => wall,
        };
        Self {
            boot_id,
            step_max,
            state: Mutex::new(State { now, boot_ns }),
        }
    }
}

impl Clock for SystemClock {
    fn stamp(&self) -> Stamp {
        let mut state = self.state.lock();
        let boot_ns = nanos(ClockId::Boottime);
        let elapsed = boot_ns.saturating_sub(state.boot_ns).max(0);
        let free = state.now.saturating_add(elapsed);
        let off = nanos(ClockId::Realtime).saturating_sub(free);
        let followed = u128::from(off.unsigned_abs()) <= self.step_max.as_nanos();
        let steer = match followed {
            true => off.clamp(elapsed.saturating_neg() / 10, elapsed / 10),
            false => 0,
        };
        state.now = free.saturating_add(steer);
        state.boot_ns = boot_ns;
        Stamp {
            now: Timestamp::from_nanos(state.now),
            boot_id: self.boot_id,
            boot_ns,
        }
    }

    fn boot_ns(&self) -> i64 {
        nanos(ClockId::Boottime)
    }
}

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

fn read_boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16)
        .unwrap_or_default()
        .to_be_bytes()
}

/// A clock that stands still until it is told to move; for tests.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<Mutex<i64>>);

impl ManualClock {
    /// A clock at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(now.nanos())))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = Timestamp::from_nanos(*now).plus(by).nanos();
    }
}

impl Clock for ManualClock {
    fn stamp(&self) -> Stamp {
        let now = *self.0.lock();
        Stamp {
            now: Timestamp::from_nanos(now),
            boot_id: [0; 16],
            boot_ns: now,
        }
    }

    fn boot_ns(&self) -> i64 {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_MAX: Duration = Duration::from_secs(10);

    /// C1.3: never backwards, and in the same boot by the time since.
    #[test]
    fn goes_on_from_the_last_batch() {
        let clock = SystemClock::new(None, STEP_MAX);
        let first = clock.stamp();
        let mut before = first;
        for _ in 0..1000 {
            let stamp = clock.stamp();
            assert!(stamp.now >= before.now && stamp.boot_ns >= before.boot_ns);
            before = stamp;
        }
        // A last batch that was stamped an hour ahead of the wall clock, in this boot.
        let ahead = Stamp {
            now: first.now.plus(Duration::from_secs(3600)),
            ..first
        };
        let clock = SystemClock::new(Some(ahead), STEP_MAX);
        let stamp = clock.stamp();
        assert!(stamp.now >= ahead.now);
        assert!(stamp.now <= ahead.now.plus(Duration::from_secs(60)));
        // In another boot the wall clock counts, but nothing goes back.
        let elsewhere = Stamp {
            boot_id: [9; 16],
            ..ahead
        };
        assert!(SystemClock::new(Some(elsewhere), STEP_MAX).now() >= ahead.now);
    }

    /// C1.3: steered towards the wall clock by at most a tenth of the elapsed time.
    #[test]
    fn is_steered_slowly() {
        let first = SystemClock::new(None, STEP_MAX).stamp();
        let behind = Stamp {
            now: first.now.minus(Duration::from_secs(5)),
            ..first
        };
        let clock = SystemClock::new(Some(behind), STEP_MAX);
        let begin = clock.stamp();
        std::thread::sleep(Duration::from_millis(50));
        let end = clock.stamp();
        let elapsed = end.boot_ns - begin.boot_ns;
        let shown = end.now.nanos() - begin.now.nanos();
        assert!(
            shown > elapsed && shown <= elapsed + elapsed / 10 + 1,
            "{shown} in {elapsed}"
        );
    }
}
