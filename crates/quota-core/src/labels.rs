//! Labels on subjects, quotas and allocations.

use std::collections::BTreeMap;

/// Labels, by key.
pub type Labels = BTreeMap<String, String>;

/// Most labels on an allocation or a quota (C6.4).
pub const ROW_LABELS_MAX: usize = 8;
/// Most labels on a subject.
pub const SUBJECT_LABELS_MAX: usize = 32;
/// Longest label key, in bytes.
pub const KEY_BYTES_MAX: usize = 63;
/// Longest label value, in bytes.
pub const VALUE_BYTES_MAX: usize = 128;

/// Says what is wrong with `labels`, if anything.
pub fn check(labels: &Labels, most: usize) -> Result<(), String> {
    if labels.len() > most {
        return Err(format!("has {} labels; at most {most}", labels.len()));
    }
    for (key, value) in labels {
        let mut chars = key.chars();
        let starts = chars
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let goes_on = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/')
        };
        if !starts || !chars.all(goes_on) || key.len() > KEY_BYTES_MAX {
            let key: String = key.chars().take(KEY_BYTES_MAX).collect();
            return Err(format!(
                "has the key {key:?}; a key is 1 to {KEY_BYTES_MAX} of [a-z0-9._/-], a letter or digit first"
            ));
        }
        if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(format!(
                "has a bad value at {key:?}; at most {VALUE_BYTES_MAX} bytes, no control characters"
            ));
        }
    }
    Ok(())
}
