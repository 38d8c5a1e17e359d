//! Random lives on a bare ledger beside the auditor: what the simulator does to engine and store, without
//! them, so that a wrong decision is found in seconds.

use quota_testkit::life::Life;
use quota_testkit::script::{Call, World};
use quota_testkit::sim::steps::Step;

const LIVES: u64 = 60;
const STEPS: usize = 150;

fn same(seed: u64, call: &Call, life: &mut Life) {
    let due = life.auditor.call(call);
    assert_eq!(life.world.call(call), due, "seed {seed}: {call}");
}

#[test]
fn random_lives() {
    for seed in 0..LIVES {
        let mut life = Life::new(seed);
        for _ in 0..STEPS {
            match life.step() {
                Step::Check(call) => same(seed, &call, &mut life),
                Step::Group(callers) => {
                    for call in callers.iter().flat_map(|caller| &caller.calls) {
                        same(seed, call, &mut life);
                    }
                }
                Step::Pass(_) | Step::Fault(_) => {}
            }
        }
    }
}
