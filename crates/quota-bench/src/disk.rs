//! The other baseline: append and fdatasync of a buffer to a file on the same disk, into space that is reserved
//! as the journal reserves it. A file that grows is slower.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::Failure;

/// What one command leaves in the journal, about.
pub(crate) const COMMAND_BYTES: usize = 512;
/// What a group of 64 commands leaves in the journal, about.
pub(crate) const GROUP_BYTES: usize = 64 * COMMAND_BYTES;

/// What is reserved at first.
const RESERVED_BYTES: u64 = 64 << 20;

/// Appends of one round, in nanoseconds.
pub(crate) type Appends = Histogram<u64>;

/// Appends for a while.
pub(crate) fn append(directory: &Path, bytes: usize, length: Duration) -> Result<Appends, Failure> {
    let path = directory.join("appended");
    let mut file = File::create(&path)?;
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        RESERVED_BYTES,
    )?;
    file.sync_all()?;
    let buffer = vec![0x5a; bytes];
    let mut times = Histogram::new(3)?;
    let until = Instant::now() + length;
    while Instant::now() < until {
        let began = Instant::now();
        file.write_all(&buffer)?;
        file.sync_data()?;
        times.record(u64::try_from(began.elapsed().as_nanos())?)?;
    }
    std::fs::remove_file(path)?;
    Ok(times)
}
