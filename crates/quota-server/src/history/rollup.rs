//! A rollup: how the level of one account went, in buckets of time. Pure, in whole numbers: the same changes give
//! the same buckets, whenever and however often they are replayed.
//!
//! A bucket is opened by a change and never by the clock. Buckets in which nothing happened do not exist; what
//! they would say follows from the bucket after them, which knows the level that it began with.

use quota_core::amount::Limit;
use quota_core::time::{SECOND_NS, Timestamp};

/// How long a bucket is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Five minutes.
    FiveMinutes,
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
}

impl Step {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::FiveMinutes, Self::Hour, Self::Day];

    /// Its length, in nanoseconds.
    pub fn nanos(self) -> i64 {
        match self {
            Self::FiveMinutes => 300 * SECOND_NS,
            Self::Hour => 3600 * SECOND_NS,
            Self::Day => 86_400 * SECOND_NS,
        }
    }

    /// The number of the bucket that contains an instant: buckets are counted from the Unix epoch, so an hour is
    /// twelve times five minutes and a day twenty-four hours.
    pub fn number(self, at: Timestamp) -> i64 {
        at.nanos().div_euclid(self.nanos())
    }

    /// When a bucket begins.
    pub fn start(self, number: i64) -> Timestamp {
        Timestamp::from_nanos(number.saturating_mul(self.nanos()))
    }
}

/// What an account has, in base units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Level {
    /// In use; of a COUNTER everything ever counted.
    pub used: i64,
    /// Held.
    pub held: i64,
}

/// Amounts over time, in base units × nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Area {
    /// Of what was in use.
    pub used: i128,
    /// Of what was held.
    pub held: i128,
}

impl Area {
    fn add(&mut self, level: Level, nanos: i64) {
        let over = |amount: i64| i128::from(amount).saturating_mul(nanos.into());
        self.used = self.used.saturating_add(over(level.used));
        self.held = self.held.saturating_add(over(level.held));
    }

    /// A level that stands for so many nanoseconds.
    pub fn of(level: Level, nanos: i64) -> Self {
        let mut area = Self::default();
        area.add(level, nanos);
        area
    }
}

/// What happened in a stretch of time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Which one, from the Unix epoch.
    pub number: i64,
    /// The level that it began with.
    pub first: Level,
    /// The limit that it began with.
    pub limit_first: Option<Limit>,
    /// The level after the last change.
    pub last: Level,
    /// The limit after the last change.
    pub limit: Option<Limit>,
    /// Least in use at any instant of it.
    pub used_min: i64,
    /// Most in use.
    pub used_max: i64,
    /// Most held.
    pub held_max: i64,
    /// Amount over time, up to where it was added up.
    pub area: Area,
    /// COUNTER: what was counted; RATE: what was granted. In base units.
    pub counted: i64,
    /// Charges that made what is in use or held grow.
    pub granted: u64,
    /// Requests that were refused.
    pub refused: u64,
}

impl Bucket {
    /// A bucket in which nothing happens.
    pub fn quiet(number: i64, level: Level, limit: Option<Limit>) -> Self {
        Self {
            number,
            first: level,
            limit_first: limit,
            last: level,
            limit,
            used_min: level.used,
            used_max: level.used,
            held_max: level.held,
            area: Area::default(),
            counted: 0,
            granted: 0,
            refused: 0,
        }
    }
}

/// How far a level went on its way to where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Least in use.
    pub used_min: i64,
    /// Most in use.
    pub used_max: i64,
    /// Most held.
    pub held_max: i64,
}

/// What changes at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// The level afterwards.
    pub level: Level,
    /// Where it was in between, of several changes at that instant.
    pub range: Option<Range>,
    /// The limit afterwards.
    pub limit: Option<Limit>,
    /// Counted, or granted of a RATE, in base units.
    pub counted: i64,
    /// Charges that made it grow.
    pub granted: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// The history of one account as far as it is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rollup {
    /// When the first change was.
    pub born: Timestamp,
    /// Up to when it is added up: the last change.
    pub at: Timestamp,
    /// The level since then.
    pub level: Level,
    /// The limit since then.
    pub limit: Option<Limit>,
    /// Everything since it was born.
    pub total: Area,
    /// The bucket of each step that contains `at`.
    pub open: [Bucket; 3],
}

impl Rollup {
    /// The history of an account whose first change is `change`; before it there was nothing.
    pub fn born(at: Timestamp, change: &Change) -> Self {
        let open = Step::ALL.map(|step| {
            let number = step.number(at);
            Bucket::quiet(number, Level::default(), None)
        });
        let mut rollup = Self {
            born: at,
            at,
            level: Level::default(),
            limit: None,
            total: Area::default(),
            open,
        };
        rollup.set(change);
        rollup
    }

    /// Adds a change at an instant, and hands the buckets that are over by then to `closed`. An instant before the
    /// last change is taken for that of the last change: the clock does not go back.
    pub fn apply(&mut self, at: Timestamp, change: &Change, closed: &mut Vec<(Step, Bucket)>) {
        self.advance(at, closed);
        self.set(change);
    }

    /// Adds up to an instant, at which nothing need have changed.
    pub fn advance(&mut self, to: Timestamp, closed: &mut Vec<(Step, Bucket)>) {
        if to <= self.at {
            return;
        }
        self.total.add(self.level, to.nanos_since(self.at));
        for (step, open) in Step::ALL.into_iter().zip(&mut self.open) {
            let number = step.number(to);
            if number == open.number {
                open.area.add(self.level, to.nanos_since(self.at));
                continue;
            }
            let end = step.start(open.number.saturating_add(1));
            open.area.add(self.level, end.nanos_since(self.at));
            let mut next = Bucket::quiet(number, self.level, self.limit);
            next.area = Area::of(self.level, to.nanos_since(step.start(number)));
            closed.push((step, std::mem::replace(open, next)));
        }
        self.at = to;
    }

    fn set(&mut self, change: &Change) {
        let level = change.level;
        for (step, open) in Step::ALL.into_iter().zip(&mut self.open) {
            // What a bucket began with stood for no time where the bucket begins with a change.
            let unchanged = open.last == open.first && open.used_min == open.used_max;
            if unchanged && step.start(open.number) == self.at {
                (open.used_min, open.used_max) = (level.used, level.used);
                open.held_max = level.held;
            }
            open.used_min = open.used_min.min(level.used);
            open.used_max = open.used_max.max(level.used);
            open.held_max = open.held_max.max(level.held);
            if let Some(range) = change.range {
                open.used_min = open.used_min.min(range.used_min);
                open.used_max = open.used_max.max(range.used_max);
                open.held_max = open.held_max.max(range.held_max);
            }
            open.last = level;
            open.limit = change.limit;
            open.counted = open.counted.saturating_add(change.counted);
            open.granted = open.granted.saturating_add(change.granted);
            open.refused = open.refused.saturating_add(change.refused);
        }
        self.level = level;
        self.limit = change.limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60 * SECOND_NS;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn to(used: i64) -> Change {
        Change {
            level: Level { used, held: 0 },
            ..Change::default()
        }
    }

    fn of(closed: &[(Step, Bucket)], step: Step) -> Vec<&Bucket> {
        let wanted = closed.iter().filter(|(have, _)| *have == step);
        wanted.map(|(_, bucket)| bucket).collect()
    }

    #[test]
    fn a_change_at_a_boundary_belongs_to_the_bucket_that_begins() {
        let mut closed = Vec::new();
        let mut rollup = Rollup::born(at(0), &to(7));
        rollup.apply(at(5 * MINUTE), &to(2), &mut closed);
        let five = of(&closed, Step::FiveMinutes);
        assert_eq!(five.len(), 1);
        assert_eq!((five[0].used_min, five[0].used_max), (7, 7));
        assert_eq!(five[0].area.used, i128::from(7 * 5 * MINUTE));
        let open = &rollup.open[0];
        assert_eq!((open.number, open.first.used), (1, 7));
        assert_eq!((open.used_min, open.used_max, open.area.used), (2, 2, 0));
        // Of several changes at one instant all were the level, if only for no time.
        rollup.apply(at(5 * MINUTE), &to(9), &mut closed);
        assert_eq!((rollup.open[0].used_min, rollup.open[0].used_max), (2, 9));
        // What only was told at the boundary is no change yet.
        let mut rollup = Rollup::born(at(0), &to(7));
        rollup.apply(at(5 * MINUTE), &to(7), &mut closed);
        rollup.apply(at(5 * MINUTE), &to(8), &mut closed);
        assert_eq!((rollup.open[0].used_min, rollup.open[0].used_max), (8, 8));
        // A nanosecond earlier it still belongs to the one before.
        let mut rollup = Rollup::born(at(0), &to(7));
        rollup.apply(at(5 * MINUTE - 1), &to(2), &mut closed);
        let (least, most) = (rollup.open[0].used_min, rollup.open[0].used_max);
        assert_eq!((least, most), (2, 7));
    }

    #[test]
    fn idle_buckets_do_not_exist_and_lose_nothing() {
        let mut closed = Vec::new();
        let mut rollup = Rollup::born(at(MINUTE), &to(3));
        rollup.apply(at(10 * DAY + MINUTE), &to(0), &mut closed);
        for step in Step::ALL {
            assert_eq!(of(&closed, step).len(), 1, "{step:?}");
        }
        let five = of(&closed, Step::FiveMinutes);
        assert_eq!(five[0].area.used, i128::from(3 * 4 * MINUTE));
        assert_eq!(five[0].used_min, 0, "before it was born there was nothing");
        assert_eq!(rollup.open[0].first.used, 3);
        assert_eq!(rollup.open[0].area.used, i128::from(3 * MINUTE));
        assert_eq!(rollup.total.used, i128::from(3 * 10 * DAY));
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let mut closed = Vec::new();
        let mut rollup = Rollup::born(at(HOUR), &to(3));
        rollup.apply(at(HOUR + MINUTE), &to(4), &mut closed);
        rollup.apply(at(HOUR), &to(5), &mut closed);
        assert_eq!(rollup.at, at(HOUR + MINUTE));
        assert_eq!(rollup.open[0].area.used, i128::from(3 * MINUTE));
        assert_eq!((rollup.level.used, rollup.open[0].used_max), (5, 5));
        assert!(closed.is_empty());
    }

    /// Before the epoch too: an hour is the sum of its five minutes, a day that of its hours, and all of them the
    /// total.
    #[test]
    fn longer_buckets_are_sums_of_shorter_ones() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut closed = Vec::new();
        let mut now = -3 * DAY + 17;
        let mut rollup = Rollup::born(at(now), &to(1));
        for _ in 0..5000 {
            now += random.i64(0..20 * MINUTE);
            // Now and then exactly on a boundary.
            if random.u8(..) < 60 {
                now += HOUR - now.rem_euclid(HOUR);
            }
            let change = Change {
                counted: random.i64(-2..9),
                granted: random.u64(..3),
                refused: random.u64(..2),
                ..to(random.i64(..1 << 62))
            };
            rollup.apply(at(now), &change, &mut closed);
        }
        closed.extend(Step::ALL.into_iter().zip(rollup.open.clone()));
        for pair in [(Step::FiveMinutes, Step::Hour), (Step::Hour, Step::Day)] {
            let (short, long) = (of(&closed, pair.0), of(&closed, pair.1));
            for bucket in long {
                let start = pair.1.start(bucket.number);
                let end = pair.1.start(bucket.number + 1);
                let inside = |number| (start..end).contains(&pair.0.start(number));
                let parts: Vec<_> = short.iter().filter(|part| inside(part.number)).collect();
                let counted: i64 = parts.iter().map(|part| part.counted).sum();
                let granted: u64 = parts.iter().map(|part| part.granted).sum();
                let refused: u64 = parts.iter().map(|part| part.refused).sum();
                assert_eq!(counted, bucket.counted);
                assert_eq!((granted, refused), (bucket.granted, bucket.refused));
                // The quiet ones between, from what follows them.
                let mut sum: i128 = parts.iter().map(|part| part.area.used).sum();
                let mut seen: Vec<i64> = Vec::new();
                let mut next = pair.0.number(start);
                for part in &parts {
                    if part.number > next {
                        let quiet = i128::from((part.number - next) * pair.0.nanos());
                        sum += i128::from(part.first.used) * quiet;
                        seen.push(part.first.used);
                    }
                    seen.extend([part.used_min, part.used_max]);
                    next = part.number + 1;
                }
                let last_is_open = pair.1.number(rollup.at) == bucket.number;
                if !last_is_open {
                    let quiet = (pair.0.number(end) - next) * pair.0.nanos();
                    sum += i128::from(bucket.last.used) * i128::from(quiet);
                }
                assert_eq!(sum, bucket.area.used);
                assert_eq!(seen.iter().max(), Some(&bucket.used_max));
                assert_eq!(seen.iter().min(), Some(&bucket.used_min));
            }
        }
    }
}
