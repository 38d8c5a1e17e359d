//! Things by name: found by hash, listed in the order of their names. A tree alone compares a dozen names that lie
//! anywhere in memory to find one, and so does a birth or a death in it: what is gone before enough others came
//! never was in the tree. The price: a table that doubles moves all it has at once.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::ops::Bound::Excluded;

use crate::hash::{HashMap, HashSet};
use crate::name::below;

/// Most names that are not in order yet; whoever lists puts them there for himself.
const FRESH_MAX: usize = 4096;

/// A map with names as keys.
#[derive(Clone, Debug)]
pub(crate) struct Named<K, V> {
    found: HashMap<K, V>,
    order: BTreeSet<K>,
    /// Names that are in no order yet.
    fresh: HashSet<K>,
}

impl<K, V> Default for Named<K, V> {
    fn default() -> Self {
        Self {
            found: HashMap::default(),
            order: BTreeSet::new(),
            fresh: HashSet::default(),
        }
    }
}

impl<K: Eq + Hash, V: PartialEq> PartialEq for Named<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.found == other.found
    }
}

impl<K: Eq + Hash, V: Eq> Eq for Named<K, V> {}

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
            self.fresh.insert(name);
            if self.fresh.len() >= FRESH_MAX {
                self.put_in_order();
            }
        }
        before
    }

    /// Puts the fresh names in order, for who is about to list more than once.
    pub(crate) fn put_in_order(&mut self) {
        let mut names: Vec<K> = self.fresh.drain().collect();
        // Neighbours one after the other.
        names.sort_unstable();
        self.order.extend(names);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<V> {
        let gone = self.found.remove(name)?;
        if !self.fresh.remove(name) {
            self.order.remove(name);
        }
        Some(gone)
    }

    /// All names, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &K> {
        self.found.keys()
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
        let fresh = self.fresh.iter();
        let mut fresh: Vec<&K> = fresh
            .filter(|name| start < (*name).borrow() && (*name).borrow() < end)
            .collect();
        fresh.sort_unstable();
        let mut ordered = range.into_iter().flatten().peekable();
        let mut fresh = fresh.into_iter().peekable();
        std::iter::from_fn(move || match (ordered.peek(), fresh.peek()) {
            (Some(one), Some(other)) if one < other => ordered.next(),
            (Some(_), None) => ordered.next(),
            _ => fresh.next(),
        })
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

    /// Whatever came and went how often, and whichever of it is in order by now, the list is that of a tree.
    #[test]
    fn it_lists_as_a_tree_does() {
        let mut named = Named::default();
        let mut tree = std::collections::BTreeMap::new();
        let mut number: u64 = 1;
        for step in 0..60_000_u64 {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let which = (number >> 33) % 20_000;
            let text = format!("a/{}/b/{which}", which % 7);
            let name = SubjectName::parse(&text).unwrap();
            match number >> 62 {
                0 => assert_eq!(named.remove(&text), tree.remove(&name)),
                _ => assert_eq!(named.insert(name.clone(), step), tree.insert(name, step)),
            }
            if step % 5_000 == 0 {
                assert_eq!(named.len(), tree.len());
                let listed: Vec<_> = named.below("system", "").collect();
                assert_eq!(listed, tree.iter().collect::<Vec<_>>());
                let listed: Vec<_> = named
                    .below("a/3", "a/3/b/5")
                    .map(|(name, _)| name)
                    .collect();
                let after = tree.keys().filter(|name| name.is_within("a/3"));
                let after: Vec<_> = after.filter(|name| name.as_str() > "a/3/b/5").collect();
                assert_eq!(listed, after);
            }
        }
        assert!(named.order.len() > FRESH_MAX && !named.fresh.is_empty());
    }
}
