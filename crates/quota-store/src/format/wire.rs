//! Fields written straight into the bytes of a batch.
//!
//! Messages are read by prost, and the rare ones are written by it too. What a busy group writes thousands of times is
//! written here, from what the ledger has: a message of prost owns copies of its texts and is measured once per
//! level before it is written.

use std::ops::Range;

use prost::Message;
use prost::encoding::decode_varint;

use super::FormatError;

/// Bytes of messages as they grow; fields in the order of their tags, as prost writes them.
#[derive(Default)]
pub(crate) struct Wire(Vec<u8>);

const VARINT: u64 = 0;
const BYTES: u64 = 2;

impl Wire {
    /// Goes on in `room`, whatever is in it.
    pub(crate) fn new(mut room: Vec<u8>) -> Self {
        room.clear();
        Self(room)
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A byte that is no field.
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Fields of a message that prost writes.
    pub(crate) fn fields(&mut self, message: &impl Message) {
        message
            .encode(&mut self.0)
            .expect("a vector grows as needed");
    }

    /// A field of a number; zero is the absence of the field.
    pub(crate) fn uint(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.key(tag, VARINT);
            self.varint(value);
        }
    }

    /// The same of a number with a sign.
    pub(crate) fn int(&mut self, tag: u32, value: i64) {
        self.uint(tag, value.cast_unsigned());
    }

    /// A field of a number that is there even when it is zero.
    pub(crate) fn given_int(&mut self, tag: u32, value: Option<i64>) {
        if let Some(value) = value {
            self.key(tag, VARINT);
            self.varint(value.cast_unsigned());
        }
    }

    /// A field that is there when it is true.
    pub(crate) fn bool(&mut self, tag: u32, value: bool) {
        self.uint(tag, value.into());
    }

    /// A field of a text; an empty one is the absence of the field.
    pub(crate) fn text(&mut self, tag: u32, text: &str) {
        self.blob(tag, text.as_bytes());
    }

    /// The same of bytes.
    pub(crate) fn blob(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.item(tag, bytes);
        }
    }

    /// Several texts, a field each.
    pub(crate) fn texts<'a>(&mut self, tag: u32, texts: impl IntoIterator<Item = &'a str>) {
        for text in texts {
            self.item(tag, text.as_bytes());
        }
    }

    fn item(&mut self, tag: u32, bytes: &[u8]) {
        self.key(tag, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Several numbers, in one field.
    pub(crate) fn uints(&mut self, tag: u32, values: &[u64]) {
        if !values.is_empty() {
            self.message(tag, |wire| {
                for value in values {
                    wire.varint(*value);
                }
            });
        }
    }

    /// A field of a message.
    pub(crate) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.placed(tag, write);
    }

    /// The same; answers where the message stands. Its size stands before it and is known only after it, so one of
    /// more than 127 bytes moves a little.
    pub(crate) fn placed(&mut self, tag: u32, write: impl FnOnce(&mut Self)) -> Range<usize> {
        self.key(tag, BYTES);
        let at = self.0.len();
        self.0.push(0);
        let start = self.0.len();
        write(self);
        let size = self.0.len().saturating_sub(start);
        let more = bytes_of(size).saturating_sub(1);
        if more > 0 {
            let end = self.0.len();
            self.0.resize(end.saturating_add(more), 0);
            self.0.copy_within(start..end, start.saturating_add(more));
        }
        let mut left = size as u64;
        for byte in self.0.iter_mut().skip(at).take(more.saturating_add(1)) {
            *byte = low_seven(left) | 0x80;
            left >>= 7;
        }
        let last = at.saturating_add(more);
        if let Some(byte) = self.0.get_mut(last) {
            *byte &= 0x7f;
        }
        last.saturating_add(1)..self.0.len()
    }

    fn key(&mut self, tag: u32, kind: u64) {
        self.varint(u64::from(tag) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(low_seven(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_seven(value));
    }
}

/// The fields of a message as they lie in its bytes, in the order in which they were written; for who looks at a few
/// of thousands.
pub(crate) struct Fields<'a>(&'a [u8]);

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Field<'a> {
    /// A number.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// What no message of ours has.
    Other,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn field(&mut self) -> Result<(u32, Field<'a>), FormatError> {
        let key = decode_varint(&mut self.0)?;
        let tag = u32::try_from(key >> 3).map_err(|_| FormatError::damaged("a field's number"))?;
        let field = match key & 7 {
            VARINT => Field::Number(decode_varint(&mut self.0)?),
            BYTES => {
                let size = usize::try_from(decode_varint(&mut self.0)?);
                Field::Bytes(self.take(size.unwrap_or(usize::MAX))?)
            }
            1 => self.take(8).map(|_| Field::Other)?,
            5 => self.take(4).map(|_| Field::Other)?,
            other => return Err(FormatError::damaged(format!("a field of kind {other}"))),
        };
        Ok((tag, field))
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self
            .0
            .split_at_checked(size)
            .ok_or_else(|| FormatError::damaged("a field that ends behind its message"))?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Field<'a>), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Field<'a> {
    /// A number with a sign.
    pub(crate) fn int(self) -> Result<i64, FormatError> {
        self.uint().map(u64::cast_signed)
    }

    /// A number.
    pub(crate) fn uint(self) -> Result<u64, FormatError> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(FormatError::damaged("a field that is no number")),
        }
    }

    /// Bytes.
    pub(crate) fn bytes(self) -> Result<&'a [u8], FormatError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(FormatError::damaged("a field that is no bytes")),
        }
    }

    /// A text.
    pub(crate) fn text(self) -> Result<&'a str, FormatError> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|error| FormatError::damaged(format!("a text that is none: {error}")))
    }
}

fn low_seven(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Bytes of a size as a number.
fn bytes_of(size: usize) -> usize {
    let bits = usize::BITS.saturating_sub(size.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(int64, tag = "1")]
        int: i64,
        #[prost(string, tag = "2")]
        text: String,
        #[prost(message, repeated, tag = "3")]
        more: Vec<Sample>,
        #[prost(uint64, repeated, tag = "4")]
        numbers: Vec<u64>,
        #[prost(int64, optional, tag = "5")]
        given: Option<i64>,
        #[prost(bool, tag = "6")]
        yes: bool,
        #[prost(string, repeated, tag = "7")]
        texts: Vec<String>,
        #[prost(bytes = "vec", tag = "200")]
        blob: Vec<u8>,
    }

    fn write(sample: &Sample, wire: &mut Wire) {
        wire.int(1, sample.int);
        wire.text(2, &sample.text);
        for one in &sample.more {
            let at = wire.placed(3, |wire| write(one, wire));
            assert_eq!(wire.bytes()[at], one.encode_to_vec());
        }
        wire.uints(4, &sample.numbers);
        wire.given_int(5, sample.given);
        wire.bool(6, sample.yes);
        wire.texts(7, sample.texts.iter().map(String::as_str));
        wire.blob(200, &sample.blob);
    }

    /// The bytes are those that prost writes, at every size at which a size takes one byte more.
    #[test]
    fn writes_what_prost_writes() {
        for size in [0_usize, 1, 126, 127, 128, 129, 16_383, 16_384, 3_000_000] {
            let number = i64::try_from(size).unwrap();
            let sample = |depth: usize| Sample {
                int: if size % 2 == 0 { -1 } else { number },
                text: "x".repeat(size / (depth + 1)),
                numbers: vec![0, 1, u64::MAX, size as u64],
                given: (size > 1).then_some(0),
                yes: size % 2 == 0,
                texts: vec![String::new(), "é".into()],
                blob: vec![7; size % 300],
                ..Sample::default()
            };
            let outer = Sample {
                more: vec![
                    Sample {
                        more: vec![sample(0), Sample::default()],
                        ..sample(1)
                    },
                    sample(2),
                ],
                ..sample(3)
            };
            let mut wire = Wire::new(vec![1, 2, 3]);
            write(&outer, &mut wire);
            assert_eq!(wire.into_bytes(), outer.encode_to_vec());
        }
    }
}
