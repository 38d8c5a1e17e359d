//! How far the journal was trimmed: written before a segment goes, so that one that went by accident is
//! noticed instead of taking its answers with it.

use std::io;

use crate::disk::{Disk, read_whole};

const NAME: &str = "trimmed";
const UNFINISHED: &str = "trimmed.tmp";
const MAGIC: [u8; 8] = *b"QUOTATRM";
const BYTES: u64 = 20;

/// The first batch that may be expected; 1 where nothing was trimmed.
pub(super) fn read(disk: &dyn Disk) -> io::Result<u64> {
    if !disk.list()?.iter().any(|name| name == NAME) {
        return Ok(1);
    }
    let bytes = read_whole(&*disk.open(NAME)?, BYTES)?;
    let number = || -> Option<u64> {
        let (fields, checksum) = bytes.split_at_checked(16)?;
        let (magic, number) = fields.split_at_checked(8)?;
        let whole = magic == MAGIC && checksum == crc32c::crc32c(fields).to_le_bytes();
        whole.then(|| Some(u64::from_le_bytes(number.try_into().ok()?)))?
    };
    number().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its checksum is another"))
}

/// Says that batches before `first` may be gone.
pub(super) fn write(disk: &dyn Disk, first: u64) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let mut file = disk.create(UNFINISHED, 0)?;
    file.write_at(0, &bytes)?;
    file.sync()?;
    disk.rename(UNFINISHED, NAME)?;
    disk.sync_dir()
}
