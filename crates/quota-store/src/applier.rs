//! The applier: one thread that writes rows behind the journal, and a base when enough has happened.
//!
//! Images are coalesced while they wait: a hot account is written once per round, and an allocation that
//! comes and goes between two rounds is never written. What waits is bounded; the writer slows down before.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quota_core::hash::HashMap;

use crate::base::{self, Base};
use crate::batch::RowImage;
use crate::disk::Disk;
use crate::rows::{RowChange, Rows};

/// When rows and bases are written.
#[derive(Clone, Copy, Debug)]
pub struct ApplierOptions {
    /// Longest time that an image waits.
    pub interval: Duration,
    /// Bytes of waiting images that start a round before that.
    pub round_bytes: usize,
    /// Most bytes of waiting images.
    pub lag_bytes_max: usize,
    /// Least bytes of journal between two bases; twice the size of the last base if that is more.
    pub base_bytes: u64,
    /// The store.
    pub store_id: [u8; 16],
}

impl Default for ApplierOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            round_bytes: 4 << 20,
            lag_bytes_max: 64 << 20,
            base_bytes: 256 << 20,
            store_id: [0; 16],
        }
    }
}

/// A handle on the applier's thread. Dropping it applies what waits and ends the thread.
pub struct Applier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The work of an applier without a thread.
pub struct Driver(Arc<Shared>);

impl Driver {
    /// Writes what waits, then a base if one is due.
    pub fn step(&self) {
        self.0.round();
        if self.0.is_base_due() {
            self.0.write_base();
        }
    }
}

/// How far the applier is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Batch up to which every row is durable.
    pub applied: u64,
    /// Bytes of images that wait.
    pub waiting_bytes: usize,
    /// The bases, oldest first.
    pub bases: Vec<Base>,
    /// Why the last round of rows failed, if so.
    pub failed: Option<String>,
    /// Rows are written no more: too much waited while rounds failed. The journal keeps what they lack and a
    /// restart lays it over them.
    pub given_up: bool,
    /// Why the last base could not be written, if so.
    pub base_failed: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    moved: Condvar,
    rows: Arc<dyn Rows>,
    disk: Arc<dyn Disk>,
    options: ApplierOptions,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Vec<u8>, Waiting>,
    through: u64,
    since_base: u64,
    stop: bool,
    writing_base: bool,
    base_thread: Option<JoinHandle<()>>,
    progress: Progress,
}

struct Waiting {
    value: Option<Vec<u8>>,
    sequence: u64,
    /// Whether the rows have none of that key.
    fresh: bool,
}

impl Applier {
    /// Starts the thread. `journal_bytes` is what the journal holds since the last base.
    pub fn start(
        rows: Arc<dyn Rows>,
        disk: Arc<dyn Disk>,
        options: ApplierOptions,
        journal_bytes: u64,
    ) -> std::io::Result<Self> {
        let mut applier = Self::driven(rows, disk, options, journal_bytes)?;
        let of_thread = applier.shared.clone();
        let thread = thread::Builder::new()
            .name("quota-applier".into())
            .spawn(move || of_thread.run())?;
        applier.thread = Some(thread);
        Ok(applier)
    }

    /// The same without a thread: it works when its [`Driver`] is told to.
    pub fn driven(
        rows: Arc<dyn Rows>,
        disk: Arc<dyn Disk>,
        options: ApplierOptions,
        journal_bytes: u64,
    ) -> std::io::Result<Self> {
        base::clean(&*disk)?;
        let bases = base::list(&*disk)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                through: rows.applied(),
                since_base: journal_bytes,
                progress: Progress {
                    applied: rows.applied(),
                    bases,
                    ..Progress::default()
                },
                ..State::default()
            }),
            wake: Condvar::new(),
            moved: Condvar::new(),
            rows,
            disk,
            options,
        });
        Ok(Self {
            shared,
            thread: None,
        })
    }

    /// What works for an applier without a thread.
    pub fn driver(&self) -> Driver {
        Driver(self.shared.clone())
    }

    /// Takes the images of a durable batch, whose journal record has `bytes` bytes.
    pub fn offer(&self, sequence: u64, images: Vec<RowImage>, bytes: usize) {
        let mut state = self.shared.state.lock();
        state.through = sequence;
        state.since_base = state.since_base.saturating_add(bytes as u64);
        if state.progress.given_up {
            return;
        }
        for image in images {
            state.lay(image, sequence);
        }
        let round = self.shared.options.round_bytes;
        if state.progress.waiting_bytes >= round {
            self.shared.wake.notify_one();
        }
    }

    /// Whether so much waits that the writer should.
    pub fn is_behind(&self) -> bool {
        let state = self.shared.state.lock();
        state.progress.waiting_bytes >= self.shared.options.lag_bytes_max
    }

    /// Whether twice as much waits as should: nothing more may come.
    pub fn is_far_behind(&self) -> bool {
        let state = self.shared.state.lock();
        let most = self.shared.options.lag_bytes_max.saturating_mul(2);
        state.progress.waiting_bytes >= most
    }

    /// Waits, at most `most`, until less waits than the bound.
    pub fn wait_until_caught_up(&self, most: Duration) {
        if self.thread.is_none() {
            self.shared.round();
            return;
        }
        let mut state = self.shared.state.lock();
        let behind =
            |state: &mut State| state.progress.waiting_bytes >= self.shared.options.lag_bytes_max;
        self.shared.wake.notify_one();
        self.shared.moved.wait_while_for(&mut state, behind, most);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.shared.state.lock().progress.clone()
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let base = self.shared.state.lock().base_thread.take();
        if let Some(thread) = base {
            let _ = thread.join();
        }
    }
}

impl State {
    /// What a failed round took waits again, beneath what came since. Part of the round may have been written, so
    /// nothing is certainly absent from the rows.
    fn put_back(&mut self, taken: Vec<RowChange>) {
        for change in taken {
            match self.waiting.entry(change.key) {
                Entry::Occupied(newer) => newer.into_mut().fresh = false,
                Entry::Vacant(place) => {
                    let bytes = size(place.key(), &change.value);
                    self.progress.waiting_bytes = self.progress.waiting_bytes.saturating_add(bytes);
                    place.insert(Waiting {
                        value: change.value,
                        sequence: change.sequence,
                        fresh: false,
                    });
                }
            }
        }
    }

    fn lay(&mut self, image: RowImage, sequence: u64) {
        let waiting = &mut self.progress.waiting_bytes;
        match self.waiting.entry(image.key) {
            Entry::Occupied(mut before) => {
                *waiting = waiting.saturating_sub(size(before.key(), &before.get().value));
                if before.get().fresh && image.value.is_none() {
                    before.remove();
                    return;
                }
                *waiting = waiting.saturating_add(size(before.key(), &image.value));
                let before = before.get_mut();
                (before.value, before.sequence) = (image.value, sequence);
            }
            Entry::Vacant(_) if image.fresh && image.value.is_none() => {}
            Entry::Vacant(place) => {
                *waiting = waiting.saturating_add(size(place.key(), &image.value));
                place.insert(Waiting {
                    value: image.value,
                    sequence,
                    fresh: image.fresh,
                });
            }
        }
    }
}

/// About what a waiting image takes, in bytes.
fn size(key: &[u8], value: &Option<Vec<u8>>) -> usize {
    let value = value.as_ref().map_or(0, Vec::len);
    value.saturating_add(key.len()).saturating_add(64)
}

impl Shared {
    fn run(self: &Arc<Self>) {
        loop {
            let stopping = self.wait();
            self.round();
            if stopping {
                return;
            }
            self.base_if_due();
        }
    }

    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        let idle = |state: &mut State| {
            let enough = state.progress.waiting_bytes >= self.options.round_bytes;
            !state.stop && (!enough || state.progress.failed.is_some())
        };
        self.wake
            .wait_while_for(&mut state, idle, self.options.interval);
        state.stop
    }

    fn round(&self) {
        let mut state = self.state.lock();
        if state.progress.given_up || state.through == state.progress.applied {
            return;
        }
        let through = state.through;
        let taken = std::mem::take(&mut state.waiting);
        let bytes = state.progress.waiting_bytes;
        drop(state);
        let change = |(key, waiting): (_, Waiting)| RowChange {
            key,
            value: waiting.value,
            sequence: waiting.sequence,
        };
        let mut changes: Vec<RowChange> = taken.into_iter().map(change).collect();
        // Neighbours together, and the same order whoever runs this.
        changes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let written = self.rows.put(&changes, through);
        let mut state = self.state.lock();
        state.progress.waiting_bytes = state.progress.waiting_bytes.saturating_sub(bytes);
        match written {
            Ok(()) => {
                state.progress.applied = through;
                state.progress.failed = None;
            }
            Err(error) => {
                state.progress.failed = Some(error.to_string());
                state.put_back(changes);
                if state.progress.waiting_bytes >= self.options.lag_bytes_max {
                    state.progress.given_up = true;
                    state.waiting = HashMap::default();
                    state.progress.waiting_bytes = 0;
                }
            }
        }
        self.moved.notify_all();
    }

    fn is_base_due(&self) -> bool {
        let state = self.state.lock();
        let last = state.progress.bases.last().map_or(0, |base| base.bytes);
        let due = self.options.base_bytes.max(last.saturating_mul(2));
        state.progress.failed.is_none() && !state.writing_base && state.since_base >= due
    }

    /// Bases are written by a thread of their own: rounds go on meanwhile, and images after the applied
    /// position at its beginning repair what its scan meets half-way.
    fn base_if_due(self: &Arc<Self>) {
        if !self.is_base_due() {
            return;
        }
        let shared = self.clone();
        // Before there is a thread: it may have ended before this one goes on.
        self.state.lock().writing_base = true;
        let started = thread::Builder::new()
            .name("quota-base".into())
            .spawn(move || shared.write_base());
        let mut state = self.state.lock();
        match started {
            Ok(thread) => state.base_thread = Some(thread),
            Err(error) => {
                state.writing_base = false;
                state.progress.base_failed = Some(error.to_string());
            }
        }
    }

    fn write_base(&self) {
        let stopping = || self.state.lock().stop;
        let written = base::write(&*self.disk, self.options.store_id, &*self.rows, &stopping);
        let bases = base::list(&*self.disk);
        let mut state = self.state.lock();
        state.writing_base = false;
        // After a failure too: the next try comes when as much has happened again.
        state.since_base = 0;
        match (written, bases) {
            (Ok(_), Ok(bases)) => {
                state.progress.bases = bases;
                state.progress.base_failed = None;
            }
            (Err(error), _) => state.progress.base_failed = Some(error.to_string()),
            (_, Err(error)) => state.progress.base_failed = Some(error.to_string()),
        }
    }
}
