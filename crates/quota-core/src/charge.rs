//! The charge set of a request: the named subjects with all their ancestors, each once, in one
//! canonical order (C2.3). It follows from the names alone and subjects never move, so an allocation
//! that records its names has recorded its charge set.

use crate::name::{SYSTEM, SubjectName};

/// Most further subjects that a request may name.
pub const ALSO_MAX: usize = 4;

/// The further subjects of a request as they are kept: in canonical order, each once, without the
/// subject itself.
pub fn canonical_also(subject: &SubjectName, also: Vec<SubjectName>) -> Vec<SubjectName> {
    let mut also: Vec<SubjectName> = also.into_iter().filter(|name| name != subject).collect();
    also.sort();
    also.dedup();
    also
}

/// The names of the charge set: `system` first, the others in the order of their texts.
pub fn charge_set<'a>(subject: &'a SubjectName, also: &'a [SubjectName]) -> Vec<&'a str> {
    // As deep as most are; a deeper one grows.
    let mut names: Vec<&str> = Vec::with_capacity(6);
    subject.root_to_self(&mut names);
    if also.is_empty() {
        return names;
    }
    for name in also {
        name.root_to_self(&mut names);
    }
    names.sort_unstable_by_key(|name| (*name != SYSTEM, *name));
    names.dedup();
    names
}

/// Whether two names may be charged together: all but `system` share the first pair.
pub fn same_lane(one: &SubjectName, other: &SubjectName) -> bool {
    one.is_system() || other.is_system() || one.first_pair() == other.first_pair()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SubjectName {
        SubjectName::parse(text).unwrap()
    }

    /// C2.3: each once, in one canonical order, whatever order the request has.
    #[test]
    fn shared_ancestors_are_charged_once() {
        let subject = name("tenants/acme/projects/web/users/ann");
        let team = name("tenants/acme/teams/ml");
        let expected = [
            "system",
            "tenants/acme",
            "tenants/acme/projects/web",
            "tenants/acme/projects/web/users/ann",
            "tenants/acme/teams/ml",
        ];
        assert_eq!(charge_set(&subject, std::slice::from_ref(&team)), expected);
        assert_eq!(charge_set(&team, std::slice::from_ref(&subject)), expected);
        let also = canonical_also(&subject, vec![team.clone(), subject.clone(), team.clone()]);
        assert_eq!(also, [team]);
    }
}
