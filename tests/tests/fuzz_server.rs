//! C5.4, C12: whatever is sent is answered or refused with an error that names a field of the request; nothing
//! panics, nothing costs more memory than a request of that size is worth, and the ledger still holds together.
//! The same for the configuration.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use quota_core::Bounds;
use quota_proto::v1;
use quota_server::config::Config;
use quota_testkit::fuzz::{Input, corpus, fuzz, inputs, run};
use quota_tests::messages;
use quota_tests::methods::Methods;
use quota_tests::schema::{Choices, Schema};
use quota_tests::worlds::TestStore;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What the transport puts into a request's metadata, which the services do not see as a field.
const ACTOR: &str = "quota-actor";

/// Most bad fields that one answer names: each of the most ids of a call.
const VIOLATIONS_MAX: usize = 1_000;

struct Server {
    schema: Schema,
    methods: Methods,
    answered: RefCell<BTreeSet<String>>,
}

impl Server {
    fn new() -> Self {
        Self {
            schema: Schema::new(),
            methods: Methods::new(&TestStore::new(Bounds::default())),
            answered: RefCell::default(),
        }
    }

    /// Sends bytes; says whether they were a request that was answered.
    fn send(&self, method: &str, bytes: &[u8]) -> bool {
        let Some(answer) = self.methods.call(method, bytes, MetadataMap::new()) else {
            return false;
        };
        match answer {
            Ok(answer) => {
                if method == "Batch" {
                    self.check_items(bytes, &answer);
                }
                self.answered.borrow_mut().insert(method.to_owned());
                true
            }
            Err(status) => {
                self.check_status(method, &status);
                false
            }
        }
    }

    fn input(&self, method: &str) -> &str {
        let found = self.schema.methods.iter().find(|(name, _)| name == method);
        &found.unwrap().1
    }

    fn check_status(&self, method: &str, status: &Status) {
        let expected = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::ResourceExhausted,
        ];
        assert!(expected.contains(&status.code()), "{method}: {status:?}");
        let details = status.get_error_details();
        assert!(!details.error_info().unwrap().reason.is_empty());
        if status.code() != Code::InvalidArgument {
            return;
        }
        let fields = &details.bad_request().unwrap().field_violations;
        let count = fields.len();
        assert!((1..=VIOLATIONS_MAX).contains(&count), "{method}: {count}");
        for violation in fields {
            let known = self.schema.has(self.input(method), &violation.field);
            assert!(
                known,
                "{method} has no field {}: {status:?}",
                violation.field
            );
            assert!(!violation.description.is_empty(), "{status:?}");
        }
    }

    /// Errors of a batch are those of its items and name the fields of them.
    fn check_items(&self, request: &[u8], answer: &[u8]) {
        use v1::batch_item::Item;
        let request = v1::BatchRequest::decode(request).unwrap();
        let answer = v1::BatchResponse::decode(answer).unwrap();
        assert_eq!(request.items.len(), answer.results.len());
        for (item, result) in request.items.iter().zip(answer.results) {
            let Some(v1::batch_result::Result::Error(error)) = result.result else {
                continue;
            };
            let message = match item.item {
                Some(Item::Consume(_)) => ".quota.v1.ConsumeRequest",
                Some(Item::Release(_)) => ".quota.v1.ReleaseRequest",
                Some(Item::Resize(_)) => ".quota.v1.ResizeRequest",
                Some(Item::Linked(_)) => ".quota.v1.LinkedGroup",
                None => ".quota.v1.BatchItem",
            };
            let invalid = error.reason() == v1::ErrorReason::InvalidFields;
            assert_eq!(invalid, !error.field_violations.is_empty(), "{error:?}");
            for violation in &error.field_violations {
                let known = self.schema.has(message, &violation.field);
                assert!(
                    known,
                    "{message} has no field {}: {error:?}",
                    violation.field
                );
            }
        }
    }

    /// After all that was sent.
    fn check_invariants(&self) {
        let answer = self
            .methods
            .call("VerifyInvariants", &[], MetadataMap::new());
        let answer = v1::VerifyInvariantsResponse::decode(&*answer.unwrap().unwrap()).unwrap();
        assert_eq!(answer.violations, Vec::<String>::new());
    }
}

fn method_of(file: &str) -> &str {
    file.split('.').next().unwrap()
}

#[test]
fn any_request_is_answered_or_names_its_bad_fields() {
    let server = Server::new();
    let methods = server.schema.methods.clone();
    let inputs = (select(methods), vec(any::<u32>(), 0..80));
    run(8000, &inputs, |((method, input), choices)| {
        let request = server.schema.make(&input, &mut Choices::new(&choices));
        server.send(&method, &request);
    });
    server.check_invariants();
    let answered = server.answered.borrow();
    let never: Vec<&String> = server.schema.methods.iter().map(|(name, _)| name).collect();
    let never: Vec<_> = never
        .iter()
        .filter(|name| !answered.contains(**name))
        .collect();
    assert!(never.len() < 12, "never answered: {never:?}");
}

/// Good requests after damage to their bytes, and to their fields.
#[test]
fn any_bytes_are_a_request_or_not() {
    let server = Server::new();
    let files = corpus("requests");
    for (name, bytes) in &files {
        let taken = server.send(method_of(name), bytes);
        assert!(taken || !name.contains(".valid-"), "{name} is refused");
        assert!(!taken || !name.contains(".bad-"), "{name} is taken");
    }
    let bytes: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
    let names = server.schema.methods.clone();
    let damaged = (select(names), inputs(bytes, messages::TEXTS));
    run(2000, &damaged, |((method, _), Input(bytes))| {
        server.send(&method, &bytes);
    });
    let taken = Cell::new(0);
    run(
        3000,
        &(select(files), messages::twists()),
        |((name, bytes), twists)| {
            let done = server.send(method_of(&name), &messages::twist(&bytes, &twists));
            taken.set(taken.get() + u32::from(done));
        },
    );
    server.check_invariants();
    assert!(taken.get() > 300, "the twists are too rough");
}

/// What an administrator is shown can be sent back and is the same.
#[test]
fn what_is_answered_can_be_sent_again() {
    let server = Server::new();
    let sent = Cell::new(0);
    run(3000, &vec(any::<u32>(), 20..80), |choices| {
        let mut choices = Choices::new(&choices);
        let mut make = |name: &str| {
            let bytes = server.schema.make(name, &mut choices);
            [bytes, vec![0x10, 1]].concat()
        };
        let call = |method: &str, bytes: &[u8]| {
            let answer = server.methods.call(method, bytes, MetadataMap::new());
            answer.unwrap().ok()
        };
        let quota = make(".quota.v1.UpdateQuotaRequest");
        let Some(answer) = call("UpdateQuota", &quota) else {
            return;
        };
        let first = v1::UpdateQuotaResponse::decode(&*answer)
            .unwrap()
            .quota
            .unwrap();
        let again = v1::UpdateQuotaRequest {
            quota: Some(v1::Quota {
                etag: String::new(),
                ..first.clone()
            }),
            allow_missing: true,
            force: true,
            ..v1::UpdateQuotaRequest::default()
        };
        let answer = call("UpdateQuota", &again.encode_to_vec()).unwrap();
        let second = v1::UpdateQuotaResponse::decode(&*answer)
            .unwrap()
            .quota
            .unwrap();
        let plain = |quota: v1::Quota| v1::Quota {
            etag: String::new(),
            create_time: None,
            update_time: None,
            ..quota
        };
        assert_eq!(plain(second), plain(first));
        sent.set(sent.get() + 1);
    });
    assert!(sent.get() > 20, "{} quotas are too few", sent.get());
}

#[test]
fn any_metadata_is_taken_or_names_what_is_wrong() {
    let server = Server::new();
    let request = v1::GetSubjectRequest {
        name: "system".into(),
    };
    let request = request.encode_to_vec();
    let value = || prop_oneof!["[0-9+-]{0,12}[HMSmunx]?", ".{0,150}"];
    run(
        1000,
        &(value(), vec(any::<u8>(), 0..160)),
        |(timeout, actor)| {
            let mut metadata = MetadataMap::new();
            if let Ok(timeout) = AsciiMetadataValue::try_from(timeout) {
                metadata.insert("grpc-timeout", timeout);
            }
            if let Ok(actor) = AsciiMetadataValue::try_from(actor) {
                metadata.insert(ACTOR, actor);
            }
            if let Err(status) = server
                .methods
                .call("GetSubject", &request, metadata)
                .unwrap()
            {
                let details = status.get_error_details();
                assert_eq!(
                    details.bad_request().unwrap().field_violations[0].field,
                    ACTOR
                );
            }
        },
    );
}

/// Memory for each byte of a request: an empty message of two bytes becomes a value of up to 600, in a list that
/// doubles while it grows. The worst is BatchUpdateQuotas.
const BYTES_PER_BYTE: u64 = 800;

/// A list of empty messages is the most that can be made of few bytes.
#[test]
fn a_request_costs_memory_in_proportion() {
    for (method, input) in Schema::new().methods {
        let server = Server::new();
        for tag in 1..16_u8 {
            let bytes = [tag << 3 | 2, 0].repeat(20_000);
            let used = allocation_counter::measure(|| {
                server.send(&method, &bytes);
            });
            let each = used.bytes_max / bytes.len() as u64;
            assert!(
                each < BYTES_PER_BYTE,
                "{input}, field {tag}: {each} bytes for each byte"
            );
        }
    }
}

fn load_file(text: &[u8]) -> Result<Config, Vec<String>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let read = Config::load(Some(file.path()), std::iter::empty(), &[]);
    read.map_err(|error| {
        let shown = format!("{}: ", file.path().display());
        let without = |line: String| line.strip_prefix(&shown).unwrap_or(&line).to_owned();
        error.0.into_iter().map(without).collect()
    })
}

/// What is in force is printed so that it can be read again.
fn check_config(config: &Config) {
    let printed = config.print();
    let read = load_file(printed.as_bytes());
    assert_eq!(read.as_ref(), Ok(config), "{printed}");
}

#[test]
fn any_file_is_a_configuration_or_names_what_is_wrong() {
    let pieces: Vec<&str> = Config::KEYS
        .iter()
        .copied()
        .chain([
            " = ",
            "\n",
            "\"",
            "'",
            "[",
            "]",
            ".",
            "_",
            "10s",
            "true",
            "0x",
            "1e9",
            "18446744073709551615",
        ])
        .collect();
    fuzz("config", 1500, &pieces, |text| match load_file(text) {
        Ok(config) => {
            check_config(&config);
            true
        }
        Err(wrong) => {
            // A file that is no TOML has no key to name but a place.
            let toml =
                std::str::from_utf8(text).is_ok_and(|text| text.parse::<toml::Table>().is_ok());
            for line in wrong.iter().filter(|_| toml) {
                let table: toml::Table = std::str::from_utf8(text).unwrap().parse().unwrap();
                let mut keys = table
                    .keys()
                    .map(String::as_str)
                    .chain(Config::KEYS.iter().copied());
                assert!(
                    keys.any(|key| line.starts_with(&format!("{key}: "))),
                    "{line}"
                );
            }
            false
        }
    });
}

#[test]
fn any_environment_is_a_configuration_or_names_what_is_wrong() {
    fuzz(
        "environment",
        1500,
        &["QUOTA_", "=", "\n", "LISTEN", "1_0", "\u{130}"],
        |bytes| {
            let variables = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'=')?;
                let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
                Some((text(&line[..at]), text(&line[at + 1..])))
            });
            let variables: Vec<(OsString, OsString)> = variables.collect();
            match Config::load(None, variables.iter().cloned(), &[]) {
                Ok(config) => {
                    check_config(&config);
                    true
                }
                Err(error) => {
                    let names = variables
                        .iter()
                        .map(|(name, _)| name.to_string_lossy().into_owned());
                    let names: Vec<String> = names.collect();
                    let keys = || Config::KEYS.iter().map(|key| (*key).to_owned());
                    for line in error.0 {
                        let mut all = names.iter().cloned().chain(keys());
                        assert!(
                            all.any(|name| line.starts_with(&format!("{name}: "))),
                            "{line}"
                        );
                    }
                    false
                }
            }
        },
    );
}

#[test]
fn any_flag_is_a_configuration_or_names_what_is_wrong() {
    let key = select(Config::KEYS);
    run(
        2000,
        &(key, "(-?[0-9_]{0,22}(s|ms|ns|d|y)?|.{0,20})"),
        |(key, text)| match Config::load(None, std::iter::empty(), &[(key, text)]) {
            Ok(config) => check_config(&config),
            Err(error) => {
                let named = format!("--{}: ", key.replace('_', "-"));
                for line in error.0 {
                    assert!(
                        line.starts_with(&named) || line.starts_with(&format!("{key}: ")),
                        "{line}"
                    );
                }
            }
        },
    );
}

/// Writes requests that are answered into the corpus anew:
/// `cargo test -p quota-tests --test fuzz_server -- --ignored`.
#[test]
#[ignore = "it is no test: it writes tests/corpus/requests anew after a change of the messages"]
fn the_corpus_is_written() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = here.join("corpus/requests");
    std::fs::create_dir_all(&directory).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for (method, input) in Schema::new().methods {
        let mut best: Vec<(bool, Vec<u8>)> = Vec::new();
        for _ in 0..40 {
            // Each alone on a new ledger, so that the files are good in every order.
            let server = Server::new();
            let choices: Vec<u32> = (0..80).map(|_| random.u32(..)).collect();
            let request = server.schema.make(&input, &mut Choices::new(&choices));
            let taken = request.len() < 400 && server.send(&method, &request);
            best.push((taken, request));
        }
        best.retain(|(_, request)| request.len() < 400);
        best.sort_by_key(|(taken, request)| std::cmp::Reverse((*taken, request.len())));
        for (at, (_, request)) in best.iter().take(2).enumerate() {
            std::fs::write(directory.join(format!("{method}.{at}")), request).unwrap();
        }
    }
}
