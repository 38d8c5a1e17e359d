//! Random lives on a bare ledger beside the auditor: what the simulator does to engine and store, without
//! them, so that a wrong decision is found in seconds.

use std::time::Duration;

use quota_testkit::auditor::Auditor;
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Call, World};
use quota_testkit::sim::generator::Generator;
use quota_testkit::sim::steps::Step;

const LIVES: u64 = 60;
const STEPS: usize = 150;

fn same(seed: u64, call: &Call, auditor: &mut Auditor, ledger: &mut BareLedger) {
    let due = auditor.call(call);
    assert_eq!(ledger.call(call), due, "seed {seed}: {call}");
}

#[test]
fn random_lives() {
    for seed in 0..LIVES {
        let mut generator = Generator::new(seed);
        let mut auditor = Auditor::with_bounds(generator.bounds());
        let mut ledger = BareLedger::with_bounds(generator.bounds());
        for _ in 0..STEPS {
            match generator.next(&auditor, ledger.now(), false) {
                Step::Pass(nanos) => {
                    let by = Duration::from_nanos(nanos.unsigned_abs());
                    auditor.advance(by);
                    ledger.advance(by);
                }
                Step::Check(call) => same(seed, &call, &mut auditor, &mut ledger),
                Step::Group(callers) => {
                    for call in callers.iter().flat_map(|caller| &caller.calls) {
                        same(seed, call, &mut auditor, &mut ledger);
                    }
                }
                Step::Fault(_) => {}
            }
        }
    }
}
