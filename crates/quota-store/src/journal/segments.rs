//! The journal in files of our own, of which one at a time is written.
//!
//! A segment gets its name only when its header, and the batch that made it necessary, are durable. It is
//! in force for the sequences from its first one up to the first of the next segment; what an older segment
//! holds beyond that was abandoned after a failed flush and is ignored. So a failed flush is never trusted:
//! the batch is written again, whole, to a fresh segment, and that choice is made once.

mod cursor;
mod header;
mod opening;
mod shared;

use std::io;
use std::sync::Arc;

use super::extent::{self, Extent};
use super::frame;
use super::reader::JournalReader;
use super::{AppendError, BODY_BYTES_MAX, Hash, Journal, JournalError};
use crate::disk::DiskFile;
use cursor::SegmentReader;
use header::{HEADER_BYTES, Segment};
use shared::Shared;

const ENDING: &str = ".seg";
const UNFINISHED: &str = ".tmp";
/// Largest room for a frame that is kept for the next.
const FRAME_KEPT_BYTES: usize = 4 << 20;

/// How segments are laid out.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOptions {
    /// Bytes of a segment; a larger batch gets a larger one.
    pub segment_bytes: u64,
    /// The store that the journal belongs to.
    pub store_id: [u8; 16],
    /// Walk every segment at the start, not only the last; others are checked when they are read.
    pub whole: bool,
}

/// The journal in a directory.
pub struct SegmentJournal {
    shared: Arc<Shared>,
    options: SegmentOptions,
    active: Option<Active>,
    next: u64,
    previous: Hash,
    /// Batches before this one may be gone.
    first: u64,
    /// Room for the next frame: pages that are given back are cleared before they come again.
    frame: Vec<u8>,
    /// The batch in there whose hash is not made yet: its sequence, and the bytes of its body.
    unhashed: Option<(u64, usize)>,
}

/// The segment that is written to. There is none after a failure: the next append makes a fresh one.
struct Active {
    file: Box<dyn DiskFile>,
    offset: u64,
    bytes: u64,
}

impl SegmentJournal {
    /// Makes a segment that begins with this batch. It counts from the moment its name is durable.
    fn fresh_segment(&mut self, sequence: u64, frame: &[u8]) -> io::Result<()> {
        let offset = (HEADER_BYTES as u64).saturating_add(frame.len() as u64);
        let bytes = self.options.segment_bytes.max(offset);
        let segment = Segment {
            ordinal: self.newest().saturating_add(1),
            first: sequence,
            previous: self.previous,
            bytes,
        };
        let name = segment.name();
        let unfinished = format!("{name}{UNFINISHED}");
        let disk = self.shared.disk.clone();

        let make = || {
            let mut file = disk.create(&unfinished, bytes)?;
            file.write_at(0, &header::write(&self.options, &segment))?;
            file.write_at(HEADER_BYTES as u64, frame)?;
            file.sync()?;
            disk.rename(&unfinished, &name)?;
            disk.sync_dir()?;
            Ok(file)
        };
        let made: io::Result<Box<dyn DiskFile>> = make();
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // Under either name it would stand in the way of the next try, which has the same batch.
                let _ = disk.remove(&unfinished);
                let _ = disk.remove(&name);
                return Err(error);
            }
        };
        let newest = segment.ordinal;
        self.shared.segments.write().push_back(segment);
        self.active = Some(Active {
            file,
            offset,
            bytes,
        });
        // The segment counts with or without it; what fails here is only noticed less.
        let first = self.first;
        let _ = extent::write(&*disk, Extent { first, newest });
        Ok(())
    }

    /// Ordinal of the newest segment; 0 where there is none.
    fn newest(&self) -> u64 {
        let segments = self.shared.segments.read();
        segments.back().map_or(0, |newest| newest.ordinal)
    }

    /// The oldest segment, where another one follows it, and the first batch of that.
    fn oldest(&self) -> Option<(Segment, u64)> {
        let segments = self.shared.segments.read();
        Some((segments.front()?.clone(), segments.get(1)?.first))
    }

    /// Removes the oldest segment; known as long as that is not certain. Synced one by one: a gap in the
    /// middle would be taken for damage.
    fn remove_oldest(&mut self, name: &str, first: u64) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let newest = self.newest();
        extent::write(disk, Extent { first, newest })?;
        self.first = first;
        // Before the file goes: a reader that does not find it looks here.
        self.shared.trim(first);
        match disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        disk.sync_dir()
    }

    fn appended(&mut self, sequence: u64, body: &[u8]) {
        self.previous = frame::hash(&self.previous, sequence, body);
        self.published(sequence);
    }

    fn published(&mut self, sequence: u64) {
        self.next = sequence.saturating_add(1);
        self.shared.durable.publish(self.next);
    }
}

impl Journal for SegmentJournal {
    fn next_sequence(&self) -> u64 {
        self.next
    }

    fn first_sequence(&self) -> u64 {
        let segments = self.shared.segments.read();
        segments.front().map_or(self.next, |oldest| oldest.first)
    }

    fn append(&mut self, sequence: u64, body: &[u8]) -> Result<(), AppendError> {
        if sequence != self.next {
            return Err(AppendError::Fenced { actual: self.next });
        }
        if body.len() > BODY_BYTES_MAX {
            let text = format!("a batch of {} bytes; at most {BODY_BYTES_MAX}", body.len());
            return Err(AppendError::Unknown(io::Error::other(text)));
        }
        self.catch_up();
        let durable = sequence.saturating_sub(1);
        let mut frame = std::mem::take(&mut self.frame);
        frame::write(sequence, durable, &self.previous, body, &mut frame);
        let room =
            |active: &Active| active.offset.saturating_add(frame.len() as u64) <= active.bytes;
        let appended = match self.active.as_mut().filter(|active| room(active)) {
            Some(active) => active
                .file
                .write_at(active.offset, &frame)
                .and_then(|()| active.file.sync())
                .map(|()| active.offset = active.offset.saturating_add(frame.len() as u64)),
            None => self.fresh_segment(sequence, &frame),
        };
        let kept = frame.capacity() <= FRAME_KEPT_BYTES;
        if kept {
            self.frame = frame;
        }
        match appended {
            Ok(()) if kept => {
                self.unhashed = Some((sequence, body.len()));
                self.published(sequence);
                Ok(())
            }
            Ok(()) => {
                self.appended(sequence, body);
                Ok(())
            }
            Err(error) => {
                self.active = None;
                Err(AppendError::Unknown(error))
            }
        }
    }

    fn catch_up(&mut self) {
        let Some((sequence, bytes)) = self.unhashed.take() else {
            return;
        };
        let body = frame::body(&self.frame, bytes);
        self.previous = frame::hash(&self.previous, sequence, body);
    }

    fn reader(&self) -> Arc<dyn JournalReader> {
        Arc::new(SegmentReader(self.shared.clone()))
    }

    fn trim(&mut self, sequence: u64, bytes_kept: u64) -> Result<u64, JournalError> {
        let mut given_back: u64 = 0;
        while let Some((oldest, first)) = self.oldest() {
            if first > sequence || self.size_bytes() <= bytes_kept {
                break;
            }
            let file = oldest.name();
            self.remove_oldest(&file, first)
                .map_err(|error| JournalError::io(&file, error))?;
            self.shared.segments.write().pop_front();
            given_back = given_back.saturating_add(oldest.bytes);
        }
        Ok(given_back)
    }

    fn size_bytes(&self) -> u64 {
        let segments = self.shared.segments.read();
        segments.iter().map(|segment| segment.bytes).sum()
    }
}
