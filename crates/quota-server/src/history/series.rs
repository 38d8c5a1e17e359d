//! Reading: the buckets of a stretch of time, those included in which nothing happened.

use std::ops::ControlFlow;
use std::time::Duration;

use quota_core::name::{ResourceKey, SubjectName};
use quota_core::resource::Kind;
use quota_core::time::Timestamp;
use quota_store::Rows;
use quota_store::rows::RowsError;

use super::book::Account;
use super::format;
use super::rollup::{Area, Bucket, Level, Step};

/// How long buckets are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Of five minutes.
    pub five_minutes: Duration,
    /// Of an hour.
    pub hours: Duration,
    /// Of a day.
    pub days: Duration,
}

impl Keep {
    /// The number of the oldest bucket of a step that is kept at `now`.
    pub fn oldest(&self, step: Step, now: Timestamp) -> i64 {
        let keep = match step {
            Step::FiveMinutes => self.five_minutes,
            Step::Hour => self.hours,
            Step::Day => self.days,
        };
        step.number(now.minus(keep))
    }
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Whose account.
    pub subject: SubjectName,
    /// Of which resource.
    pub resource: ResourceKey,
    /// How long the buckets are.
    pub step: Step,
    /// The first bucket contains this instant, or is the oldest that is known.
    pub from: Timestamp,
    /// The last bucket begins before this instant.
    pub to: Timestamp,
    /// Most buckets.
    pub most: usize,
}

/// How an account went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    /// The kind of the resource.
    pub kind: Kind,
    /// When the oldest bucket begins that is known.
    pub oldest: Timestamp,
    /// The buckets, one after the other.
    pub points: Vec<Point>,
    /// Where it goes on, if it does.
    pub next: Option<Timestamp>,
}

/// One bucket, up to its end or to now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// When it begins.
    pub start: Timestamp,
    /// When it ends (exclusive).
    pub end: Timestamp,
    /// What happened in it.
    pub bucket: Bucket,
}

impl Point {
    /// What was in use on average, rounded down.
    pub fn used_mean(&self) -> i64 {
        let mean = self
            .bucket
            .area
            .used
            .checked_div(self.end.nanos_since(self.start).into());
        let mean = mean.and_then(|mean| i64::try_from(mean).ok());
        mean.unwrap_or(self.bucket.last.used)
    }
}

/// An account as it is now, with its buckets that stand on no page yet.
pub struct Open {
    account: Account,
    closed: Vec<(Step, Bucket)>,
    /// The bucket that was open when it was read: what pages say of it or of later ones is of a later reading.
    open_then: [i64; 3],
    now: Timestamp,
}

impl Open {
    /// An account as of the last batch, brought forward to `now`.
    pub fn new(account: Account, closed: Vec<(Step, Bucket)>, now: Timestamp) -> Self {
        let open_then = [0, 1, 2].map(|at: usize| account.rollup.open[at].number);
        let (mut account, mut closed) = (account, closed);
        let now = now.max(account.rollup.at);
        account.rollup.advance(now, &mut closed);
        Self {
            account,
            closed,
            open_then,
            now,
        }
    }

    /// Everything since the account was born, and when that was.
    pub fn total(&self) -> (Area, Timestamp) {
        (self.account.rollup.total, self.account.rollup.born)
    }

    /// The kind of its resource.
    pub fn kind(&self) -> Kind {
        self.account.kind
    }

    /// Most in use at any instant of the time from `from` on, to five minutes.
    pub fn peak(
        &self,
        rows: &dyn Rows,
        of: (&SubjectName, &ResourceKey),
        from: Timestamp,
    ) -> Result<i64, RowsError> {
        let step = Step::FiveMinutes;
        let mut next = step.number(from);
        let mut peak = self.account.rollup.level.used;
        for bucket in self.buckets(rows, of, step, next, i64::MAX)? {
            if bucket.number > next {
                peak = peak.max(bucket.first.used);
            }
            peak = peak.max(bucket.used_max);
            next = bucket.number.saturating_add(1);
        }
        Ok(peak)
    }

    /// The series that is asked for.
    pub fn series(&self, rows: &dyn Rows, query: &Query, keep: &Keep) -> Result<Series, RowsError> {
        let step = query.step;
        let born = step.number(self.account.rollup.born);
        let oldest = born.max(keep.oldest(step, self.now));
        let last = step.number(self.now).saturating_add(1);
        // The first bucket that begins at `to` or later.
        let end = step.number(Timestamp::from_nanos(query.to.nanos().saturating_sub(1)));
        let end = end.saturating_add(1).min(last);
        let from = step.number(query.from).max(oldest);
        let most = i64::try_from(query.most).unwrap_or(i64::MAX);
        let upto = end.min(from.saturating_add(most));
        let of = (&query.subject, &query.resource);
        let mut points = Vec::new();
        if from < upto {
            let mut known = self
                .buckets(rows, of, step, from, upto)?
                .into_iter()
                .peekable();
            for number in from..upto {
                while known.next_if(|bucket| bucket.number < number).is_some() {}
                // The one after a quiet one knows how that was.
                let bucket = match known.peek() {
                    Some(bucket) if bucket.number == number => bucket.clone(),
                    Some(after) => self.quiet(step, number, after.first, after.limit_first),
                    None => break,
                };
                points.push(Point {
                    start: step.start(number),
                    end: step.start(number.saturating_add(1)).min(self.now),
                    bucket,
                });
            }
        }
        Ok(Series {
            kind: self.account.kind,
            oldest: step.start(oldest),
            points,
            next: (upto < end).then(|| step.start(upto)),
        })
    }

    fn quiet(
        &self,
        step: Step,
        number: i64,
        level: Level,
        limit: Option<quota_core::amount::Limit>,
    ) -> Bucket {
        let mut bucket = Bucket::quiet(number, level, limit);
        bucket.area = Area::of(level, step.nanos());
        bucket
    }

    /// The buckets from `from` on up to `upto`, and one more: in the order of time.
    fn buckets(
        &self,
        rows: &dyn Rows,
        (subject, resource): (&SubjectName, &ResourceKey),
        step: Step,
        from: i64,
        upto: i64,
    ) -> Result<Vec<Bucket>, RowsError> {
        let at = Step::ALL.iter().position(|have| *have == step);
        let at = at.unwrap_or_default();
        let open = &self.account.rollup.open[at];
        let end = self.open_then[at];
        let mut buckets: Vec<Bucket> = Vec::new();
        let prefix = format::pages_prefix(subject, resource, step);
        let first = format::page_key(&prefix, format::page_of(from));
        rows.scan_from(&prefix, &first, &mut |row| {
            for bucket in format::page_of_bytes(&row.value)? {
                if bucket.number >= end {
                    return Ok(ControlFlow::Break(()));
                }
                let over = bucket.number >= upto;
                if bucket.number >= from {
                    buckets.push(bucket);
                }
                if over {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let closed = self.closed.iter().filter(|(have, _)| *have == step);
        let later = closed.map(|(_, bucket)| bucket).chain([open]);
        for bucket in later.filter(|bucket| bucket.number >= from) {
            // Those that were just written down stand on a page as well.
            if buckets
                .last()
                .is_none_or(|last| last.number < bucket.number)
            {
                buckets.push(bucket.clone());
            }
        }
        Ok(buckets)
    }
}
