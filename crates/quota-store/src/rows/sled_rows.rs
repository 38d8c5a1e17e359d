//! Rows in sled 0.34, with what its source and tracker say taken into account.
//!
//! - `flush()` ends in `sync_file_range`: the database file is fdatasynced after it, by us.
//! - Values above a page go to blob files that are never synced: bigger ones are split.
//! - A kill while the start-up snapshot is written leaves a file that is later taken for damage: removed.
//! - It can panic on I/O errors: every call is contained. After one it fails for ever: it is opened again.
//! - After damage it may go on with older values: the applied position stands in a file of its own as well,
//!   and rows that do not reach it are rebuilt.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::{Row, RowChange, Rows, RowsError};

const CACHE_BYTES: u64 = 64 << 20;
/// Largest part of a value: sled writes larger ones to files that it never syncs.
const PART_BYTES: usize = 8 << 10;
/// Stands between a key and the number of a further part; no key has it.
const PART_MARK: u8 = 0;
/// How long a lock that is about to go is waited for: five seconds in all.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(25);
const APPLIED_KEY: &[u8] = b"\x01applied";
const APPLIED_FILE: &str = "applied";
const APPLIED_MAGIC: [u8; 8] = *b"QUOTAPPL";

/// Rows in a directory.
pub struct SledRows {
    /// Absent after a failure, until the next write opens it again.
    db: RwLock<Option<sled::Db>>,
    directory: PathBuf,
    cache_bytes: u64,
    applied: AtomicU64,
}

impl SledRows {
    /// Opens the rows at `directory`, made where it is missing. Fails where they cannot be used; the
    /// caller then removes the directory and rebuilds.
    pub fn open(directory: &Path) -> Result<Self, RowsError> {
        Self::open_with(directory, CACHE_BYTES)
    }

    /// The same with so many bytes of memory for what was read and written last.
    pub fn open_with(directory: &Path, cache_bytes: u64) -> Result<Self, RowsError> {
        contained(|| {
            let (db, applied) = open_db(directory, cache_bytes)?;
            Ok(Self {
                db: RwLock::new(Some(db)),
                cache_bytes,
                directory: directory.to_owned(),
                applied: AtomicU64::new(applied),
            })
        })
    }

    /// Opens the database again where a failure closed it.
    fn reopen(&self) -> Result<(), RowsError> {
        let mut place = self.db.write();
        if place.is_none() {
            let (db, _) = open_db(&self.directory, self.cache_bytes)?;
            *place = Some(db);
        }
        Ok(())
    }

    /// Works on the open database; a failure closes it.
    fn with<T>(
        &self,
        work: impl FnOnce(&sled::Db) -> Result<T, RowsError>,
    ) -> Result<T, RowsError> {
        let done = contained(|| match &*self.db.read() {
            Some(db) => work(db),
            None => Err(RowsError("the row store is closed after a failure".into())),
        });
        if done.is_err() {
            let closed = self.db.write().take();
            let _ = contained(|| {
                drop(closed);
                Ok(())
            });
        }
        done
    }
}

/// sled's own threads may hold its lock for a moment after its last handle was dropped.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, RowsError> {
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(error) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCK_WAIT);
            }
            other => return Ok(other?),
        }
    }
    Ok(config.open()?)
}

/// Opens the database of a directory; answers it and the applied position.
fn open_db(directory: &Path, cache_bytes: u64) -> Result<(sled::Db, u64), RowsError> {
    let data = directory.join("sled");
    fs::create_dir_all(&data)?;
    for entry in fs::read_dir(&data)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|ending| ending == "generating")
        {
            fs::remove_file(path)?;
        }
    }
    let config = sled::Config::default()
        .path(&data)
        .cache_capacity(cache_bytes)
        .flush_every_ms(None);
    let db = open_unlocked(&config)?;
    let written = match db.get(APPLIED_KEY)? {
        Some(bytes) => number(&bytes).unwrap_or(0),
        None => 0,
    };
    let synced = read_applied(&directory.join(APPLIED_FILE))?;
    if written < synced {
        return Err(RowsError(format!(
            "they end at batch {written} and were synced up to {synced}"
        )));
    }
    Ok((db, synced))
}

fn write_row(db: &sled::Db, change: &RowChange) -> Result<(), RowsError> {
    let parts: Vec<&[u8]> = match &change.value {
        Some(value) if value.is_empty() => vec![&[]],
        Some(value) => value.chunks(PART_BYTES).collect(),
        None => Vec::new(),
    };
    let count = u16::try_from(parts.len())
        .map_err(|_| RowsError("a row of more than 65,535 parts".into()))?;
    let mut before = None;
    for (at, part) in (0_u16..).zip(&parts) {
        let mut value = Vec::with_capacity(part.len().saturating_add(10));
        value.extend_from_slice(&change.sequence.to_le_bytes());
        value.extend_from_slice(&count.to_le_bytes());
        value.extend_from_slice(part);
        let old = db.insert(part_key(&change.key, at), value)?;
        before = before.or(old.as_deref().and_then(part_count));
    }
    if count == 0 {
        let old = db.remove(&change.key)?;
        before = old.as_deref().and_then(part_count);
    }
    for stale in count.max(1)..before.unwrap_or(0) {
        db.remove(part_key(&change.key, stale))?;
    }
    Ok(())
}

impl Rows for SledRows {
    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn put(&self, changes: &[RowChange], applied: u64) -> Result<(), RowsError> {
        contained(|| self.reopen())?;
        self.with(|db| {
            for change in changes {
                write_row(db, change)?;
            }
            db.insert(APPLIED_KEY, &applied.to_le_bytes())?;
            db.flush()?;
            File::open(self.directory.join("sled").join("db"))?.sync_data()?;
            write_applied(&self.directory, applied)?;
            self.applied.store(applied, Ordering::Release);
            Ok(())
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.with(|db| {
            let Some(first) = db.get(key)? else {
                return Ok(None);
            };
            let mut whole = Assembly::begin(key, &first)?;
            for at in 1..whole.parts {
                let part = db.get(part_key(key, at))?;
                let part = part.ok_or_else(|| whole.torn())?;
                whole.add(&part)?;
            }
            whole.finish().map(Some)
        })
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(Row) -> Result<ControlFlow<()>, RowsError>,
    ) -> Result<(), RowsError> {
        // Whoever looks may stop for a reason of its own; that is no failure of the rows.
        let mut stopped = None;
        self.with(|db| {
            let mut show = |whole: Assembly| -> Result<bool, RowsError> {
                match each(whole.finish()?) {
                    Ok(flow) => Ok(flow.is_continue()),
                    Err(why) => {
                        stopped = Some(why);
                        Ok(false)
                    }
                }
            };
            let mut open: Option<Assembly> = None;
            for entry in db.range(from.max(prefix)..) {
                let (key, value) = entry?;
                if !key.starts_with(prefix) {
                    break;
                }
                if *key == *APPLIED_KEY {
                    continue;
                }
                match &mut open {
                    Some(whole) if key.contains(&PART_MARK) => whole.add(&value)?,
                    _ => {
                        if let Some(whole) = open.take()
                            && !show(whole)?
                        {
                            return Ok(());
                        }
                        open = Some(Assembly::begin(&key, &value)?);
                    }
                }
            }
            if let Some(whole) = open {
                show(whole)?;
            }
            Ok(())
        })?;
        stopped.map_or(Ok(()), Err)
    }

    fn clear(&self) -> Result<(), RowsError> {
        contained(|| self.reopen())?;
        self.with(|db| {
            self.applied.store(0, Ordering::Release);
            write_applied(&self.directory, 0)?;
            db.clear()?;
            db.flush()?;
            Ok(())
        })
    }
}

/// A value on its way from its parts.
struct Assembly {
    row: Row,
    parts: u16,
    seen: u16,
}

impl Assembly {
    fn begin(key: &[u8], bytes: &[u8]) -> Result<Self, RowsError> {
        let mut assembly = Self {
            row: Row {
                key: key.to_vec(),
                value: Vec::new(),
                sequence: number(bytes).unwrap_or(0),
            },
            parts: 0,
            seen: 0,
        };
        assembly.parts = part_count(bytes).ok_or_else(|| assembly.torn())?;
        assembly.add(bytes)?;
        Ok(assembly)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), RowsError> {
        let part = bytes.get(10..).ok_or_else(|| self.torn())?;
        if number(bytes) != Some(self.row.sequence) {
            return Err(self.torn());
        }
        self.row.value.extend_from_slice(part);
        self.seen = self.seen.saturating_add(1);
        Ok(())
    }

    fn finish(self) -> Result<Row, RowsError> {
        match self.seen == self.parts {
            true => Ok(self.row),
            false => Err(self.torn()),
        }
    }

    fn torn(&self) -> RowsError {
        let key = String::from_utf8_lossy(&self.row.key);
        RowsError(format!("the row {key} is not whole"))
    }
}

fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    let mut bytes = key.to_vec();
    if part > 0 {
        bytes.push(PART_MARK);
        bytes.extend_from_slice(&part.to_be_bytes());
    }
    bytes
}

fn part_count(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?))
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

fn read_applied(path: &Path) -> Result<u64, RowsError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let whole = bytes.len() == 20 && bytes.get(..8) == Some(&APPLIED_MAGIC);
    let applied = bytes.get(8..16).and_then(number);
    let checksum = bytes
        .get(..16)
        .map(|fields| crc32c::crc32c(fields).to_le_bytes());
    match (whole, applied) {
        (true, Some(applied)) if bytes.get(16..) == checksum.as_ref().map(|c| &c[..]) => {
            Ok(applied)
        }
        _ => Err(RowsError("the applied position is damaged".into())),
    }
}

fn write_applied(directory: &Path, applied: u64) -> io::Result<()> {
    let mut bytes = APPLIED_MAGIC.to_vec();
    bytes.extend_from_slice(&applied.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let unfinished = directory.join("applied.tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&unfinished, directory.join(APPLIED_FILE))?;
    File::open(directory)?.sync_all()
}

/// Keeps sled's panics from taking the thread with them.
fn contained<T>(work: impl FnOnce() -> Result<T, RowsError>) -> Result<T, RowsError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(RowsError("the row store panicked".into())))
}

impl From<sled::Error> for RowsError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for RowsError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cut and every flipped bit of the file is noticed.
    #[test]
    fn a_damaged_position_is_no_position() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(APPLIED_FILE);
        write_applied(directory.path(), 77).unwrap();
        assert_eq!(read_applied(&path).unwrap(), 77);
        let whole = fs::read(&path).unwrap();
        let cut = (0..whole.len()).map(|end| whole[..end].to_vec());
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for bytes in cut.chain(flipped).chain([[&whole[..], b"x"].concat()]) {
            fs::write(&path, &bytes).unwrap();
            assert!(read_applied(&path).is_err(), "{bytes:?}");
        }
    }

    /// Parts that are too short, of another batch, too many or too few are no row.
    #[test]
    fn parts_that_do_not_fit_are_no_row() {
        let part = |sequence: u64, count: u16| {
            [&sequence.to_le_bytes()[..], &count.to_le_bytes(), b"v"].concat()
        };
        for length in 0..10 {
            assert!(Assembly::begin(b"k", &part(1, 1)[..length]).is_err());
        }
        let whole = Assembly::begin(b"k", &part(1, 1)).unwrap();
        assert_eq!(whole.finish().unwrap().value, b"v");
        for count in [0, 2, u16::MAX] {
            assert!(
                Assembly::begin(b"k", &part(1, count))
                    .unwrap()
                    .finish()
                    .is_err()
            );
        }
        let mut torn = Assembly::begin(b"k", &part(1, 2)).unwrap();
        assert!(torn.add(&part(2, 2)).is_err() && torn.add(b"").is_err());
        torn.add(&part(1, 2)).unwrap();
        torn.add(&part(1, 2)).unwrap();
        assert!(torn.finish().is_err());
    }
}
