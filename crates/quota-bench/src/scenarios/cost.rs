//! What a Consume costs with many accounts, many levels, and many quotas on one account.

use std::sync::Arc;

use crate::Failure;
use crate::bench::{Bench, Place};
use crate::load::{Call, Names, Pace, Sample, Work};
use crate::process::Program;
use crate::report::{Bound, Judged, Outcome, Table, ratios};
use crate::world;

const IN_FLIGHT: usize = 64;
/// Accounts of the small world, and users where their number is not the question.
const FEW: usize = 1000;

/// A world to be compared.
struct World {
    name: String,
    place: Place,
    names: Arc<Names>,
}

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let mut outcome = Outcome {
        name: "cost",
        ..Outcome::default()
    };
    let many = bench.scale.accounts;
    let pair = [accounts(bench, FEW).await?, accounts(bench, many).await?];
    compare(bench, "accounts", pair, 1.5, &mut outcome).await?;
    let pair = [deep(bench, 0).await?, deep(bench, 4).await?];
    compare(bench, "levels", pair, 2.0, &mut outcome).await?;
    let pair = [quotas(bench, 1).await?, quotas(bench, 10).await?];
    compare(bench, "quotas on a pair", pair, 3.0, &mut outcome).await?;
    Ok(outcome)
}

async fn accounts(bench: &Bench, count: usize) -> Result<World, Failure> {
    bench.progress.say(&format!("{count} accounts"));
    let names = Names::users(count);
    Ok(World {
        name: format!("{count} accounts"),
        place: bench.authority(&names).await?,
        names,
    })
}

/// So many levels more than four, each with a quota.
async fn deep(bench: &Bench, levels: usize) -> Result<World, Failure> {
    let names = Names::deeper(FEW, levels);
    let place = bench.start(Program::Authority, &[]).await?;
    let address = place.target.server.address;
    let mut pattern = world::LEVELS[3].to_owned();
    let mut quotas: Vec<_> = world::LEVELS.map(world::ample).into();
    for collection in ["apps", "jobs", "tasks", "steps"].iter().take(levels) {
        pattern = format!("{pattern}/{collection}/*");
        quotas.push(world::ample(&pattern));
    }
    world::set(address, quotas).await?;
    world::settle(address, &names).await?;
    Ok(World {
        name: format!("{} levels", levels + 4),
        place,
        names,
    })
}

/// So many quotas on what a user charges.
async fn quotas(bench: &Bench, count: usize) -> Result<World, Failure> {
    let names = Names::users(FEW);
    let place = bench.authority(&names).await?;
    let more = (1..count).map(|at| {
        let mut quota = world::ample(world::LEVELS[3]);
        quota.quota_id = format!("further-{at}");
        quota
    });
    world::set(place.target.server.address, more.collect()).await?;
    Ok(World {
        name: format!("{count} on each user"),
        place,
        names,
    })
}

async fn compare(
    bench: &Bench,
    what: &str,
    [small, large]: [World; 2],
    required: f64,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let load = |world: &World| {
        let work = Work::granted(Call::Consume, &world.names);
        bench.load(work, Pace::Closed(IN_FLIGHT))
    };
    let loads = [load(&small), load(&large)];
    let contestants = [
        (&small.place.target, &loads[0]),
        (&large.place.target, &loads[1]),
    ];
    let rounds = bench.rounds(&contestants, None).await?;
    let (few, many) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let mut judged = Judged::new(
        format!("cost per Consume, {what}: {} vs {}", large.name, small.name),
        ratios(many, few, Sample::cpu_us),
        " × CPU",
        Bound::AtMost,
        required,
        None,
    );
    let slower = ratios(few, many, Sample::rate);
    judged.measured = format!("{}; {slower} × time", judged.measured);
    judged.met &= slower.median <= required;
    outcome.targets.push(judged);
    outcome.tables.push(Table::of_samples(
        format!("Consume and Release, {IN_FLIGHT} in flight, by {what}"),
        &[(&small.name, few), (&large.name, many)],
    ));
    Ok(())
}
