//! Instants of the server's clock (C1.3).

use std::fmt;
use std::time::Duration;

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;

/// An instant in nanoseconds since the Unix epoch, by the server's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every instant that is ever stamped.
    pub const MIN: Self = Self(i64::MIN);

    /// The instant `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The instant `ago` earlier; the earliest instant where that cannot be written.
    pub fn minus(self, ago: Duration) -> Self {
        let ago = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ago))
    }

    /// Nanoseconds from `earlier` to this instant; zero where `earlier` is later.
    pub fn nanos_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }

    /// The time from `earlier` to this instant; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier).unsigned_abs())
    }

    /// The last whole second at or before this instant, since the Unix epoch.
    pub fn whole_second(self) -> i64 {
        self.0.div_euclid(SECOND_NS)
    }

    /// The first whole second at or after this instant, since the Unix epoch.
    pub fn next_whole_second(self) -> i64 {
        let whole = self.whole_second();
        match self.0.rem_euclid(SECOND_NS) {
            0 => whole,
            _ => whole.saturating_add(1),
        }
    }

    /// The instant `later` later; the last instant where that cannot be written.
    pub fn plus(self, later: Duration) -> Self {
        let later = i64::try_from(later.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(later))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}
