//! Periods of counters (C7.2): half-open windows on a calendar, computed from the instant that is asked
//! about. Nothing is ever reset: a count that belongs to another window reads zero, for readers too.
//!
//! The calendar is UTC's. A zone would be one more field of [`Period`] and would be asked for in `civil` and
//! `instant`, the only two places where calendar and instants meet.

use std::fmt;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp as Instant};

use crate::time::{SECOND_NS, Timestamp};

/// Most units in one period.
pub const COUNT_MAX: u32 = 1_000;
/// Shortest fixed period.
pub const FIXED_MIN: Duration = Duration::from_secs(1);
/// Longest fixed period.
pub const FIXED_MAX: Duration = Duration::from_secs(10 * 366 * DAY_SECS as u64);

const HOUR_NS: i64 = 3600 * SECOND_NS;
const DAY_SECS: i64 = 24 * 3600;
const DAY_NS: i64 = DAY_SECS * SECOND_NS;
const WEEK_NS: i64 = 7 * DAY_NS;
/// The first Monday after the Unix epoch.
const MONDAY_NS: i64 = 4 * DAY_NS;

/// What a period is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unit {
    /// No end: a lifetime counter.
    None,
    /// Hours.
    Hour,
    /// Days.
    Day,
    /// Weeks; they begin on Monday where there is no anchor.
    Week,
    /// Months. A month without the anchor's day begins on its last one.
    Month,
    /// Years.
    Year,
    /// A fixed time.
    Fixed(Duration),
}

/// A definition of periods: `count` units from the anchor on, and before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Period {
    unit: Unit,
    count: u32,
    anchor: Timestamp,
}

/// One period: from `start` (inclusive), its key, to `end` (exclusive); without an end where it has none
/// that can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Option<Timestamp>,
}

impl Period {
    /// The period without an end.
    pub const NONE: Self = Self {
        unit: Unit::None,
        count: 1,
        anchor: Timestamp::from_nanos(0),
    };

    /// A period of `count` units; without an anchor it is aligned to the calendar.
    pub fn new(unit: Unit, count: u32, anchor: Option<Timestamp>) -> Self {
        let aligned = match unit {
            Unit::Week => MONDAY_NS,
            _ => 0,
        };
        match unit {
            Unit::None => Self::NONE,
            _ => Self {
                unit,
                // A fixed time says itself how long it is.
                count: match unit {
                    Unit::Fixed(_) => 1,
                    _ => count.clamp(1, COUNT_MAX),
                },
                anchor: anchor.unwrap_or(Timestamp::from_nanos(aligned)),
            },
        }
    }

    /// What it is made of.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// How many units.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// An instant at which a period begins.
    pub fn anchor(&self) -> Timestamp {
        self.anchor
    }

    /// Whether it has no end.
    pub fn is_none(&self) -> bool {
        self.unit == Unit::None
    }

    /// The period that contains `at`.
    pub fn window(&self, at: Timestamp) -> Window {
        match self.unit {
            Unit::None => Window {
                start: Timestamp::MIN,
                end: None,
            },
            Unit::Hour => self.fixed(HOUR_NS, at),
            Unit::Day => self.fixed(DAY_NS, at),
            Unit::Week => self.fixed(WEEK_NS, at),
            Unit::Fixed(length) => {
                let nanos = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
                self.fixed(nanos.max(1), at)
            }
            Unit::Month => self.months(1, at),
            Unit::Year => self.months(12, at),
        }
    }

    fn fixed(&self, unit_ns: i64, at: Timestamp) -> Window {
        let length = i128::from(unit_ns).saturating_mul(i128::from(self.count));
        let anchor = i128::from(self.anchor.nanos());
        let passed = i128::from(at.nanos()).saturating_sub(anchor);
        let whole = passed.div_euclid(length).saturating_mul(length);
        let start = anchor.saturating_add(whole);
        let end = start.saturating_add(length);
        Window {
            start: i64::try_from(start).map_or(Timestamp::MIN, Timestamp::from_nanos),
            end: i64::try_from(end).ok().map(Timestamp::from_nanos),
        }
    }

    /// Each begins so many months after the anchor, not after the one before: 31 January, 28 February,
    /// 31 March.
    fn months(&self, unit: i64, at: Timestamp) -> Window {
        let length = unit.saturating_mul(i64::from(self.count));
        let anchor = civil(self.anchor);
        let here = civil(at);
        let number = |date: DateTime| {
            let years = i64::from(date.year()).saturating_mul(12);
            years.saturating_add(i64::from(date.month()))
        };
        let nth = |n: i64| {
            let months = n.saturating_mul(length);
            let span = Span::new().try_months(months).ok()?;
            instant(anchor.checked_add(span).ok()?)
        };
        let passed = number(here).saturating_sub(number(anchor));
        let mut n = passed.div_euclid(length);
        if nth(n).is_none_or(|start| start > at) {
            n = n.saturating_sub(1);
        }
        Window {
            start: nth(n).unwrap_or(Timestamp::MIN),
            end: nth(n.saturating_add(1)),
        }
    }
}

fn civil(at: Timestamp) -> DateTime {
    let at = Instant::from_nanosecond(i128::from(at.nanos()));
    let at = at.expect("64 bits of nanoseconds are within the calendar");
    TimeZone::UTC.to_datetime(at)
}

fn instant(date: DateTime) -> Option<Timestamp> {
    let at = TimeZone::UTC.to_timestamp(date).ok()?;
    let nanos = i64::try_from(at.as_nanosecond()).ok()?;
    Some(Timestamp::from_nanos(nanos))
}

/// As in the ids of quotas: `hour`, `3months`, `600s`, `none`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.unit {
            Unit::None => "none",
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Year => "year",
            Unit::Fixed(length) => {
                return write_duration(f, length);
            }
        };
        match self.count {
            1 => f.write_str(name),
            count => write!(f, "{count}{name}s"),
        }
    }
}

/// As in the ids of quotas: `60s`, `500ms`, `7ns`.
pub(crate) fn write_duration(f: &mut fmt::Formatter<'_>, length: Duration) -> fmt::Result {
    let nanos = length.as_nanos();
    match nanos {
        _ if nanos.is_multiple_of(1_000_000_000) => write!(f, "{}s", length.as_secs()),
        _ if nanos.is_multiple_of(1_000_000) => write!(f, "{}ms", length.as_millis()),
        _ => write!(f, "{nanos}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let at: Instant = text.parse().unwrap();
        Timestamp::from_nanos(i64::try_from(at.as_nanosecond()).unwrap())
    }

    fn check(period: Period, now: &str, start: &str, end: &str) {
        let window = period.window(at(now));
        assert_eq!(
            (window.start, window.end),
            (at(start), Some(at(end))),
            "{period} at {now}"
        );
        // Half-open: its first instant is in it, its end in the next.
        assert_eq!(period.window(window.start), window);
        assert_eq!(period.window(at(end)).start, at(end));
        let before = Timestamp::from_nanos(window.start.nanos() - 1);
        assert_eq!(period.window(before).end, Some(window.start));
    }

    /// C7.2
    #[test]
    fn aligned_to_the_calendar() {
        let period = |unit| Period::new(unit, 1, None);
        let now = "2026-11-22T09:49:54Z";
        check(
            period(Unit::Hour),
            now,
            "2026-11-22T09:00:00Z",
            "2026-11-22T10:00:00Z",
        );
        check(
            period(Unit::Day),
            now,
            "2026-11-22T00:00:00Z",
            "2026-11-23T00:00:00Z",
        );
        check(
            period(Unit::Week),
            now,
            "2026-11-16T00:00:00Z",
            "2026-11-23T00:00:00Z",
        );
        check(
            period(Unit::Month),
            now,
            "2026-11-01T00:00:00Z",
            "2026-12-01T00:00:00Z",
        );
        check(
            period(Unit::Year),
            now,
            "2026-01-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
        check(
            period(Unit::Month),
            "1969-02-03T00:00:00Z",
            "1969-02-01T00:00:00Z",
            "1969-03-01T00:00:00Z",
        );
        let fixed = period(Unit::Fixed(Duration::from_secs(600)));
        check(fixed, now, "2026-11-22T09:40:00Z", "2026-11-22T09:50:00Z");
        assert_eq!(fixed.to_string(), "600s");
    }

    /// C7.2, C7.4: counts and anchors; 31 clamps, and comes back in the next long month.
    #[test]
    fn anchored() {
        let billing = Period::new(Unit::Month, 1, Some(at("2026-01-31T06:00:00Z")));
        check(
            billing,
            "2026-02-20T00:00:00Z",
            "2026-01-31T06:00:00Z",
            "2026-02-28T06:00:00Z",
        );
        check(
            billing,
            "2026-03-01T00:00:00Z",
            "2026-02-28T06:00:00Z",
            "2026-03-31T06:00:00Z",
        );
        check(
            billing,
            "2025-12-31T05:59:59Z",
            "2025-11-30T06:00:00Z",
            "2025-12-31T06:00:00Z",
        );
        let quarters = Period::new(Unit::Month, 3, None);
        check(
            quarters,
            "2026-11-22T00:00:00Z",
            "2026-10-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
        assert_eq!(quarters.to_string(), "3months");
        let leap = Period::new(Unit::Year, 1, Some(at("2024-02-29T00:00:00Z")));
        check(
            leap,
            "2026-11-22T00:00:00Z",
            "2026-02-28T00:00:00Z",
            "2027-02-28T00:00:00Z",
        );
        let shifts = Period::new(Unit::Hour, 8, Some(at("2026-01-01T06:00:00Z")));
        check(
            shifts,
            "2026-11-22T05:00:00Z",
            "2026-11-21T22:00:00Z",
            "2026-11-22T06:00:00Z",
        );
    }

    #[test]
    fn the_ends_of_time() {
        for unit in [Unit::Hour, Unit::Month, Unit::Year, Unit::Fixed(FIXED_MAX)] {
            let period = Period::new(unit, COUNT_MAX, None);
            for nanos in [i64::MIN, i64::MAX] {
                let window = period.window(Timestamp::from_nanos(nanos));
                assert!(window.start.nanos() <= nanos);
            }
        }
        assert_eq!(Period::NONE.window(Timestamp::from_nanos(0)).end, None);
    }
}
