//! Default quotas: patterns in a tree of pairs, so that finding those of a subject costs its depth and
//! not the number of patterns (C4.2). They apply by reference: nothing is ever copied to a subject, so a
//! change holds from the next decision and a million subjects cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::hash::HashMap;
use crate::name::{ResourceKey, SubjectPattern, split};
use crate::quota::{Quota, QuotaList};

/// The quotas of the patterns that match; few do.
pub type Matching<'a> = SmallVec<[&'a Arc<PatternQuotas>; 2]>;

/// All default quotas.
#[derive(Clone, Default, Debug)]
pub struct Defaults {
    patterns: BTreeMap<SubjectPattern, Arc<PatternQuotas>>,
    root: Node,
}

/// A pattern and its quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternQuotas {
    /// The pattern.
    pub pattern: SubjectPattern,
    /// Its quotas.
    pub quotas: QuotaList,
}

#[derive(Clone, Default, Debug)]
struct Node {
    here: Option<Arc<PatternQuotas>>,
    below: HashMap<String, Collection>,
}

#[derive(Clone, Default, Debug)]
struct Collection {
    literal: HashMap<String, Node>,
    star: Option<Box<Node>>,
}

impl Defaults {
    /// The quotas of all patterns that match, the most specific pattern first.
    pub fn matching(&self, subject: &str) -> Matching<'_> {
        let mut found = Matching::new();
        if !self.patterns.is_empty() {
            self.root.walk(Some(subject), &mut found);
        }
        found
    }

    /// The quotas of one pattern.
    pub fn get(&self, pattern: &SubjectPattern) -> Option<&Arc<PatternQuotas>> {
        self.patterns.get(pattern)
    }

    /// All patterns, in the order of their texts.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PatternQuotas>> {
        self.patterns.values()
    }

    /// Number of patterns.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Other patterns' quotas of the same id that some subject could meet beside `pattern`'s.
    pub fn overlapping<'a>(
        &'a self,
        pattern: &'a SubjectPattern,
        quota: &'a Quota,
    ) -> impl Iterator<Item = (&'a SubjectPattern, &'a Arc<Quota>)> {
        self.patterns
            .values()
            .filter(move |other| other.pattern != *pattern && other.pattern.overlaps(pattern))
            .filter_map(move |other| {
                let same = other.quotas.find(&quota.resource, &quota.id)?;
                Some((&other.pattern, same))
            })
    }

    /// The default of that id that applies to `subject` at `now`, if any.
    pub fn applying(
        &self,
        subject: &str,
        resource: &ResourceKey,
        id: &crate::name::Id,
        now: crate::time::Timestamp,
    ) -> Option<&Arc<Quota>> {
        let in_force = |quota: &&Arc<Quota>| quota.is_in_force(now);
        self.matching(subject)
            .into_iter()
            .find_map(|entry| entry.quotas.find(resource, id).filter(in_force))
    }

    /// Sets the quotas of a pattern; without any the pattern goes.
    pub fn set(&mut self, pattern: SubjectPattern, quotas: QuotaList) {
        let entry = (!quotas.is_empty()).then(|| {
            Arc::new(PatternQuotas {
                pattern: pattern.clone(),
                quotas,
            })
        });
        let mut node = &mut self.root;
        let mut parts = pattern.as_str().split('/');
        while let (Some(collection), Some(id)) = (parts.next(), parts.next()) {
            let collection = node.below.entry(collection.to_owned()).or_default();
            node = if id == "*" {
                collection.star.get_or_insert_default()
            } else {
                collection.literal.entry(id.to_owned()).or_default()
            };
        }
        node.here.clone_from(&entry);
        match entry {
            Some(entry) => {
                self.patterns.insert(pattern, entry);
            }
            None => {
                self.patterns.remove(&pattern);
            }
        }
    }
}

impl Node {
    /// Depth first, literal before `*`: the order of specificity.
    fn walk<'a>(&'a self, rest: Option<&str>, found: &mut Matching<'a>) {
        let Some((collection, rest)) = rest.and_then(split) else {
            found.extend(&self.here);
            return;
        };
        let (id, rest) = match split(rest) {
            Some((id, rest)) => (id, Some(rest)),
            None => (rest, None),
        };
        let Some(collection) = self.below.get(collection) else {
            return;
        };
        if !collection.literal.is_empty()
            && let Some(literal) = collection.literal.get(id)
        {
            literal.walk(rest, found);
        }
        if let Some(star) = &collection.star {
            star.walk(rest, found);
        }
    }
}
