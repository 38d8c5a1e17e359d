//! Errors: commands that are not decided at all (C12). A refusal is no error: it is an [`Answer`].
//!
//! [`Answer`]: crate::outcome::Answer

use crate::name::{Id, ResourceKey, SubjectName};
use crate::quota::Target;

/// One bad field of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Path of the field as the caller wrote it, such as `amounts[1].resource`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

impl Violation {
    /// Says what is wrong with a field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// Why a command was not decided. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// Fields that only the state shows to be bad, all of them.
    #[error("the request has {} bad field(s)", .0.len())]
    Invalid(Vec<Violation>),
    /// The subject does not exist and may not come into being (C2.4).
    #[error("subject {0} does not exist and may not come into being by a charge")]
    SubjectUnknown(SubjectName),
    /// The subject to read or change does not exist.
    #[error("subject {0} does not exist")]
    NoSubject(SubjectName),
    /// No such allocation.
    #[error("allocation {0} does not exist")]
    AllocationUnknown(String),
    /// No such hold.
    #[error("hold {0} does not exist")]
    HoldUnknown(String),
    /// The hold has ended (C6.3).
    #[error("hold {hold} is {state} and cannot be {what}")]
    HoldEnded {
        /// The hold.
        hold: String,
        /// How it ended.
        state: &'static str,
        /// What was to be done with it.
        what: &'static str,
    },
    /// More would be committed than is held, and the caller did not say what to do then.
    #[error(
        "hold {hold} holds {held} of {resource}, not {requested}; ask for the rest to be checked or recorded"
    )]
    HoldTooSmall {
        /// The hold.
        hold: String,
        /// The resource.
        resource: ResourceKey,
        /// What is held, in base units.
        held: i64,
        /// What was to be committed, in base units.
        requested: i64,
    },
    /// A correction would take a count below zero or beyond its bound (C1.4).
    #[error("{subject} has counted {counted} of {resource}{window}; {change} cannot be added")]
    CorrectionTooLarge {
        /// The subject.
        subject: String,
        /// The resource.
        resource: ResourceKey,
        /// Which count, as a part of the sentence.
        window: &'static str,
        /// What was counted, in base units.
        counted: i64,
        /// What was to be added, in base units.
        change: i64,
    },
    /// The subject still has something in use (C2.5).
    #[error("subject {subject} has {used} of {resource} used and {held} held; give it back first")]
    SubjectInUse {
        /// The subject.
        subject: SubjectName,
        /// The resource.
        resource: ResourceKey,
        /// In use, in base units.
        used: i64,
        /// Held, in base units.
        held: i64,
    },
    /// One of several steps of a command cannot be done, so none is.
    #[error("{field}: {rejection}")]
    Member {
        /// Which, as the path of a field.
        field: String,
        /// Why.
        rejection: Box<Rejection>,
    },
    /// No such quota.
    #[error("{target} has no quota {id} on {resource}")]
    QuotaUnknown {
        /// What it would be set on.
        target: Target,
        /// The resource.
        resource: ResourceKey,
        /// The id.
        id: Id,
    },
    /// No such resource.
    #[error("resource {0} does not exist")]
    ResourceUnknown(ResourceKey),
    /// There is one already.
    #[error("{0} exists already")]
    Exists(String),
    /// The operation id was used with other content (C6.6).
    #[error("operation id {0} was used with other content")]
    OperationIdReused(String),
    /// More would be released than is there (C6.5).
    #[error(
        "allocation {allocation} has {available} of {resource}; {requested} cannot be released"
    )]
    ReleaseTooLarge {
        /// The allocation.
        allocation: String,
        /// The resource.
        resource: ResourceKey,
        /// What is there, in base units.
        available: i64,
        /// What was asked back, in base units.
        requested: i64,
    },
    /// The change cuts a limit (C4.9).
    #[error("{0}; set force to do it all the same")]
    ForceNeeded(String),
    /// Too old to be known for new (C6.6).
    #[error(
        "operation {id} is unknown and {lane} remembers completely only what is newer than the age it states"
    )]
    OutcomeForgotten {
        /// The operation.
        id: String,
        /// The first pair that it belongs to.
        lane: String,
    },
    /// The resource is built in or in use.
    #[error("resource {key} {why}")]
    ResourceInUse {
        /// The resource.
        key: ResourceKey,
        /// What keeps it.
        why: &'static str,
    },
    /// The etag is not the current one.
    #[error("{what} has the etag {actual:?}, not {expected:?}; read it again")]
    EtagMismatch {
        /// What was to be changed.
        what: String,
        /// The etag in the request.
        expected: String,
        /// The current one.
        actual: String,
    },
    /// The generation is not the expected one.
    #[error("allocation {allocation} has the generation {actual}, not {expected}; read it again")]
    GenerationMismatch {
        /// The allocation.
        allocation: String,
        /// The one in the request.
        expected: u64,
        /// The current one.
        actual: u64,
    },
    /// A bound of the whole server is reached.
    #[error("{what} is at its bound of {most}")]
    Capacity {
        /// Name of the bound.
        what: &'static str,
        /// The bound.
        most: usize,
    },
}
