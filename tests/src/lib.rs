//! Black-box tests: what they share. The tests themselves are in `tests/`.

#![allow(
    clippy::unwrap_used,
    reason = "only tests use this crate; a broken test stops"
)]

pub mod process;
pub mod worlds;
