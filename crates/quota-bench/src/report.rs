//! What a scenario found, and how it is shown.

mod document;
mod plot;
mod progress;
mod text;

use std::fmt;

use serde::Serialize;

use crate::load::{Sample, micros};
use crate::stats::{Spread, short};

pub(crate) use document::write;
pub(crate) use progress::Progress;
pub(crate) use text::show;

/// What came of a scenario.
#[derive(Default, Serialize)]
pub(crate) struct Outcome {
    /// Name of the scenario.
    pub(crate) name: &'static str,
    pub(crate) targets: Vec<Judged>,
    pub(crate) tables: Vec<Table>,
    pub(crate) plots: Vec<Plot>,
    /// Sentences.
    pub(crate) notes: Vec<String>,
}

/// A target beside what was measured.
#[derive(Serialize)]
pub(crate) struct Judged {
    pub(crate) work: String,
    pub(crate) required: String,
    pub(crate) aim: String,
    pub(crate) measured: String,
    /// The same for programs: the median.
    pub(crate) median: f64,
    pub(crate) met: bool,
    pub(crate) aim_met: Option<bool>,
}

/// Which way is better.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Bound {
    fn holds(self, measured: f64, limit: f64) -> bool {
        match self {
            Self::AtLeast => measured >= limit,
            Self::AtMost => measured <= limit,
        }
    }
}

impl Judged {
    /// Judges the median of several rounds.
    pub(crate) fn new(
        work: impl Into<String>,
        measured: Spread,
        unit: &str,
        bound: Bound,
        required: f64,
        aim: Option<f64>,
    ) -> Self {
        let sign = match bound {
            Bound::AtLeast => "≥",
            Bound::AtMost => "≤",
        };
        let shown = |limit: f64| format!("{sign} {}{unit}", short(limit));
        Self {
            work: work.into(),
            required: shown(required),
            aim: aim.map_or_else(String::new, shown),
            measured: format!("{measured}{unit}"),
            median: measured.median,
            met: bound.holds(measured.median, required),
            aim_met: aim.map(|aim| bound.holds(measured.median, aim)),
        }
    }
}

/// A table: its title, heads and rows.
#[derive(Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) heads: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// What stands in a table: a text, or the figures of several rounds.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Text(String),
    Figure(Spread),
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Figure(figure) => figure.fmt(out),
        }
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, heads: &[&str]) -> Self {
        Self {
            title: title.into(),
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(Cell::Text).into());
    }

    /// A name, and figures of several rounds.
    pub(crate) fn figures<const N: usize>(&mut self, name: &str, figures: [Spread; N]) {
        let mut row = vec![Cell::Text(name.into())];
        row.extend(figures.map(Cell::Figure));
        self.rows.push(row);
    }

    /// The table of contestants at a load: rate, latencies, and what an operation costs their servers.
    pub(crate) fn of_samples(title: impl Into<String>, contestants: &[(&str, &[Sample])]) -> Self {
        let mut table = Self::new(
            title,
            &[
                "server",
                "per second",
                "p50, µs",
                "p99, µs",
                "CPU, µs each",
                "written, bytes each",
            ],
        );
        for (name, samples) in contestants {
            let [rate, middle, late] = pace_of(samples);
            let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
            let (time, bytes) = (of(Sample::cpu_us), of(Sample::written));
            table.figures(name, [rate, middle, late, time, bytes]);
        }
        table
    }

    /// The table of contestants of which only the waiting is of interest.
    pub(crate) fn of_waits(title: impl Into<String>, contestants: &[(&str, &[Sample])]) -> Self {
        let mut table = Self::new(title, &["where", "per second", "p50, µs", "p99, µs"]);
        for (name, samples) in contestants {
            table.figures(name, pace_of(samples));
        }
        table
    }

    /// The table of raw appends.
    pub(crate) fn of_appends(bytes: usize, rounds: &[crate::disk::Appends]) -> Self {
        let mut table = Self::new(
            format!("append of {bytes} bytes and fdatasync"),
            &["", "p50, µs", "p99, µs", "longest, ms"],
        );
        let at = |quantile| Spread::of(rounds.iter().map(|times| micros(times, quantile)));
        let longest = Spread::of(rounds.iter().map(|times| times.max() as f64 / 1e6));
        table.figures("append", [at(0.5), at(0.99), longest]);
        table
    }
}

/// How fast it went, and how long half and nearly all of the calls took.
fn pace_of(samples: &[Sample]) -> [Spread; 3] {
    let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
    [
        of(Sample::rate),
        of(|sample| sample.charge_us(0.5)),
        of(|sample| sample.charge_us(0.99)),
    ]
}

/// Lines over a plane.
#[derive(Serialize)]
pub(crate) struct Plot {
    /// Name of the file, without its ending.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) across: String,
    pub(crate) up: String,
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Plot {
    /// A figure of each round.
    pub(crate) fn of_rounds(
        file: &str,
        title: &str,
        up: &str,
        figure: fn(&Sample) -> f64,
        contestants: &[(&str, &[Sample])],
    ) -> Self {
        let line = |samples: &[Sample]| {
            let points = samples.iter().enumerate();
            points
                .map(|(at, sample)| ((at + 1) as f64, figure(sample)))
                .collect()
        };
        let lines = contestants.iter();
        Self {
            file: file.into(),
            title: title.into(),
            across: "round".into(),
            up: up.into(),
            lines: lines
                .map(|(name, samples)| ((*name).to_owned(), line(samples)))
                .collect(),
        }
    }
}

/// Quotients of a figure of two contestants in the same rounds.
pub(crate) fn ratios(above: &[Sample], below: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    let pairs = above.iter().zip(below);
    Spread::of_ratios(pairs.map(|(above, below)| (figure(above), figure(below))))
}
