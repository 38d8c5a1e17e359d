//! A disk that behaves as badly as a real one may: what was not synced is lost block by block, or torn; a
//! failed sync forgets what it failed to write; directories need a sync of their own; the power goes at any
//! call.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::{Condvar, Mutex};
use quota_store::disk::{Disk, DiskFile};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// How long a sync is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory on such a disk. Clones share it.
#[derive(Clone, Default)]
pub struct TestDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
    /// What happens during the next sync.
    during: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced: Vec<DirChange>,
    /// Handles of before the last crash are dead.
    epoch: u64,
    /// Calls until the power goes; absent where it stays.
    calls_left: Option<u64>,
    /// Syncs that fail from now on.
    failing_syncs: u64,
    full: bool,
    /// Syncs wait until this ends.
    stalled: bool,
    /// Those that do.
    waiting: usize,
    calls: u64,
}

#[derive(Default, Clone)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Blocks that differ from what is durable.
    unsynced: BTreeSet<usize>,
    /// Blocks that a failed sync took for written.
    forgotten: BTreeSet<usize>,
    /// Where it was cut off since the last sync: what was behind it is gone with the next.
    cut: Option<usize>,
}

#[derive(Clone)]
enum DirChange {
    Put(String, usize),
    Remove(String),
}

struct TestFile {
    disk: Arc<Shared>,
    at: usize,
    epoch: u64,
}

impl TestDisk {
    /// The power goes after so many more calls; from then on every call fails.
    pub fn lose_power_after(&self, calls: u64) {
        self.0.state.lock().calls_left = Some(calls);
    }

    /// Whether a call may fail.
    pub fn is_broken(&self) -> bool {
        let state = self.0.state.lock();
        state.calls_left.is_some() || state.full || state.failing_syncs > 0
    }

    /// The power stays after all.
    pub fn keep_power(&self) {
        self.0.state.lock().calls_left = None;
    }

    /// Another disk with the same content, all of it durable.
    pub fn copy(&self) -> Self {
        let state = self.0.state.lock();
        let copy = Self::default();
        {
            let mut new = copy.0.state.lock();
            new.files = state.files.clone();
            new.names = state.names.clone();
            new.durable_names = state.names.clone();
        }
        copy
    }

    /// The next syncs fail, and take what they failed to write for written.
    pub fn fail_syncs(&self, count: u64) {
        self.0.state.lock().failing_syncs = count;
    }

    /// New files find no room, or do again.
    pub fn fill(&self, full: bool) {
        self.0.state.lock().full = full;
    }

    /// Syncs hang until what is returned is dropped.
    #[must_use]
    pub fn stall(&self) -> Stall {
        self.0.state.lock().stalled = true;
        Stall(self.0.clone())
    }

    /// Something happens while the next sync is under way.
    pub fn during_sync(&self, happens: impl FnOnce() + Send + 'static) {
        *self.0.during.lock() = Some(Box::new(happens));
    }

    /// Names of all files, without a call.
    pub fn names(&self) -> Vec<String> {
        self.0.state.lock().names.keys().cloned().collect()
    }

    /// Number of calls so far.
    pub fn calls(&self) -> u64 {
        self.0.state.lock().calls
    }

    /// The machine starts again: each block that was not synced is there, not there, or torn, and directory
    /// changes that were not synced are there up to some point.
    pub fn crash(&self, random: &mut Rng) {
        let mut state = self.0.state.lock();
        let kept = random.usize(..=state.unsynced.len());
        let changes: Vec<DirChange> = state.unsynced.drain(..).take(kept).collect();
        for change in changes {
            state.make_durable(change);
        }
        state.names = state.durable_names.clone();
        for file in &mut state.files {
            file.crash(random);
        }
        state.epoch += 1;
        state.stalled = false;
        state.calls_left = None;
        state.failing_syncs = 0;
        state.full = false;
    }

    /// Flips one bit of a file, durably.
    pub fn flip(&self, name: &str, offset: usize) {
        let mut state = self.0.state.lock();
        let at = state.names[name];
        let file = &mut state.files[at];
        file.current[offset] ^= 1;
        file.durable[offset] ^= 1;
    }

    /// What a file has now.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.state.lock();
        state.files[state.names[name]].current.clone()
    }
}

/// Syncs hang as long as this is held.
pub struct Stall(Arc<Shared>);

impl Stall {
    /// Until a sync hangs.
    pub fn reached(&self) {
        let mut state = self.0.state.lock();
        let none = |state: &mut State| state.waiting == 0;
        let waited = self.0.moved.wait_while_for(&mut state, none, PATIENCE);
        assert!(!waited.timed_out(), "no sync came within {PATIENCE:?}");
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.state.lock().stalled = false;
        self.0.moved.notify_all();
    }
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match &mut self.calls_left {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn make_durable(&mut self, change: DirChange) {
        match change {
            DirChange::Put(name, at) => {
                self.durable_names.insert(name, at);
            }
            DirChange::Remove(name) => {
                self.durable_names.remove(&name);
            }
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Content {
    fn crash(&mut self, random: &mut Rng) {
        let blocks: Vec<usize> = self.unsynced.union(&self.forgotten).copied().collect();
        if random.bool() {
            self.resize_durable();
        }
        for block in blocks {
            let start = block * BLOCK;
            let end = (start + BLOCK)
                .min(self.current.len())
                .min(self.durable.len());
            let kept = match random.u8(..10) {
                0..=4 => 0,
                5..=7 => BLOCK,
                _ => random.usize(..BLOCK / SECTOR) * SECTOR,
            };
            let end = end.min(start + kept);
            if start < end {
                self.durable[start..end].copy_from_slice(&self.current[start..end]);
            }
        }
        self.current = self.durable.clone();
        self.unsynced.clear();
        self.forgotten.clear();
        self.cut = None;
    }

    fn resize_durable(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.durable.truncate(cut);
        }
        self.durable.resize(self.current.len(), 0);
    }

    fn sync(&mut self) {
        self.resize_durable();
        for block in std::mem::take(&mut self.unsynced) {
            let start = (block * BLOCK).min(self.current.len());
            let end = (start + BLOCK).min(self.current.len());
            self.durable[start..end].copy_from_slice(&self.current[start..end]);
        }
    }
}

impl Disk for TestDisk {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.state.lock();
        state.call()?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let size = usize::try_from(bytes).unwrap();
        state.files.push(Content {
            current: vec![0; size],
            durable: vec![0; size],
            ..Content::default()
        });
        let at = state.files.len() - 1;
        state.names.insert(name.to_owned(), at);
        state.unsynced.push(DirChange::Put(name.to_owned(), at));
        Ok(Box::new(TestFile {
            disk: self.0.clone(),
            at,
            epoch: state.epoch,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.state.lock();
        state.call()?;
        Ok(Box::new(TestFile {
            disk: self.0.clone(),
            at: state.find(name)?,
            epoch: state.epoch,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.state.lock();
        state.call()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.call()?;
        let at = state.find(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), at);
        state.unsynced.push(DirChange::Remove(from.to_owned()));
        state.unsynced.push(DirChange::Put(to.to_owned(), at));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.call()?;
        state.find(name)?;
        state.names.remove(name);
        state.unsynced.push(DirChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.call()?;
        let changes: Vec<DirChange> = state.unsynced.drain(..).collect();
        for change in changes {
            state.make_durable(change);
        }
        Ok(())
    }
}

impl TestFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        state.call()?;
        if state.epoch != self.epoch {
            return Err(io::Error::other("opened before the crash"));
        }
        work(&mut state, self.at)
    }
}

impl DiskFile for TestFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let end = start + bytes.len();
        self.with(|state, at| {
            if state.full && end > state.files[at].current.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = &mut state.files[at];
            if file.current.len() < end {
                file.current.resize(end, 0);
            }
            file.current[start..end].copy_from_slice(bytes);
            if !bytes.is_empty() {
                file.unsynced.extend(start / BLOCK..=(end - 1) / BLOCK);
            }
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap();
        self.with(|state, at| {
            let file = &state.files[at].current;
            let from = file.get(start..).unwrap_or_default();
            let count = from.len().min(bytes.len());
            bytes[..count].copy_from_slice(&from[..count]);
            Ok(count)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let during = self.disk.during.lock().take();
        if let Some(happens) = during {
            happens();
        }
        let mut state = self.disk.state.lock();
        state.waiting += 1;
        self.disk.moved.notify_all();
        self.disk
            .moved
            .wait_while(&mut state, |state| state.stalled);
        state.waiting -= 1;
        drop(state);
        self.with(|state, at| {
            if state.failing_syncs > 0 {
                state.failing_syncs -= 1;
                let file = &mut state.files[at];
                let lost = std::mem::take(&mut file.unsynced);
                file.forgotten.extend(lost);
                return Err(io::Error::from_raw_os_error(5));
            }
            state.files[at].sync();
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|state, at| Ok(state.files[at].current.len() as u64))
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let size = usize::try_from(bytes).unwrap();
        self.with(|state, at| {
            if state.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = &mut state.files[at];
            let size = size.max(file.current.len());
            file.current.resize(size, 0);
            Ok(())
        })
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let size = usize::try_from(bytes).unwrap();
        self.with(|state, at| {
            let file = &mut state.files[at];
            file.current.resize(size, 0);
            file.cut = Some(file.cut.map_or(size, |cut| cut.min(size)));
            let end = size.div_ceil(BLOCK);
            file.unsynced.retain(|block| *block < end);
            Ok(())
        })
    }
}
