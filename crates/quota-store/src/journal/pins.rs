//! Pins: who still has to read batches says from where on, and the journal keeps them while there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// All pins of a journal. Clones share them.
#[derive(Clone, Default, Debug)]
pub struct Pins(Arc<Mutex<Vec<Arc<Held>>>>);

#[derive(Debug)]
struct Held {
    name: String,
    sequence: AtomicU64,
}

impl Pins {
    /// Has batches from `sequence` on kept for `name`, until the pin is moved or dropped. Pins of the same name
    /// are apart.
    pub fn pin(&self, name: &str, sequence: u64) -> Pin {
        let held = Arc::new(Held {
            name: name.to_owned(),
            sequence: AtomicU64::new(sequence),
        });
        self.0.lock().push(held.clone());
        Pin {
            pins: self.clone(),
            held,
        }
    }

    /// The first batch that is pinned.
    pub fn lowest(&self) -> Option<u64> {
        let held = self.0.lock();
        let sequences = held
            .iter()
            .map(|held| held.sequence.load(Ordering::Acquire));
        sequences.min()
    }

    /// Names and what they pin, in the order in which they came.
    pub fn list(&self) -> Vec<(String, u64)> {
        let held = self.0.lock();
        let shown = |held: &Arc<Held>| (held.name.clone(), held.sequence.load(Ordering::Acquire));
        held.iter().map(shown).collect()
    }
}

/// Batches that are kept while this is.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    held: Arc<Held>,
}

impl Pin {
    /// Batches before `sequence` are not needed any more.
    pub fn move_to(&self, sequence: u64) {
        self.held.sequence.store(sequence, Ordering::Release);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut all = self.pins.0.lock();
        all.retain(|held| !Arc::ptr_eq(held, &self.held));
    }
}
