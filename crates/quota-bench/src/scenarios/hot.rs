//! One account that everybody charges, beside charges that are spread.

use crate::Failure;
use crate::bench::Bench;
use crate::load::{Call, Names, Pace, Sample, Work};
use crate::report::{Bound, Judged, Outcome, Table, ratios};

const IN_FLIGHT: usize = 256;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let (names, one) = (bench.users(), Names::users(1));
    let authority = bench.authority(&names).await?;
    let pace = Pace::Closed(IN_FLIGHT);
    let spread = bench.load(Work::granted(Call::Consume, &names), pace.clone());
    let hot = bench.load(Work::granted(Call::Consume, &one), pace);
    let contestants = [(&authority.target, &spread), (&authority.target, &hot)];
    let rounds = bench.rounds(&contestants, None).await?;
    let (spread, hot) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let title = format!("Consume and Release, {IN_FLIGHT} in flight");
    Ok(Outcome {
        name: "hot",
        targets: vec![Judged::new(
            "one hot account for all vs spread",
            ratios(hot, spread, Sample::rate),
            " × spread",
            Bound::AtLeast,
            0.9,
            Some(1.0),
        )],
        tables: vec![Table::of_samples(
            title,
            &[("spread over all users", spread), ("one user for all", hot)],
        )],
        ..Outcome::default()
    })
}
