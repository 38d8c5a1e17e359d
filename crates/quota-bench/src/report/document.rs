//! `docs/BENCHMARKS.md` and its plots.

use std::fmt::Write;
use std::path::Path;

use super::{Outcome, plot, text};
use crate::Failure;
use crate::machine::Machine;

/// Writes the document and the plots of a run into the checkout.
pub(crate) fn write(
    root: &Path,
    outcomes: &[Outcome],
    failed: &[String],
    machine: &Machine,
    scale: &str,
) -> Result<(), Failure> {
    let docs = root.join("docs");
    let plots = docs.join("benchmarks");
    std::fs::create_dir_all(&plots)?;
    let mut document = format!(
        "# Benchmarks\n\nWritten by `{}`; not by hand.\n\n{}\n{scale}\n\n\
         Load, servers and disk share the machine. *echo* is an empty tonic service with the same messages and runtime\n\
         settings, *append* is append and fdatasync of a buffer on the same disk, both in the same round. Figures are\n\
         medians (and ranges) of the rounds; a ratio is taken within a round. CPU and bytes are those of the server's\n\
         process; bytes are those that went towards the disk, rows and bases included.\n\n## Targets\n\n{}",
        machine.command,
        machine.table(),
        text::targets(outcomes),
    );
    for failure in failed {
        write!(document, "\n**Not measured**: {failure}\n")?;
    }
    for outcome in outcomes {
        write!(
            document,
            "\n## {}\n{}",
            outcome.name,
            text::details(outcome)
        )?;
        for shown in &outcome.plots {
            plot::draw(shown, &plots)?;
            let (title, file) = (&shown.title, &shown.file);
            write!(document, "\n![{title}](benchmarks/{file}.svg)\n")?;
        }
    }
    std::fs::write(docs.join("BENCHMARKS.md"), document)?;
    Ok(())
}
