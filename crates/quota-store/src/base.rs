//! Bases: all rows in one checksummed file, written in the background from a scan that began after a known
//! batch was applied. Images of later batches repair what the scan met half-way.

use std::io;

use crate::disk::{Disk, DiskFile};
use crate::rows::{Row, Rows, RowsError};

const MAGIC: [u8; 8] = *b"QUOTABAS";
const VERSION: u8 = 1;
const ENDING: &str = ".base";
const UNFINISHED: &str = ".tmp";
const HEADER_BYTES: usize = 8 + 1 + 16 + 8;
const END: u32 = u32::MAX;
const BUFFER_BYTES: usize = 1 << 20;
/// Largest row, in bytes; more is damage.
const ROW_BYTES_MAX: usize = 64 << 20;
/// How many bases are kept.
pub const KEPT: usize = 2;

/// Why a base was not written or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The disk failed.
    #[error("base: {0}")]
    Io(#[from] io::Error),
    /// The rows failed.
    #[error("base: {0}")]
    Rows(#[from] RowsError),
    /// It is not whole.
    #[error("base {name} is damaged: {what}")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// A written base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// The batch that was applied before the scan began.
    pub sequence: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// All bases, oldest first. Only their names are looked at.
pub fn list(disk: &dyn Disk) -> io::Result<Vec<Base>> {
    let mut bases = Vec::new();
    for name in disk.list()? {
        let number = name.strip_suffix(ENDING).and_then(|n| n.parse().ok());
        if let Some(sequence) = number {
            let bytes = disk.open(&name)?.size()?;
            bases.push(Base { sequence, bytes });
        }
    }
    bases.sort_by_key(|base| base.sequence);
    Ok(bases)
}

/// Writes a base, reads it back, and removes all but the [`KEPT`] newest. Gives up when `stopping`.
pub fn write(
    disk: &dyn Disk,
    store_id: [u8; 16],
    rows: &dyn Rows,
    stopping: &dyn Fn() -> bool,
) -> Result<Base, BaseError> {
    let sequence = rows.applied();
    let name = name(sequence);
    let unfinished = format!("{name}{UNFINISHED}");
    if let Some(same) = list(disk)?
        .into_iter()
        .find(|base| base.sequence == sequence)
    {
        return Ok(same);
    }
    let written = write_whole(disk, store_id, rows, sequence, &unfinished, &name, stopping);
    if written.is_err() {
        // Half a base must neither fill the disk nor be counted.
        let _ = disk.remove(&unfinished);
        let _ = disk.remove(&name);
    }
    let bytes = written?;
    let bases = list(disk)?;
    for old in bases.iter().rev().skip(KEPT) {
        disk.remove(&self::name(old.sequence))?;
    }
    disk.sync_dir()?;
    Ok(Base { sequence, bytes })
}

/// Removes what an interrupted [`write`] left.
pub fn clean(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.list()? {
        if name.ends_with(UNFINISHED) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

fn write_whole(
    disk: &dyn Disk,
    store_id: [u8; 16],
    rows: &dyn Rows,
    sequence: u64,
    unfinished: &str,
    name: &str,
    stopping: &dyn Fn() -> bool,
) -> Result<u64, BaseError> {
    let mut writer = Writer::begin(disk.create(unfinished, 0)?, store_id, sequence);
    let mut failed = None;
    rows.scan(&[], &mut |row| {
        let written = match stopping() {
            true => Err(io::Error::other("the applier is stopping")),
            false => writer.row(&row),
        };
        written.map_err(|error| {
            let text = RowsError(error.to_string());
            failed = Some(error);
            text
        })
    })
    .map_err(|error| match failed.take() {
        Some(io) => BaseError::Io(io),
        None => BaseError::Rows(error),
    })?;
    let bytes = writer.finish()?;
    disk.rename(unfinished, name)?;
    disk.sync_dir()?;
    read(disk, store_id, sequence, &mut |_| Ok(()))?;
    Ok(bytes)
}

/// Shows every row of a base to `each`. What is shown counts only if this succeeds: the end has the
/// checksum of the whole.
pub fn read(
    disk: &dyn Disk,
    store_id: [u8; 16],
    sequence: u64,
    each: &mut dyn FnMut(Row) -> Result<(), RowsError>,
) -> Result<(), BaseError> {
    let mut reader = Reader::new(disk, name(sequence))?;
    let header = reader.take(HEADER_BYTES)?;
    if header != header_bytes(store_id, sequence) {
        return Err(reader.damaged("its header is another"));
    }
    let mut count: u64 = 0;
    loop {
        let key_bytes = reader.word()?;
        if key_bytes == END {
            break;
        }
        let value_bytes = reader.word()?;
        let row_sequence = reader.number()?;
        let key = reader.take(usize::try_from(key_bytes).unwrap_or(usize::MAX))?;
        let value = reader.take(usize::try_from(value_bytes).unwrap_or(usize::MAX))?;
        count = count.saturating_add(1);
        each(Row {
            key,
            value,
            sequence: row_sequence,
        })?;
    }
    if reader.number()? != count {
        return Err(reader.damaged("it has another number of rows"));
    }
    let expected = *reader.hasher.finalize().as_bytes();
    if reader.take(32)? != expected {
        return Err(reader.damaged("its checksum is another"));
    }
    match reader.is_at_end() {
        true => Ok(()),
        false => Err(reader.damaged("it goes on behind its end")),
    }
}

fn name(sequence: u64) -> String {
    format!("{sequence:020}{ENDING}")
}

fn header_bytes(store_id: [u8; 16], sequence: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend_from_slice(&store_id);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes
}

struct Writer {
    file: Box<dyn DiskFile>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    offset: u64,
    count: u64,
}

impl Writer {
    fn begin(file: Box<dyn DiskFile>, store_id: [u8; 16], sequence: u64) -> Self {
        let mut writer = Self {
            file,
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            offset: 0,
            count: 0,
        };
        writer.bytes(&header_bytes(store_id, sequence));
        writer
    }

    fn row(&mut self, row: &Row) -> io::Result<()> {
        let size = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map_err(|_| io::Error::other("a row of more than 4 GiB"))
        };
        let (key, value) = (size(&row.key)?, size(&row.value)?);
        self.bytes(&key.to_le_bytes());
        self.bytes(&value.to_le_bytes());
        self.bytes(&row.sequence.to_le_bytes());
        self.bytes(&row.key);
        self.bytes(&row.value);
        self.count = self.count.saturating_add(1);
        match self.buffer.len() >= BUFFER_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<u64> {
        self.bytes(&END.to_le_bytes());
        let count = self.count.to_le_bytes();
        self.bytes(&count);
        let checksum = *self.hasher.finalize().as_bytes();
        self.buffer.extend_from_slice(&checksum);
        self.flush()?;
        self.file.sync()?;
        Ok(self.offset)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.offset, &self.buffer)?;
        self.offset = self.offset.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}

struct Reader {
    file: Box<dyn DiskFile>,
    name: String,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    at: usize,
    offset: u64,
    size: u64,
}

impl Reader {
    fn new(disk: &dyn Disk, name: String) -> io::Result<Self> {
        let file = disk.open(&name)?;
        Ok(Self {
            size: file.size()?,
            file,
            name,
            hasher: blake3::Hasher::new(),
            buffer: Vec::new(),
            at: 0,
            offset: 0,
        })
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>, BaseError> {
        if bytes > ROW_BYTES_MAX {
            return Err(self.damaged("a row is too large"));
        }
        if self.buffer.len().saturating_sub(self.at) < bytes {
            self.buffer.drain(..self.at);
            self.at = 0;
            let have = self.buffer.len();
            // A length that is damaged must not cost more memory than the file has bytes.
            let left = usize::try_from(self.size.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            let most = have.saturating_add(left);
            if bytes > most {
                return Err(self.damaged("it ends early"));
            }
            self.buffer.resize(bytes.max(BUFFER_BYTES).min(most), 0);
            let rest = self.buffer.get_mut(have..).unwrap_or_default();
            let read = self.file.read_at(self.offset, rest)?;
            self.offset = self.offset.saturating_add(read as u64);
            self.buffer.truncate(have.saturating_add(read));
        }
        let end = self.at.saturating_add(bytes);
        let Some(taken) = self.buffer.get(self.at..end).map(<[u8]>::to_vec) else {
            return Err(self.damaged("it ends early"));
        };
        self.at = end;
        self.hasher.update(&taken);
        Ok(taken)
    }

    fn is_at_end(&self) -> bool {
        self.at == self.buffer.len() && self.offset >= self.size
    }

    fn word(&mut self) -> Result<u32, BaseError> {
        let bytes = self.take(4)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| self.damaged("it ends early"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn number(&mut self) -> Result<u64, BaseError> {
        let bytes = self.take(8)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| self.damaged("it ends early"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn damaged(&self, what: &'static str) -> BaseError {
        BaseError::Damaged {
            name: self.name.clone(),
            what,
        }
    }
}
