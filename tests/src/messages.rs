//! Messages as fuzz tests make them: twisted field by field, so that lengths stay right and the damage reaches
//! what is behind them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::bytes::Buf;
use prost::encoding::{decode_varint, encode_varint};

use quota_testkit::fuzz::NUMBERS;

/// Words of four bytes at which something ends.
pub const WORDS: &[u32] = &[0, 1, 7, 64, 255, 4096, 1 << 26, u32::MAX - 1, u32::MAX];
/// Texts that are wrong nearly everywhere.
pub const TEXTS: &[&str] = &[
    "",
    "/",
    "*",
    "system",
    "tenants/acme",
    "tenants/*",
    "compute.cpu",
    "api.calls",
    "a\0b",
    "\u{202e}é",
    "tenants/acme/holds/x",
    "-1",
    "a\nb",
];

/// One field on the wire.
#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
}

/// What happens to one field.
#[derive(Clone, Debug)]
pub enum Twist {
    /// It goes.
    Remove,
    /// It comes twice.
    Double,
    /// It gets this number, or is of this length.
    Number(i64),
    /// It gets this text.
    Text(&'static str),
    /// It gets another tag.
    Tag(u8),
    /// A field of this tag and number stands before it.
    Add(u8, i64),
}

/// Which fields, and how.
pub fn twists() -> impl Strategy<Value = Vec<(Index, Twist)>> {
    let twist = prop_oneof![
        Just(Twist::Remove),
        Just(Twist::Double),
        prop_oneof![select(NUMBERS), any::<i64>()].prop_map(Twist::Number),
        prop_oneof![select(NUMBERS), -2_i64..40].prop_map(Twist::Number),
        select(TEXTS).prop_map(Twist::Text),
        (1_u8..20).prop_map(Twist::Tag),
        (1_u8..20, select(NUMBERS)).prop_map(|(tag, number)| Twist::Add(tag, number)),
    ];
    vec((any::<Index>(), twist), 0..5)
}

/// A message after all this.
pub fn twist(message: &[u8], twists: &[(Index, Twist)]) -> Vec<u8> {
    let mut message = message.to_vec();
    for (at, twist) in twists {
        let count = count(&message);
        if count > 0 {
            message = twist_one(&message, &mut at.index(count), twist);
        }
    }
    message
}

/// Number of fields, those of messages within included.
fn count(message: &[u8]) -> usize {
    let fields = fields(message).unwrap_or_default();
    let within = |field: &Field| match &field.value {
        Value::Bytes(bytes) => count(bytes),
        _ => 0,
    };
    fields.iter().map(|field| 1 + within(field)).sum()
}

/// Twists the field that is `left` fields away.
fn twist_one(message: &[u8], left: &mut usize, twist: &Twist) -> Vec<u8> {
    let mut written = Vec::new();
    for mut field in fields(message).unwrap_or_default() {
        let here = *left == 0;
        *left = left.wrapping_sub(1);
        if !here {
            if let Value::Bytes(bytes) = &mut field.value
                && *left < count(bytes)
            {
                *bytes = twist_one(bytes, left, twist);
                *left = usize::MAX;
            } else if let Value::Bytes(bytes) = &field.value {
                *left = left.wrapping_sub(count(bytes));
            }
            field.write(&mut written);
            continue;
        }
        *left = usize::MAX;
        match twist {
            Twist::Remove => continue,
            Twist::Double => field.write(&mut written),
            Twist::Number(number) => match &mut field.value {
                Value::Varint(value) => *value = number.cast_unsigned(),
                Value::Fixed64(bytes) => *bytes = number.to_le_bytes(),
                Value::Fixed32(bytes) => *bytes = [number.to_le_bytes()[0]; 4],
                Value::Bytes(bytes) => {
                    let most = usize::try_from(*number).unwrap_or(usize::MAX).min(300);
                    *bytes = bytes.iter().copied().cycle().take(most).collect();
                }
            },
            Twist::Text(text) => field.value = Value::Bytes(text.as_bytes().to_vec()),
            Twist::Tag(tag) => field.number = u64::from(*tag),
            Twist::Add(tag, number) => {
                let added = Field {
                    number: u64::from(*tag),
                    value: Value::Varint(number.cast_unsigned()),
                };
                added.write(&mut written);
            }
        }
        field.write(&mut written);
    }
    written
}

/// The fields of what may be a message.
fn fields(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while bytes.has_remaining() {
        let key = decode_varint(&mut bytes).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(decode_varint(&mut bytes).ok()?),
            1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                Value::Bytes(take(&mut bytes, length)?.to_vec())
            }
            5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        fields.push(Field {
            number: key >> 3,
            value,
        });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

impl Field {
    fn write(&self, to: &mut Vec<u8>) {
        let kind = match &self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        encode_varint(self.number << 3 | kind, to);
        match &self.value {
            Value::Varint(value) => encode_varint(*value, to),
            Value::Fixed64(bytes) => to.extend_from_slice(bytes),
            Value::Fixed32(bytes) => to.extend_from_slice(bytes),
            Value::Bytes(bytes) => {
                encode_varint(bytes.len() as u64, to);
                to.extend_from_slice(bytes);
            }
        }
    }
}
