//! Lives with a history: random commands over days, and what they add up to by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::worlds::{TestStore, runtime};
use fastrand::Rng;
use quota_core::Bounds;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::time::{SECOND_NS, Timestamp};
use quota_server::clock::Clock;
use quota_server::config::Config;
use quota_server::engine::Engine;
use quota_server::history::History;
use quota_server::history::rollup::Step;
use quota_server::history::series::{Keep, Point, Query, Series};
use quota_store::Rows;
use quota_store::rows::MemoryRows;
use quota_testkit::bare;
use quota_testkit::script::Call;
use tokio::runtime::Runtime;

/// An hour, in nanoseconds.
pub const HOUR: i64 = 3600 * SECOND_NS;
/// How long a test waits for the history.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An engine on a test disk, and its history.
pub struct Life {
    /// What the engine runs on.
    pub store: TestStore,
    /// The rows of the history.
    pub rows: Arc<dyn Rows>,
    keep: Keep,
    /// The history and the engine, while they run.
    pub running: Option<(Arc<History>, Arc<Engine>)>,
    runtime: Runtime,
    made: u64,
}

impl Life {
    /// A new store whose journal keeps everything.
    pub fn begin() -> Self {
        Self::keeping(Config::default().history(), u64::MAX)
    }

    /// A new store whose history is kept for a time, with a base for so many bytes of journal.
    pub fn keeping(keep: Keep, base_bytes: u64) -> Self {
        let mut life = Self {
            store: TestStore {
                base_bytes,
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

    /// Starts on what is there.
    pub fn start(&mut self) {
        let engine = Arc::new(self.store.start());
        let rows = self.rows.clone();
        let history = History::start(engine.clone(), move || Ok(rows.clone()), self.keep);
        let history = Arc::new(history.unwrap());
        self.running = Some((history, engine));
    }

    /// Ends it all without a word, and starts again on what is left.
    pub fn kill(&mut self, random: &mut Rng) {
        self.store.crash(random);
        self.running = None;
        self.start();
    }

    /// The history.
    pub fn history(&self) -> &History {
        &self.running.as_ref().unwrap().0
    }

    /// The time, in nanoseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.store.clock.now().nanos()
    }

    /// Lets so many nanoseconds pass.
    pub fn advance(&self, nanos: i64) {
        let by = Duration::from_nanos(nanos.unsigned_abs());
        self.store.clock.advance(by);
    }

    /// Has a call answered, in the words of scripts.
    pub fn call(&mut self, call: &Call) -> String {
        self.made += 1;
        let now = self.store.clock.now();
        let command = bare::command(call, self.made, now).unwrap();
        let engine = self.running.as_ref().unwrap().1.clone();
        let reply = self.runtime.block_on(engine.execute(command, None));
        bare::reply(call, Ok(reply.unwrap()))
    }

    /// The whole series of an account, as of now; all that is durable is in it.
    pub fn series(&self, subject: &str, resource: &str, step: Step) -> Option<Series> {
        assert!(self.history().catch_up(PATIENCE), "it is behind");
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

/// A call in the words of scripts.
pub fn call(
    verb: &str,
    place: &str,
    amount: Option<(&str, i64)>,
    options: &[(&str, &str)],
) -> Call {
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
pub struct Account {
    /// Of what is in use and held.
    changes: Vec<(i64, i64, i64)>,
    counted: Vec<(i64, i64)>,
    granted: Vec<i64>,
    /// Requests that were refused.
    pub refused: u64,
}

/// What happened, by subject and resource.
#[derive(Default)]
pub struct Truth(pub BTreeMap<(String, String), Account>);

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
pub fn live(
    seed: u64,
    steps: usize,
    base_bytes: u64,
    mut before: impl FnMut(&mut Life, &mut Rng),
) -> (Life, Truth) {
    let mut random = Rng::with_seed(seed);
    let mut life = Life::keeping(Config::default().history(), base_bytes);
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
pub fn check_all(life: &Life, truth: &Truth, killed: bool) -> usize {
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
