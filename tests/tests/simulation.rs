//! Simulated lives (C11, and what every other clause says of answers): random calls and faults, each answer
//! known to the auditor beforehand, everything compared at every start and in the end.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use quota_testkit::sim::coverage::Coverage;
use quota_testkit::sim::steps::Life;
use quota_tests::sim;

const LIVES: u64 = 200;
const STEPS: usize = 250;

/// C1.3, C2.4, C2.5, C3.4, C4.9, C5.1, C5.5, C6.1 to C6.6, C7.1 to C7.3, C11.1 to C11.4, and every decision,
/// reason, error and fault at least once.
#[test]
fn two_hundred_lives() {
    let next = AtomicU64::new(0);
    let coverage = Mutex::new(Coverage::default());
    let wrong = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while wrong.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= LIVES {
                        break;
                    }
                    let lived = sim::live(seed, STEPS);
                    coverage.lock().unwrap().add(&lived.coverage);
                    if let Some(text) = lived.wrong {
                        *wrong.lock().unwrap() = Some((seed, text));
                    }
                }
            });
        }
    });
    if let Some((seed, text)) = wrong.into_inner().unwrap() {
        panic!("{text}\n`cargo xtask sim --seed {seed} --steps {STEPS}` cuts it short");
    }
    let coverage = coverage.into_inner().unwrap();
    let missing = coverage.missing();
    assert!(missing.is_empty(), "never came by: {}", missing.join(", "));
}

/// What failed once goes right now.
#[test]
fn lives_that_failed_once() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut lives = 0;
    for entry in std::fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "life") {
            let life = Life::parse(&std::fs::read_to_string(&path).unwrap());
            let wrong = sim::live_again(&life).wrong;
            assert!(wrong.is_none(), "{}: {}", path.display(), wrong.unwrap());
            lives += 1;
        }
    }
    assert!(lives > 0, "the lives are gone");
}

/// A seed is a life: the same each time, and the same again from its text.
#[test]
fn a_life_is_the_same_each_time() {
    for seed in [3, 17, 40] {
        let (one, two) = (sim::live(seed, 120), sim::live(seed, 120));
        assert_eq!(one.life, two.life, "seed {seed}");
        assert_eq!(one.coverage, two.coverage, "seed {seed}");
        let text = one.life.to_string();
        let read = Life::parse(&text);
        assert_eq!(read.to_string(), text, "seed {seed}");
        assert_eq!(sim::live_again(&read).coverage, one.coverage, "seed {seed}");
    }
}
