//! The vocabulary and the ledger of the quota authority: a function of (state, now, command).
//!
//! [`Ledger::decide`] is pure: it reads the state and returns what is answered and what happened, as
//! events. [`Ledger::absorb`] is the only thing that changes the state and cannot fail. Nothing here
//! reads a clock, a random number, a file or a socket, and nothing logs: a rule that could be tested
//! only with a server around it would be tested too little. The obvious alternative, transactions on a
//! database, was measured at a twentieth of the speed and spreads the rules over callbacks.
//!
//! **Invariant:** this crate knows no wire format, no row format and no async runtime.

#![deny(missing_docs)]
// A test that overflows panics, which is what it should do.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

mod absorb;
pub mod account;
pub mod allocation;
pub mod amount;
pub mod charge;
mod close;
pub mod command;
pub mod decide;
pub mod defaults;
pub mod ends;
pub mod evaluate;
pub mod event;
pub mod gauge;
pub mod hash;
pub mod hold;
pub mod invariants;
pub mod labels;
pub mod ledger;
pub mod name;
mod named;
pub mod notice;
pub mod operation;
pub mod outcome;
pub mod period;
pub mod quota;
pub mod rate;
mod read;
pub mod record;
pub mod rejection;
pub mod resource;
mod stake;
pub mod subject;
pub mod tally;
pub mod time;
mod touched;
pub mod verdict;

pub use ledger::{Bounds, Ledger};
pub use read::is_dead;
