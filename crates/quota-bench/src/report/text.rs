//! Tables in Markdown, which people can read as they are.

use std::fmt::Write;

use comfy_table::presets::ASCII_MARKDOWN;

use super::{Judged, Outcome, Table};

/// All of a run.
pub(crate) fn show(outcomes: &[Outcome]) -> String {
    let mut text = targets(outcomes);
    for outcome in outcomes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {}\n{}", outcome.name, details(outcome));
    }
    text
}

/// The table of targets.
pub(super) fn targets(outcomes: &[Outcome]) -> String {
    let mut table = Table::new("", &["work", "required", "aim", "measured", "met"]);
    for judged in outcomes.iter().flat_map(|outcome| &outcome.targets) {
        table.row([
            judged.work.clone(),
            judged.required.clone(),
            judged.aim.clone(),
            judged.measured.clone(),
            verdict(judged).to_owned(),
        ]);
    }
    render(&table)
}

/// Tables and notes of a scenario.
pub(super) fn details(outcome: &Outcome) -> String {
    let mut text = String::new();
    for table in &outcome.tables {
        let _ = write!(text, "\n{}:\n\n{}", table.title, render(table));
    }
    for note in &outcome.notes {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

fn verdict(judged: &Judged) -> &'static str {
    match (judged.met, judged.aim_met) {
        (false, _) => "no",
        (true, Some(true)) => "yes, and the aim",
        (true, _) => "yes",
    }
}

fn render(table: &Table) -> String {
    let mut shown = comfy_table::Table::new();
    shown.load_style(ASCII_MARKDOWN).set_header(&table.heads);
    for row in &table.rows {
        shown.add_row(row);
    }
    format!("{shown}\n")
}
