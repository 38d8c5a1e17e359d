//! A map by resource for what most subjects have one of: in its own place, without a node of a tree.

use quota_core::name::ResourceKey;
use smallvec::SmallVec;

/// The map; in the order of the keys.
pub(super) struct Few<V>(SmallVec<[(ResourceKey, V); 1]>);

impl<V> Default for Few<V> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<V> Few<V> {
    fn find(&self, key: &ResourceKey) -> Result<usize, usize> {
        self.0.binary_search_by(|(have, _)| have.cmp(key))
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&V> {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &ResourceKey) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// The value of a key, made where there is none.
    pub(super) fn entry(&mut self, key: &ResourceKey, make: impl FnOnce() -> V) -> &mut V {
        let at = self.find(key).unwrap_or_else(|at| {
            self.0.reserve_exact(1);
            self.0.insert(at, (key.clone(), make()));
            at
        });
        let found = self.0.get_mut(at);
        &mut found.expect("found or inserted").1
    }

    pub(super) fn insert(&mut self, key: ResourceKey, value: V) {
        match self.find(&key) {
            Ok(at) => {
                if let Some(place) = self.0.get_mut(at) {
                    place.1 = value;
                }
            }
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key, value));
            }
        }
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ResourceKey> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<V> IntoIterator for Few<V> {
    type Item = (ResourceKey, V);
    type IntoIter = smallvec::IntoIter<[(ResourceKey, V); 1]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
