//! C7.1 and C7.3: rates whose definition changes while something is owed. Lives of the simulator seldom have a long gap
//! without a quota of an id, which is where the ledger and the auditor could part; here every history has some.
//! `QUOTA_TEST_CASES` raises the number of histories.

use std::time::Duration;

use fastrand::Rng;
use quota_core::Bounds;
use quota_testkit::auditor::Auditor;
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Call, Script, World};

const HISTORIES: u64 = 500;
const CALLS: usize = 30;
/// Most changes of a default in a history: a bucket that nobody touches remembers eight definitions.
const DEFAULTS_MAX: usize = 8;

fn any<T: Copy>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())]
}

fn call(random: &mut Rng) -> String {
    let id = any(random, &[".r", ".r", ".r", ".q"]);
    let rate = if id == ".r" { "60s" } else { "1s" };
    let place = any(random, &["users/a", "users/a", "users/*"]);
    let limit = any(random, &["0", "1", "2", "5", "17", "100", "unlimited"]);
    match random.u8(..20) {
        0..=6 => {
            let bucket = random.i64(1..30);
            let warn = any(random, &["", "", "", " enforce=warn"]);
            let state = any(random, &["", "", "", " state=disabled", " state=suspended"]);
            format!(
                "quota {place} api.requests {limit} id={id} rate={rate} bucket={bucket}{warn}{state} force"
            )
        }
        7..=8 => format!("unquota users/a api.requests id={id} force"),
        9 => format!(
            "reset users/a api.requests{}",
            any(random, &["", " id=q", " id=r"])
        ),
        _ => {
            let (amount, mode) = (random.i64(1..15), any(random, &["", " record"]));
            format!("consume users/a api.requests {amount}{mode}")
        }
    }
}

#[test]
fn the_ledger_is_the_auditors() {
    let cases = std::env::var("QUOTA_TEST_CASES").ok();
    let cases = cases.map(|text| text.parse().expect("a number"));
    let histories = cases.map_or(HISTORIES, |cases: u64| cases.max(HISTORIES));
    let gaps = [
        1,
        500_000_000,
        10_000_000_000,
        17_123_456_789,
        100_000_000_000,
    ];
    let mut resets = 0;
    for seed in 0..histories {
        let mut random = Rng::with_seed(seed);
        let script = Script {
            name: "rates".into(),
            bounds: Bounds::default(),
            lines: Vec::new(),
        };
        let mut auditor = Auditor::new(&script);
        let mut ledger = BareLedger::new(&script);
        let (mut told, mut defaults) = (Vec::new(), 0);
        for number in 0..CALLS {
            if random.u8(..3) == 0 {
                let by = Duration::from_nanos(any(&mut random, &gaps));
                auditor.advance(by);
                ledger.advance(by);
                told.push(format!("advance {by:?}"));
            }
            let text = call(&mut random);
            defaults += usize::from(text.starts_with("quota users/*"));
            if text.starts_with("quota users/*") && defaults > DEFAULTS_MAX {
                continue;
            }
            for text in [
                format!("{text} op=o{number}"),
                "counted users/a api.requests id=r".into(),
                "counted users/a api.requests id=q".into(),
            ] {
                let call = Call::parse(&text);
                let (expected, answered) = (auditor.call(&call), ledger.call(&call));
                let reset = text.starts_with("reset users/a api.requests id=");
                resets += usize::from(reset && !answered.starts_with("error"));
                told.push(format!("{text} -> {answered}"));
                let told = || told.join("\n");
                assert_eq!(expected, answered, "of seed {seed}:\n{}", told());
            }
        }
    }
    assert!(resets > 50, "{resets} resets of a bucket");
}
