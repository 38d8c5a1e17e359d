//! Reading segments while one of them is written.
//!
//! What is read is asked for by its sequence, and only below the sequence that the writer published: so what an
//! older segment holds beyond its limit, a batch under way and one whose flush failed are never looked at.

use std::io;
use std::sync::Arc;

use super::header::{HEADER_BYTES, Segment};
use super::shared::Shared;
use crate::disk::DiskFile;
use crate::journal::frame::{self, Header};
use crate::journal::reader::{Cursor, IsBefore, JournalReader, KeptBatch, Listener};
use crate::journal::{BODY_BYTES_MAX, Hash, JournalError};

/// Bytes read at once while catching up.
const READ_AHEAD_BYTES: usize = 256 << 10;
/// Bytes read first after the writer went on: mostly one batch is new, and seldom a large one.
const READ_FIRST_BYTES: usize = 16 << 10;

pub(super) struct SegmentReader(pub(super) Arc<Shared>);

impl JournalReader for SegmentReader {
    fn first_sequence(&self) -> u64 {
        self.0.first()
    }

    fn next_sequence(&self) -> u64 {
        self.0.durable.next()
    }

    fn cursor(&self, sequence: u64) -> Result<Box<dyn Cursor>, JournalError> {
        self.0.check_kept(sequence)?;
        let mut cursor = SegmentCursor {
            shared: self.0.clone(),
            sequence,
            previous: None,
            place: None,
            known: 0,
        };
        cursor.locate()?;
        Ok(Box::new(cursor))
    }

    fn seek(&self, is_before: &mut IsBefore<'_>) -> Result<Box<dyn Cursor>, JournalError> {
        loop {
            match self.seek_once(is_before) {
                // A trim took what was looked at: less is left to look at.
                Err(JournalError::Trimmed { .. }) => {}
                found => return found,
            }
        }
    }

    fn on_durable(&self, listener: Listener) {
        self.0.durable.listen(listener);
    }
}

impl SegmentReader {
    fn seek_once(&self, is_before: &mut IsBefore<'_>) -> Result<Box<dyn Cursor>, JournalError> {
        let firsts = self.0.firsts();
        let (mut low, mut high) = (0, firsts.len());
        while low < high {
            let middle = low.midpoint(high);
            let sequence = *firsts.get(middle).expect("within the segments");
            let first = self.cursor(sequence)?.next()?;
            let before = first.map(|batch| is_before(sequence, &batch.body));
            match before.transpose()?.unwrap_or(false) {
                true => low = middle.saturating_add(1),
                false => high = middle,
            }
        }
        let found = firsts.get(low.saturating_sub(1)).copied();
        self.cursor(found.unwrap_or_else(|| self.0.durable.next()))
    }
}

struct SegmentCursor {
    shared: Arc<Shared>,
    sequence: u64,
    /// The hash of the batch before, where it was read.
    previous: Option<Hash>,
    place: Option<Place>,
    /// Batches before this one are durable and, from the cursor's on, in the segment of its place.
    known: u64,
}

/// Where a cursor is in a segment.
struct Place {
    segment: Segment,
    name: String,
    file: Box<dyn DiskFile>,
    offset: u64,
    window: Window,
}

impl Cursor for SegmentCursor {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn next(&mut self) -> Result<Option<KeptBatch>, JournalError> {
        if self.sequence >= self.known && !self.locate()? {
            return Ok(None);
        }
        let sequence = self.sequence;
        let place = self.place.as_mut().expect("located");
        let Some((header, body)) = place.frame()? else {
            let what = format!("batch {sequence} was acknowledged and cannot be read");
            return Err(place.damaged(what));
        };
        if header.sequence != sequence {
            let what = format!("batch {} where {sequence} was due", header.sequence);
            return Err(place.damaged(what));
        }
        if self
            .previous
            .is_some_and(|before| before != header.previous)
        {
            return Err(place.damaged(format!(
                "batch {sequence} does not follow the one before it: the chain of hashes is broken"
            )));
        }
        let hash = frame::hash(&header.previous, sequence, &body);
        place.pass(header.body_bytes);
        self.previous = Some(hash);
        self.sequence = sequence.saturating_add(1);
        Ok(Some(KeptBatch {
            sequence,
            body,
            previous: header.previous,
            hash,
        }))
    }
}

impl SegmentCursor {
    /// Finds the segment of the next batch and goes there; false where that is not durable yet.
    fn locate(&mut self) -> Result<bool, JournalError> {
        let durable = self.shared.durable.next();
        if self.sequence >= durable {
            return Ok(false);
        }
        let (segment, limit) = self.shared.find(self.sequence)?;
        match &mut self.place {
            // What was read ahead may be older than what became durable since.
            Some(place) if place.segment.ordinal == segment.ordinal => place.window.clear(),
            _ => self.enter(segment)?,
        }
        self.known = durable.min(limit);
        Ok(true)
    }

    fn enter(&mut self, segment: Segment) -> Result<(), JournalError> {
        let mut place = match Place::open(&self.shared, segment) {
            Ok(place) => place,
            Err(error) => {
                self.shared.check_kept(self.sequence)?;
                return Err(error);
            }
        };
        let first = place.segment.first;
        if first == self.sequence {
            let stated = place.segment.previous;
            if self.previous.is_some_and(|before| before != stated) {
                return Err(place.damaged(format!(
                    "it does not follow batch {}: the chain of hashes is broken",
                    first.saturating_sub(1)
                )));
            }
            self.previous = Some(stated);
        }
        for passed in first..self.sequence {
            place.hop(passed)?;
        }
        self.place = Some(place);
        Ok(())
    }
}

impl Place {
    /// The first batch of a segment.
    fn open(shared: &Shared, segment: Segment) -> Result<Self, JournalError> {
        let name = segment.name();
        match shared.disk.open(&name) {
            Ok(file) => Ok(Self {
                segment,
                name,
                file,
                offset: HEADER_BYTES as u64,
                window: Window::default(),
            }),
            Err(error) => Err(JournalError::io(&name, error)),
        }
    }

    /// Goes past a batch by what its header says, unchecked: what is read in the end has a checksum.
    fn hop(&mut self, sequence: u64) -> Result<(), JournalError> {
        match self.outline()? {
            Some((found, body_bytes)) if found == sequence => {
                self.pass(body_bytes);
                Ok(())
            }
            _ => Err(self.damaged(format!(
                "batch {sequence} was acknowledged and cannot be read"
            ))),
        }
    }

    /// The batch at the place, if there is a whole and undamaged one.
    fn frame(&mut self) -> Result<Option<(Header, Vec<u8>)>, JournalError> {
        let Some((_, body_bytes)) = self.outline()? else {
            return Ok(None);
        };
        let bytes = self.bytes(frame::HEADER_BYTES.saturating_add(body_bytes))?;
        let read = bytes.and_then(|bytes| frame::read(bytes, 0));
        Ok(read.map(|(header, body)| (header, body.to_vec())))
    }

    /// What the header at the place says of sequence and size.
    fn outline(&mut self) -> Result<Option<(u64, usize)>, JournalError> {
        let header = self.bytes(frame::HEADER_BYTES)?;
        let outline = header.and_then(frame::outline);
        Ok(outline.filter(|(_, body_bytes)| *body_bytes <= BODY_BYTES_MAX))
    }

    fn bytes(&mut self, count: usize) -> Result<Option<&[u8]>, JournalError> {
        let read = self.window.get(&*self.file, self.offset, count);
        read.map_err(|error| JournalError::io(&self.name, error))
    }

    fn pass(&mut self, body_bytes: usize) {
        let frame = frame::padded(body_bytes) as u64;
        self.offset = self.offset.saturating_add(frame);
    }

    fn damaged(&self, what: String) -> JournalError {
        JournalError::damaged(&self.name, self.offset, what)
    }
}

/// Bytes of a file that were read ahead.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    start: u64,
    /// Bytes to read next time.
    ahead: usize,
}

impl Window {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ahead = 0;
    }

    /// So many bytes of the file from `offset` on; none where it ends before.
    fn get(&mut self, file: &dyn DiskFile, offset: u64, count: usize) -> io::Result<Option<&[u8]>> {
        let has = |window: &Self| {
            let at = usize::try_from(offset.checked_sub(window.start)?).ok()?;
            let end = at.checked_add(count)?;
            (end <= window.bytes.len()).then_some((at, end))
        };
        if has(self).is_none() {
            // A size that is damaged must not cost more memory than the file has bytes.
            let left = match count > READ_AHEAD_BYTES {
                true => file.size()?.saturating_sub(offset),
                false => u64::MAX,
            };
            if left < count as u64 {
                return Ok(None);
            }
            self.ahead = self.ahead.max(READ_FIRST_BYTES);
            self.fill(file, offset, count.max(self.ahead))?;
            self.ahead = self.ahead.saturating_mul(4).min(READ_AHEAD_BYTES);
        }
        let found = has(self);
        Ok(found.and_then(|(at, end)| self.bytes.get(at..end)))
    }

    fn fill(&mut self, file: &dyn DiskFile, offset: u64, count: usize) -> io::Result<()> {
        self.bytes.clear();
        if self.bytes.capacity() > READ_AHEAD_BYTES.max(count) {
            self.bytes.shrink_to(READ_AHEAD_BYTES.max(count));
        }
        self.bytes.resize(count, 0);
        self.start = offset;
        let read = file.read_at(offset, &mut self.bytes);
        // What is left of a failed read must not pass for bytes of the file.
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read.map(|_| ())
    }
}
