//! How far the journal is durable, told to whoever reads beside the writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::Listener;

/// The sequence of the next batch, as the writer last published it: all before are durable.
///
/// The writer pays one atomic store and one load per batch while nobody listens.
#[derive(Default)]
pub(super) struct Durable {
    next: AtomicU64,
    is_heard: AtomicBool,
    listeners: RwLock<Vec<Listener>>,
}

impl Durable {
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Everything before `next` can be read from now on.
    pub(super) fn publish(&self, next: u64) {
        self.next.store(next, Ordering::SeqCst);
        if self.is_heard.load(Ordering::SeqCst) {
            for listener in self.listeners.read().iter() {
                listener(next);
            }
        }
    }

    /// Whoever looks at [`Self::next`] after this misses nothing: either the writer sees the listener, or the
    /// look sees what the writer stored.
    pub(super) fn listen(&self, listener: Listener) {
        self.listeners.write().push(listener);
        self.is_heard.store(true, Ordering::SeqCst);
    }
}
