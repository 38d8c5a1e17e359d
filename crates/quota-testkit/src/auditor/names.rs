//! What a call has to look like before anything is decided: names and amounts (C1.1, C2.1, C2.3, C5.4).

use crate::script::Call;

const AMOUNTS_MOST: i64 = (1 << 53) - 1;
/// Those of C2.1, and the name of the root.
const TAKEN: &[&str] = &[
    "allocations",
    "holds",
    "quotas",
    "leases",
    "bookings",
    "system",
];

/// Whether a call is well-formed.
pub(super) fn is_well_formed(call: &Call) -> bool {
    if call.verb == "linked" {
        let pair = |member: &Call| first_pair(&member.place).to_owned();
        let first = call.members.first().map(pair);
        let alike = |member: &Call| Some(pair(member)) == first && is_well_formed(member);
        return call.members.iter().all(alike);
    }
    let place = match call.verb.as_str() {
        "resource" | "unresource" => is_key(&call.place),
        "quota" | "unquota" => is_subject(&call.place, true),
        _ => is_subject(&call.place, false),
    };
    let also = call.list("also");
    let alike = |name: &String| {
        let shared = name == "system" || call.place == "system";
        is_subject(name, false) && (shared || first_pair(name) == first_pair(&call.place))
    };
    let ids = ["id", "as", "ids"]
        .into_iter()
        .flat_map(|key| call.list(key));
    place
        && also.len() <= 4
        && also.iter().all(alike)
        && ids.into_iter().all(|id| is_id(id.trim_start_matches('.')))
        && are_amounts(call)
}

fn are_amounts(call: &Call) -> bool {
    let mut keys: Vec<&String> = call.amounts.iter().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let least = match call.verb.as_str() {
        "quota" | "resize" | "commit" => 0,
        "correct" => -AMOUNTS_MOST,
        _ => 1,
    };
    let fits = |(key, text): &(String, String)| {
        let number = text.parse::<i64>();
        let fits =
            number.is_ok_and(|n| (least..=AMOUNTS_MOST).contains(&n) && (n != 0 || least == 0));
        is_key(key) && (fits || text.is_empty() || text == "unlimited")
    };
    keys.len() == call.amounts.len() && call.amounts.iter().all(fits)
}

fn first_pair(name: &str) -> &str {
    let end = name
        .match_indices('/')
        .nth(1)
        .map_or(name.len(), |(at, _)| at);
    &name[..end]
}

fn is_subject(name: &str, pattern: bool) -> bool {
    if name == "system" {
        return true;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let pair = |pair: &[&str]| {
        let mut letters = pair[0].chars();
        let begins = letters.next().is_some_and(|c| c.is_ascii_lowercase());
        begins
            && pair[0].len() <= 32
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !TAKEN.contains(&pair[0])
            && (is_id(pair[1]) || (pattern && pair[1] == "*"))
    };
    name.len() <= 512
        && parts.len().is_multiple_of(2)
        && parts.len() <= 16
        && parts.chunks(2).all(pair)
}

fn is_id(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._~@:+=-".contains(c);
    (1..=128).contains(&id.len()) && id.chars().all(fits)
}

fn is_key(key: &str) -> bool {
    let part = |part: &str| {
        let begins = part.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        begins && part.chars().all(fits)
    };
    key.len() <= 64 && key.split('.').all(part)
}
