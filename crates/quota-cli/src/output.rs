//! What goes to stdout: a table for people, one JSON object for programs.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use quota_client::Timestamp;
use quota_client::v1::{LimitFinding, RefusalReason};
use serde_json::Value;

use crate::Failure;
use crate::times;
use crate::units::Units;

pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints an object for programs.
    pub(crate) fn object(&self, value: &Value) -> Result<(), Failure> {
        print(&format!("{value:#}\n"))
    }

    /// Prints text for people.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        print(text)
    }

    /// Prints a table for people.
    pub(crate) fn table(
        &self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        none: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return print(&format!("{none}\n"));
        }
        print(&format!("{}\n", table(header, rows)))
    }
}

/// Prints a line of a stream; where nobody reads any more, [`Failure::Unread`] is the end of it.
pub(crate) fn line(text: &impl Display) -> Result<(), Failure> {
    write(&format!("{text}\n"))
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Other(format!("stdout: {error}")),
    })
}

/// Tells people what is beside the answer. A stderr that cannot be written is no reason to stop.
pub(crate) fn note(text: &impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an answer. Where nobody reads it the command still ends as it would: an `apply` is not left half
/// done, and the exit code says what was decided.
fn print(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(Failure::Unread) => Ok(()),
        written => written,
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table
}

/// Every limit that refuses, or is exceeded, as a table.
pub(crate) async fn findings(units: &mut Units<'_>, findings: &[LimitFinding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        let key = &finding.resource;
        let quota = match (finding.quota.as_str(), finding.pattern.as_str()) {
            ("", _) => "-".to_owned(),
            (id, "") => id.to_owned(),
            (id, pattern) => format!("{id} ({pattern})"),
        };
        let reason = RefusalReason::as_str_name(&finding.reason());
        rows.push(vec![
            finding.subject.clone(),
            key.clone(),
            quota,
            reason.trim_start_matches("REFUSAL_REASON_").to_owned(),
            units.show_limit(key, finding.limit.as_ref()).await,
            units.show(key, finding.used).await,
            units.show(key, finding.held).await,
            units.show(key, finding.requested).await,
            units.show(key, finding.shortfall).await,
            finding.retry_delay.as_ref().map_or("-".into(), times::wait),
        ]);
    }
    let header = [
        "subject",
        "resource",
        "quota",
        "reason",
        "limit",
        "used",
        "held",
        "requested",
        "too much",
        "again after",
    ];
    table(&header, rows).to_string()
}

/// Labels as `a=b, c=d`.
pub(crate) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    let texts: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    texts.join(", ")
}

/// An instant in UTC, to the second.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map_or("-".into(), |at| exact_time(Timestamp { nanos: 0, ..at }))
}

/// An instant in UTC, exact.
pub(crate) fn exact_time(at: Timestamp) -> String {
    let instant = jiff::Timestamp::new(at.seconds, at.nanos);
    instant.map_or("-".into(), |instant| instant.to_string())
}
