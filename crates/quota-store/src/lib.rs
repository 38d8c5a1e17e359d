//! What outlives the process: a journal that is the truth, and rows behind it that make starts short.
//!
//! A batch is durable when [`Journal::append`] returns. Rows are absolute values written later by the
//! [`applier`]; they can always be rebuilt from a [`base`] and the journal, so the row store may fail or
//! lie without losing anything. Rows in the commit path were measured to cost a factor of twenty.
//!
//! **Invariant:** nothing above the two traits knows which implementation runs.

#![deny(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

pub mod applier;
pub mod base;
pub mod batch;
pub mod conformance;
pub mod data_dir;
pub mod disk;
pub mod footprint;
pub mod format;
pub mod journal;
pub mod recovery;
pub mod rows;
pub mod told;

pub use batch::{Batch, Stamp};
pub use journal::Journal;
pub use rows::Rows;
