//! Bytes of what is kept. Messages are prost's, written out by hand: fields can be added and old files
//! still read. A version byte stands before every body; before the first tag a version may be dropped.

mod event;
mod notice;
mod outcome;
mod quota;
mod record;
mod row;
mod verdict;
mod wire;

pub(crate) use event::{event_of_bytes, remembered_of_body, told_of_body, write_event};
pub(crate) use record::is_of_a_row;
pub(crate) use record::{ImageBody, image_of_body, key_bytes, key_of_bytes, write_record};
pub(crate) use record::{record_bytes, record_of_bytes};
pub(crate) use wire::{Field, Fields, Wire};

/// Version of every body below.
pub(crate) const VERSION: u8 = 3;

/// Bytes that this version cannot read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer version.
    #[error("format version {found} is newer than {VERSION}, the newest that this program reads")]
    Newer {
        /// The version found.
        found: u8,
    },
    /// Not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl FormatError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

impl From<prost::DecodeError> for FormatError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<quota_core::name::NameError> for FormatError {
    fn from(error: quota_core::name::NameError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Takes the version byte off a body.
pub(crate) fn versioned(bytes: &[u8]) -> Result<&[u8], FormatError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) if found > VERSION => Err(FormatError::Newer { found }),
        Some((found, _)) => Err(FormatError::damaged(format!("format version {found}"))),
        None => Err(FormatError::damaged("empty")),
    }
}
