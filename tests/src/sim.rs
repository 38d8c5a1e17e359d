//! The simulator: ledger, engine and store on a test disk, driven by hand and told what breaks, beside the
//! auditor, who knows what each answer has to be. A seed is a life; the same seed is the same life.

mod events;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use quota_testkit::auditor::Auditor;
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{self, Script, World as _};
use quota_testkit::sim::coverage::Coverage;
use quota_testkit::sim::generator::Generator;
use quota_testkit::sim::shrink::shrink;
use quota_testkit::sim::steps::{Life, Patience, Step};

use world::World;

/// Lives that are tried while one is cut short.
const TRIES: usize = 600;

/// What came of a life.
pub struct Lived {
    /// What happened, so that it can happen again.
    pub life: Life,
    /// What it came by.
    pub coverage: Coverage,
    /// How many calls were answered.
    pub answers: usize,
    /// What was wrong, with the step after which it was.
    pub wrong: Option<String>,
}

/// Lives the life of a seed.
pub fn live(seed: u64, steps: usize) -> Lived {
    let mut generator = Generator::new(seed);
    let bounds = generator.bounds();
    let mut made: Vec<Step> = Vec::new();
    let lived = guarded(
        |world| {
            for _ in 0..steps {
                let (auditor, now, troubled) = world.outlook();
                let step = generator.next(auditor, now, troubled);
                made.push(step.clone());
                world.step(&step)?;
                generator.doubted(&world.take_doubted());
            }
            world.finish()
        },
        bounds,
    );
    Lived {
        life: Life {
            bounds,
            steps: made,
        },
        ..lived
    }
}

/// Lives a life again.
pub fn live_again(life: &Life) -> Lived {
    let lived = guarded(
        |world| {
            life.steps.iter().try_for_each(|step| world.step(step))?;
            world.finish()
        },
        life.bounds,
    );
    Lived {
        life: life.clone(),
        ..lived
    }
}

/// A life that fails, without what it does not need for that.
pub fn cut_short(life: Life) -> Life {
    let bounds = life.bounds;
    // First without the callers that do not matter, then without the steps.
    let fails = |steps: &[Step]| {
        let steps = steps.to_vec();
        live_again(&Life { bounds, steps }).wrong.is_some()
    };
    let steps = shrink(life.steps, TRIES, fails);
    let single = |step: Step| match step {
        Step::Group(callers) => callers
            .into_iter()
            .map(|one| Step::Group(vec![one]))
            .collect(),
        other => vec![other],
    };
    let apart: Vec<Step> = steps.iter().cloned().flat_map(single).collect();
    let steps = match fails(&apart) {
        true => shrink(apart, TRIES / 2, fails),
        false => steps,
    };
    Life { bounds, steps }
}

/// Runs a world, and counts a panic as something wrong.
fn guarded(
    run: impl FnOnce(&mut World) -> Result<(), String>,
    bounds: quota_core::Bounds,
) -> Lived {
    let mut world = World::new(bounds);
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.start()?;
        run(&mut world)
    }));
    let wrong = match result {
        Ok(Ok(())) => None,
        Ok(Err(wrong)) => Some(wrong),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    };
    let wrong = wrong.map(|wrong| format!("{wrong}\nafter {}", world.last_step()));
    Lived {
        life: Life {
            bounds,
            steps: Vec::new(),
        },
        coverage: world.coverage.clone(),
        answers: world.answers(),
        wrong,
    }
}

/// A life as a script with the answers that are due, where a bare ledger fails it: no fault is needed then.
pub fn as_script(life: &Life) -> Option<String> {
    let mut auditor = Auditor::with_bounds(life.bounds);
    let plain = Life {
        bounds: life.bounds,
        steps: Vec::new(),
    };
    let mut text = plain.to_string();
    for step in &life.steps {
        match step {
            Step::Pass(nanos) => {
                auditor.advance(Duration::from_nanos(nanos.unsigned_abs()));
                text.push_str(&format!("advance {nanos}ns\n"));
            }
            Step::Check(call) => text.push_str(&format!("{call} -> {}\n", auditor.call(call))),
            Step::Group(callers) => {
                for caller in callers.iter().filter(|one| one.patience == Patience::Waits) {
                    for call in &caller.calls {
                        text.push_str(&format!("{call} -> {}\n", auditor.call(call)));
                    }
                }
            }
            Step::Fault(_) => {}
        }
    }
    let script = Script::parse("a life", &text);
    let fails = catch_unwind(AssertUnwindSafe(|| {
        !script::check(&script, &mut BareLedger::new(&script), |_| {}).is_empty()
    }));
    fails.unwrap_or(true).then_some(text)
}
