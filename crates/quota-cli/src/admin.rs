//! What administrators do. One file per noun; here is what they share.

pub(crate) mod quota;
pub(crate) mod resource;
pub(crate) mod subject;

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::output::Output;
use crate::{Ending, Failure};

/// How a change is asked for.
#[derive(Args)]
pub(crate) struct ChangeArgs {
    /// Only while this is the current version.
    #[arg(long, default_value = "")]
    pub(crate) etag: String,
    /// Only say what would be answered; nothing is changed.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) fn labels_of(
    given: Vec<(String, String)>,
    none: bool,
    live: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    match (given.is_empty(), none) {
        (_, true) => BTreeMap::new(),
        (true, false) => live,
        (false, false) => given.into_iter().collect(),
    }
}

pub(crate) fn given_or(given: String, live: String) -> String {
    match given.is_empty() {
        true => live,
        false => given,
    }
}

pub(crate) fn print_json(
    output: &Output,
    name: &str,
    all: Vec<Value>,
    many: bool,
) -> Result<(), Failure> {
    match many {
        true => output.object(&json!({ name: all })),
        false => output.object(&all.into_iter().next().unwrap_or(Value::Null)),
    }
}

pub(crate) fn deleted(output: &Output, dry_run: bool) -> Result<Ending, Failure> {
    let text = if dry_run {
        "would be deleted\n"
    } else {
        "deleted\n"
    };
    match output.is_json() {
        true => output.object(&json!({"deleted": !dry_run}))?,
        false => output.text(text)?,
    }
    Ok(Ending::Done)
}
