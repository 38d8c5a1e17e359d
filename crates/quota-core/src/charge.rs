//! The charge set of a request: the named subjects with all their ancestors, each once, in one
//! canonical order (C2.3). It follows from the names alone and subjects never move, so an allocation
//! that records its names has recorded its charge set.

use smallvec::SmallVec;

use crate::name::{PAIRS_MAX, SYSTEM, SubjectName};
use crate::subject::Subject;

/// Most subjects of a charge set.
pub(crate) const CHARGE_SET_MAX: usize = PAIRS_MAX * (ALSO_MAX + 1) + 1;
/// Most charge sets are no larger.
const USUAL: usize = 6;

/// Names of a charge set.
pub type Names<'a> = SmallVec<[&'a str; USUAL]>;
/// A charge set in its canonical order, with its subjects as far as they exist.
pub(crate) type Lineup<'a> = SmallVec<[(&'a str, Option<&'a Subject>); USUAL]>;

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
pub fn charge_set<'a>(subject: &'a SubjectName, also: &'a [SubjectName]) -> Names<'a> {
    let mut names = Names::new();
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
        assert_eq!(
            charge_set(&subject, std::slice::from_ref(&team))[..],
            expected
        );
        assert_eq!(
            charge_set(&team, std::slice::from_ref(&subject))[..],
            expected
        );
        let also = canonical_also(&subject, vec![team.clone(), subject.clone(), team.clone()]);
        assert_eq!(also, [team]);
    }
}
