//! The auditor: naive, independent, written from the contract. Plain vectors and loops, nothing of the ledger:
//! the two can only agree by being right, or wrong in the same way. It keeps no account; whatever is asked is
//! added up from the rows and entries from the beginning. It answers scripts, so every script is also a test
//! of it, and what it answers to a random call is the script that the ledger has to pass.

mod admin;
mod book;
mod calendar;
mod calls;
mod holds;
mod judge;
mod names;
mod outlook;
mod rules;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use quota_core::Bounds;
use quota_core::time::Timestamp;

use crate::bare::BEGINNING;
use crate::script::{Call, Script, World, content};
use book::{Book, Kind, Resource, State, Subject};

/// An answer that is kept.
#[derive(Clone, Debug)]
struct Kept {
    lane: String,
    id: String,
    content: [u8; 16],
    text: String,
    at: i128,
    refusal: bool,
}

/// A row, as callers name it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The subject.
    pub subject: String,
    /// The further subjects, parted by commas.
    pub also: String,
    /// The id; empty for the anonymous one.
    pub id: String,
    /// Keys of what it has.
    pub resources: Vec<String>,
}

/// Keeps quotas by the contract, slowly.
#[derive(Clone, Debug)]
pub struct Auditor {
    book: Book,
    bounds: Bounds,
    kept: Vec<Kept>,
    /// First pairs with the instant up to which they may have forgotten something.
    forgotten: Vec<(String, i128)>,
    /// The same for all: the clock went forward without time going by, so ages say nothing about before.
    jumped: i128,
}

/// What came of a call: its text, whether it is a refusal, and whether it answers at all.
type Done = Result<(String, bool), &'static str>;

impl Auditor {
    /// An empty book with the bounds of a script.
    pub fn new(script: &Script) -> Self {
        Self::with_bounds(script.bounds)
    }

    /// The same with these bounds.
    pub fn with_bounds(bounds: Bounds) -> Self {
        let built_in = BUILT_IN.lines().map(|line| {
            let (key, kind) = line.trim().split_once(' ').unwrap();
            Resource {
                key: key.to_owned(),
                kind: kind_of(kind),
                deny: false,
                built_in: true,
                version: 0,
                charged: false,
            }
        });
        let root = Subject {
            life: 0,
            version: 0,
        };
        Self {
            book: Book {
                now: i128::from(BEGINNING.nanos()),
                revision: 0,
                subjects: [("system".to_owned(), root)].into(),
                resources: built_in.collect(),
                rows: Vec::new(),
                entries: Vec::new(),
                rules: Vec::new(),
                history: Vec::new(),
                auto_create: bounds.auto_create,
                subjects_max: bounds.subjects_max,
            },
            bounds,
            kept: Vec::new(),
            forgotten: Vec::new(),
            jumped: i128::MIN,
        }
    }

    /// The clock was set forward by whoever started the server.
    pub fn jumped(&mut self, to: Timestamp) {
        self.jumped = self.jumped.max(i128::from(to.nanos()));
    }

    /// Sets the time; it never goes back.
    pub fn set_now(&mut self, now: Timestamp) {
        self.book.now = self.book.now.max(i128::from(now.nanos()));
    }

    /// The server goes on at `now`: not before its last decision, but perhaps before what it last said.
    pub fn restarted_at(&mut self, now: Timestamp) {
        self.book.now = i128::from(now.nanos());
    }

    /// Whether the answer to a call's operation is kept.
    pub fn keeps(&self, call: &Call) -> bool {
        let lane = lane(call);
        let of = |id| move |kept: &Kept| kept.lane == lane && kept.id == id;
        call.option("op")
            .is_some_and(|id| self.kept.iter().any(of(id)))
    }

    /// Names of all subjects.
    pub fn subjects(&self) -> Vec<String> {
        self.book.subjects.keys().cloned().collect()
    }

    /// Used and held of a resource, the used of a counter in its lifetime.
    pub fn account(&self, subject: &str, resource: &str) -> (i64, i64) {
        let number = |n: i128| i64::try_from(n).unwrap();
        (
            number(self.book.used(subject, resource)),
            number(self.book.held(subject, resource)),
        )
    }

    /// The most of a resource that a charge of a subject and more would be granted now.
    pub fn room(&self, subject: &str, also: &[String], resource: &str) -> i64 {
        let room = self.book.room(&Book::set(subject, also), resource);
        i64::try_from(room).unwrap_or(i64::MAX)
    }

    /// Keys of all resources.
    pub fn resources(&self) -> Vec<String> {
        let keys = self.book.resources.iter();
        keys.map(|resource| resource.key.clone()).collect()
    }

    /// Every live allocation.
    pub fn allocations(&self) -> Vec<Known> {
        self.known(|row| !row.held && self.book.is_there(row))
    }

    /// Every hold that nobody has ended; `over` says whether its time has.
    pub fn holds(&self, over: bool) -> Vec<Known> {
        self.known(|row| {
            let open = row.held && row.state == State::Live && self.book.is_alive(row);
            open && row.is_over(self.book.now) == over
        })
    }

    /// Ids of the quotas in force, without their resource; those that are named after it alone are left out.
    pub fn quota_ids(&self, subject: &str, resource: &str) -> Vec<String> {
        let rules = self.book.in_force(subject, resource);
        let ids = rules
            .iter()
            .filter_map(|rule| rule.id.strip_prefix(resource));
        let ids = ids.filter_map(|id| id.strip_prefix('.'));
        ids.map(str::to_owned).collect()
    }

    fn known(&self, wanted: impl Fn(&book::Row) -> bool) -> Vec<Known> {
        let rows = self.book.rows.iter().filter(|row| wanted(row));
        rows.map(|row| Known {
            subject: row.subject.clone(),
            also: row.also.join(","),
            id: row.id.clone().unwrap_or_default(),
            resources: row.amounts.iter().map(|(key, _)| key.clone()).collect(),
        })
        .collect()
    }

    /// What tells two states apart that time and answers do not change: subjects, rows and counts.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let subjects: Vec<&String> = self.book.subjects.keys().collect();
        subjects.hash(&mut hasher);
        let mut rows: Vec<String> = self.book.rows.iter().map(book::Row::shown).collect();
        rows.sort();
        rows.hash(&mut hasher);
        self.book.entries.len().hash(&mut hasher);
        hasher.finish()
    }

    /// A call that may change something, with its operation id.
    fn operate(&mut self, call: &Call) -> String {
        let lane = lane(call);
        let op = call.option("op");
        let content = content(call);
        let horizon = self.bounds.memory.horizon.as_nanos() as i128;
        let limit = self.book.now - horizon;
        while let Some(old) = self.kept.iter().position(|kept| kept.at < limit) {
            self.forget(old);
        }
        if let Some(id) = op {
            let known = self
                .kept
                .iter()
                .find(|kept| kept.lane == lane && kept.id == id);
            match known {
                Some(kept) if kept.content == content => return format!("{} replayed", kept.text),
                Some(_) => return "error OPERATION_ID_REUSED".to_owned(),
                None => {}
            }
            let tried = call.age().map(|age| self.book.now - age.as_nanos() as i128);
            let since = self.forgotten.iter().find(|(have, _)| *have == lane);
            let since = since.map_or(i128::MIN, |(_, since)| *since);
            if tried.is_some_and(|tried| tried <= since.max(self.jumped)) {
                return "error OUTCOME_FORGOTTEN".to_owned();
            }
        }
        let done = match call.has("dry") {
            true => self.book.clone().perform(call),
            false => self.book.perform(call),
        };
        let (text, refusal) = match done {
            Ok(done) => done,
            Err(reason) => return format!("error {reason}"),
        };
        if call.has("dry") {
            return text;
        }
        let offset = call
            .option("offset")
            .and_then(|text| text.parse::<i128>().ok());
        let at = self.book.now + offset.unwrap_or(0).max(0);
        if at > self.book.now {
            self.jumped = self.jumped.max(at);
        }
        if op.is_some() || !refusal {
            self.book.revision += 1;
            self.kept.push(Kept {
                lane: lane.clone(),
                id: op.unwrap_or("\0").to_owned(),
                content,
                text: text.clone(),
                at,
                refusal,
            });
            let most = match refusal {
                true => self.bounds.memory.refusals_max,
                false => self.bounds.memory.outcomes_max,
            };
            let alike = |kept: &&Kept| kept.lane == lane && kept.refusal == refusal;
            if self.kept.iter().filter(alike).count() > most {
                let oldest = self
                    .kept
                    .iter()
                    .position(|kept| kept.lane == lane && kept.refusal == refusal);
                self.forget(oldest.unwrap());
            }
        }
        text
    }

    fn forget(&mut self, at: usize) {
        let gone = self.kept.remove(at);
        match self
            .forgotten
            .iter_mut()
            .find(|(lane, _)| *lane == gone.lane)
        {
            Some((_, since)) => *since = gone.at.max(*since),
            None => self.forgotten.push((gone.lane, gone.at)),
        }
    }
}

impl World for Auditor {
    fn call(&mut self, call: &Call) -> String {
        if !names::is_well_formed(call) {
            return "error INVALID_FIELDS".to_owned();
        }
        match call.verb.as_str() {
            "used" | "held" | "counted" | "hold" => self.book.read(call),
            "check" => self.book.check(call),
            _ => self.operate(call),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.book.now += by.as_nanos() as i128;
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(i64::try_from(self.book.now).unwrap())
    }
}

/// The first pair of what a call is about.
fn lane(call: &Call) -> String {
    let place = match (call.members.first(), call.verb.as_str()) {
        (Some(first), _) => &first.place,
        (_, "resource" | "unresource" | "accept-clock") => return "system".to_owned(),
        _ => &call.place,
    };
    let pair: Vec<&str> = place.split('/').take(2).collect();
    pair.join("/")
}

fn kind_of(word: &str) -> Kind {
    match word {
        "allocation" => Kind::Allocation,
        "concurrency" => Kind::Concurrency,
        "counter" => Kind::Counter,
        "rate" => Kind::Rate,
        "per-request" => Kind::PerRequest,
        other => panic!("no kind is called {other}"),
    }
}

/// C3.3.
const BUILT_IN: &str = "compute.cpu allocation
    compute.memory allocation
    compute.gpu allocation
    compute.instances allocation
    compute.containers allocation
    compute.containers_running allocation
    storage.disk allocation
    storage.temporary allocation
    storage.volumes allocation
    storage.snapshots allocation
    storage.backups allocation
    network.bandwidth allocation
    network.throughput rate
    network.egress counter
    network.connections allocation
    network.load_balancers allocation
    network.floating_ips allocation
    api.requests rate
    api.calls counter
    api.messages counter
    tasks.concurrent concurrency
    tasks.queue_depth allocation
    tasks.files counter
    tasks.file_size per-request
    tasks.runtime counter
    tasks.actions counter
    cost counter";
