//! Things by name: found by hash, listed in the order of their names. A tree alone compares a dozen names that lie
//! anywhere in memory to find one. The price: a table that doubles moves all it has at once.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::ops::Bound::Excluded;

use crate::hash::HashMap;
use crate::name::below;

/// A map with names as keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named<K: Eq + Hash, V> {
    found: HashMap<K, V>,
    order: BTreeSet<K>,
}

impl<K: Eq + Hash, V> Default for Named<K, V> {
    fn default() -> Self {
        Self {
            found: HashMap::default(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Ord + Hash + Borrow<str>, V> Named<K, V> {
    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        self.found.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.found.get_mut(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// Puts a thing in place of the one of that name, if any, which it answers.
    pub(crate) fn insert(&mut self, name: K, thing: V) -> Option<V> {
        let before = self.found.insert(name.clone(), thing);
        if before.is_none() {
            self.order.insert(name);
        }
        before
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<V> {
        let gone = self.found.remove(name)?;
        self.order.remove(name);
        Some(gone)
    }

    /// All names, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &K> {
        self.order.iter()
    }

    /// All things, in no order.
    pub(crate) fn things(&self) -> impl Iterator<Item = &V> {
        self.found.values()
    }

    /// What is below `prefix` and comes after `after`, in the order of names.
    pub(crate) fn below<'a>(
        &'a self,
        prefix: &str,
        after: &str,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let (first, last) = below(prefix);
        let start = after.max(first.as_str());
        let end = last.as_str().max(start);
        // The same name twice cannot be a range; there is nothing after it either.
        let range =
            (start < end).then(|| self.order.range::<str, _>((Excluded(start), Excluded(end))));
        range
            .into_iter()
            .flatten()
            .filter_map(|name| Some((name, self.found.get(name.borrow())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::SubjectName;

    #[test]
    fn what_is_below_a_name() {
        let mut named = Named::default();
        for (at, name) in ["a/1", "a/1/b/2", "a/1/b/3", "a/10", "system"]
            .into_iter()
            .enumerate()
        {
            let name = SubjectName::parse(name).unwrap();
            assert_eq!(named.insert(name.clone(), 77), None);
            assert_eq!(named.insert(name, at), Some(77));
        }
        let below = |prefix: &str, after: &str| -> Vec<usize> {
            named.below(prefix, after).map(|(_, at)| *at).collect()
        };
        assert_eq!(below("a/1", ""), [1, 2]);
        assert_eq!(below("a/1", "a/1/b/2"), [2]);
        assert_eq!(below("a/1", "a/1/b/3"), []);
        assert_eq!(below("a/1", "z"), []);
        assert_eq!(below("system", ""), [0, 1, 2, 3, 4]);
        assert_eq!(below("system", "a/1/b/3"), [3, 4]);
        assert_eq!(named.remove("a/1/b/2"), Some(1));
        assert_eq!(named.remove("a/1/b/2"), None);
        assert_eq!(named.below("a/1", "").count(), 1);
        assert_eq!(named.names().count(), named.len());
    }
}
