//! Hash maps of names that callers choose: keyed anew by each process, so nobody can make them collide, and several
//! times as fast as the standard library's for keys of this length.

pub use ahash::RandomState;

/// A hash map.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
/// A hash set.
pub type HashSet<K> = std::collections::HashSet<K, RandomState>;
