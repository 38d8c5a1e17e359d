//! Names, parsed once and strictly (C2.1). A value of these types is well formed.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Most pairs in the name of a subject.
pub const PAIRS_MAX: usize = 8;
/// Longest name of a subject, in bytes.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest resource key, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 64;
/// Longest operation id, in characters.
pub const OPERATION_ID_MAX: usize = 64;
/// The root, above all.
pub const SYSTEM: &str = "system";

/// Most characters of a bad name that an error repeats.
const SHOWN_CHARS_MAX: usize = 48;

/// A bad text as an error repeats it.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}

const COLLECTIONS_TAKEN: [&str; 6] = [
    SYSTEM,
    "allocations",
    "holds",
    "quotas",
    "leases",
    "bookings",
];

/// Why a name is not one; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text_type!(
    /// The name of a subject: `collection/id` pairs, or `system`. It says the ancestry.
    SubjectName
);
text_type!(
    /// The name of a set of subjects: as a subject's, with `*` for at least one id.
    SubjectPattern
);
text_type!(
    /// The key of a resource, such as `compute.cpu`.
    ResourceKey
);
text_type!(
    /// An id of an allocation or a quota.
    Id
);
text_type!(
    /// The id of an operation, unique within the subject's first pair (C6.6).
    OperationId
);

impl SubjectName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text != SYSTEM {
            check_pairs(text, false)?;
        }
        Ok(Self(text.into()))
    }

    /// The root.
    pub fn system() -> Self {
        Self(SYSTEM.into())
    }

    /// Whether this is the root.
    pub fn is_system(&self) -> bool {
        &*self.0 == SYSTEM
    }

    /// The first pair, which says the lane of its operations; `system` for the root.
    pub fn first_pair(&self) -> &str {
        first_pair(&self.0)
    }

    /// This name's text and those of all its ancestors, from the name up to `system`.
    pub fn lineage(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(&*self.0), |name| parent(name))
    }

    /// Adds the same from `system` down to `names`, in one pass.
    pub(crate) fn root_to_self<'a>(&'a self, names: &mut crate::charge::Names<'a>) {
        if !self.is_system() {
            names.push(SYSTEM);
        }
        let mut pair_ends = false;
        for (end, byte) in self.0.bytes().enumerate() {
            if byte == b'/' {
                if pair_ends {
                    names.extend(self.0.get(..end));
                }
                pair_ends = !pair_ends;
            }
        }
        names.push(&self.0);
    }

    /// The name of an ancestor whose text came from [`Self::lineage`].
    pub(crate) fn of_checked(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether this is `prefix` or below it, by whole pairs. Everything is below `system`.
    pub fn is_within(&self, prefix: &str) -> bool {
        is_within(&self.0, prefix)
    }
}

/// What comes before and after the first `/`. Names are short: to look at each byte takes less than a search.
pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    let at = name.bytes().position(|byte| byte == b'/')?;
    Some((name.get(..at)?, name.get(at.saturating_add(1)..)?))
}

/// The first pair of a well-formed name or pattern.
pub fn first_pair(name: &str) -> &str {
    let below = split(name).and_then(|(_, rest)| split(rest));
    let end = below.map(|(_, below)| name.len().saturating_sub(below.len().saturating_add(1)));
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

/// The parent of a well-formed name.
pub fn parent(name: &str) -> Option<&str> {
    if name == SYSTEM {
        return None;
    }
    let id_starts = name.rfind('/')?;
    let above = name.get(..id_starts)?.rfind('/');
    Some(above.and_then(|end| name.get(..end)).unwrap_or(SYSTEM))
}

/// The names below `prefix`, without it, as bounds in the order of texts: from after the first to before the
/// second.
pub(crate) fn below(prefix: &str) -> (String, String) {
    match prefix {
        SYSTEM => (String::new(), char::MAX.to_string()),
        // `0` follows `/`.
        prefix => (format!("{prefix}/"), format!("{prefix}0")),
    }
}

/// Whether `name` is `prefix` or below it, by whole pairs.
pub fn is_within(name: &str, prefix: &str) -> bool {
    prefix == SYSTEM
        || name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl SubjectPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_pairs(text, true)?;
        if !text.split('/').any(|part| part == "*") {
            return Err(NameError(format!(
                "{} has no `*` and is no pattern",
                shown(text)
            )));
        }
        Ok(Self(text.into()))
    }

    /// The subjects above all that match, from the root on: the pairs before the first `*`.
    pub fn literal_ancestors(&self) -> Vec<&str> {
        let mut names = vec![SYSTEM];
        let mut end = 0_usize;
        let mut parts = self.0.split('/');
        while let (Some(collection), Some(id)) = (parts.next(), parts.next()) {
            if id == "*" {
                break;
            }
            let pair = collection.len().saturating_add(id.len()).saturating_add(1);
            end = end.saturating_add(pair);
            names.extend(self.0.get(..end));
            end = end.saturating_add(1);
        }
        names
    }

    /// Whether a subject of that name is in the set.
    pub fn matches(&self, name: &str) -> bool {
        self.zip(name, |pattern, id| pattern == "*" || pattern == id)
    }

    /// Whether some subject could match both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.zip(&other.0, |this, that| {
            this == "*" || that == "*" || this == that
        })
    }

    /// Whether this pattern wins over `other`, which it overlaps: pair by pair from the left, literal
    /// before `*`.
    pub fn is_more_specific_than(&self, other: &Self) -> bool {
        let stars = |pattern: &Self| -> Vec<bool> {
            pattern.0.split('/').map(|part| part == "*").collect()
        };
        stars(self) < stars(other)
    }

    fn zip(&self, other: &str, fits: impl Fn(&str, &str) -> bool) -> bool {
        let mut theirs = other.split('/');
        self.0
            .split('/')
            .all(|ours| theirs.next().is_some_and(|part| fits(ours, part)))
            && theirs.next().is_none()
    }
}

fn check_pairs(text: &str, stars: bool) -> Result<(), NameError> {
    let wrong = |why: String| Err(NameError(why));
    if text.is_empty() {
        return wrong(format!(
            "is empty; a subject is `{SYSTEM}` or collection/id pairs such as `tenants/acme`"
        ));
    }
    if text.len() > NAME_BYTES_MAX {
        return wrong(format!(
            "has {} bytes; at most {NAME_BYTES_MAX}",
            text.len()
        ));
    }
    let slashes = text.bytes().filter(|byte| *byte == b'/').count();
    if slashes % 2 == 0 {
        return wrong(format!(
            "{} is not made of collection/id pairs such as `tenants/acme/projects/web`",
            shown(text)
        ));
    }
    let pairs = slashes.div_ceil(2);
    if pairs > PAIRS_MAX {
        return wrong(format!("has {pairs} pairs; at most {PAIRS_MAX}"));
    }
    let mut rest = Some(text);
    while let Some((collection, pair)) = rest.and_then(split) {
        let (id, below) = split(pair).map_or((pair, None), |(id, below)| (id, Some(below)));
        check_collection(collection)?;
        if !(stars && id == "*") {
            check_id(id)?;
        }
        rest = below;
    }
    Ok(())
}

/// Says what is wrong with the name of a collection, if anything.
pub fn check_collection(text: &str) -> Result<(), NameError> {
    let mut bytes = text.bytes();
    let well_formed = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.len() <= 32;
    if !well_formed {
        return Err(NameError(format!(
            "{} is no collection: [a-z][a-z0-9-]{{0,31}}, such as `tenants`",
            shown(text)
        )));
    }
    if COLLECTIONS_TAKEN.contains(&text) {
        return Err(NameError(format!(
            "the collection {text:?} is taken by the authority itself"
        )));
    }
    Ok(())
}

fn check_id(text: &str) -> Result<(), NameError> {
    let sign = |b| matches!(b, b'.' | b'_' | b'~' | b'@' | b':' | b'+' | b'=' | b'-');
    let fits = |b: u8| b.is_ascii_alphanumeric() || sign(b);
    if text.is_empty() || text.len() > ID_BYTES_MAX || !text.bytes().all(fits) {
        return Err(NameError(format!(
            "{} is no id: 1 to {ID_BYTES_MAX} of [A-Za-z0-9._~@:+=-]",
            shown(text)
        )));
    }
    Ok(())
}

impl Id {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_id(text)?;
        Ok(Self(text.into()))
    }
}

impl ResourceKey {
    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let part_fits = |part: &str| {
            let mut bytes = part.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_lowercase())
                && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if text.len() > RESOURCE_BYTES_MAX || !text.split('.').all(part_fits) {
            return Err(NameError(format!(
                "{} is no resource key: lower-case words joined by dots such as `compute.cpu`, at most {RESOURCE_BYTES_MAX} bytes",
                shown(text)
            )));
        }
        Ok(Self(text.into()))
    }
}

impl OperationId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = |c: char| c == ' ' || (!c.is_control() && !c.is_whitespace());
        let count = text.chars().count();
        if count == 0 || count > OPERATION_ID_MAX || !text.chars().all(fits) {
            return Err(NameError(format!(
                "is no operation id: 1 to {OPERATION_ID_MAX} printable characters"
            )));
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C2.1
    #[test]
    fn subject_names() {
        for good in [
            "system",
            "tenants/acme",
            "tenants/acme/projects/web/users/ann@example.org",
            "a/1/b/2/c/3/d/4/e/5/f/6/g/7/h/8",
        ] {
            assert_eq!(SubjectName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "tenants",
            "/",
            "tenants/",
            "tenants/a/",
            "Tenants/a",
            "tenants/a b",
            "1t/a",
            "tenants/*",
            "system/x",
            "allocations/a",
            "tenants/a/holds/b",
            "tenants//a/b",
            "a/1/b/2/c/3/d/4/e/5/f/6/g/7/h/8/i/9",
        ] {
            assert!(SubjectName::parse(bad).is_err(), "{bad}");
        }
        assert!(SubjectName::parse(&format!("tenants/{}", "a".repeat(129))).is_err());
    }

    /// C2.2: the name says the ancestry.
    #[test]
    fn lineage() {
        let name = SubjectName::parse("tenants/acme/projects/web").unwrap();
        let lineage: Vec<&str> = name.lineage().collect();
        assert_eq!(
            lineage,
            ["tenants/acme/projects/web", "tenants/acme", "system"]
        );
        assert_eq!(name.first_pair(), "tenants/acme");
        assert!(name.is_within("tenants/acme"));
        assert!(!name.is_within("tenants/ac"));
        assert_eq!(SubjectName::system().lineage().count(), 1);
    }

    /// C4.2: pair by pair from the left, literal before `*`.
    #[test]
    fn patterns() {
        let parse = |text| SubjectPattern::parse(text).unwrap();
        assert!(parse("tenants/*").matches("tenants/acme"));
        assert!(!parse("tenants/*").matches("tenants/acme/users/ann"));
        assert!(parse("tenants/*/users/*").overlaps(&parse("tenants/acme/users/*")));
        assert!(parse("tenants/acme/users/*").is_more_specific_than(&parse("tenants/*/users/ann")));
        assert!(SubjectPattern::parse("tenants/acme").is_err());
    }

    /// C6.6
    #[test]
    fn operation_ids() {
        assert!(OperationId::parse("").is_err());
        assert!(OperationId::parse("a b").is_ok());
        assert!(OperationId::parse("a\tb").is_err());
        assert!(OperationId::parse(&"x".repeat(65)).is_err());
        assert!(OperationId::parse(&"ü".repeat(64)).is_ok());
    }
}
