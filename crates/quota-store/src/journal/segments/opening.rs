//! Opening the journal: what is there is checked, and its tail is settled.

use std::io;
use std::sync::Arc;

use super::header::{self, HEADER_BYTES, Segment, segment_name};
use super::shared::Shared;
use super::{Active, ENDING, SegmentJournal, SegmentOptions, UNFINISHED};
use crate::disk::{Disk, read_whole};
use crate::journal::extent;
use crate::journal::frame;
use crate::journal::{Hash, JournalError, SEGMENT_BYTES_MAX};

impl SegmentJournal {
    /// Opens the journal and settles its tail: the last batch, which perhaps only the page cache held, is
    /// written anew to a fresh segment before anything is built upon it.
    ///
    /// The headers of all segments are read, and the last one is walked, because it says where the journal
    /// ends. What is in the others is checked by whoever reads it, as a walk would check it.
    pub fn open(disk: Arc<dyn Disk>, options: SegmentOptions) -> Result<Self, JournalError> {
        let mut journal = Self {
            shared: Arc::new(Shared::new(disk)),
            options,
            active: None,
            next: 1,
            previous: [0; 32],
            first: 1,
            frame: Vec::new(),
            unhashed: None,
        };
        let segments = journal.read_headers()?;
        journal.check_extent(&segments)?;
        check_headers(&segments)?;
        let from = match journal.options.whole {
            true => 0,
            false => segments.len().saturating_sub(1),
        };
        let tail = journal.walk(&segments, from)?;
        *journal.shared.segments.write() = segments.into();
        journal.settle(tail)?;
        journal.shared.durable.publish(journal.next);
        Ok(journal)
    }

    fn read_headers(&self) -> Result<Vec<Segment>, JournalError> {
        let io = |error| JournalError::io("the journal's directory", error);
        let disk = &*self.shared.disk;
        let mut names = disk.list().map_err(io)?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            disk.remove(name).map_err(io)?;
        }
        names.retain(|name| name.ends_with(ENDING));
        names.sort();
        let headers = names
            .iter()
            .map(|name| header::read(disk, &self.options, name));
        headers.collect()
    }

    /// Segments that went by accident are noticed.
    fn check_extent(&mut self, segments: &[Segment]) -> Result<(), JournalError> {
        let read = extent::read(&*self.shared.disk).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => JournalError::damaged("extent", 0, error.to_string()),
            _ => JournalError::io("extent", error),
        })?;
        let Some(extent) = read else {
            return Ok(());
        };
        self.first = extent.first;
        let missing = |what: String| Err(JournalError::damaged("the journal", 0, what));
        let newest = segments.last().map_or(0, |newest| newest.ordinal);
        if newest < extent.newest {
            let name = segment_name(extent.newest);
            return missing(format!("its segment {name} is missing"));
        }
        let there = segments.first().map_or(1, |oldest| oldest.first);
        if there > extent.first {
            let first = extent.first;
            return missing(format!("batches {first} to before {there} are missing"));
        }
        Ok(())
    }

    /// Checks every batch in force from a segment on and says where the last segment ends.
    fn walk(&mut self, segments: &[Segment], from: usize) -> Result<Tail, JournalError> {
        let mut tail = Tail::default();
        if let Some(begins) = segments.get(from) {
            self.next = begins.first;
            self.previous = begins.previous;
        }
        for (at, segment) in segments.iter().enumerate().skip(from) {
            let limit = segments.get(at.saturating_add(1)).map(|next| next.first);
            let most = SEGMENT_BYTES_MAX.saturating_mul(2);
            let name = segment.name();
            if self.next != segment.first || self.previous != segment.previous {
                return Err(not_following(segment));
            }
            let read = self.shared.disk.open(&name);
            let bytes = read
                .and_then(|file| read_whole(&*file, most))
                .map_err(|error| JournalError::io(&name, error))?;
            tail = self.walk_segment(&name, &bytes, limit)?;
        }
        Ok(tail)
    }

    /// Checks the batches of a segment up to its limit; absent where none follows it.
    fn walk_segment(
        &mut self,
        name: &str,
        bytes: &[u8],
        limit: Option<u64>,
    ) -> Result<Tail, JournalError> {
        let mut tail = Tail::default();
        let mut offset = HEADER_BYTES;
        let mut last = None;
        let damaged = |offset: usize, what: String| {
            let offset = offset as u64;
            Err(JournalError::damaged(name, offset, what))
        };
        while limit.is_none_or(|limit| self.next < limit) {
            let Some((header, body)) = frame::read(bytes, offset) else {
                break;
            };
            let due = self.next;
            if header.sequence != due {
                let found = header.sequence;
                return damaged(offset, format!("batch {found} where {due} was due"));
            }
            if header.previous != self.previous {
                let what = format!(
                    "batch {due} does not follow the one before it: the chain of hashes is broken"
                );
                return damaged(offset, what);
            }
            last = Some((offset as u64, header.durable, body));
            tail.before_last = self.previous;
            self.previous = frame::hash(&self.previous, due, body);
            self.next = due.saturating_add(1);
            offset = offset.saturating_add(frame::padded(header.body_bytes));
        }
        let due = self.next;
        if limit.is_none() && frame::is_cut_off(bytes, offset) {
            return damaged(offset, format!("the file ends within batch {due}"));
        }
        let lost = match limit {
            None => frame::proof_of_damage(bytes, offset, due).is_some(),
            Some(limit) => due < limit,
        };
        if lost {
            let what = format!("batch {due} was acknowledged and cannot be read; later ones can");
            return damaged(offset, what);
        }
        tail.last = last.map(|(offset, durable, body)| (offset, durable, body.to_vec()));
        Ok(tail)
    }

    /// C11.3: a last batch that perhaps only the page cache held is written anew, synced, and what is
    /// ignored from then on is removed. The first batch of a segment was durable before the segment had its
    /// name and needs nothing.
    fn settle(&mut self, tail: Tail) -> Result<(), JournalError> {
        let Some(old) = self.shared.segments.read().back().cloned() else {
            return Ok(());
        };
        let name = old.name();
        let Some((cut, durable, body)) = tail.last else {
            let what = format!("batch {}, its first, cannot be read", old.first);
            return Err(JournalError::damaged(&name, HEADER_BYTES as u64, what));
        };
        let io = |error| JournalError::io(&name, error);
        if cut == HEADER_BYTES as u64 {
            let end = cut.saturating_add(frame::padded(body.len()) as u64);
            self.active = Some(self.adopt(&old, end).map_err(io)?);
            return Ok(());
        }
        let sequence = self.next.saturating_sub(1);
        self.previous = tail.before_last;
        let mut frame = Vec::new();
        frame::write(sequence, durable, &self.previous, &body, &mut frame);
        self.fresh_segment(sequence, &frame).map_err(io)?;
        self.appended(sequence, &body);
        let mut file = self.shared.disk.open(&name).map_err(io)?;
        file.truncate(cut).map_err(io)?;
        file.sync().map_err(io)?;
        self.resize(&old, cut);
        Ok(())
    }

    /// Goes on in a segment whose only batch is durable; what stands behind it is removed, synced.
    fn adopt(&mut self, segment: &Segment, end: u64) -> io::Result<Active> {
        let mut file = self.shared.disk.open(&segment.name())?;
        let bytes = self.options.segment_bytes.max(end);
        file.truncate(end)?;
        file.reserve(bytes)?;
        file.sync()?;
        self.resize(segment, bytes);
        Ok(Active {
            file,
            offset: end,
            bytes,
        })
    }

    fn resize(&self, of: &Segment, bytes: u64) {
        let mut segments = self.shared.segments.write();
        if let Some(segment) = segments.iter_mut().find(|s| s.ordinal == of.ordinal) {
            segment.bytes = bytes;
        }
    }
}

/// Each segment follows the one before it, as far as headers tell: it has the next ordinal and begins later.
fn check_headers(segments: &[Segment]) -> Result<(), JournalError> {
    for pair in segments.windows(2) {
        let [one, next] = pair else { continue };
        let due = one.ordinal.saturating_add(1);
        if next.ordinal != due {
            let what = format!("its segment {} is missing", segment_name(due));
            return Err(JournalError::damaged("the journal", 0, what));
        }
        if next.first <= one.first {
            return Err(not_following(next));
        }
    }
    Ok(())
}

fn not_following(segment: &Segment) -> JournalError {
    let first = segment.first;
    let what = format!(
        "it begins with batch {first} and does not follow the segment before it: the chain of hashes is broken"
    );
    JournalError::damaged(&segment.name(), 0, what)
}

/// Where the last segment ends.
#[derive(Default)]
struct Tail {
    /// Offset, the sequence stated durable, and body of its last batch.
    last: Option<(u64, u64, Vec<u8>)>,
    before_last: Hash,
}
