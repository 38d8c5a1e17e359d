//! The journal in files of our own, of which one at a time is written.
//!
//! A segment gets its name only when its header, and the batch that made it necessary, are durable. It is
//! in force for the sequences from its first one up to the first of the next segment; what an older segment
//! holds beyond that was abandoned after a failed flush and is ignored. So a failed flush is never trusted:
//! the batch is written again, whole, to a fresh segment, and that choice is made once.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::extent::{self, Extent};
use super::frame::{self, Hash};
use super::{AppendError, BODY_BYTES_MAX, Journal, JournalError, Reader, SEGMENT_BYTES_MAX};
use crate::disk::{Disk, DiskFile, read_whole};

const MAGIC: [u8; 8] = *b"QUOTAJNL";
const VERSION: u8 = 1;
/// The header has a block of its own, so that appending never rewrites it.
const HEADER_BYTES: usize = 4096;
const HEADER_FIELDS: usize = 8 + 1 + 16 + 8 + 8 + 32;
const ENDING: &str = ".seg";
const UNFINISHED: &str = ".tmp";

/// How segments are laid out.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOptions {
    /// Bytes of a segment; a larger batch gets a larger one.
    pub segment_bytes: u64,
    /// The store that the journal belongs to.
    pub store_id: [u8; 16],
}

/// The journal in a directory.
pub struct SegmentJournal {
    disk: Arc<dyn Disk>,
    options: SegmentOptions,
    segments: VecDeque<Segment>,
    active: Option<Active>,
    next: u64,
    previous: Hash,
    /// Batches before this one may be gone.
    first: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    ordinal: u64,
    first: u64,
    previous: Hash,
    bytes: u64,
}

/// The segment that is written to. There is none after a failure: the next append makes a fresh one.
struct Active {
    file: Box<dyn DiskFile>,
    offset: u64,
    bytes: u64,
}

impl Segment {
    fn name(&self) -> String {
        segment_name(self.ordinal)
    }
}

fn segment_name(ordinal: u64) -> String {
    format!("{ordinal:010}{ENDING}")
}

impl SegmentJournal {
    /// Opens the journal and settles its tail: the last batch, which perhaps only the page cache held, is
    /// written anew to a fresh segment before anything is built upon it.
    pub fn open(disk: Arc<dyn Disk>, options: SegmentOptions) -> Result<Self, JournalError> {
        let mut journal = Self {
            disk,
            options,
            segments: VecDeque::new(),
            active: None,
            next: 1,
            previous: [0; 32],
            first: 1,
        };
        for name in journal.sorted_names()? {
            let segment = journal.read_header(&name)?;
            journal.segments.push_back(segment);
        }
        if let Some(oldest) = journal.segments.front() {
            journal.next = oldest.first;
            journal.previous = oldest.previous;
        }
        journal.check_extent()?;
        let tail = journal.walk()?;
        journal.settle(tail)?;
        Ok(journal)
    }

    fn sorted_names(&self) -> Result<Vec<String>, JournalError> {
        let io = |error| JournalError::Io {
            file: "the journal's directory".into(),
            error,
        };
        let mut names = self.disk.list().map_err(io)?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            self.disk.remove(name).map_err(io)?;
        }
        names.retain(|name| name.ends_with(ENDING));
        names.sort();
        Ok(names)
    }

    /// Segments that went by accident are noticed.
    fn check_extent(&mut self) -> Result<(), JournalError> {
        let read = extent::read(&*self.disk).map_err(|error| {
            let file = "extent".into();
            match error.kind() {
                io::ErrorKind::InvalidData => JournalError::Damaged {
                    file,
                    offset: 0,
                    what: error.to_string(),
                },
                _ => JournalError::Io { file, error },
            }
        })?;
        let Some(extent) = read else {
            return Ok(());
        };
        self.first = extent.first;
        let missing = |what: String| JournalError::Damaged {
            file: "the journal".into(),
            offset: 0,
            what,
        };
        let newest = self.segments.back().map_or(0, |newest| newest.ordinal);
        if newest < extent.newest {
            let name = segment_name(extent.newest);
            return Err(missing(format!("its segment {name} is missing")));
        }
        if self.next > extent.first {
            let (first, next) = (extent.first, self.next);
            return Err(missing(format!(
                "batches {first} to before {next} are missing"
            )));
        }
        Ok(())
    }

    fn read_header(&self, name: &str) -> Result<Segment, JournalError> {
        let io = |error| JournalError::Io {
            file: name.into(),
            error,
        };
        let damaged = || JournalError::Damaged {
            file: name.into(),
            offset: 0,
            what: "its header is not one".into(),
        };
        let file = self.disk.open(name).map_err(io)?;
        let mut bytes = vec![0; HEADER_BYTES];
        file.read_at(0, &mut bytes).map_err(io)?;
        let fields = bytes.get(..HEADER_FIELDS).ok_or_else(damaged)?;
        let checksum = bytes
            .get(HEADER_FIELDS..HEADER_FIELDS.saturating_add(4))
            .ok_or_else(damaged)?;
        if fields.get(..8) != Some(&MAGIC) || crc32c::crc32c(fields).to_le_bytes() != *checksum {
            return Err(damaged());
        }
        let number = |at: usize| -> Option<u64> {
            let end = at.checked_add(8)?;
            Some(u64::from_le_bytes(fields.get(at..end)?.try_into().ok()?))
        };
        match fields.get(8) {
            Some(&VERSION) => {}
            found => {
                return Err(JournalError::Newer {
                    file: name.into(),
                    found: found.copied().unwrap_or_default(),
                    newest: VERSION,
                });
            }
        }
        if fields.get(9..25) != Some(&self.options.store_id) {
            return Err(JournalError::Foreign { file: name.into() });
        }
        let ordinal = number(25).ok_or_else(damaged)?;
        if segment_name(ordinal) != name {
            return Err(damaged());
        }
        Ok(Segment {
            ordinal,
            first: number(33).ok_or_else(damaged)?,
            previous: fields
                .get(41..73)
                .and_then(|hash| hash.try_into().ok())
                .ok_or_else(damaged)?,
            bytes: file.size().map_err(io)?,
        })
    }

    /// Checks every batch in force and says where the last segment ends.
    fn walk(&mut self) -> Result<Tail, JournalError> {
        let mut tail = Tail::default();
        for at in 0..self.segments.len() {
            let (bytes, name, limit) = self.read_segment(at)?;
            tail = Tail::default();
            let mut offset = HEADER_BYTES;
            while self.next < limit {
                let Some((header, body)) = frame::read(&bytes, offset) else {
                    break;
                };
                let damaged = |what: String| JournalError::Damaged {
                    file: name.clone(),
                    offset: offset as u64,
                    what,
                };
                if header.sequence != self.next {
                    let found = header.sequence;
                    return Err(damaged(format!(
                        "batch {found} where {} was due",
                        self.next
                    )));
                }
                if header.previous != self.previous {
                    return Err(damaged(format!(
                        "batch {} does not follow the one before it: the chain of hashes is broken",
                        self.next
                    )));
                }
                tail.last = Some((offset as u64, header.durable, body.to_vec()));
                tail.before_last = self.previous;
                self.previous = frame::hash(&self.previous, self.next, body);
                self.next = self.next.saturating_add(1);
                offset = offset.saturating_add(frame::padded(header.body_bytes));
            }
            if limit == u64::MAX && frame::is_cut_off(&bytes, offset) {
                return Err(JournalError::Damaged {
                    file: name,
                    offset: offset as u64,
                    what: format!("the file ends within batch {}", self.next),
                });
            }
            let lost = match limit {
                u64::MAX => frame::proof_of_damage(&bytes, offset, self.next).is_some(),
                limit => self.next < limit,
            };
            if lost {
                return Err(JournalError::Damaged {
                    file: name,
                    offset: offset as u64,
                    what: format!(
                        "batch {} was acknowledged and cannot be read; later ones can",
                        self.next
                    ),
                });
            }
        }
        Ok(tail)
    }

    fn read_segment(&self, at: usize) -> Result<(Vec<u8>, String, u64), JournalError> {
        let segment = self.segments.get(at).expect("within the segments");
        let limit = self
            .segments
            .get(at.saturating_add(1))
            .map_or(u64::MAX, |next| next.first);
        let name = segment.name();
        let most = SEGMENT_BYTES_MAX.saturating_mul(2);
        let read = || read_whole(&*self.disk.open(&name)?, most);
        match read() {
            Ok(bytes) => Ok((bytes, name, limit)),
            Err(error) => Err(JournalError::Io { file: name, error }),
        }
    }

    /// C11.3: a last batch that perhaps only the page cache held is written anew, synced, and what is
    /// ignored from then on is removed. The first batch of a segment was durable before the segment had its
    /// name and needs nothing.
    fn settle(&mut self, tail: Tail) -> Result<(), JournalError> {
        let Some(old) = self.segments.back().cloned() else {
            return Ok(());
        };
        let Some((cut, durable, body)) = tail.last else {
            return Err(JournalError::Damaged {
                file: old.name(),
                offset: HEADER_BYTES as u64,
                what: format!("batch {}, its first, cannot be read", old.first),
            });
        };
        let io = |error| JournalError::Io {
            file: old.name(),
            error,
        };
        if cut == HEADER_BYTES as u64 {
            let end = cut.saturating_add(frame::padded(body.len()) as u64);
            self.active = Some(self.adopt(&old, end).map_err(io)?);
            return Ok(());
        }
        let sequence = self.next.saturating_sub(1);
        self.previous = tail.before_last;
        self.fresh_segment(sequence, durable, &body).map_err(io)?;
        self.appended(sequence, &body);
        let mut file = self.disk.open(&old.name()).map_err(io)?;
        file.truncate(cut).map_err(io)?;
        file.sync().map_err(io)?;
        if let Some(segment) = self.segments.iter_mut().find(|s| s.ordinal == old.ordinal) {
            segment.bytes = cut;
        }
        Ok(())
    }

    /// Goes on in a segment whose only batch is durable; what stands behind it is removed, synced.
    fn adopt(&mut self, segment: &Segment, end: u64) -> io::Result<Active> {
        let mut file = self.disk.open(&segment.name())?;
        let bytes = self.options.segment_bytes.max(end);
        file.truncate(end)?;
        file.reserve(bytes)?;
        file.sync()?;
        if let Some(last) = self.segments.back_mut() {
            last.bytes = bytes;
        }
        Ok(Active {
            file,
            offset: end,
            bytes,
        })
    }

    /// Makes a segment that begins with this batch. It counts from the moment its name is durable.
    fn fresh_segment(&mut self, sequence: u64, durable: u64, body: &[u8]) -> io::Result<()> {
        let ordinal = self
            .segments
            .back()
            .map_or(1, |last| last.ordinal.saturating_add(1));
        let frame = frame::write(sequence, durable, &self.previous, body);
        let offset = (HEADER_BYTES as u64).saturating_add(frame.len() as u64);
        let bytes = self.options.segment_bytes.max(offset);
        let name = segment_name(ordinal);
        let unfinished = format!("{name}{UNFINISHED}");

        let make = || {
            let mut file = self.disk.create(&unfinished, bytes)?;
            file.write_at(0, &self.header(ordinal, sequence))?;
            file.write_at(HEADER_BYTES as u64, &frame)?;
            file.sync()?;
            self.disk.rename(&unfinished, &name)?;
            self.disk.sync_dir()?;
            Ok(file)
        };
        let made: io::Result<Box<dyn DiskFile>> = make();
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // Under either name it would stand in the way of the next try, which has the same batch.
                let _ = self.disk.remove(&unfinished);
                let _ = self.disk.remove(&name);
                return Err(error);
            }
        };
        self.segments.push_back(Segment {
            ordinal,
            first: sequence,
            previous: self.previous,
            bytes,
        });
        self.active = Some(Active {
            file,
            offset,
            bytes,
        });
        // The segment counts with or without it; what fails here is only noticed less.
        let first = self.first;
        let _ = extent::write(
            &*self.disk,
            Extent {
                first,
                newest: ordinal,
            },
        );
        Ok(())
    }

    fn header(&self, ordinal: u64, first: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.options.store_id);
        bytes.extend_from_slice(&ordinal.to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&self.previous);
        debug_assert_eq!(bytes.len(), HEADER_FIELDS);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// Removes the oldest segment; known as long as that is not certain. Synced one by one: a gap in the
    /// middle would be taken for damage.
    fn remove_oldest(&mut self, name: &str, first: u64) -> io::Result<()> {
        let newest = self.segments.back().map_or(0, |newest| newest.ordinal);
        extent::write(&*self.disk, Extent { first, newest })?;
        self.first = first;
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.sync_dir()
    }

    fn appended(&mut self, sequence: u64, body: &[u8]) {
        self.previous = frame::hash(&self.previous, sequence, body);
        self.next = sequence.saturating_add(1);
    }
}

/// Where the last segment ends.
#[derive(Default)]
struct Tail {
    /// Offset, the sequence stated durable, and body of its last batch.
    last: Option<(u64, u64, Vec<u8>)>,
    before_last: Hash,
}

impl Journal for SegmentJournal {
    fn next_sequence(&self) -> u64 {
        self.next
    }

    fn first_sequence(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.next, |oldest| oldest.first)
    }

    fn append(&mut self, sequence: u64, body: &[u8]) -> Result<(), AppendError> {
        if sequence != self.next {
            return Err(AppendError::Fenced { actual: self.next });
        }
        if body.len() > BODY_BYTES_MAX {
            let text = format!("a batch of {} bytes; at most {BODY_BYTES_MAX}", body.len());
            return Err(AppendError::Unknown(io::Error::other(text)));
        }
        let durable = sequence.saturating_sub(1);
        let frame = frame::write(sequence, durable, &self.previous, body);
        let room =
            |active: &Active| active.offset.saturating_add(frame.len() as u64) <= active.bytes;
        let appended = match self.active.as_mut().filter(|active| room(active)) {
            Some(active) => active
                .file
                .write_at(active.offset, &frame)
                .and_then(|()| active.file.sync())
                .map(|()| active.offset = active.offset.saturating_add(frame.len() as u64)),
            None => self.fresh_segment(sequence, durable, body),
        };
        match appended {
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

    fn read_from(&self, sequence: u64, each: &mut Reader<'_>) -> Result<(), JournalError> {
        for (at, segment) in self.segments.iter().enumerate() {
            let following = self.segments.get(at.saturating_add(1));
            if following.is_some_and(|next| next.first <= sequence) {
                continue;
            }
            let (bytes, file, limit) = self.read_segment(at)?;
            let mut offset = HEADER_BYTES;
            for due in segment.first..limit.min(self.next) {
                let Some((header, body)) = frame::read(&bytes, offset) else {
                    let offset = offset as u64;
                    let what = format!("batch {due} cannot be read");
                    return Err(JournalError::Damaged { file, offset, what });
                };
                if due >= sequence {
                    each(due, body)?;
                }
                offset = offset.saturating_add(frame::padded(header.body_bytes));
            }
        }
        Ok(())
    }

    fn trim(&mut self, sequence: u64) -> Result<u64, JournalError> {
        let mut given_back: u64 = 0;
        while let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) {
            if next.first > sequence {
                break;
            }
            let (file, first, bytes) = (oldest.name(), next.first, oldest.bytes);
            self.remove_oldest(&file, first)
                .map_err(|error| JournalError::Io { file, error })?;
            self.segments.pop_front();
            given_back = given_back.saturating_add(bytes);
        }
        Ok(given_back)
    }

    fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}
