//! A tenant that is always refused, and another tenant beside it.

use crate::Failure;
use crate::bench::Bench;
use crate::load::{self, Call, Expect, Load, Names, Pace, Sample, Target, Work};
use crate::report::{Bound, Judged, Outcome, Table, ratios};
use crate::world;

const IN_FLIGHT: usize = 256;
/// Charges and releases a second of the neighbour.
const NEIGHBOUR_RATE: f64 = 500.0;
/// Users of the abuser.
const USERS: usize = 100;

/// Samples of each round.
#[derive(Default)]
struct Found {
    granted: Vec<Sample>,
    refused: Vec<Sample>,
    alone: Vec<Sample>,
    beside_granted: Vec<Sample>,
    beside_refused: Vec<Sample>,
}

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let neighbour = Names::of_tenant("neighbour", USERS);
    let granted = Names::of_tenant("busy", USERS);
    let refused = Names::of_tenant("abuser", USERS);
    let place = bench.authority(&refused).await?;
    let address = place.target.server.address;
    // What is there already fills it.
    let full = i64::try_from(USERS)?;
    world::set(address, vec![world::limited("tenants/abuser", full)]).await?;
    let pace = Pace::Closed(IN_FLIGHT);
    let granting = bench.load(Work::granted(Call::Consume, &granted), pace.clone());
    let refusing = Work {
        expect: Expect::Denied,
        ..Work::granted(Call::Consume, &refused)
    };
    let refusing = bench.load(refusing, pace);
    let quiet = bench.load(
        Work::granted(Call::Consume, &neighbour),
        Pace::Open(NEIGHBOUR_RATE),
    );
    let mut found = Found::default();
    for round in 0..=bench.scale.rounds {
        bench.progress.round(round, bench.scale.rounds);
        let alone = load::run(&place.target, &quiet).await?;
        let (beside_granted, granted) = both(&place.target, &quiet, &granting).await?;
        let (beside_refused, refused) = both(&place.target, &quiet, &refusing).await?;
        // The first round warms up.
        if round > 0 {
            found.alone.push(alone);
            found.granted.push(granted);
            found.refused.push(refused);
            found.beside_granted.push(beside_granted);
            found.beside_refused.push(beside_refused);
        }
    }
    Ok(outcome(&found))
}

async fn both(target: &Target, quiet: &Load, loud: &Load) -> Result<(Sample, Sample), Failure> {
    tokio::try_join!(load::run(target, quiet), load::run(target, loud))
}

fn outcome(found: &Found) -> Outcome {
    let p99 = |sample: &Sample| sample.charge_us(0.99);
    Outcome {
        name: "refusals",
        targets: vec![
            Judged::new(
                "100 % refusals by an abuser vs grants",
                ratios(&found.refused, &found.granted, Sample::rate),
                " × grants",
                Bound::AtLeast,
                1.0,
                None,
            ),
            Judged::new(
                "a neighbour tenant's p99 beside the abuser vs beside grants",
                ratios(&found.beside_refused, &found.beside_granted, p99),
                " ×",
                Bound::AtMost,
                2.0,
                None,
            ),
        ],
        tables: vec![
            Table::of_samples(
                format!("the abuser, {IN_FLIGHT} in flight"),
                &[
                    ("always granted", &found.granted),
                    ("always refused", &found.refused),
                ],
            ),
            Table::of_waits(
                format!("the neighbour, {NEIGHBOUR_RATE}/s in an open loop"),
                &[
                    ("alone", &found.alone),
                    ("beside grants", &found.beside_granted),
                    ("beside refusals", &found.beside_refused),
                ],
            ),
        ],
        notes: vec![format!(
            "Beside the abuser the neighbour's p99 is {} × what it is alone; load and server then fill the machine.",
            ratios(&found.beside_refused, &found.alone, p99)
        )],
        ..Outcome::default()
    }
}
