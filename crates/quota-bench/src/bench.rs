//! What every scenario uses: servers on directories of their own, and rounds in turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::Failure;
use crate::disk::{self, Appends};
use crate::load::{self, Load, Names, Pace, Sample, Target, Work};
use crate::process::{Program, Server};
use crate::report::Progress;
use crate::rival::Rival;
use crate::world;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
    /// Measured rounds; one more comes first and is thrown away.
    pub(crate) rounds: usize,
    /// Measured time of a round.
    pub(crate) length: Duration,
    /// Time before that, at the same load.
    pub(crate) warm: Duration,
    /// Users of the usual world.
    pub(crate) users: usize,
    /// Accounts of the large world.
    pub(crate) accounts: usize,
    /// Quotas of the two runs for memory.
    pub(crate) quotas: [usize; 2],
    /// Time of use before memory is read, and of the search for the longest commit.
    pub(crate) long: Duration,
}

impl Scale {
    pub(crate) fn full() -> Self {
        Self {
            quick: false,
            rounds: 9,
            length: Duration::from_secs(4),
            warm: Duration::from_secs(1),
            users: 100_000,
            accounts: 1_000_000,
            quotas: [10_000, 1_000_000],
            long: Duration::from_secs(600),
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            quick: true,
            rounds: 7,
            length: Duration::from_millis(200),
            warm: Duration::from_millis(40),
            users: 10_000,
            accounts: 50_000,
            quotas: [1_000, 20_000],
            long: Duration::from_secs(2),
        }
    }
}

pub(crate) struct Bench {
    pub(crate) scale: Scale,
    pub(crate) progress: Progress,
    /// Where data directories are made.
    pub(crate) directory: PathBuf,
    /// A rival to be measured beside.
    pub(crate) rival: Option<Rival>,
}

/// A server with its directory, which goes with it.
pub(crate) struct Place {
    pub(crate) target: Target,
    _directory: TempDir,
}

/// What came of rounds.
pub(crate) struct Rounds {
    /// Per contestant, one sample per round.
    pub(crate) samples: Vec<Vec<Sample>>,
    /// Raw appends, one per round.
    pub(crate) appends: Vec<Appends>,
}

impl Bench {
    /// Starts a server.
    pub(crate) async fn start(
        &self,
        program: Program,
        settings: &[(&str, String)],
    ) -> Result<Place, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("quota-bench-")
            .tempdir_in(&self.directory)?;
        let server = Server::start(program, directory.path(), settings)?;
        Ok(Place {
            target: Target::connect(server).await?,
            _directory: directory,
        })
    }

    /// The empty service.
    pub(crate) async fn echo(&self) -> Result<Place, Failure> {
        self.start(Program::Echo, &[]).await
    }

    /// The authority with four levels, a quota on each, and its users.
    pub(crate) async fn authority(&self, names: &Names) -> Result<Place, Failure> {
        let place = self.start(Program::Authority, &[]).await?;
        let address = place.target.server.address;
        world::set(address, world::LEVELS.map(world::ample).into()).await?;
        world::settle(address, names).await?;
        Ok(place)
    }

    /// The usual users.
    pub(crate) fn users(&self) -> Arc<Names> {
        Names::users(self.scale.users)
    }

    /// A load of the usual length.
    pub(crate) fn load(&self, work: Work, pace: Pace) -> Load {
        Load {
            work,
            pace,
            warm: self.scale.warm,
            length: self.scale.length,
        }
    }

    /// Several rounds, in each of which every contestant has its turn, and then the disk if asked for.
    pub(crate) async fn rounds(
        &self,
        contestants: &[(&Target, &Load)],
        append_bytes: Option<usize>,
    ) -> Result<Rounds, Failure> {
        let mut rounds = Rounds {
            samples: contestants.iter().map(|_| Vec::new()).collect(),
            appends: Vec::new(),
        };
        for round in 0..=self.scale.rounds {
            self.progress.round(round, self.scale.rounds);
            for ((target, load), samples) in contestants.iter().zip(&mut rounds.samples) {
                let sample = load::run(target, load).await?;
                // The first round warms up.
                if round > 0 {
                    samples.push(sample);
                }
            }
            if let Some(bytes) = append_bytes {
                let appends = self.append(bytes)?;
                if round > 0 {
                    rounds.appends.push(appends);
                }
            }
        }
        Ok(rounds)
    }

    /// Raw appends for as long as a round.
    pub(crate) fn append(&self, bytes: usize) -> Result<Appends, Failure> {
        block_in_place(|| disk::append(&self.directory, bytes, self.scale.length))
    }

    /// The number in flight at which a server does most, and every number that was tried with its rate.
    /// Each is tried so many times longer than a round.
    pub(crate) async fn best_in_flight(
        &self,
        target: &Target,
        work: &Work,
        numbers: &[usize],
        longer: u32,
    ) -> Result<(usize, Vec<(usize, f64)>), Failure> {
        let mut tried = Vec::new();
        for in_flight in numbers {
            self.progress.say(&format!("{in_flight} in flight"));
            let mut load = self.load(work.clone(), Pace::Closed(*in_flight));
            load.length *= longer;
            tried.push((*in_flight, load::run(target, &load).await?.rate()));
        }
        let best = tried.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let best = best.ok_or("no number in flight was tried")?.0;
        Ok((best, tried))
    }
}
