//! Scripts: tests in the words of the domain, one call and its answer a line.
//!
//! ```text
//! # C4.4: a parent bounds its children
//! quota tenants/acme compute.cpu 10 -> set
//! consume tenants/acme/projects/web compute.cpu 8 id=vm-1 -> granted
//! consume tenants/acme/projects/api compute.cpu 4 -> denied LIMIT compute.cpu tenants/acme 8+4>10
//! used tenants/acme compute.cpu -> 8
//! ```
//!
//! Words after the subject are resources with amounts, `key=value` options and flags. A script may begin
//! with `with key=value …` for the bounds of its ledger. `512 times` before a call makes it so often; the
//! answer is the last one's. The same text runs at every boundary.

mod outlook;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use quota_core::Bounds;
use quota_core::ledger::AutoCreate;
use quota_core::period::{Period, Unit};
use quota_core::time::Timestamp;

pub use outlook::{Effective, Outlook, Projected, outlook};

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name, for reports.
    pub name: String,
    /// The bounds of the ledger that it runs on.
    pub bounds: Bounds,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// A call and the answer that is due.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it stands.
    pub number: usize,
    /// How often the call is made.
    pub times: usize,
    /// The call.
    pub call: Call,
    /// The answer, of the last one.
    pub expected: String,
}

/// A call, as far as it is understood at every boundary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Call {
    /// What to do.
    pub verb: String,
    /// Whom it is about: a subject, a pattern or a resource.
    pub place: String,
    /// Resources with what stands behind them.
    pub amounts: Vec<(String, String)>,
    /// Options; `also` and `label` may have several values, split at commas.
    pub options: BTreeMap<String, String>,
    /// Flags.
    pub flags: Vec<String>,
    /// Steps that happen together, written `linked STEP ; STEP`.
    pub members: Vec<Call>,
}

/// A place where scripts run.
pub trait World {
    /// Answers a call, in the words of scripts.
    fn call(&mut self, call: &Call) -> String;
    /// Lets time pass.
    fn advance(&mut self, by: Duration);
    /// The time.
    fn now(&self) -> Timestamp;
}

impl fmt::Display for Call {
    /// As it is written in a script.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verb == "linked" {
            let mut steps: Vec<String> = self.members.iter().map(Self::to_string).collect();
            steps.extend(
                self.options
                    .iter()
                    .map(|(key, value)| format!("{key}={value}")),
            );
            return write!(f, "linked {}", steps.join(" ; "));
        }
        write!(f, "{} {}", self.verb, self.place)?;
        for (resource, amount) in &self.amounts {
            write!(f, " {resource}")?;
            if !amount.is_empty() {
                write!(f, " {amount}")?;
            }
        }
        for (key, value) in &self.options {
            write!(f, " {key}={value}")?;
        }
        self.flags.iter().try_for_each(|flag| write!(f, " {flag}"))
    }
}

impl Call {
    /// Reads a call as it is written in a script. A malformed one stops the test.
    pub fn parse(text: &str) -> Self {
        parse_call(text)
    }

    /// Whether it reads the ledger and asks nothing of it.
    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "used" | "held" | "counted" | "hold")
    }

    /// An option.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// An option with several values.
    pub fn list(&self, key: &str) -> Vec<String> {
        let all = self
            .option(key)
            .map(|all| all.split(',').map(str::to_owned).collect());
        all.unwrap_or_default()
    }

    /// Labels, written `label=key:value`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let pair = |text: &String| {
            let (key, value) = text.split_once(':').expect("a label is key:value");
            (key.to_owned(), value.to_owned())
        };
        self.list("label").iter().map(pair).collect()
    }

    /// Whether a flag is given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag)
    }

    /// The amounts as numbers.
    pub fn numbers(&self) -> Vec<(String, i64)> {
        let number = |(key, text): &(String, String)| {
            let amount = text.parse().expect("an amount is a whole number");
            (key.clone(), amount)
        };
        self.amounts.iter().map(number).collect()
    }

    /// The age that the call states.
    pub fn age(&self) -> Option<Duration> {
        self.option("age").map(duration)
    }
}

const FLAGS: &[&str] = &[
    "record",
    "force",
    "deny",
    "new",
    "known",
    "best",
    "retry",
    "short",
    "near",
    "tightest",
    "effective",
    "projected",
    "named",
    "past",
    "dry",
];

impl Script {
    /// Reads a script. A malformed one stops the test.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut script = Self {
            name: name.to_owned(),
            bounds: Bounds::default(),
            lines: Vec::new(),
        };
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(settings) = line.strip_prefix("with ") {
                script.bounds = bounds(settings);
                continue;
            }
            let (call, expected) = match line.split_once(" -> ") {
                Some((call, expected)) => (call, expected),
                None if line.starts_with("advance ") => (line, ""),
                None => panic!("{name}:{}: no ` -> ` in {line:?}", at + 1),
            };
            let (times, call) = match call.split_once(" times ") {
                Some((times, call)) => (times.parse().expect("a number of times"), call),
                None => (1, call),
            };
            script.lines.push(Line {
                number: at + 1,
                times,
                call: parse_call(call),
                expected: expected.trim().to_owned(),
            });
        }
        assert!(!script.lines.is_empty(), "{name} has no lines");
        script
    }
}

/// All scripts of this project, by name.
pub fn all() -> Vec<Script> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "script"))
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "the scripts are gone");
    let script = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        Script::parse(&name, &std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(script).collect()
}

/// Reads the bounds behind `with`.
pub fn bounds(settings: &str) -> Bounds {
    let mut bounds = Bounds::default();
    for setting in settings.split_whitespace() {
        let (key, value) = setting.split_once('=').expect("a bound is key=value");
        let number = || value.parse().expect("a bound is a number");
        match key {
            "auto_create" => {
                bounds.auto_create = match value {
                    "all" => AutoCreate::All,
                    "below-top" => AutoCreate::BelowTop,
                    "none" => AutoCreate::None,
                    other => panic!("auto_create={other}"),
                };
            }
            "subjects_max" => bounds.subjects_max = number(),
            "outcomes_max" => bounds.memory.outcomes_max = number(),
            "refusals_max" => bounds.memory.refusals_max = number(),
            "bytes_max" => bounds.memory.bytes_max = number(),
            "horizon" => bounds.memory.horizon = duration(value),
            other => panic!("no bound is called {other}"),
        }
    }
    bounds
}

fn parse_call(text: &str) -> Call {
    if let Some(group) = text.strip_prefix("linked ") {
        let mut call = Call {
            verb: "linked".into(),
            ..Call::default()
        };
        for step in group.split(" ; ") {
            match step.split_once('=').filter(|_| !step.contains(' ')) {
                Some((key, value)) => {
                    call.options.insert(key.to_owned(), value.to_owned());
                }
                None => call.members.push(parse_call(step)),
            }
        }
        return call;
    }
    let mut words = text.split_whitespace().map(str::to_owned).peekable();
    let mut call = Call {
        verb: words.next().unwrap_or_default(),
        place: words.next().unwrap_or_default(),
        ..Call::default()
    };
    while let Some(word) = words.next() {
        if let Some((key, value)) = word.split_once('=') {
            call.options.insert(key.to_owned(), value.to_owned());
        } else if is_flag(&word) {
            call.flags.push(word);
        } else {
            // A resource stands alone where no amount is asked for.
            let amount = words.next_if(|next| !next.contains('=') && !is_flag(next));
            call.amounts.push((word, amount.unwrap_or_default()));
        }
    }
    call
}

fn is_flag(word: &str) -> bool {
    FLAGS.contains(&word)
}

/// Reads `500ms`, `90s`, `5m`, `2h`, `3d`.
pub fn duration(text: &str) -> Duration {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().expect("a duration is a number and a unit");
    match unit {
        "ns" => Duration::from_nanos(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        "h" => Duration::from_secs(number * 3600),
        "d" => Duration::from_secs(number * 24 * 3600),
        other => panic!("no unit of time is called {other}"),
    }
}

/// Reads `none`, `hour`, `3months`, `600s`, each with `@2026-01-31` for an anchor.
pub fn period(text: &str) -> Period {
    let (text, anchor) = match text.split_once('@') {
        Some((text, anchor)) => (text, Some(date(anchor))),
        None => (text, None),
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit = match unit {
        "none" => Unit::None,
        "hour" | "hours" => Unit::Hour,
        "day" | "days" => Unit::Day,
        "week" | "weeks" => Unit::Week,
        "month" | "months" => Unit::Month,
        "year" | "years" => Unit::Year,
        _ => return Period::new(Unit::Fixed(duration(text)), 1, anchor),
    };
    Period::new(unit, count.parse().unwrap_or(1), anchor)
}

/// Reads `2026-01-31`, the beginning of that day.
fn date(text: &str) -> Timestamp {
    let parts: Vec<i64> = text
        .split('-')
        .map(|n| n.parse().expect("a date"))
        .collect();
    let (year, month, day) = (parts[0], parts[1], parts[2]);
    // Days since 1 March of the year 0, whose years end with their leap day.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Timestamp::from_nanos((days - 719_468) * 24 * 3600 * 1_000_000_000)
}

/// How far to advance: a duration, or `next-hour`, `next-day`, `next-month` …
fn distance(text: &str, now: Timestamp) -> Duration {
    match text.strip_prefix("next-") {
        Some(unit) => {
            let end = period(unit).window(now).end.expect("a period that ends");
            end.since(now)
        }
        None => duration(text),
    }
}

/// Runs a script in a world and calls `between` after each line. Answers every line that answers otherwise.
#[must_use]
pub fn check<W: World>(
    script: &Script,
    world: &mut W,
    mut between: impl FnMut(&mut W),
) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in &script.lines {
        if line.call.verb == "advance" {
            let by = distance(&line.call.place, world.now());
            world.advance(by);
        } else {
            for _ in 1..line.times {
                world.call(&line.call);
            }
            let actual = world.call(&line.call);
            if actual != line.expected {
                wrong.push(format!(
                    "{}:{}\n  expected {}\n  actual   {actual}",
                    script.name, line.number, line.expected
                ));
            }
        }
        between(world);
    }
    wrong
}

/// One limit that refuses or is exceeded, in the words of scripts.
pub struct Finding<'a> {
    /// The reason's name.
    pub reason: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The quota's id; empty where none is involved.
    pub quota: &'a str,
    /// used and held.
    pub taken: i64,
    /// requested.
    pub requested: i64,
    /// The limit as text; empty where none is involved.
    pub limit: String,
    /// What is missing.
    pub shortfall: i64,
    /// After how long it could be admitted.
    pub retry: Option<Duration>,
}

/// How full a limit is, in the words of scripts.
pub struct Headroom<'a> {
    /// The resource.
    pub resource: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The quota's id.
    pub quota: &'a str,
    /// What counts against it.
    pub taken: i64,
    /// The limit.
    pub limit: i64,
}

/// A verdict, wherever it came from.
#[derive(Default)]
pub struct Verdict<'a> {
    /// `granted`, `denied`, `delayed` or `partial`; or what the call calls it.
    pub decision: &'a str,
    /// How long to wait.
    pub delay: Option<Duration>,
    /// What was granted of a best effort.
    pub partial: Option<i64>,
    /// Limits that refuse.
    pub refusals: Vec<Finding<'a>>,
    /// Limits that a fact exceeds.
    pub exceeded: Vec<Finding<'a>>,
    /// WARN limits.
    pub warnings: Vec<Finding<'a>>,
    /// SHADOW limits.
    pub shadows: Vec<Finding<'a>>,
    /// Limits that are nearly full.
    pub near: Vec<Headroom<'a>>,
    /// The tightest limits.
    pub tightest: Vec<Headroom<'a>>,
    /// Whether it is a stored answer.
    pub replayed: bool,
}

/// A verdict in the words of scripts. What is missing, waits and headroom are shown where the call asks for them.
pub fn verdict(call: &Call, verdict: &Verdict<'_>) -> String {
    let mut text = String::from(verdict.decision);
    if let Some(delay) = verdict.delay {
        text.push_str(&format!(" {delay:?}"));
    }
    if let Some(partial) = verdict.partial {
        text.push_str(&format!(" {partial}"));
    }
    let shown = |findings: &[Finding<'_>]| -> String {
        let texts: Vec<String> = findings.iter().map(|found| finding(call, found)).collect();
        texts.join(", ")
    };
    if verdict.decision == "denied" {
        text.push_str(&format!(" {}", shown(&verdict.refusals)));
    }
    for (word, findings) in [
        ("exceeding", &verdict.exceeded),
        ("warning", &verdict.warnings),
        ("shadow", &verdict.shadows),
    ] {
        if !findings.is_empty() {
            text.push_str(&format!(" {word} {}", shown(findings)));
        }
    }
    for (word, headroom) in [("near", &verdict.near), ("tightest", &verdict.tightest)] {
        if call.has(word) {
            let texts: Vec<String> = headroom.iter().map(full).collect();
            let all = if texts.is_empty() {
                "none".into()
            } else {
                texts.join(", ")
            };
            text.push_str(&format!(" {word} {all}"));
        }
    }
    if verdict.replayed {
        text.push_str(" replayed");
    }
    text
}

fn finding(call: &Call, f: &Finding<'_>) -> String {
    let limit = if f.limit.is_empty() { "-" } else { &f.limit };
    let quota = named(f.quota, f.resource);
    let short = match call.has("short") {
        true => format!(" short {}", f.shortfall),
        false => String::new(),
    };
    let retry = match f.retry {
        Some(retry) if call.has("retry") => format!(" retry {retry:?}"),
        _ => String::new(),
    };
    format!(
        "{} {} {}{quota} {}+{}>{limit}{short}{retry}",
        f.reason, f.resource, f.subject, f.taken, f.requested
    )
}

fn full(headroom: &Headroom<'_>) -> String {
    let Headroom {
        subject,
        taken,
        limit,
        ..
    } = headroom;
    let quota = named(headroom.quota, headroom.resource);
    format!("{subject}{quota} {taken}/{limit}")
}

/// The id of a quota, unless it is named after its resource.
fn named(quota: &str, resource: &str) -> String {
    match quota {
        id if id.is_empty() || id == resource => String::new(),
        id => format!(
            "#{}",
            id.strip_prefix(&format!("{resource}.")).unwrap_or(id)
        ),
    }
}

/// Amounts in the words of scripts.
pub fn amounts(amounts: &[(String, i64)]) -> String {
    let texts: Vec<String> = amounts
        .iter()
        .map(|(key, n)| format!("{key} {n}"))
        .collect();
    match texts.is_empty() {
        true => "nothing".into(),
        false => texts.join(" "),
    }
}

/// Corrected counts, as they were, in the words of scripts; with whose they are where the call asks for it.
pub fn corrected(call: &Call, counts: &[(&str, i64)]) -> String {
    let text = |(subject, count): &(&str, i64)| match call.has("named") {
        true => format!("{subject} {count}"),
        false => count.to_string(),
    };
    let texts: Vec<String> = counts.iter().map(text).collect();
    let between = if call.has("named") { ", " } else { " " };
    format!("was {}", texts.join(between))
}

/// A release in the words of scripts.
pub fn released(
    given_back: &[(String, i64)],
    left: Option<&[(String, i64)]>,
    replayed: bool,
) -> String {
    let mut text = format!("released {}", amounts(given_back));
    if let Some(left) = left {
        text.push_str(&format!(" left {}", amounts(left)));
    }
    if replayed {
        text.push_str(" replayed");
    }
    text
}

/// A digest of a call without operation id and age, for worlds without a wire.
pub fn content(call: &Call) -> [u8; 16] {
    let mut call = call.clone();
    call.options.remove("op");
    call.options.remove("age");
    let text = format!("{call:?}");
    let mut digest = [0_u8; 16];
    for (at, byte) in text.bytes().enumerate() {
        let cell = &mut digest[at % 16];
        *cell = cell.wrapping_mul(31).wrapping_add(byte);
    }
    digest
}
