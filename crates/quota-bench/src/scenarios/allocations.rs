//! Allocations per decision, in servers that count them.

use crate::Failure;
use crate::bench::Bench;
use crate::load::{self, Call, Pace, Work};
use crate::process::Program;
use crate::report::{Outcome, Table};
use crate::stats::short;
use crate::world;

const IN_FLIGHT: usize = 64;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let heads = ["call", "server", "allocations each", "bytes each"];
    let mut table = Table::new(format!("allocations, {IN_FLIGHT} in flight"), &heads);
    for (server, program) in [
        ("echo", Program::CountedEcho),
        ("authority", Program::CountedAuthority),
    ] {
        let mut place = bench.start(program, &[]).await?;
        if program == Program::CountedAuthority {
            let address = place.target.server.address;
            world::set(address, world::LEVELS.map(world::ample).into()).await?;
            world::settle(address, &names).await?;
        }
        for (call, what) in [
            (Call::Check, "Check"),
            (Call::Consume, "Consume and Release"),
        ] {
            let mut load = bench.load(Work::granted(call, &names), Pace::Closed(IN_FLIGHT));
            load::run(&place.target, &load).await?;
            load.warm = std::time::Duration::ZERO;
            let before = place.target.server.allocations()?;
            let sample = load::run(&place.target, &load).await?;
            let after = place.target.server.allocations()?;
            let each = |after: f64, before: f64| short((after - before) / sample.operations as f64);
            table.row([
                what.into(),
                server.into(),
                each(after.0, before.0),
                each(after.1, before.1),
            ]);
        }
    }
    Ok(Outcome {
        name: "allocations",
        tables: vec![table],
        ..Outcome::default()
    })
}
