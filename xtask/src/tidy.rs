//! What no compiler checks: who may know whom, how long a file is, that every item of the wire is
//! documented, and that every clause of the contract has a script.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, root};

/// Longest source file, in lines: beyond it a file has more than one subject.
const FILE_LINES_MAX: usize = 620;

/// Crates of this workspace that each may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("quota-core", &[]),
    ("quota-store", &["quota-core"]),
    ("quota-proto", &[]),
    (
        "quota-server",
        &["quota-core", "quota-store", "quota-proto"],
    ),
    ("quota-client", &["quota-proto"]),
    ("quota-cli", &["quota-client"]),
    ("quota-testkit", &["quota-core", "quota-store"]),
    (
        "quota-bench",
        &["quota-client", "quota-proto", "quota-server"],
    ),
    (
        "quota-tests",
        &[
            "quota-client",
            "quota-core",
            "quota-proto",
            "quota-server",
            "quota-store",
            "quota-testkit",
        ],
    ),
    ("xtask", &[]),
];

/// What the core must stay free of.
const NOT_IN_CORE: &[&str] = &["tokio", "sled", "serde", "tracing", "prost", "tonic"];

pub(crate) fn run() -> Result<(), Failure> {
    let mut wrong = Vec::new();
    check_arrows(&mut wrong)?;
    check_sizes(&mut wrong)?;
    check_proto(&mut wrong)?;
    check_clauses(&mut wrong)?;
    match wrong.is_empty() {
        true => {
            eprintln!("tidy: in order");
            Ok(())
        }
        false => Err(format!("tidy:\n{}", wrong.join("\n")).into()),
    }
}

fn check_arrows(wrong: &mut Vec<String>) -> Result<(), Failure> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root())
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = text(&package["name"]);
        let Some(may_use) = allowed.get(name.as_str()) else {
            wrong.push(format!("{name} has no place in the plan of crates"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(&dependency["name"]);
            let for_tests = dependency["kind"] == "dev";
            let ours = allowed.contains_key(used.as_str());
            let kit = for_tests && used == "quota-testkit";
            if ours && !kit && !may_use.contains(&used.as_str()) {
                wrong.push(format!("{name} may not use {used}"));
            }
            if name == "quota-core" && NOT_IN_CORE.contains(&used.as_str()) && !for_tests {
                wrong.push(format!("quota-core must stay free of {used}"));
            }
        }
    }
    Ok(())
}

fn check_sizes(wrong: &mut Vec<String>) -> Result<(), Failure> {
    for path in sources(root())? {
        if path
            .components()
            .any(|part| part.as_os_str() == "generated")
        {
            continue;
        }
        let lines = fs::read_to_string(&path)?.lines().count();
        if lines > FILE_LINES_MAX {
            let shown = shown(&path);
            wrong.push(format!(
                "{shown} has {lines} lines; at most {FILE_LINES_MAX}"
            ));
        }
    }
    Ok(())
}

/// Every message, field, enum, value, service and call has a comment above it.
fn check_proto(wrong: &mut Vec<String>) -> Result<(), Failure> {
    for path in files(&root().join("proto"), "proto")? {
        let text = fs::read_to_string(&path)?;
        let mut commented = false;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let opens = ["message ", "enum ", "service ", "rpc ", "oneof "];
            let names = line.ends_with(';') && line.contains(" = ") && !line.starts_with("syntax");
            if (names || opens.iter().any(|word| line.starts_with(word))) && !commented {
                wrong.push(format!(
                    "{}:{}: {line:?} has no comment",
                    shown(&path),
                    at + 1
                ));
            }
            commented = line.starts_with("//");
        }
    }
    Ok(())
}

/// Clauses that are not in force yet.
const LATER: &[&str] = &["C4.6", "C4.7", "C6.8", "C6.9", "C6.10"];

/// Every clause in force has a script, or a simulated life, that is named after it.
fn check_clauses(wrong: &mut Vec<String>) -> Result<(), Failure> {
    let contract = fs::read_to_string(root().join("docs/CONTRACT.md"))?;
    let mut clauses = BTreeSet::new();
    let mut chapter = String::new();
    for line in contract.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let number = heading.strip_prefix('C').unwrap_or_default();
            chapter = number.chars().take_while(char::is_ascii_digit).collect();
        }
        let number: String = line.chars().take_while(char::is_ascii_digit).collect();
        if !number.is_empty() && line[number.len()..].starts_with(". ") && !chapter.is_empty() {
            clauses.insert(format!("C{chapter}.{number}"));
        }
    }
    let scripts = root().join("tests/scripts");
    let mut names = Vec::new();
    for ending in ["script", "life"] {
        for path in files(&scripts, ending)? {
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    for clause in clauses
        .iter()
        .filter(|clause| !LATER.contains(&clause.as_str()))
    {
        let begins = format!("{clause}-");
        if !names.iter().any(|name| name.starts_with(&begins)) {
            wrong.push(format!("{clause} has no script in tests/scripts"));
        }
    }
    for clause in LATER.iter().filter(|clause| !clauses.contains(**clause)) {
        wrong.push(format!("{clause} is no clause of docs/CONTRACT.md"));
    }
    Ok(())
}

fn sources(below: &Path) -> Result<Vec<PathBuf>, Failure> {
    files(below, "rs")
}

fn files(below: &Path, ending: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, ending)?);
            }
        } else if path.extension().is_some_and(|have| have == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
