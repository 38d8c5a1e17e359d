//! A random life on a bare ledger beside the auditor.

use std::time::Duration;

use crate::auditor::Auditor;
use crate::bare::BareLedger;
use crate::script::World;
use crate::sim::generator::Generator;
use crate::sim::steps::Step;

/// Who makes it up, who knows the law, and the ledger.
pub struct Life {
    generator: Generator,
    /// The law.
    pub auditor: Auditor,
    /// The ledger.
    pub world: BareLedger,
}

impl Life {
    /// The life of a seed.
    pub fn new(seed: u64) -> Self {
        let generator = Generator::new(seed);
        let bounds = generator.bounds();
        Self {
            generator,
            auditor: Auditor::with_bounds(bounds),
            world: BareLedger::with_bounds(bounds),
        }
    }

    /// What happens next. Time has passed for both where that is all; calls are still to be made.
    pub fn step(&mut self) -> Step {
        let step = self.generator.next(&self.auditor, self.world.now, false);
        if let Step::Pass(nanos) = &step {
            let by = Duration::from_nanos(nanos.unsigned_abs());
            self.auditor.advance(by);
            self.world.advance(by);
        }
        step
    }
}
