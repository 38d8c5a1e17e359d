//! The ledger against the auditor: random trees, limits, defaults, `also` sets; every decision, every limit
//! that refuses and every account agree. (C2.3, C4.2, C4.4, C5.1, C5.2)

use std::collections::BTreeSet;

use fastrand::Rng;
use quota_testkit::auditor::{Auditor, Rule};
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Call, Script, World};

const SEEDS: u64 = 150;
const STEPS: usize = 120;
const RESOURCES: [&str; 2] = ["compute.cpu", "compute.memory"];

fn subject(random: &mut Rng) -> String {
    let tenant = random.u8(..2);
    match random.u8(..5) {
        0 => format!("tenants/t{tenant}"),
        1 => format!("tenants/t{tenant}/teams/m{}", random.u8(..2)),
        2 => format!("tenants/t{tenant}/users/u{}", random.u8(..3)),
        _ => format!(
            "tenants/t{tenant}/projects/p{}/users/u{}",
            random.u8(..2),
            random.u8(..2)
        ),
    }
}

fn place(random: &mut Rng) -> String {
    let mut parts: Vec<String> = match random.u8(..6) {
        0 => return "system".into(),
        _ => subject(random).split('/').map(str::to_owned).collect(),
    };
    for at in (1..parts.len()).step_by(2) {
        if random.u8(..3) == 0 {
            parts[at] = "*".into();
        }
    }
    parts.join("/")
}

fn call(verb: &str, place: &str, amounts: &[(String, i64)], id: Option<&str>) -> Call {
    Call {
        verb: verb.into(),
        place: place.into(),
        amounts: amounts
            .iter()
            .map(|(key, n)| (key.clone(), n.to_string()))
            .collect(),
        options: id
            .map(|id| ("id".to_owned(), id.to_owned()))
            .into_iter()
            .collect(),
        flags: vec!["force".into()],
        members: Vec::new(),
    }
}

/// `denied LIMIT compute.cpu tenants/t 1+2>3, …` as (subject, resource).
fn refusing(text: &str) -> BTreeSet<(String, String)> {
    let findings = text.strip_prefix("denied ").unwrap_or_default();
    let pairs = findings.split(", ").filter(|finding| !finding.is_empty());
    pairs
        .map(|finding| {
            let words: Vec<&str> = finding.split(' ').collect();
            (words[2].to_owned(), words[1].to_owned())
        })
        .collect()
}

#[test]
fn every_decision_agrees() {
    let script = Script::parse("auditor", "used system compute.cpu -> 0");
    let (mut granted, mut denied, mut resized) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut random = Rng::with_seed(seed);
        let mut world = BareLedger::new(&script);
        let mut auditor = Auditor::default();
        let mut places: BTreeSet<String> = BTreeSet::new();
        for step in 0..STEPS {
            let resource = RESOURCES[random.usize(..2)].to_owned();
            match random.u8(..10) {
                0 | 1 => {
                    let place = place(&mut random);
                    let limit = random.i64(0..40);
                    let set = call("quota", &place, &[(resource.clone(), limit)], None);
                    let text = world.call(&set);
                    assert!(text.starts_with("set"), "seed {seed}, step {step}: {text}");
                    auditor.set(Rule {
                        place,
                        resource,
                        limit,
                    });
                }
                2 | 3 => {
                    let names = auditor.names();
                    let Some(name) = random.choice(names) else {
                        continue;
                    };
                    let (subject, id) = name.split_once('#').unwrap();
                    let text = world.call(&call("release", subject, &[], Some(id)));
                    assert!(
                        text.starts_with("released"),
                        "seed {seed}, step {step}: {text}"
                    );
                    assert!(auditor.release(&name));
                }
                4 => {
                    let names = auditor.names();
                    let Some(name) = random.choice(names) else {
                        continue;
                    };
                    let (subject, id) = name.split_once('#').unwrap();
                    let amount = random.i64(0..20);
                    let text = world.call(&call(
                        "resize",
                        subject,
                        &[(resource.clone(), amount)],
                        Some(id),
                    ));
                    let done = auditor.resize(&name, &resource, amount);
                    assert_eq!(text == "granted", done, "seed {seed}, step {step}: {text}");
                    resized += 1;
                }
                _ => {
                    let name = subject(&mut random);
                    let tenant = name.split('/').take(2).collect::<Vec<_>>().join("/");
                    let mut also = Vec::new();
                    for _ in 0..random.usize(..3) {
                        let other = subject(&mut random);
                        if other.starts_with(&tenant) {
                            also.push(other);
                        }
                    }
                    let mut amounts = vec![(resource, random.i64(1..12))];
                    if random.bool() {
                        let other = RESOURCES.iter().find(|key| **key != amounts[0].0).unwrap();
                        amounts.push(((*other).to_owned(), random.i64(1..12)));
                    }
                    let id = format!("a{step}");
                    let mut consume = call("consume", &name, &amounts, Some(&id));
                    if !also.is_empty() {
                        consume.options.insert("also".into(), also.join(","));
                    }
                    let text = world.call(&consume);
                    let mut subjects = vec![name.as_str()];
                    subjects.extend(also.iter().map(String::as_str));
                    let expected = auditor.consume(&format!("{name}#{id}"), &subjects, &amounts);
                    let expected: BTreeSet<(String, String)> = expected.into_iter().collect();
                    assert_eq!(
                        refusing(&text),
                        expected,
                        "seed {seed}, step {step}: {text}"
                    );
                    match expected.is_empty() {
                        true => granted += 1,
                        false => denied += 1,
                    }
                    places.insert(name);
                    places.extend(also);
                }
            }
        }
        for place in places
            .iter()
            .map(String::as_str)
            .chain(["system", "tenants/t0"])
        {
            let Some(state) = world.ledger.subject(place) else {
                continue;
            };
            for (key, account) in state.accounts() {
                let audited = auditor.used(place, key.as_str());
                assert_eq!(account.used, audited, "seed {seed}: {place} {key}");
            }
        }
    }
    assert!(
        granted > 2000 && denied > 2000 && resized > 500,
        "{granted} {denied} {resized}"
    );
}
