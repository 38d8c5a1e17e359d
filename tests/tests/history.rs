//! The history of usage equals what is added up by hand, whatever is lost on the way.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::time::{SECOND_NS, Timestamp};
use quota_server::clock::Clock;
use quota_server::history;
use quota_server::history::rollup::Step;
use quota_server::history::series::{Keep, Query, Series};
use quota_store::Rows;
use quota_store::rows::{MemoryRows, RowChange};
use quota_testkit::workload::swf;
use quota_tests::lives::{HOUR, Life, PATIENCE, call, check_all, live};
use quota_tests::logs::real;
use tokio::time::Instant;

/// The journal is trimmed behind it meanwhile, as far as it lets.
#[test]
fn random_days_equal_what_is_added_up_by_hand() {
    for seed in 1..4 {
        let (mut life, truth) = live(seed, 400, 1 << 14, |_, _| ());
        let refused: u64 = truth.0.values().map(|account| account.refused).sum();
        assert!(refused > 0, "something is refused");
        assert!(check_all(&life, &truth, false) > 10_000);
        let first = |life: &Life| {
            let (_, engine) = life.running.as_ref().unwrap();
            engine.journal().first_sequence()
        };
        for _ in 0..200 {
            life.advance(6 * SECOND_NS);
            life.call(&call(
                "consume",
                "tenants/b",
                Some(("api.requests", 1)),
                &[],
            ));
            life.history().catch_up(PATIENCE);
            assert!(first(&life) <= life.history().needed_from());
        }
        assert!(first(&life) > 1, "nothing was trimmed");
    }
}

/// The power goes at any moment; with it go what was open, all rows, the position, or the newest rows.
#[test]
fn whatever_is_lost_it_comes_out_the_same() {
    for seed in 1..5 {
        let mut kept: Option<Arc<MemoryRows>> = None;
        let (mut life, truth) = live(seed, 300, u64::MAX, |life, random| match random.u8(..40) {
            0 => life.kill(random),
            1 => {
                life.rows = Arc::new(MemoryRows::default());
                life.kill(random);
            }
            2 => {
                life.history().catch_up(PATIENCE);
                kept = Some(copy(&*life.rows, life.rows.applied()));
            }
            3 => {
                if let Some(kept) = kept.take() {
                    life.rows = kept;
                    life.kill(random);
                }
            }
            // Newer rows than the position says: what was told comes again.
            4 => {
                if let Some(kept) = &kept {
                    life.history().catch_up(PATIENCE);
                    let position = kept.applied();
                    life.running = None;
                    life.rows = copy(&*life.rows, position);
                    life.start();
                }
            }
            _ => {}
        });
        check_all(&life, &truth, true);
        let mut random = Rng::with_seed(seed);
        life.kill(&mut random);
        check_all(&life, &truth, true);
    }
}

fn copy(rows: &dyn Rows, applied: u64) -> Arc<MemoryRows> {
    let copied = MemoryRows::default();
    let mut changes = Vec::new();
    rows.scan(b"", &mut |row| {
        changes.push(RowChange {
            key: row.key,
            value: Some(row.value),
            sequence: row.sequence,
        });
        Ok(())
    })
    .unwrap();
    copied.put(&changes, applied).unwrap();
    Arc::new(copied)
}

fn row_count(rows: &dyn Rows) -> usize {
    let mut count = 0;
    rows.scan(b"", &mut |_| {
        count += 1;
        Ok(())
    })
    .unwrap();
    count
}

/// A subject that does nothing costs nothing, however long, and its history can be read all the same.
#[test]
fn who_does_nothing_costs_nothing() {
    let mut life = Life::begin();
    for user in 0..50 {
        let name = format!("tenants/a/users/u{user}");
        life.call(&call(
            "consume",
            &name,
            Some(("compute.cpu", 4)),
            &[("id", "vm")],
        ));
    }
    life.advance(6 * SECOND_NS);
    life.call(&call("consume", "tenants/b", Some(("compute.cpu", 1)), &[]));
    life.history().catch_up(PATIENCE);
    life.running.take().unwrap().0.finish();
    life.start();
    let rows = row_count(&*life.rows);
    assert!((53..60).contains(&rows), "{rows} rows of 53 accounts");
    for _ in 0..100 {
        life.advance(6 * HOUR);
        life.call(&call("consume", "tenants/b", Some(("compute.cpu", 1)), &[]));
        life.history().catch_up(PATIENCE);
    }
    life.running.take().unwrap().0.finish();
    life.start();
    // Two accounts were busy for 25 days: a page of five minutes for each change, one of hours per day, two of days.
    let more = row_count(&*life.rows) - rows;
    assert!(more <= 2 * (101 + 27 + 3), "{more} more rows");
    let series = life
        .series("tenants/a/users/u7", "compute.cpu", Step::Hour)
        .unwrap();
    assert!(series.points.len() >= 600);
    assert!(
        series.points[1..]
            .iter()
            .all(|point| point.bucket.used_min == 4)
    );
}

/// What is older than it is kept goes, in the background; what is kept stays whole.
#[test]
fn what_is_too_old_goes() {
    let day = Duration::from_secs(24 * 3600);
    let mut life = Life::keeping(
        Keep {
            five_minutes: day,
            hours: 3 * day,
            days: 10 * day,
        },
        u64::MAX,
    );
    let mut most = 0;
    for step in 0..24 * 60 {
        let id = format!("vm{step}");
        let id = [("id", id.as_str())];
        life.call(&call("consume", "tenants/a", Some(("compute.cpu", 5)), &id));
        life.advance(HOUR / 2);
        life.call(&call("release", "tenants/a", None, &id));
        life.advance(HOUR / 2);
        if step % 24 == 0 {
            life.history().catch_up(PATIENCE);
            most = most.max(row_count(&*life.rows));
        }
    }
    // Of each of two accounts 13 pages of five minutes, 4 of hours and 2 of days at most; what was written since the
    // last round of sweeping; their own rows and the origin.
    assert!(most < 2 * (13 + 4 + 2) + 30, "{most} rows");
    for (step, kept) in [(Step::FiveMinutes, 288), (Step::Hour, 72), (Step::Day, 10)] {
        let series = life.series("tenants/a", "compute.cpu", step).unwrap();
        assert_eq!(series.points.len(), kept + 1, "{step:?}");
        assert_eq!(series.points[0].start, series.oldest);
        let whole = &series.points[1..kept];
        let area: i128 = whole.iter().map(|point| point.bucket.area.used).sum();
        let span = i128::from(step.nanos()) * whole.len() as i128;
        // Five for half of each hour; the ends of five minutes need not be those of hours.
        assert!(
            (2 * area - 5 * span).abs() <= i128::from(5 * HOUR),
            "{step:?}"
        );
    }
    // A subject that is gone and idle for longer than anything is kept leaves nothing.
    life.advance(12 * 24 * HOUR);
    for _ in 0..4 {
        life.advance(6 * SECOND_NS);
        life.call(&call("consume", "tenants/b", Some(("compute.gpu", 1)), &[]));
        life.history().catch_up(PATIENCE);
        life.history().finish();
        life.running = None;
        life.start();
    }
    assert!(life.series("tenants/a", "compute.cpu", Step::Day).is_none());
}

/// A life of a name after another: counts begin anew, nothing is counted twice, and what was stays readable.
#[test]
fn a_name_that_lives_again_goes_on_from_nothing() {
    let mut life = Life::begin();
    let calls = |amount| {
        call(
            "consume",
            "tenants/a/users/u",
            Some(("api.calls", amount)),
            &[],
        )
    };
    life.call(&calls(7));
    life.advance(HOUR);
    life.call(&call("unsubject", "tenants/a/users/u", None, &[]));
    life.advance(HOUR);
    life.call(&calls(4));
    life.advance(HOUR);
    life.call(&call(
        "reset",
        "tenants/a/users/u",
        Some(("api.calls", 1)),
        &[],
    ));
    life.call(&calls(2));
    let last = |series: &Series| series.points.last().unwrap().bucket.last.used;
    for (subject, last_used) in [("tenants/a/users/u", 2), ("tenants/a", 13)] {
        let series = life.series(subject, "api.calls", Step::Day).unwrap();
        let counted: i64 = series.points.iter().map(|point| point.bucket.counted).sum();
        assert_eq!((counted, last(&series)), (13, last_used), "{subject}");
    }
    // What time ended while the server was down did not count until it came back.
    let job = Some(("tasks.concurrent", 3));
    let ttl = [("id", "job"), ("ttl", "60s")];
    let begin = life.now();
    life.call(&call("consume", "tenants/a/users/u", job, &ttl));
    life.running = None;
    life.advance(50 * HOUR);
    life.start();
    life.call(&calls(1));
    let series = life
        .series("tenants/a", "tasks.concurrent", Step::Day)
        .unwrap();
    let area: i128 = series
        .points
        .iter()
        .map(|point| point.bucket.area.used)
        .sum();
    let until = (begin + 61 * SECOND_NS - 1).div_euclid(SECOND_NS) * SECOND_NS;
    assert_eq!(area, 3 * i128::from(until - begin));
}

/// Limits stand in the steps in which they were in force.
#[test]
fn limits_are_those_of_their_time() {
    let mut life = Life::begin();
    let cpu = |place: &str, limit| call("quota", place, Some(("compute.cpu", limit)), &[]);
    let charge = |n: &str| {
        let id = [("id", n)];
        call(
            "consume",
            "tenants/a/users/u",
            Some(("compute.cpu", 1)),
            &id,
        )
    };
    life.advance(HOUR - life.now().rem_euclid(HOUR));
    life.call(&cpu("tenants/*/users/*", 50));
    life.call(&charge("1"));
    life.advance(HOUR);
    life.call(&cpu("tenants/a/users/u", 40));
    life.advance(2 * HOUR);
    life.call(&call(
        "unquota",
        "tenants/a/users/u",
        Some(("compute.cpu", 1)),
        &[],
    ));
    life.advance(HOUR);
    life.call(&cpu("tenants/*/users/*", 60));
    life.call(&charge("2"));
    let limits = |life: &Life| -> Vec<Option<i64>> {
        let series = life
            .series("tenants/a/users/u", "compute.cpu", Step::Hour)
            .unwrap();
        let limits = series.points.iter().map(|point| point.bucket.limit);
        limits
            .map(|limit| limit.and_then(|limit| limit.value()))
            .collect()
    };
    let expected = [50, 40, 40, 50, 60].map(Some);
    assert_eq!(limits(&life), expected);
    // And are so when it is made anew, long after.
    life.rows = Arc::new(MemoryRows::default());
    life.running = None;
    life.start();
    assert_eq!(limits(&life), expected);
}

/// How long a month of hours takes, with a year of other months and other subjects beside it: it is printed.
#[test]
fn a_month_of_hours() {
    let directory = tempfile::tempdir().unwrap();
    let rows = || history::open_rows(&directory.path().join("history")).unwrap();
    let mut life = Life::begin();
    life.running = None;
    life.rows = rows();
    life.start();
    for step in 0..3000 {
        let user = format!("tenants/a/users/u{}", step % 20);
        life.advance(15 * 60 * SECOND_NS);
        life.call(&call("consume", &user, Some(("compute.cpu", 1)), &[]));
    }
    life.history().catch_up(PATIENCE);
    life.running.take().unwrap().0.finish();
    life.rows = Arc::new(MemoryRows::default());
    life.rows = rows();
    life.start();
    life.history().catch_up(PATIENCE);
    let month = |life: &Life| {
        let query = Query {
            subject: SubjectName::parse("tenants/a").unwrap(),
            resource: ResourceKey::parse("compute.cpu").unwrap(),
            step: Step::Hour,
            from: Timestamp::from_nanos(life.now() - 744 * HOUR),
            to: Timestamp::from_nanos(i64::MAX),
            most: 1000,
        };
        let began = Instant::now();
        let series = life.history().series(&query, life.store.clock.now());
        (series.unwrap().unwrap(), began.elapsed())
    };
    let (series, cold) = month(&life);
    let (_, warm) = month(&life);
    println!("a month of hours: {cold:?} after a start, then {warm:?}");
    assert_eq!(series.points.len(), 745);
    let granted: u64 = series.points[..744]
        .iter()
        .map(|point| point.bucket.granted)
        .sum();
    assert!((2970..=2980).contains(&granted), "{granted}");
}

/// The NASA Ames iPSC/860 log in its own time: the processor-hours of all days are those of its jobs, exactly.
#[test]
fn the_nasa_log_adds_up_to_its_processor_hours() {
    let Some((_, text)) = real("NASA-iPSC-1993-3.1-cln.swf.gz") else {
        return;
    };
    let jobs = swf(&text);
    let mut life = Life::begin();
    let begin = life.now();
    let mut events: Vec<(i64, bool, usize)> = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        events.push((job.start, true, at));
        events.push((job.end, false, at));
    }
    events.sort_unstable();
    let (mut granted, mut refused) = (0, 0);
    let mut ran = vec![false; jobs.len()];
    // 128 processors there are; whoever asks for more at that moment is refused.
    life.call(&call(
        "quota",
        "system",
        Some(("compute.cpu", 128_000)),
        &[],
    ));
    for (second, starts, at) in events {
        let job = &jobs[at];
        let to = begin + second * SECOND_NS;
        life.advance(to - life.now());
        let id = [("id", job.name.as_str())];
        if starts {
            let cpu = job.amounts[0].1;
            let said = life.call(&call(
                "consume",
                &job.subject,
                Some(("compute.cpu", cpu)),
                &id,
            ));
            ran[at] = said.starts_with("granted");
            if ran[at] { granted += 1 } else { refused += 1 }
        } else if ran[at] {
            life.call(&call("release", &job.subject, None, &id));
        }
    }
    let expected: i128 = jobs
        .iter()
        .zip(&ran)
        .filter(|(_, ran)| **ran)
        .map(|(job, _)| i128::from(job.end - job.start) * i128::from(job.amounts[0].1))
        .sum();
    for step in Step::ALL {
        let series = life.series("system", "compute.cpu", step).unwrap();
        let area: i128 = series
            .points
            .iter()
            .map(|point| point.bucket.area.used)
            .sum();
        if step == Step::Day {
            println!(
                "{granted} jobs granted, {refused} refused, {} days, {} processor-seconds",
                series.points.len(),
                area / i128::from(SECOND_NS) / 1000
            );
            let refusals: u64 = series.points.iter().map(|point| point.bucket.refused).sum();
            assert_eq!(refusals, refused);
        }
        // Steps of five minutes are kept for 30 days.
        if step != Step::FiveMinutes {
            assert_eq!(area, expected * i128::from(SECOND_NS), "{step:?}");
        }
    }
}
