//! A batch: what one group of commands did, as one unit of durability.

use std::sync::Arc;

use prost::Message;
use quota_core::event::{Event, Remembered};
use quota_core::record::{Image, RecordKey};
use quota_core::time::Timestamp;

use crate::format::{self, FormatError, ImageBody, Wire};
use crate::journal::JournalError;
use crate::told::ToldBatch;

/// The clocks when a batch was decided (C1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The server's clock.
    pub now: Timestamp,
    /// The machine's boot.
    pub boot_id: [u8; 16],
    /// Nanoseconds since that boot, suspended time included.
    pub boot_ns: i64,
    /// The wall clock had stepped, and nobody had accepted it.
    pub suspect: bool,
    /// A step backward was accepted, and the wall clock had not caught up.
    pub waiting: bool,
}

/// A batch on its way to the journal.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    body: Vec<u8>,
    rows: Vec<RowImage>,
}

/// The new value of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowImage {
    /// The key.
    pub key: Vec<u8>,
    /// The value; absent where the row is gone.
    pub value: Option<Vec<u8>>,
    /// Whether there was no such row before the batch.
    pub fresh: bool,
}

#[derive(Clone, PartialEq, Message)]
struct BatchBody {
    #[prost(int64, tag = "1")]
    now: i64,
    #[prost(bytes = "vec", tag = "2")]
    boot_id: Vec<u8>,
    #[prost(int64, tag = "3")]
    boot_ns: i64,
    /// Each an event.
    #[prost(bytes = "vec", repeated, tag = "4")]
    events: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "5")]
    images: Vec<ImageBody>,
    #[prost(bool, tag = "6")]
    suspect: bool,
    #[prost(bool, tag = "7")]
    waiting: bool,
    #[prost(uint64, tag = "8")]
    needed_from: u64,
    /// Number of the first event that is told, or of the next.
    #[prost(uint64, tag = "9")]
    first_event: u64,
}

/// The part of a batch that says when it was and what it needs; the rest is passed over.
#[derive(Clone, PartialEq, Message)]
struct HeadBody {
    #[prost(int64, tag = "1")]
    now: i64,
    #[prost(uint64, tag = "8")]
    needed_from: u64,
    #[prost(uint64, tag = "9")]
    first_event: u64,
}

/// What a batch says of itself; read without what happened in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// When it was decided.
    pub now: Timestamp,
    /// See [`Contents::needed_from`].
    pub needed_from: u64,
    /// Number of its first event that is told, or of the next.
    pub first_event: u64,
}

impl Head {
    /// Reads it from the bytes of a batch.
    pub fn read(body: &[u8]) -> Result<Self, FormatError> {
        let message = HeadBody::decode(format::versioned(body)?)?;
        Ok(Self {
            now: Timestamp::from_nanos(message.now),
            needed_from: message.needed_from,
            first_event: message.first_event,
        })
    }

    /// The same of a batch that was read back.
    pub fn of_batch(sequence: u64, body: &[u8]) -> Result<Self, JournalError> {
        Self::read(body).map_err(JournalError::of_batch(sequence))
    }
}

impl Batch {
    /// Writes down what happened and the new value of every record that it touched. `needed_from` is the first
    /// batch with an answer that is remembered after this one, `first_event` the number of the first of the events
    /// that are told. It is written in the `room` of another batch's bytes: pages that are given back are cleared
    /// before they come again.
    pub fn new(
        room: Vec<u8>,
        stamp: Stamp,
        needed_from: u64,
        first_event: u64,
        events: &[Event],
        images: &[Image],
    ) -> Self {
        let mut wire = Wire::new(room);
        wire.byte(format::VERSION);
        wire.int(1, stamp.now.nanos());
        wire.blob(2, &stamp.boot_id);
        wire.int(3, stamp.boot_ns);
        for event in events {
            wire.message(4, |wire| format::write_event(event, wire));
        }
        let rows = images.iter().map(|image| write_image(image, &mut wire));
        let rows = rows.collect();
        wire.bool(6, stamp.suspect);
        wire.bool(7, stamp.waiting);
        wire.uint(8, needed_from);
        wire.uint(9, first_event);
        let body = wire.into_bytes();
        Self { body, rows }
    }

    /// The bytes for the journal.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The images, as rows.
    pub fn into_rows(self) -> Vec<RowImage> {
        self.rows
    }

    /// The same, and the room of its bytes.
    pub fn into_parts(self) -> (Vec<RowImage>, Vec<u8>) {
        (self.rows, self.body)
    }
}

/// Writes an image; answers its row, whose value is the record as it stands there.
fn write_image(image: &Image, wire: &mut Wire) -> RowImage {
    let key = format::key_bytes(&image.key);
    let mut within = 0..0;
    let whole = wire.placed(5, |wire| {
        wire.blob(1, &key);
        if let Some(record) = &image.record {
            within = wire.placed(2, |wire| format::write_record(record, wire));
        }
        let end = wire.bytes().len();
        wire.bool(3, image.fresh);
        // From the end, which is where the rest may still move to.
        let behind = wire.bytes().len().saturating_sub(end);
        within = behind..behind.saturating_add(within.len());
    });
    let value = image.record.as_ref().map(|_| {
        let end = whole.end.saturating_sub(within.start);
        let start = whole.end.saturating_sub(within.end);
        let value = wire.bytes().get(start..end);
        value.unwrap_or_default().to_vec()
    });
    RowImage {
        key,
        value,
        fresh: image.fresh,
    }
}

impl From<ImageBody> for RowImage {
    fn from(body: ImageBody) -> Self {
        Self {
            key: body.key,
            value: body.record,
            fresh: body.fresh,
        }
    }
}

/// What recovery reads from a batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Contents {
    /// The clocks.
    pub stamp: Stamp,
    /// The first batch with an answer that was remembered when this one was durable: a start after it needs no
    /// earlier one for answers. 0 where it does not say.
    pub needed_from: u64,
    /// Answers that were given.
    pub answers: Vec<Arc<Remembered>>,
    /// New values of records.
    pub images: Vec<Image>,
    /// The same, as rows.
    pub rows: Vec<RowImage>,
    /// Number of events.
    pub events: usize,
    /// Number of the next event that is told.
    pub next_event: u64,
}

impl Contents {
    /// Reads the bytes of a batch.
    pub fn read(body: &[u8]) -> Result<Self, FormatError> {
        let message = BatchBody::decode(format::versioned(body)?)?;
        let stamp = message.stamp()?;
        let events = message.events.len();
        let mut answers = Vec::new();
        for event in &message.events {
            let event = format::event_of_bytes(event)?;
            answers.extend(format::remembered_of_body(event)?);
        }
        let told = events.saturating_sub(answers.len()) as u64;
        let images = message.images.iter().map(format::image_of_body);
        Ok(Self {
            stamp,
            needed_from: message.needed_from,
            answers,
            images: images.collect::<Result<_, _>>()?,
            rows: message.images.into_iter().map(RowImage::from).collect(),
            events,
            next_event: message.first_event.saturating_add(told),
        })
    }
}

impl BatchBody {
    fn stamp(&self) -> Result<Stamp, FormatError> {
        let boot_id = self.boot_id.as_slice().try_into();
        Ok(Stamp {
            now: Timestamp::from_nanos(self.now),
            boot_id: boot_id.map_err(|_| FormatError::damaged("a boot id of another size"))?,
            boot_ns: self.boot_ns,
            suspect: self.suspect,
            waiting: self.waiting,
        })
    }
}

impl ToldBatch {
    /// Reads what the bytes of a batch tell.
    pub fn read(body: &[u8]) -> Result<Self, FormatError> {
        let message = BatchBody::decode(format::versioned(body)?)?;
        let stamp = message.stamp()?;
        let mut events = Vec::new();
        for event in &message.events {
            let event = format::event_of_bytes(event)?;
            events.extend(format::told_of_body(event)?);
        }
        Ok(Self {
            stamp,
            first: message.first_event,
            events,
        })
    }
}

/// The key of a record's row.
pub fn row_key(key: &RecordKey) -> Vec<u8> {
    format::key_bytes(key)
}

/// Reads a row.
pub fn record_of_row(
    key: &[u8],
    value: &[u8],
) -> Result<(RecordKey, quota_core::record::Record), FormatError> {
    let key = format::key_of_bytes(key)?;
    let record = format::record_of_bytes(&key, value)?;
    Ok((key, record))
}

/// The value of a record's row.
pub fn row_value(record: &quota_core::record::Record) -> Vec<u8> {
    format::record_bytes(record)
}
