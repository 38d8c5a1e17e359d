//! One line on stderr that says how far the run is.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

#[derive(Default)]
pub(crate) struct Progress {
    scenario: Mutex<String>,
}

impl Progress {
    /// A scenario begins.
    pub(crate) fn begin(&self, scenario: &str) {
        if let Ok(mut current) = self.scenario.lock() {
            scenario.clone_into(&mut current);
        }
        self.say("starting");
        if !std::io::stderr().is_terminal() {
            eprintln!("{scenario}");
        }
    }

    /// A round begins; number zero warms up.
    pub(crate) fn round(&self, round: usize, rounds: usize) {
        match round {
            0 => self.say("warming up"),
            _ => self.say(&format!("round {round}/{rounds}")),
        }
    }

    /// What is being done. Only where somebody looks.
    pub(crate) fn say(&self, what: &str) {
        if let (true, Ok(scenario)) = (std::io::stderr().is_terminal(), self.scenario.lock()) {
            eprint!("\r\x1b[K{scenario}: {what}");
            let _ = std::io::stderr().flush();
        }
    }

    /// Nothing more.
    pub(crate) fn end(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}
