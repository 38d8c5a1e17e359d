//! `quota-bench`: the real server over loopback, beside an empty tonic service with the same messages and the
//! same runtime settings, in turn, in one run. Every figure is a ratio to a baseline of the same round: a single
//! absolute number of a shared machine says little.
//!
//! Servers are processes of their own, so that their time, memory and bytes can be told from the load's. One file
//! per scenario; a scenario is a row of the table of targets.

mod bench;
mod cli;
mod collector;
mod counted;
mod disk;
mod echo;
mod load;
mod machine;
mod process;
mod report;
mod rival;
mod scenarios;
mod scrape;
mod stats;
mod world;

pub use cli::main;
pub use counted::counted_main;

type Failure = Box<dyn std::error::Error + Send + Sync>;
