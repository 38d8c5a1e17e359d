//! Generates `quota-proto` from `proto/` with a compiler written in Rust, so that nobody needs a
//! system `protoc`. The output is committed: a reader sees it, and a build needs none of this.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::{Failure, root};

/// Writes the generated code, or with `check` compares it with what is committed.
pub(crate) fn run(check: bool) -> Result<(), Failure> {
    let proto = root().join("proto");
    let committed = root().join("crates/quota-proto/src/generated");
    let fresh = root().join("target/codegen");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&committed)?;

    let mut files: Vec<PathBuf> = fs::read_dir(proto.join("quota/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "proto"));
    files.sort();
    let descriptors = protox::compile(&files, [&proto])?;
    fs::write(fresh.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .out_dir(&fresh)
        .btree_map(".")
        .compile_fds(descriptors)?;

    let mut stale = Vec::new();
    for name in ["quota.v1.rs", "descriptors.bin"] {
        if fs::read(fresh.join(name))? != fs::read(committed.join(name)).unwrap_or_default() {
            stale.push(name);
            if !check {
                fs::copy(fresh.join(name), committed.join(name))?;
            }
        }
    }
    match (check, stale.is_empty()) {
        (true, false) => Err(format!(
            "generated code is stale: {}; run `cargo xtask codegen` and commit",
            stale.join(", ")
        )
        .into()),
        (true, true) => {
            say("generated code is up to date");
            Ok(())
        }
        (false, _) => {
            say(&format!(
                "{} file(s) written to {}",
                stale.len(),
                display(&committed)
            ));
            Ok(())
        }
    }
}

fn say(text: &str) {
    eprintln!("codegen: {text}");
}

fn display(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
