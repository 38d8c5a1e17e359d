//! Requests of every method, made from the descriptors of the wire, so that no field and no new method is
//! forgotten; and whether a field that an error names is one.

use std::collections::BTreeMap;

use prost::Message;
use prost::encoding::encode_varint;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::messages::TEXTS;
use quota_testkit::fuzz::NUMBERS;

const SUBJECTS: &[&str] = &[
    "tenants/acme",
    "tenants/acme/projects/web",
    "tenants/acme/teams/ml",
    "tenants/other",
    "system",
    "tenants/*",
];
const RESOURCES: &[&str] = &[
    "compute.cpu",
    "compute.memory",
    "api.calls",
    "api.requests",
    "tasks.concurrent",
    "tasks.file_size",
    "gpu.own",
];
const IDS: &[&str] = &["a", "b", "c", "day"];
const DURATION: &str = ".google.protobuf.Duration";
const TIMESTAMP: &str = ".google.protobuf.Timestamp";
/// Messages within messages.
const DEPTH_MAX: usize = 6;

/// All messages and methods.
pub struct Schema {
    messages: BTreeMap<String, DescriptorProto>,
    /// Names of methods and of the messages that they take.
    pub methods: Vec<(String, String)>,
}

/// Decisions on what is made; none that are left are zeros, which leave out what can be left out.
pub struct Choices<'a>(std::slice::Iter<'a, u32>);

impl<'a> Choices<'a> {
    /// Takes these.
    pub fn new(choices: &'a [u32]) -> Self {
        Self(choices.iter())
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.next().map_or(0, |choice| *choice as usize % bound)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

impl Schema {
    /// Reads the descriptors of the wire.
    pub fn new() -> Self {
        let set = FileDescriptorSet::decode(quota_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut schema = Self {
            messages: BTreeMap::new(),
            methods: Vec::new(),
        };
        for file in set.file {
            let package = format!(".{}", file.package());
            for service in file.service.iter().filter(|_| package == ".quota.v1") {
                for method in &service.method {
                    let names = (method.name().to_owned(), method.input_type().to_owned());
                    schema.methods.push(names);
                }
            }
            for message in file.message_type {
                schema.add(&package, message);
            }
        }
        schema
    }

    fn add(&mut self, above: &str, message: DescriptorProto) {
        let name = format!("{above}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested.clone());
        }
        self.messages.insert(name, message);
    }

    /// The bytes of a message of this type.
    pub fn make(&self, message: &str, choices: &mut Choices<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.make_within(message, choices, DEPTH_MAX, &mut bytes);
        bytes
    }

    fn make_within(&self, name: &str, choices: &mut Choices<'_>, deep: usize, to: &mut Vec<u8>) {
        if name == DURATION || name == TIMESTAMP {
            return make_time(name == TIMESTAMP, choices, to);
        }
        let message = &self.messages[name];
        let mut chosen = Vec::new();
        for field in &message.field {
            let optional = field.proto3_optional() || field.r#type() == Type::Message;
            if let Some(oneof) = field.oneof_index.filter(|_| !field.proto3_optional()) {
                if chosen.contains(&oneof) || choices.below(2) == 0 {
                    continue;
                }
                chosen.push(oneof);
            }
            let times = match (field.label(), optional) {
                (Label::Repeated, _) => choices.of(&[0, 1, 1, 1, 2, 3, 7, 18]),
                (_, true) => choices.of(&[0, 1, 1]),
                (_, false) => choices.of(&[0, 1, 1, 1, 1, 1]),
            };
            for _ in 0..times {
                self.make_field(field, choices, deep, to);
            }
        }
    }

    fn make_field(
        &self,
        field: &FieldDescriptorProto,
        choices: &mut Choices<'_>,
        deep: usize,
        to: &mut Vec<u8>,
    ) {
        let number = u64::try_from(field.number()).unwrap() << 3;
        let bytes = match field.r#type() {
            Type::String => make_text(field.name(), choices).as_bytes().to_vec(),
            Type::Message if deep == 0 => return,
            Type::Message => {
                let mut within = Vec::new();
                self.make_within(field.type_name(), choices, deep - 1, &mut within);
                within
            }
            kind => {
                let value = match kind {
                    Type::Enum => choices.of(&[0, 1, 2, 3, 4, 5, 6, 1, 2, 3, 99, -1]),
                    Type::Bool => choices.of(&[0, 1, 1]),
                    Type::Int64 | Type::Int32 | Type::Uint64 => make_number(choices),
                    other => panic!("{other:?} is new: say here what it can be"),
                };
                encode_varint(number, to);
                return encode_varint(value.cast_unsigned(), to);
            }
        };
        encode_varint(number | 2, to);
        encode_varint(bytes.len() as u64, to);
        to.extend_from_slice(&bytes);
    }

    /// Whether `path`, such as `items[3].consume.amounts[0].resource`, leads to a field of the message.
    pub fn has(&self, message: &str, path: &str) -> bool {
        let mut at = message.to_owned();
        path.split('.').enumerate().all(|(depth, part)| {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, index.strip_suffix(']')),
                None => (part, Some("0")),
            };
            let known = self.messages.get(&at);
            let field = known.and_then(|m| m.field.iter().find(|field| field.name() == name));
            // The whole oneof of an item that is empty.
            let oneof = || known.is_some_and(|m| m.oneof_decl.iter().any(|o| o.name() == name));
            let found = field.is_some() || (depth == 0 && oneof());
            at = field.map_or(String::new(), |field| field.type_name().to_owned());
            found && index.is_some_and(|index| index.parse::<usize>().is_ok())
        })
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self::new()
    }
}

fn make_text(field: &str, choices: &mut Choices<'_>) -> &'static str {
    if choices.below(12) == 11 {
        return choices.of(TEXTS);
    }
    match field {
        "subject" | "name" | "also" => choices.of(SUBJECTS),
        "subject_prefix" => choices.of(&["tenants/acme", "", "system"]),
        "resource" | "key" => choices.of(RESOURCES),
        "operation_id" | "page_token" | "etag" | "time_zone" => choices.of(&["", "", "", "7"]),
        "base_unit" | "display_unit" => choices.of(&["count", "count", "bytes"]),
        field if field.ends_with("_id") || field.ends_with("_ids") => choices.of(IDS),
        _ => choices.of(&["x", "y", "ü"]),
    }
}

fn make_number(choices: &mut Choices<'_>) -> i64 {
    match choices.below(4) {
        0 => choices.of(NUMBERS),
        _ => choices.of(&[1, 2, 3, 10, 50]),
    }
}

fn make_time(instant: bool, choices: &mut Choices<'_>, to: &mut Vec<u8>) {
    let seconds = match choices.below(4) {
        0 => choices.of(NUMBERS),
        _ if instant => choices.of(&[1_790_000_000, 1_800_000_000, 0]),
        _ => choices.of(&[1, 60, 3600]),
    };
    let nanos = match choices.below(6) {
        0 => choices.of(NUMBERS),
        _ => 0,
    };
    for (tag, value) in [(8, seconds), (16, nanos)] {
        encode_varint(tag, to);
        encode_varint(value.cast_unsigned(), to);
    }
}
