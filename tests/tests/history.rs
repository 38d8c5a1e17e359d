//! The history of usage equals what is added up by hand, whatever is lost on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use quota_core::Bounds;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::time::{SECOND_NS, Timestamp};
use quota_server::clock::Clock;
use quota_server::config::Config;
use quota_server::engine::Engine;
use quota_server::history::rollup::Step;
use quota_server::history::series::{Keep, Point, Query, Series};
use quota_server::history::{self, History};
use quota_store::Rows;
use quota_store::rows::{MemoryRows, RowChange};
use quota_testkit::bare;
use quota_testkit::script::Call;
use quota_testkit::workload::swf;
use quota_tests::logs::real;
use quota_tests::worlds::{TestStore, runtime};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const HOUR: i64 = 3600 * SECOND_NS;
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine on a test disk, and its history.
struct Life {
    store: TestStore,
    rows: Arc<dyn Rows>,
    keep: Keep,
    running: Option<(Arc<History>, Arc<Engine>)>,
    runtime: Runtime,
    made: u64,
}

impl Life {
    fn new() -> Self {
        Self::keeping(Config::default().history())
    }

    fn keeping(keep: Keep) -> Self {
        let mut life = Self {
            store: TestStore {
                base_bytes: u64::MAX,
                ..TestStore::new(Bounds::default())
            },
            rows: Arc::new(MemoryRows::default()),
            keep,
            running: None,
            runtime: runtime(),
            made: 0,
        };
        life.start();
        life
    }

    fn start(&mut self) {
        let engine = Arc::new(self.store.start());
        let history = History::start(engine.clone(), self.rows.clone(), self.keep);
        let history = Arc::new(history.unwrap());
        self.running = Some((history, engine));
    }

    /// Ends it all without a word, and starts again on what is left.
    fn kill(&mut self, random: &mut Rng) {
        self.store.crash(random);
        self.running = None;
        self.start();
    }

    fn history(&self) -> &History {
        &self.running.as_ref().unwrap().0
    }

    fn now(&self) -> i64 {
        self.store.clock.now().nanos()
    }

    fn advance(&self, nanos: i64) {
        let by = Duration::from_nanos(nanos.unsigned_abs());
        self.store.clock.advance(by);
    }

    fn call(&mut self, call: &Call) -> String {
        self.made += 1;
        let now = self.store.clock.now();
        let command = bare::command(call, self.made, now).unwrap();
        let engine = self.running.as_ref().unwrap().1.clone();
        let reply = self.runtime.block_on(engine.execute(command, None));
        bare::reply(call, Ok(reply.unwrap()))
    }

    fn series(&self, subject: &str, resource: &str, step: Step) -> Option<Series> {
        assert!(
            self.history().catch_up(PATIENCE),
            "{:?}",
            self.history().lag()
        );
        let query = Query {
            subject: SubjectName::parse(subject).unwrap(),
            resource: ResourceKey::parse(resource).unwrap(),
            step,
            from: Timestamp::from_nanos(0),
            to: Timestamp::from_nanos(i64::MAX),
            most: usize::MAX,
        };
        self.history()
            .series(&query, self.store.clock.now())
            .unwrap()
    }
}

fn call(verb: &str, place: &str, amount: Option<(&str, i64)>, options: &[(&str, &str)]) -> Call {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Call {
        verb: verb.to_owned(),
        place: place.to_owned(),
        amounts: amount
            .into_iter()
            .map(|(key, amount)| (key.to_owned(), amount.to_string()))
            .collect(),
        options: options.iter().map(text).collect(),
        ..Call::default()
    }
}

/// What happened to one account, by the instant at which it did.
#[derive(Default, Clone)]
struct Account {
    /// Of what is in use and held.
    changes: Vec<(i64, i64, i64)>,
    counted: Vec<(i64, i64)>,
    granted: Vec<i64>,
    refused: u64,
}

#[derive(Default)]
struct Truth(BTreeMap<(String, String), Account>);

impl Truth {
    /// The accounts of a subject and of all above it.
    fn on(&mut self, subject: &str, resource: &str, mut note: impl FnMut(&mut Account)) {
        let name = SubjectName::parse(subject).unwrap();
        for name in name.lineage() {
            let key = (name.to_owned(), resource.to_owned());
            note(self.0.entry(key).or_default());
        }
    }

    /// Compares one account with its series, point by point.
    fn check(&self, life: &Life, subject: &str, resource: &str, step: Step) -> (usize, u64) {
        let account = &self.0[&(subject.to_owned(), resource.to_owned())];
        let series = life.series(subject, resource, step).unwrap();
        let now = life.now();
        let mut refused = 0;
        let mut due = series.points[0].start;
        for Point { start, end, bucket } in &series.points {
            assert_eq!(*start, due, "without a gap");
            let (from, to) = (start.nanos(), (start.nanos() + step.nanos()).min(now));
            assert_eq!(end.nanos(), to);
            due = Timestamp::from_nanos(start.nanos() + step.nanos());
            let last = to == now;
            // What is at `now` itself belongs to the last one.
            let inside = |at: i64| from <= at && (at < to || last && at == now);
            let level = |upto: i64| {
                let until = account.changes.iter().filter(|change| change.0 <= upto);
                until.fold((0, 0), |sum, change| (sum.0 + change.1, sum.1 + change.2))
            };
            let mut instants: Vec<i64> = vec![from];
            instants.extend(
                account
                    .changes
                    .iter()
                    .map(|change| change.0)
                    .filter(|at| inside(*at)),
            );
            instants.sort_unstable();
            instants.dedup();
            let levels: Vec<(i64, i64)> = instants.iter().map(|at| level(*at)).collect();
            let mut area = (0_i128, 0_i128);
            for (at, (used, held)) in instants
                .iter()
                .enumerate()
                .map(|(n, at)| (n, *at))
                .zip(&levels)
            {
                let until = instants.get(at.0 + 1).copied().unwrap_or(to);
                area.0 += i128::from(*used) * i128::from(until - at.1);
                area.1 += i128::from(*held) * i128::from(until - at.1);
            }
            let place = format!("{subject} {resource} {step:?} at {from}");
            let used = levels.iter().map(|level| level.0);
            assert_eq!(Some(bucket.used_min), used.clone().min(), "{place}");
            assert_eq!(Some(bucket.used_max), used.max(), "{place}");
            let held = levels.iter().map(|level| level.1).max();
            assert_eq!(Some(bucket.held_max), held, "{place}");
            let (used, held) = *levels.last().unwrap();
            assert_eq!(
                (bucket.last.used, bucket.last.held),
                (used, held),
                "{place}"
            );
            assert_eq!((bucket.area.used, bucket.area.held), area, "{place}");
            let counted = account.counted.iter().filter(|(at, _)| inside(*at));
            let counted: i64 = counted.map(|(_, amount)| amount).sum();
            assert_eq!(bucket.counted, counted, "{place}");
            let granted = account.granted.iter().filter(|at| inside(**at)).count();
            assert_eq!(bucket.granted, granted as u64, "{place}");
            refused += bucket.refused;
        }
        assert_eq!(
            due.nanos() - step.nanos(),
            now.div_euclid(step.nanos()) * step.nanos()
        );
        (series.points.len(), refused)
    }
}

/// What a caller has, until when.
struct Mine {
    subject: String,
    id: String,
    amount: i64,
    end: Option<i64>,
}

/// One life: random commands over days, in which something may happen before each.
fn live(seed: u64, steps: usize, mut before: impl FnMut(&mut Life, &mut Rng)) -> (Life, Truth) {
    let mut random = Rng::with_seed(seed);
    let mut life = Life::new();
    let mut truth = Truth::default();
    let users = ["tenants/a/users/u", "tenants/a/users/v", "tenants/b"];
    for (place, resource, limit) in [
        ("tenants/*/users/*", "compute.cpu", 40),
        ("tenants/b", "compute.cpu", 30),
        ("system", "api.calls", 3000),
    ] {
        life.call(&call("quota", place, Some((resource, limit)), &[]));
    }
    let mut vms: Vec<Mine> = Vec::new();
    let mut jobs: Vec<Mine> = Vec::new();
    let mut holds: Vec<Mine> = Vec::new();
    for step in 0..steps {
        before(&mut life, &mut random);
        life.advance(random.i64(SECOND_NS..40 * 60 * SECOND_NS));
        match random.u8(..10) {
            // Exactly where buckets meet.
            0 => life.advance(HOUR - life.now().rem_euclid(HOUR)),
            1 => life.advance(300 * SECOND_NS - life.now().rem_euclid(300 * SECOND_NS)),
            // A long idle time.
            2 if random.u8(..8) == 0 => life.advance(random.i64(HOUR..40 * HOUR)),
            _ => {}
        }
        let now = life.now();
        jobs.retain(|job| job.end.unwrap() > now);
        holds.retain(|hold| hold.end.unwrap() > now);
        let subject = users[random.usize(..users.len())].to_owned();
        let amount = random.i64(1..12);
        let id = format!("n{step}");
        // Nothing ends where two buckets meet: of two changes at one instant, one would be seen for no time.
        let ttl = random.i64(1..7200);
        let end = (now + ttl * SECOND_NS + SECOND_NS - 1).div_euclid(SECOND_NS);
        let (ttl, end) = match end % 300 {
            0 => (ttl + 1, (end + 1) * SECOND_NS),
            _ => (ttl, end * SECOND_NS),
        };
        let ttl_text = format!("{ttl}s");
        let mine = |end| Mine {
            subject: subject.clone(),
            id: id.clone(),
            amount,
            end,
        };
        match random.u8(..8) {
            0 | 1 => {
                let cpu = Some(("compute.cpu", amount));
                let said = life.call(&call("consume", &subject, cpu, &[("id", &id)]));
                if said.starts_with("granted") {
                    truth.on(&subject, "compute.cpu", |account| {
                        account.changes.push((now, amount, 0));
                        account.granted.push(now);
                    });
                    vms.push(mine(None));
                } else {
                    // Every one of them meets its own limit.
                    let key = (subject.clone(), "compute.cpu".to_owned());
                    truth.0.entry(key).or_default().refused += 1;
                }
            }
            2 if !vms.is_empty() => {
                let vm = vms.swap_remove(random.usize(..vms.len()));
                life.call(&call("release", &vm.subject, None, &[("id", &vm.id)]));
                truth.on(&vm.subject, "compute.cpu", |account| {
                    account.changes.push((now, -vm.amount, 0));
                });
            }
            3 => {
                let options = [("id", id.as_str()), ("ttl", &ttl_text)];
                let job = Some(("tasks.concurrent", amount));
                life.call(&call("consume", &subject, job, &options));
                truth.on(&subject, "tasks.concurrent", |account| {
                    account.changes.push((now, amount, 0));
                    account.changes.push((end, -amount, 0));
                    account.granted.push(now);
                });
                jobs.push(mine(Some(end)));
            }
            4 => {
                let options = [("id", id.as_str()), ("ttl", &ttl_text)];
                let gpu = Some(("compute.gpu", amount));
                life.call(&call("reserve", &subject, gpu, &options));
                truth.on(&subject, "compute.gpu", |account| {
                    account.changes.push((now, 0, amount));
                    account.changes.push((end, 0, -amount));
                    account.granted.push(now);
                });
                holds.push(mine(Some(end)));
            }
            5 if !holds.is_empty() => {
                let hold = holds.swap_remove(random.usize(..holds.len()));
                let commit = random.bool();
                let verb = if commit { "commit" } else { "cancel" };
                life.call(&call(verb, &hold.subject, None, &[("id", &hold.id)]));
                let end = hold.end.unwrap();
                truth.on(&hold.subject, "compute.gpu", |account| {
                    let ends = (end, 0, -hold.amount);
                    let at = account.changes.iter().position(|change| *change == ends);
                    account.changes.remove(at.unwrap());
                    let used = if commit { hold.amount } else { 0 };
                    account.changes.push((now, used, -hold.amount));
                });
            }
            6 => {
                let calls = Some(("api.calls", amount));
                let said = life.call(&call("consume", &subject, calls, &[]));
                if said.starts_with("granted") {
                    truth.on(&subject, "api.calls", |account| {
                        account.changes.push((now, amount, 0));
                        account.counted.push((now, amount));
                        account.granted.push(now);
                    });
                }
            }
            _ => {
                let requests = Some(("api.requests", amount));
                life.call(&call("consume", &subject, requests, &[]));
                truth.on(&subject, "api.requests", |account| {
                    account.counted.push((now, amount));
                    account.granted.push(now);
                });
            }
        }
    }
    // The last second's refusals are told when it is over; a command at the end tells them.
    life.advance(5 * SECOND_NS + 1);
    let now = life.now();
    life.call(&call(
        "consume",
        "tenants/b",
        Some(("api.requests", 1)),
        &[],
    ));
    truth.on("tenants/b", "api.requests", |account| {
        account.counted.push((now, 1));
        account.granted.push(now);
    });
    for account in truth.0.values_mut() {
        account.changes.retain(|change| change.0 <= now);
    }
    (life, truth)
}

/// Compares all accounts; answers how many steps that were. A kill may lose the refusals of its last second, which
/// are counted in memory until they are told; but what is told is told in every step.
fn check_all(life: &Life, truth: &Truth, killed: bool) -> usize {
    let mut points = 0;
    for ((subject, resource), account) in &truth.0 {
        let checked = Step::ALL.map(|step| truth.check(life, subject, resource, step));
        points += checked.iter().map(|(points, _)| points).sum::<usize>();
        let refused = checked.map(|(_, refused)| refused);
        assert!(
            refused.iter().all(|have| *have == refused[0]),
            "{refused:?}"
        );
        match killed {
            true => assert!(refused[0] <= account.refused),
            false => assert_eq!(refused[0], account.refused),
        }
    }
    points
}

#[test]
fn random_days_equal_what_is_added_up_by_hand() {
    for seed in 1..4 {
        let (life, truth) = live(seed, 400, |_, _| ());
        let refused: u64 = truth.0.values().map(|account| account.refused).sum();
        assert!(refused > 0, "something is refused");
        assert!(check_all(&life, &truth, false) > 10_000);
    }
}

/// The power goes at any moment; with it go what was open, all rows, the position, or the newest rows.
#[test]
fn whatever_is_lost_it_comes_out_the_same() {
    for seed in 1..5 {
        let mut kept: Option<Arc<MemoryRows>> = None;
        let (mut life, truth) = live(seed, 300, |life, random| match random.u8(..40) {
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
    let mut life = Life::new();
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
    let mut life = Life::keeping(Keep {
        five_minutes: day,
        hours: 3 * day,
        days: 10 * day,
    });
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
    let mut life = Life::new();
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
    let mut life = Life::new();
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
    let mut life = Life::new();
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
    let mut life = Life::new();
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
