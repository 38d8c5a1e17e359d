//! Real logs, which are not part of the project.

use std::io::Read;
use std::path::PathBuf;

use crate::process::root;

/// A real log where it is at hand: its path and its text.
pub fn real(name: &str) -> Option<(PathBuf, String)> {
    let directory = std::env::var_os("QUOTA_TEST_LOGS").map(PathBuf::from);
    let path = directory
        .unwrap_or_else(|| root().join("../shared/data"))
        .join(name);
    let Ok(packed) = std::fs::read(&path) else {
        println!("skipped: {name} is not here; QUOTA_TEST_LOGS names a directory with it");
        return None;
    };
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&packed[..])
        .read_to_string(&mut text)
        .unwrap();
    Some((path, text))
}
