//! The images of what changed, laid over what was there, are the state: nothing changes without one.

#![allow(clippy::unwrap_used, reason = "a broken test stops")]

use std::collections::BTreeMap;

use quota_core::Ledger;
use quota_core::event::Event;
use quota_core::record::{Record, RecordKey};
use quota_testkit::bare;
use quota_testkit::life::Life;
use quota_testkit::script::{Call, World};
use quota_testkit::sim::steps::Step;

const LIVES: u64 = 60;
const STEPS: usize = 150;

type Rows = BTreeMap<RecordKey, Record>;

fn lay(rows: &mut Rows, ledger: &mut Ledger) {
    let images = ledger.take_images();
    assert!(
        images.is_sorted_by(|one, other| one.key < other.key),
        "each once, in order"
    );
    for image in images {
        let before = match image.record {
            Some(record) => rows.insert(image.key, record),
            None => rows.remove(&image.key),
        };
        assert!(
            !image.fresh || before.is_none(),
            "{before:?} is said to be new"
        );
    }
}

/// Every record that there is; a floor is known by what was laid.
fn state(ledger: &Ledger, rows: &Rows) -> Rows {
    let floors = rows.keys().filter(|key| matches!(key, RecordKey::Floor(_)));
    let keys = ledger.record_keys().into_iter().chain(floors.cloned());
    keys.filter_map(|key| Some((key.clone(), ledger.record(&key)?)))
        .collect()
}

fn absorb(ledger: &mut Ledger, events: &[Event]) {
    events.iter().for_each(|event| ledger.absorb(event));
}

#[test]
fn images_say_all_that_changed() {
    for seed in 0..LIVES {
        let mut life = Life::new(seed);
        let (mut rows, mut number) = (Rows::new(), 0);
        for number_of_step in 0..STEPS {
            let step = life.step();
            let world = &mut life.world;
            let calls: Vec<Call> = match step {
                Step::Pass(_) => {
                    let closed = world.ledger.close_due(world.now, usize::MAX);
                    absorb(&mut world.ledger, &closed);
                    let told = world.ledger.announce_due(world.now, usize::MAX);
                    absorb(&mut world.ledger, &told);
                    world.ledger.expire_answers(world.now, usize::MAX);
                    Vec::new()
                }
                Step::Check(_) | Step::Fault(_) => Vec::new(),
                Step::Group(callers) => callers.into_iter().flat_map(|one| one.calls).collect(),
            };
            // The calls of a group are one batch.
            for call in &calls {
                life.auditor.call(call);
                number += 1;
                if call.is_read() || call.verb == "check" {
                    continue;
                }
                if let Ok(command) = bare::command(call, number, world.now) {
                    let decided = world.ledger.decide(world.now, &command);
                    absorb(&mut world.ledger, &decided.events);
                    let told = world.ledger.announce(world.now, &decided.events);
                    absorb(&mut world.ledger, &told);
                }
            }
            world.ledger.sweep(world.now, 3);
            lay(&mut rows, &mut world.ledger);
            assert_eq!(
                rows,
                state(&world.ledger, &rows),
                "life {seed}, step {number_of_step}: {calls:?}"
            );
        }
    }
}
