//! Amounts and limits (C1.1, C1.2).

use std::fmt;

/// Most that one request may name, in base units: 2^53 − 1, so that a double holds every amount.
pub const AMOUNT_MAX: i64 = (1 << 53) - 1;

/// Most that an account may reach, in base units: a change beyond it is refused to its caller, so that
/// nobody can break a shared account for the others.
pub const ACCOUNT_MAX: i64 = 1 << 62;

/// A bound in base units. *Unset* is the absence of a `Limit`; zero is `Value(0)` (C1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// The most that may be in use, 0 to [`AMOUNT_MAX`].
    Value(i64),
    /// Refuses nothing.
    Unlimited,
}

impl Limit {
    /// Whether this limit is stricter than `other`.
    pub fn is_below(self, other: Self) -> bool {
        match (self, other) {
            (Self::Value(this), Self::Value(other)) => this < other,
            (Self::Value(_), Self::Unlimited) => true,
            (Self::Unlimited, _) => false,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}
