//! Pages of lists. A token is the name of the last entry and the filters that it was made for, so that a
//! token of one list is not taken for that of another.

use quota_core::name::NAME_BYTES_MAX;

use super::from_proto::Reader;

/// Entries of a page when none is asked for.
const SIZE_DEFAULT: usize = 50;
/// Most entries of a page.
pub(super) const SIZE_MAX: usize = 1000;
/// Most entries that are looked at for one page: filters must not hold up the writer.
pub(super) const LOOKED_AT_MAX: usize = 10_000;
/// In hex, the longest key: an anonymous allocation with all its further subjects, and the digest.
const TOKEN_BYTES_MAX: usize = 2 * (6 * NAME_BYTES_MAX + 128);

/// The size of a page.
pub(super) fn size(reader: &mut Reader, asked: i32) -> usize {
    size_of(reader, asked, SIZE_DEFAULT, SIZE_MAX)
}

/// The size of a page with bounds of its own.
pub(super) fn size_of(reader: &mut Reader, asked: i32, default: usize, most: usize) -> usize {
    match usize::try_from(asked) {
        Ok(0) => default,
        Ok(size) if size <= most => size,
        _ => {
            let text = format!("is {asked}; 1 to {most}, or 0 for {default}");
            reader.wrong("page_size", text);
            default
        }
    }
}

/// The name after which a page begins; empty for the first.
pub(super) fn after(reader: &mut Reader, filter: &str, token: &str) -> String {
    if token.is_empty() {
        return String::new();
    }
    let read = || {
        let hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
        if token.len() > TOKEN_BYTES_MAX || !hex {
            return None;
        }
        let bytes: Option<Vec<u8>> = (0..token.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok())
            .collect();
        let text = String::from_utf8(bytes?).ok()?;
        let (made_for, name) = text.split_once('\n')?;
        (made_for == digest(filter)).then(|| name.to_owned())
    };
    read().unwrap_or_else(|| {
        reader.wrong(
            "page_token",
            "is not the next_page_token of a call with the same filters",
        );
        String::new()
    })
}

/// The token of the page after `last`.
pub(super) fn token(filter: &str, last: &str) -> String {
    let text = format!("{}\n{last}", digest(filter));
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(filter: &str) -> String {
    blake3::hash(filter.as_bytes()).to_hex()[..16].to_owned()
}

/// Collects a page from what follows `after`: up to `size` entries that `pick` takes, looking at a bounded
/// number. Answers the entries and the name after which the next page begins.
pub(super) fn collect<E, T>(
    entries: impl Iterator<Item = E>,
    size: usize,
    name: impl Fn(&E) -> String,
    mut pick: impl FnMut(&E) -> Option<T>,
) -> (Vec<T>, Option<String>) {
    let mut page = Vec::new();
    let mut last = None;
    for (looked_at, entry) in entries.enumerate() {
        if page.len() == size || looked_at == LOOKED_AT_MAX {
            return (page, last);
        }
        page.extend(pick(&entry));
        last = Some(name(&entry));
    }
    (page, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota_testkit::fuzz::{fuzz_text, run};

    #[test]
    fn a_token_belongs_to_its_filters() {
        let token = token("ListX tenants/acme", "tenants/acme/projects/web");
        let mut reader = Reader::default();
        let name = after(&mut reader, "ListX tenants/acme", &token);
        assert_eq!(name, "tenants/acme/projects/web");
        assert!(reader.finish().is_ok());
        for bad in [token.as_str(), "zz", "é", "00", &"00".repeat(9999)] {
            let mut reader = Reader::default();
            after(&mut reader, "ListX tenants/other", bad);
            assert!(reader.finish().is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_end_exactly() {
        let pick = |n: &usize| Some(*n);
        let name = |n: &usize| n.to_string();
        assert_eq!(collect(0..3, 3, name, pick), (vec![0, 1, 2], None));
        assert_eq!(collect(0..4, 3, name, pick).1, Some("2".into()));
        let none = |_: &usize| None::<usize>;
        let (page, next) = collect(0..20_000, 3, name, none);
        assert!(page.is_empty() && next == Some("9999".into()));
    }

    const FILTER: &str = "ListSubjects tenants/acme {}";

    /// What is taken for a token is one that was given.
    #[test]
    fn any_text_is_a_token_or_names_the_field() {
        fuzz_text("page-tokens", 2000, &["0a", "+", "é", "00", "G"], |text| {
            let mut reader = Reader::default();
            let name = after(&mut reader, FILTER, text);
            match reader.finish() {
                Ok(()) => {
                    assert!(text.is_empty() || token(FILTER, &name) == text.to_lowercase());
                    true
                }
                Err(status) => {
                    assert!(status.message().starts_with("page_token: "), "{status:?}");
                    false
                }
            }
        });
    }

    #[test]
    fn any_name_stands_in_a_token() {
        run(2000, &(".{0,300}", ".{0,40}"), |(name, filter)| {
            let token = token(&filter, &name);
            let mut reader = Reader::default();
            assert_eq!(after(&mut reader, &filter, &token), name);
            assert!(reader.finish().is_ok());
            let mut reader = Reader::default();
            after(&mut reader, &format!("{filter}x"), &token);
            assert!(reader.finish().is_err());
        });
    }
}
