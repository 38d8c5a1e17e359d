//! The first boundary: scripts on a bare ledger, every event checked against the invariants.

mod reply;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quota_core::amount::{AMOUNT_MAX, Limit};
use quota_core::charge::{canonical_also, charge_set};
use quota_core::command::{
    Action, Amounts, Command, CommitHold, Consume, CorrectUsage, DeleteQuota, Existence, HoldName,
    Operation, Provenance, Release, ReleaseMatching, Renew, Reserve, ResetUsage, Resize, SetQuota,
    SetResource, SetSubject, Uncovered,
};
use quota_core::decide::{Use, check_use, may_be};
use quota_core::hold::{End, HoldKey, TTL_DEFAULT};
use quota_core::invariants;
use quota_core::ledger::AutoCreate;
use quota_core::name::{Id, NameError, OperationId, ResourceKey, SubjectName};
use quota_core::quota::{Enforcement, Origin, State, Target, default_id};
use quota_core::rate::Rate;
use quota_core::resource::{Kind, Resources, WithoutQuota};
use quota_core::time::Timestamp;
use quota_core::verdict::Mode;
use quota_core::{Bounds, Ledger};

use crate::script::{self, Call, Script, World};
pub use reply::{checked, reply};

/// Where scripts begin: an instant in 2026.
pub const BEGINNING: Timestamp = Timestamp::from_nanos(1_790_000_000_000_000_000);

/// A ledger and a clock that is told the time.
pub struct BareLedger {
    /// The ledger.
    pub ledger: Ledger,
    /// The time.
    pub now: Timestamp,
    made: u64,
}

impl BareLedger {
    /// A new ledger for a script.
    pub fn new(script: &Script) -> Self {
        Self::with_bounds(script.bounds)
    }

    /// The same with these bounds.
    pub fn with_bounds(bounds: Bounds) -> Self {
        Self {
            ledger: Ledger::new(bounds, BEGINNING),
            now: BEGINNING,
            made: 0,
        }
    }
}

impl World for BareLedger {
    fn call(&mut self, call: &Call) -> String {
        match call.verb.as_str() {
            "used" | "held" | "counted" | "hold" => read(&self.ledger, call, self.now),
            "check" => check(&self.ledger, call, self.now),
            _ => {
                self.made += 1;
                let command = match command(call, self.made, self.now) {
                    Ok(command) => command,
                    Err(_) => return "error INVALID_FIELDS".into(),
                };
                let decided = self.ledger.decide(self.now, &command);
                for event in &decided.events {
                    self.ledger.absorb(event);
                    let broken = invariants::check_event(&self.ledger, event);
                    assert!(broken.is_empty(), "{broken:?}");
                }
                let broken = invariants::check_state(&self.ledger);
                assert!(broken.is_empty(), "{broken:?}");
                reply(call, decided.reply)
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// What a check answers.
pub fn check(ledger: &Ledger, call: &Call, now: Timestamp) -> String {
    let known = |name: &str| ledger.subject(name).is_some();
    let asked = |question: &Question| {
        let names = charge_set(&question.subject, &question.also);
        let scene = ledger.scene(question.subject.as_str(), &names, now);
        checked(call, question, &scene, now)
    };
    check_over(
        call,
        ledger.resources(),
        ledger.bounds().auto_create,
        known,
        asked,
    )
}

/// What a check asks.
pub struct Question {
    /// The subject.
    pub subject: SubjectName,
    /// The further subjects.
    pub also: Vec<SubjectName>,
    /// The amounts.
    pub amounts: Amounts,
    /// The mode.
    pub mode: Mode,
}

/// What a check answers over any state: its resources, its subjects, and what comes of asking it.
pub fn check_over(
    call: &Call,
    resources: &Resources,
    auto_create: AutoCreate,
    known: impl Fn(&str) -> bool,
    asked: impl FnOnce(&Question) -> String,
) -> String {
    let read = || -> Result<_, Malformed> {
        let subject = SubjectName::parse(&call.place)?;
        Ok(Question {
            also: also(call, &subject)?,
            subject,
            amounts: amounts(call)?,
            mode: mode(call),
        })
    };
    let Ok(question) = read() else {
        return "error INVALID_FIELDS".into();
    };
    if !check_use(resources, &question.amounts, Use::Check).is_empty() {
        return "error INVALID_FIELDS".into();
    }
    let named = std::iter::once(&question.subject).chain(&question.also);
    if may_be(auto_create, named, known).is_some() {
        return "error SUBJECT_UNKNOWN".into();
    }
    asked(&question)
}

/// What an account or a quota has, or how a hold is.
pub fn read(ledger: &Ledger, call: &Call, now: Timestamp) -> String {
    if call.verb == "hold" {
        let subject = SubjectName::parse(&call.place).expect("a subject");
        let id = Id::parse(call.option("id").expect("a hold has an id")).expect("an id");
        return match ledger.hold(HoldKey::new(&subject, &id).as_str()) {
            Some(hold) => hold.end(now).map_or("LIVE", End::name).to_owned(),
            None => "error HOLD_UNKNOWN".into(),
        };
    }
    let (key, _) = &call.amounts[0];
    let key = ResourceKey::parse(key).expect("a script names resources");
    if ledger.subject(&call.place).is_none() {
        return "error SUBJECT_UNKNOWN".into();
    }
    let scene = ledger.scene(&call.place, &[&call.place], now);
    let line = &scene.lines()[0];
    match call.verb.as_str() {
        "used" => line.taken(&key).used.to_string(),
        "held" => line.taken(&key).held.to_string(),
        _ => {
            let gauges = line.gauges(&key);
            let id = call.option("id").map(|id| format!("{key}.{id}"));
            let gauge = gauges
                .iter()
                .find(|gauge| id.as_ref().is_none_or(|id| gauge.quota().id.as_str() == id));
            gauge.map_or("none".into(), |gauge| gauge.taken.used.to_string())
        }
    }
}

/// A call that no server would take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl From<NameError> for Malformed {
    fn from(_: NameError) -> Self {
        Self
    }
}

/// The command of a call, read as strictly as a server reads it.
pub fn command(call: &Call, number: u64, now: Timestamp) -> Result<Command, Malformed> {
    let given = call.option("op").is_some();
    let made = format!("made-{number}");
    let operation = Operation {
        id: OperationId::parse(call.option("op").unwrap_or(&made))?,
        given,
        digest: script::content(call),
        age: call.age(),
    };
    Ok(Command {
        operation,
        provenance: Arc::new(Provenance::default()),
        action: action(call, now)?,
        validate_only: call.has("dry"),
    })
}

fn action(call: &Call, now: Timestamp) -> Result<Action, Malformed> {
    let ttl = || call.option("ttl").map(script::duration);
    let hold = || {
        Ok::<_, Malformed>(HoldName {
            subject: SubjectName::parse(&call.place)?,
            id: Id::parse(call.option("id").expect("a hold is named"))?,
        })
    };
    let subject = || SubjectName::parse(&call.place);
    let id = || call.option("id").map(Id::parse).transpose();
    let expected_generation = call
        .option("gen")
        .map(|text| text.parse().expect("a number"));
    let etag = call.option("etag").unwrap_or_default().to_owned();
    let existence = match (call.has("new"), call.has("known")) {
        (true, _) => Existence::New,
        (_, true) => Existence::Known,
        _ => Existence::Any,
    };
    Ok(match call.verb.as_str() {
        "consume" => {
            let subject = subject()?;
            Action::Consume(Consume {
                also: also(call, &subject)?,
                subject,
                amounts: amounts(call)?,
                allocation: id()?,
                mode: mode(call),
                labels: call.labels(),
                purpose: String::new(),
                ttl: ttl(),
            })
        }
        "linked" => {
            let members = call.members.iter().map(|member| action(member, now));
            let members = Action::Linked(members.collect::<Result<_, _>>()?);
            let pair = |member: &Call| {
                SubjectName::parse(&member.place).map(|name| name.first_pair().to_owned())
            };
            let pairs = call
                .members
                .iter()
                .map(pair)
                .collect::<Result<BTreeSet<_>, _>>()?;
            if pairs.len() > 1 {
                return Err(Malformed);
            }
            members
        }
        "renew" => {
            let ids = call.list("ids");
            let ids = ids.iter().map(|id| Id::parse(id));
            Action::Renew(Renew {
                subject: subject()?,
                allocations: ids.collect::<Result<_, _>>()?,
                ttl: ttl().expect("a renewal has a ttl"),
            })
        }
        "reserve" => {
            let subject = subject()?;
            Action::Reserve(Reserve {
                also: also(call, &subject)?,
                subject,
                amounts: amounts(call)?,
                hold: id()?,
                allocation: call.option("as").map(Id::parse).transpose()?,
                ttl: ttl().unwrap_or(TTL_DEFAULT),
                labels: call.labels(),
                purpose: String::new(),
            })
        }
        "commit" => Action::CommitHold(CommitHold {
            hold: hold()?,
            amounts: amounts(call)?,
            more: uncovered(call.option("more")),
            late: uncovered(call.option("late")),
            ttl: ttl(),
        }),
        "renew-hold" => Action::RenewHold {
            hold: hold()?,
            ttl: ttl().expect("a renewal has a ttl"),
        },
        "cancel" => Action::CancelHold(hold()?),
        "reset" => {
            let resource = ResourceKey::parse(&call.amounts[0].0)?;
            let quota = call
                .option("id")
                .map(|id| Id::parse(&format!("{resource}.{id}")));
            Action::ResetUsage(ResetUsage {
                subject: subject()?,
                quota: quota.transpose()?,
                purpose: String::new(),
                resource,
            })
        }
        "correct" => {
            let subject = subject()?;
            Action::CorrectUsage(CorrectUsage {
                also: also(call, &subject)?,
                subject,
                amounts: amounts(call)?,
                past: call.has("past"),
                purpose: "a script".into(),
            })
        }
        "unsubject" => Action::DeleteSubject {
            name: subject()?,
            etag,
        },
        "release" => {
            let subject = subject()?;
            Action::Release(Release {
                also: also(call, &subject)?,
                subject,
                allocation: id()?,
                amounts: amounts(call)?,
                expected_generation,
            })
        }
        "resize" => Action::Resize(Resize {
            subject: subject()?,
            allocation: id()?.expect("a resize names its allocation"),
            amounts: amounts(call)?,
            mode: mode(call),
            expected_generation,
        }),
        "release-matching" => Action::ReleaseMatching(ReleaseMatching {
            subject: subject()?,
            labels: call.labels(),
            most: call
                .option("most")
                .map_or(50, |text| text.parse().expect("a number")),
        }),
        "subject" => Action::SetSubject(SetSubject {
            name: subject()?,
            display_name: call.option("name").unwrap_or_default().to_owned(),
            labels: call.labels(),
            existence,
            etag,
        }),
        "resource" => Action::SetResource(SetResource {
            key: ResourceKey::parse(&call.place)?,
            kind: kind(call.option("kind").unwrap_or("allocation")),
            base_unit: "count".into(),
            display_unit: "count".into(),
            display_ratio: 1,
            without_quota: match call.has("deny") {
                true => WithoutQuota::Deny,
                false => WithoutQuota::Allow,
            },
            display_name: String::new(),
            existence,
            etag,
        }),
        "unresource" => Action::DeleteResource {
            key: ResourceKey::parse(&call.place)?,
            etag,
        },
        "quota" => set_quota(call, now, existence, etag)?,
        "unquota" => {
            let resource = ResourceKey::parse(&call.amounts[0].0)?;
            Action::DeleteQuota(DeleteQuota {
                target: Target::parse(&call.place)?,
                id: quota_id(call, &resource)?,
                resource,
                etag,
                force: call.has("force"),
            })
        }
        "accept-clock" => Action::AcceptClock {
            offset_ns: call
                .option("offset")
                .map_or(0, |text| text.parse().expect("nanoseconds")),
        },
        other => panic!("no call is named {other}"),
    })
}

/// The id that a call gives a quota: as it stands, or after its resource where it begins with a dot.
fn quota_id(call: &Call, resource: &ResourceKey) -> Result<Option<Id>, NameError> {
    let id = call.option("id").map(|id| match id.starts_with('.') {
        true => format!("{resource}{id}"),
        false => id.to_owned(),
    });
    id.map(|id| Id::parse(&id)).transpose()
}

fn set_quota(
    call: &Call,
    now: Timestamp,
    existence: Existence,
    etag: String,
) -> Result<Action, Malformed> {
    let (resource, limit) = &call.amounts[0];
    let resource = ResourceKey::parse(resource)?;
    let target = Target::parse(&call.place)?;
    let period = call.option("period").map(script::period);
    let rate = call.option("rate").map(|interval| Rate {
        interval: script::duration(interval),
        bucket: call
            .option("bucket")
            .map(|text| text.parse().expect("a number")),
        delay_max: call
            .option("delay")
            .map(script::duration)
            .unwrap_or_default(),
    });
    let id = quota_id(call, &resource)?;
    let later = |key| {
        call.option(key)
            .map(|text| now.plus(script::duration(text)))
    };
    Ok(Action::SetQuotas(vec![SetQuota {
        id: id.unwrap_or_else(|| default_id(&resource, period.as_ref(), rate.as_ref())),
        limit: match limit.as_str() {
            "unlimited" => Limit::Unlimited,
            number => Limit::Value(number.parse().expect("a limit is a number")),
        },
        period,
        rate,
        enforcement: match call.option("enforce").unwrap_or("deny") {
            "deny" => Enforcement::Deny,
            "warn" => Enforcement::Warn,
            "shadow" => Enforcement::Shadow,
            "throttle" => Enforcement::Throttle,
            other => panic!("no enforcement is called {other}"),
        },
        state: match call.option("state").unwrap_or("active") {
            "active" => State::Active,
            "disabled" => State::Disabled,
            "suspended" => State::Suspended,
            other => panic!("no state is called {other}"),
        },
        valid_from: later("from"),
        valid_until: later("until"),
        near_percent: call
            .option("share")
            .map(|text| text.parse().expect("a percentage")),
        max_request: call
            .option("max")
            .map(|text| text.parse().expect("a number")),
        display_name: String::new(),
        labels: call.labels(),
        origin: match target {
            Target::Pattern(_) => Origin::Default,
            Target::Subject(_) => Origin::Override,
        },
        target,
        resource,
        existence,
        etag,
        force: call.has("force"),
    }]))
}

fn uncovered(policy: Option<&str>) -> Uncovered {
    match policy {
        None | Some("refuse") => Uncovered::Refuse,
        Some("check") => Uncovered::Check,
        Some("record") => Uncovered::Record,
        Some(other) => panic!("no policy is called {other}"),
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "allocation" => Kind::Allocation,
        "concurrency" => Kind::Concurrency,
        "counter" => Kind::Counter,
        "rate" => Kind::Rate,
        "per-request" => Kind::PerRequest,
        "measured" => Kind::Measured,
        other => panic!("no kind is called {other}"),
    }
}

fn mode(call: &Call) -> Mode {
    match (call.has("record"), call.has("best")) {
        (true, _) => Mode::Record,
        (_, true) => Mode::BestEffort {
            minimum: call
                .option("min")
                .map_or(1, |text| text.parse().expect("a number")),
        },
        _ => Mode::Strict,
    }
}

fn also(call: &Call, subject: &SubjectName) -> Result<Vec<SubjectName>, Malformed> {
    let names = call.list("also");
    let names: Vec<SubjectName> = names
        .iter()
        .map(|name| SubjectName::parse(name))
        .collect::<Result<_, _>>()?;
    let alike = |name: &SubjectName| {
        name.is_system() || subject.is_system() || name.first_pair() == subject.first_pair()
    };
    match names.len() <= 4 && names.iter().all(alike) {
        true => Ok(canonical_also(subject, names)),
        false => Err(Malformed),
    }
}

fn amounts(call: &Call) -> Result<Amounts, Malformed> {
    let least = match call.verb.as_str() {
        "resize" | "commit" => 0,
        "correct" => -AMOUNT_MAX,
        _ => 1,
    };
    let mut read = Amounts::new();
    for (key, amount) in call.numbers() {
        let key = ResourceKey::parse(&key)?;
        let twice = read.iter().any(|(have, _)| *have == key);
        if twice || !(least..=AMOUNT_MAX).contains(&amount) {
            return Err(Malformed);
        }
        read.push((key, amount));
    }
    Ok(read)
}
