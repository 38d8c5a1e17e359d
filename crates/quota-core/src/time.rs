//! Instants of the server's clock (C1.3).

use std::fmt;
use std::time::Duration;

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
