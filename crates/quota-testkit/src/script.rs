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
//! with `with key=value …` for the bounds of its ledger. The same text runs at every boundary.

use std::collections::BTreeMap;
use std::time::Duration;

use quota_core::Bounds;
use quota_core::ledger::AutoCreate;

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
    /// The call.
    pub call: Call,
    /// The answer.
    pub expected: String,
}

/// A call, as far as it is understood at every boundary.
#[derive(Clone, Debug, Default)]
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
}

/// A place where scripts run.
pub trait World {
    /// Answers a call, in the words of scripts.
    fn call(&mut self, call: &Call) -> String;
    /// Lets time pass.
    fn advance(&mut self, by: Duration);
}

impl Call {
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

const FLAGS: &[&str] = &["record", "force", "deny", "new", "known"];

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
            script.lines.push(Line {
                number: at + 1,
                call: parse_call(call),
                expected: expected.trim().to_owned(),
            });
        }
        assert!(!script.lines.is_empty(), "{name} has no lines");
        script
    }
}

fn bounds(settings: &str) -> Bounds {
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

/// Reads `90s`, `5m`, `2h`.
pub fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().expect("a duration is a number and a unit");
    Duration::from_secs(match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        other => panic!("no unit of time is called {other}"),
    })
}

/// Runs a script in a world and calls `between` after each line. Every line that answers otherwise is
/// reported at once.
pub fn check<W: World>(script: &Script, world: &mut W, mut between: impl FnMut(&mut W)) {
    let mut wrong = Vec::new();
    for line in &script.lines {
        if line.call.verb == "advance" {
            world.advance(duration(&line.call.place));
        } else {
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
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
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
}

/// A verdict in the words of scripts.
pub fn verdict(
    denied: bool,
    replayed: bool,
    refusals: &[Finding<'_>],
    exceeded: &[Finding<'_>],
) -> String {
    let mut text = String::from(if denied { "denied" } else { "granted" });
    let shown = |findings: &[Finding<'_>]| -> String {
        let texts: Vec<String> = findings
            .iter()
            .map(|f| {
                let quota = match f.quota {
                    id if id.is_empty() || id == f.resource => String::new(),
                    id => format!("#{id}"),
                };
                let limit = if f.limit.is_empty() { "-" } else { &f.limit };
                format!(
                    "{} {} {}{quota} {}+{}>{limit}",
                    f.reason, f.resource, f.subject, f.taken, f.requested
                )
            })
            .collect();
        texts.join(", ")
    };
    if denied {
        text.push_str(&format!(" {}", shown(refusals)));
    }
    if !exceeded.is_empty() {
        text.push_str(&format!(" exceeding {}", shown(exceeded)));
    }
    if replayed {
        text.push_str(" replayed");
    }
    text
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
