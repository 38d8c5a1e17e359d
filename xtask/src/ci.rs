//! What every change must pass.

use std::process::Command;

use crate::{Failure, codegen, start, tidy};

pub(crate) fn run(tests: bool) -> Result<(), Failure> {
    start("cargo", &["fmt", "--all", "--check"])?;
    start(
        "cargo",
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    tidy::run()?;
    codegen::run(true)?;
    match Command::new("buf").arg("--version").output() {
        Ok(_) => start("buf", &["lint", "proto"])?,
        Err(_) => eprintln!("xtask: buf lint: skipped, buf is not installed"),
    }
    if tests {
        start("cargo", &["test", "--workspace"])?;
    }
    eprintln!("xtask: all passed");
    Ok(())
}
