//! What tests are made of: scripts that speak the domain, a naive auditor, real workloads, and a disk that
//! loses what was not synced. No mocks of our own types.

#![allow(
    clippy::unwrap_used,
    reason = "only tests use this crate; a broken test stops"
)]

pub mod auditor;
pub mod bare;
pub mod disk;
pub mod fuzz;
pub mod life;
pub mod linear;
pub mod rows;
pub mod script;
pub mod sim;
pub mod workload;
