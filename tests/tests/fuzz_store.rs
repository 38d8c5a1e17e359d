//! C11.2, C11.3: whatever stands on the disk is read or refused, without a panic and without more memory than a
//! file of that size is worth; what is read means the same when it is written again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use quota_core::command::Provenance;
use quota_core::event::{Change, Event};
use quota_core::name::{Id, OperationId, ResourceKey, SubjectName, SubjectPattern};
use quota_core::quota::Target;
use quota_core::record::{Record, RecordKey, Records};
use quota_core::{Bounds, Ledger, invariants};
use quota_store::Rows;
use quota_store::base;
use quota_store::batch::{Batch, Contents, record_of_row, row_key, row_value};
use quota_store::data_dir::DataDir;
use quota_store::disk::{Disk, RealDisk};
use quota_store::footprint::Footprint;
use quota_store::journal::{Journal, MemoryJournal, SegmentJournal, SegmentOptions};
use quota_store::recovery::recover;
use quota_store::rows::{MemoryRows, RowChange};
use quota_store::told::ToldBatch;
use quota_testkit::disk::TestDisk;
use quota_testkit::fuzz::{corpus, fuzz, fuzz_text, inputs, run};
use quota_testkit::script::{self, check};
use quota_tests::messages;
use quota_tests::worlds::EngineWorld;

const STORE_ID: [u8; 16] = [7; 16];
const SEGMENT_BYTES: u64 = 1 << 13;
/// Memory that a decoder may have at once, whatever it reads.
const SPARE_BYTES: u64 = 1 << 20;
/// And for each byte that it reads: an empty message of two bytes becomes a value of some hundred.
const BYTES_PER_BYTE: u64 = 1_000;

/// Runs a decoder and asserts that what it allocated at most is in proportion to what it read.
fn bounded<T>(read_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    // A panic must not leave the measuring: it would go on for ever.
    let used = allocation_counter::measure(|| {
        decoded = Some(catch_unwind(AssertUnwindSafe(decode)));
    });
    let decoded = decoded
        .unwrap()
        .unwrap_or_else(|panic| resume_unwind(panic));
    let most = SPARE_BYTES + BYTES_PER_BYTE * read_bytes as u64;
    assert!(
        used.bytes_max <= most,
        "{} bytes for {read_bytes}",
        used.bytes_max
    );
    decoded
}

fn file_of(decoder: &str, name: &str) -> Vec<u8> {
    let found = corpus(decoder).into_iter().find(|(file, _)| file == name);
    found.unwrap().1
}

/// A row in the corpus: a byte for the length of the key, the key, the value.
fn split_row(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.split_first() {
        Some((length, rest)) => rest.split_at(rest.len().min(usize::from(*length))),
        None => (&[], &[]),
    }
}

fn join_row(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(key.len()).unwrap();
    [&[length], key, value].concat()
}

fn read_row(bytes: &[u8]) -> Option<(RecordKey, Record)> {
    let (key, value) = split_row(bytes);
    bounded(bytes.len(), || record_of_row(key, value)).ok()
}

fn check_row(bytes: &[u8]) -> bool {
    let Some((key, record)) = read_row(bytes) else {
        return false;
    };
    let (key_then, value_then) = (row_key(&key), row_value(&record));
    let again = record_of_row(&key_then, &value_then);
    assert_eq!(again, Ok((key, record)));
    true
}

#[test]
fn any_row_is_a_record_or_an_error() {
    fuzz(
        "rows",
        3000,
        &["tenants/acme", "compute.cpu", "\u{2}"],
        check_row,
    );
}

/// Damage that keeps the shape: fields of the message are changed, doubled, left out and given hostile values.
#[test]
fn any_message_in_a_row_is_a_record_or_an_error() {
    let files: Vec<Vec<u8>> = corpus("rows").into_iter().map(|(_, bytes)| bytes).collect();
    let taken = RefCell::new(0);
    run(
        3000,
        &(select(files), messages::twists()),
        |(file, twists)| {
            let (key, value) = split_row(&file);
            if let Some((version, body)) = value.split_first() {
                let value = [&[*version], &*messages::twist(body, &twists)].concat();
                *taken.borrow_mut() += u32::from(check_row(&join_row(key, &value)));
            }
        },
    );
    assert!(taken.into_inner() > 500, "the twists are too rough");
}

fn check_batch(bytes: &[u8]) -> bool {
    let Ok(read) = bounded(bytes.len(), || Contents::read(bytes)) else {
        return false;
    };
    // What else is told may be damaged: recovery does not need it.
    let told = bounded(bytes.len(), || ToldBatch::read(bytes));
    if let Ok(told) = &told {
        let numbers = told.first.checked_add(told.events.len() as u64);
        assert!(numbers.is_none_or(|next| next == read.next_event));
    }
    let footprint = bounded(bytes.len(), || Footprint::read(bytes));
    let answered = |answer: &Arc<quota_core::event::Remembered>| Event {
        at: read.stamp.now,
        revision: answer.revision,
        operation: Some(answer.id.clone()),
        provenance: Arc::new(Provenance::default()),
        change: Change::Answered(answer.clone()),
    };
    let events: Vec<Event> = read.answers.iter().map(answered).collect();
    let written = Batch::new(
        Vec::new(),
        read.stamp,
        read.needed_from,
        1,
        &events,
        &read.images,
    );
    let again = Contents::read(written.body()).unwrap();
    assert_eq!(again.stamp, read.stamp);
    assert_eq!(again.answers, read.answers);
    assert_eq!(again.images, read.images);
    told.is_ok() && footprint.is_ok()
}

#[test]
fn any_batch_is_read_or_an_error() {
    fuzz(
        "batches",
        1500,
        &["tenants/acme", "compute.cpu", "\u{2}"],
        check_batch,
    );
    let files: Vec<Vec<u8>> = corpus("batches")
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    let taken = RefCell::new(0);
    run(
        1500,
        &(select(files), messages::twists()),
        |(file, twists)| {
            if let Some((version, body)) = file.split_first() {
                let body = [&[*version], &*messages::twist(body, &twists)].concat();
                *taken.borrow_mut() += u32::from(check_batch(&body));
            }
        },
    );
    assert!(taken.into_inner() > 200, "the twists are too rough");
}

/// Records that were read but not written by a ledger: it refuses them or holds together enough to be judged.
#[test]
fn any_records_are_a_ledger_or_a_misfit() {
    let files: Vec<Vec<u8>> = corpus("rows").into_iter().map(|(_, bytes)| bytes).collect();
    let whole: Vec<(RecordKey, Record)> = files.iter().filter_map(|file| read_row(file)).collect();
    let twisted = (any::<Index>(), messages::twists());
    let inputs = prop::collection::vec(twisted, 1..4);
    run(1000, &inputs, |twisted| {
        let mut records = Records::default();
        for (key, record) in &whole {
            records.lay(key.clone(), Some(record.clone()));
        }
        for (at, twists) in twisted {
            let (key, value) = split_row(&files[at.index(files.len())]);
            let Some((version, body)) = value.split_first() else {
                continue;
            };
            let value = [&[*version], &*messages::twist(body, &twists)].concat();
            if let Some((key, record)) = read_row(&join_row(key, &value)) {
                records.lay(key, Some(record));
            }
        }
        if let Ok(ledger) = Ledger::from_records(Bounds::default(), records) {
            let _ = invariants::check_state(&ledger);
        }
    });
}

fn disk_with(files: &[(&str, &[u8])]) -> TestDisk {
    let disk = TestDisk::default();
    for (name, bytes) in files {
        let mut file = disk.create(name, 0).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir().unwrap();
    disk
}

fn options() -> SegmentOptions {
    SegmentOptions {
        segment_bytes: SEGMENT_BYTES,
        store_id: STORE_ID,
        whole: true,
    }
}

const FIRST: &str = "0000000001.seg";
/// Where the batches of a segment begin.
const SEGMENT_HEADER_BYTES: usize = 4096;

fn bodies(journal: &dyn Journal) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let first = journal.first_sequence();
    let read = journal.read_from(first, &mut |_, body| {
        bodies.push(body.to_vec());
        Ok(())
    });
    read.unwrap();
    bodies
}

/// Segments are kept in the corpus without the zeros that fill up their header and their end.
fn segment(bytes: &[u8]) -> Vec<u8> {
    let (header, frames) = bytes.split_at(bytes.len().min(77));
    let mut whole = header.to_vec();
    whole.resize(SEGMENT_HEADER_BYTES, 0);
    whole.extend_from_slice(frames);
    whole
}

fn check_segment(bytes: &[u8]) -> bool {
    let whole = segment(bytes);
    let disk = disk_with(&[(FIRST, &whole)]);
    let opened = bounded(whole.len(), || {
        SegmentJournal::open(Arc::new(disk.clone()), options())
    });
    let Ok(mut journal) = opened else {
        return false;
    };
    let kept = bodies(&journal);
    let next = journal.next_sequence();
    assert_eq!(next - journal.first_sequence(), kept.len() as u64);
    journal.append(next, b"more").unwrap();
    drop(journal);
    let again = SegmentJournal::open(Arc::new(disk), options()).unwrap();
    assert_eq!(bodies(&again), [kept, vec![b"more".to_vec()]].concat());
    true
}

#[test]
fn any_segment_is_a_journal_or_damaged() {
    fuzz("segments", 600, &["QFRM", "QUOTAJNL"], check_segment);
}

/// Frames with a good checksum and hostile fields, which no bit rot makes.
#[test]
fn any_sealed_frame_is_read_or_damaged() {
    let file = file_of("segments", "valid-three");
    let inputs = (
        0_usize..14,
        any::<u32>(),
        select(messages::WORDS),
        any::<bool>(),
    );
    run(600, &inputs, |(word, random, hostile, header)| {
        let mut whole = segment(&file);
        let (from, fields) = match header {
            true => (0, 73),
            false => (SEGMENT_HEADER_BYTES, 56),
        };
        let value = if random % 2 == 0 { hostile } else { random };
        let at = from + (word * 4).min(fields - 4);
        whole[at..at + 4].copy_from_slice(&value.to_le_bytes());
        if header {
            let sum = crc32c::crc32c(&whole[..fields]).to_le_bytes();
            whole[fields..fields + 4].copy_from_slice(&sum);
        } else {
            let size = u32::from_le_bytes(whole[from + 4..from + 8].try_into().unwrap()) as usize;
            let sum = crc32c::crc32c(&whole[from..from + fields]);
            let body = whole.get(from + 64..(from + 64).saturating_add(size));
            let sum = crc32c::crc32c_append(sum, body.unwrap_or_default()).to_le_bytes();
            whole[from + fields..from + fields + 4].copy_from_slice(&sum);
        }
        let disk = disk_with(&[(FIRST, &whole)]);
        let opened = bounded(whole.len(), || {
            SegmentJournal::open(Arc::new(disk), options())
        });
        if let Ok(mut journal) = opened {
            let _ = bodies(&journal);
            let _ = journal.append(journal.next_sequence(), b"more");
        }
    });
}

#[test]
fn any_extent_is_read_or_an_error() {
    let whole = segment(&file_of("segments", "valid-one"));
    fuzz("extents", 1000, &["QUOTAEXT"], |bytes| {
        let disk = disk_with(&[(FIRST, &whole), ("extent", bytes)]);
        let opened = bounded(whole.len(), || {
            SegmentJournal::open(Arc::new(disk), options())
        });
        opened.is_ok()
    });
}

const BASE: &str = "00000000000000000003.base";

fn check_base(bytes: &[u8]) -> bool {
    let disk = disk_with(&[(BASE, bytes)]);
    // A buffer of its own.
    let mut rows = Vec::new();
    let read = bounded((1 << 12) + bytes.len(), || {
        base::read(&disk, STORE_ID, 3, &mut |row| {
            rows.push(row);
            Ok(())
        })
    });
    if read.is_err() {
        return false;
    }
    // What was read is written as it was.
    let again = MemoryRows::default();
    let changes: Vec<RowChange> = rows
        .into_iter()
        .map(|row| RowChange {
            key: row.key,
            value: Some(row.value),
            sequence: row.sequence,
        })
        .collect();
    again.put(&changes, 3).unwrap();
    let disk = TestDisk::default();
    let written = base::write(&disk, STORE_ID, &again, &|| false).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    true
}

#[test]
fn any_base_is_read_or_damaged() {
    let files = corpus("bases");
    for (name, bytes) in &files {
        assert_eq!(check_base(bytes), name.starts_with("valid-"), "{name}");
    }
    let files = files.into_iter().map(|(_, bytes)| bytes).collect();
    run(800, &inputs(files, &["QUOTABAS"]), |input| {
        check_base(&input.0);
    });
}

#[test]
fn any_identity_is_a_store_or_damaged() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("journal")).unwrap();
    fuzz(
        "identities",
        1500,
        &["quota-store", " ", "+", "\n"],
        |bytes| {
            std::fs::write(directory.path().join("STORE"), bytes).unwrap();
            let Ok(taken) = DataDir::take_existing(directory.path()) else {
                return false;
            };
            let id: String = taken
                .store_id()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            assert!(text.contains(&id), "{text:?} is {id}");
            true
        },
    );
}

/// Rows that are damaged are rebuilt from the journal, and a damaged journal is refused: nothing panics.
#[test]
fn any_batches_and_rows_are_recovered_or_refused() {
    let of = |decoder| -> Vec<Vec<u8>> {
        corpus(decoder)
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect()
    };
    let inputs = (
        prop::collection::vec(inputs(of("batches"), &[]), 0..3),
        prop::collection::vec(inputs(of("rows"), &[]), 0..3),
    );
    run(500, &inputs, |(batches, damaged)| {
        let mut journal = MemoryJournal::new();
        for (sequence, body) in (1..).zip(&batches) {
            journal.append(sequence, &body.0).unwrap();
        }
        let rows = MemoryRows::default();
        let changes: Vec<RowChange> = damaged
            .iter()
            .map(|input| {
                let (key, value) = split_row(&input.0);
                RowChange {
                    key: key.to_vec(),
                    value: Some(value.to_vec()),
                    sequence: 0,
                }
            })
            .collect();
        rows.put(&changes, 0).unwrap();
        let bases = TestDisk::default();
        let _ = recover(&journal, &rows, &bases, STORE_ID, Bounds::default());
    });
}

/// C2.1
#[test]
fn any_text_is_a_name_or_an_error() {
    let pieces = [
        "/", "*", "tenants", "system", "holds", ".", "_", "-", "é", "\u{202e}", "\n", "A",
    ];
    fuzz_text("names", 4000, &pieces, |text| {
        let mut taken = false;
        let mut known = |read: Result<String, quota_core::name::NameError>| match read {
            Ok(written) => {
                taken = true;
                assert_eq!(written, text);
            }
            Err(error) => assert!(!error.0.is_empty() && error.0.len() < 1_000, "{error}"),
        };
        bounded(text.len(), || {
            known(Id::parse(text).map(|id| id.to_string()));
            known(ResourceKey::parse(text).map(|key| key.to_string()));
            known(OperationId::parse(text).map(|id| id.to_string()));
            known(Target::parse(text).map(|target| target.as_str().to_owned()));
            let pattern = SubjectPattern::parse(text);
            if let Ok(pattern) = &pattern {
                assert!(!pattern.literal_ancestors().is_empty() && pattern.overlaps(pattern));
                assert!(pattern.matches(text) && !pattern.is_more_specific_than(pattern));
            }
            known(pattern.map(|pattern| pattern.to_string()));
            let name = SubjectName::parse(text);
            if let Ok(name) = &name {
                let lineage: Vec<&str> = name.lineage().collect();
                assert!(lineage.iter().all(|above| name.is_within(above)));
                assert!(
                    lineage
                        .iter()
                        .all(|above| SubjectName::parse(above).is_ok())
                );
                assert_eq!((lineage[0], lineage[lineage.len() - 1]), (text, "system"));
                assert!(text.starts_with(name.first_pair()));
            }
            known(name.map(|name| name.to_string()));
        });
        taken
    });
}

/// A prefix that says four gigabytes costs nothing.
#[test]
fn lengths_are_not_believed() {
    for length in [1 << 26, u32::MAX - 1, u32::MAX] {
        let mut base = file_of("bases", "valid-three");
        for at in [33, 37] {
            let old = base.clone();
            base[at..at + 4].copy_from_slice(&u32::to_le_bytes(length));
            assert!(!check_base(&base));
            base = old;
        }
        let mut body = vec![2, 0x2a];
        prost::encoding::encode_varint(length.into(), &mut body);
        assert!(!check_batch(&body));
        assert!(!check_row(&join_row(b"m", &body)));
    }
}

/// Writes the corpus of everything binary anew, after the format has changed:
/// `cargo test -p quota-tests --test fuzz_store -- --ignored`.
#[test]
#[ignore = "it is no test: it writes tests/corpus anew after a change of the format"]
fn the_corpus_is_written() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |decoder: &str, name: &str, bytes: &[u8]| {
        let directory = here.join("corpus").join(decoder);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), bytes).unwrap();
    };
    for decoder in ["batches", "rows"] {
        for (name, _) in corpus(decoder) {
            if name.starts_with("valid-") {
                std::fs::remove_file(here.join("corpus").join(decoder).join(name)).unwrap();
            }
        }
    }
    let (mut seen, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for script in script::all() {
        let stem = script.name.trim_end_matches(".script");
        let mut world = EngineWorld::new(&script);
        let wrong = check(&script, &mut world, |world| world.restart());
        assert!(wrong.is_empty(), "{wrong:?}");
        let store = world.store.clone();
        drop(world);
        let (journal, _) = store.recover().unwrap();
        for (at, body) in bodies(&journal).into_iter().enumerate() {
            let read = Contents::read(&body).unwrap();
            let kind = |debug: String| debug.chars().take_while(|c| c.is_alphabetic()).collect();
            let mut all: BTreeSet<String> = BTreeSet::new();
            for answer in &read.answers {
                all.insert(kind(format!("{:?}", answer.outcome.answer)));
            }
            for told in ToldBatch::read(&body).unwrap().events {
                all.insert(kind(format!("{:?}", told.what)));
            }
            for row in &read.rows {
                let name = format!("{}{}", char::from(row.key[0]), row.value.is_some());
                all.insert(name.clone());
                let value = row.value.clone().unwrap_or_default();
                let size = value.len() / 60;
                if value.len() < 1500 && kinds.insert((name, size)) && !value.is_empty() {
                    let name = format!("valid-{}-{}", char::from(row.key[0]), value.len());
                    write("rows", &name, &join_row(&row.key, &value));
                }
            }
            if body.len() < 2500 && seen.insert(all) {
                write("batches", &format!("valid-{stem}-{at}"), &body);
            }
        }
    }
    for (name, count) in [("one", 1), ("three", 3), ("ten", 10)] {
        let temporary = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(temporary.path()).unwrap();
        let mut journal = SegmentJournal::open(Arc::new(disk), options()).unwrap();
        let rows = MemoryRows::default();
        for sequence in 1..=count {
            let body = vec![b'a'; usize::try_from(sequence * 7).unwrap()];
            journal.append(sequence, &body).unwrap();
            let change = RowChange {
                key: format!("key-{sequence}").into_bytes(),
                value: Some(body),
                sequence,
            };
            rows.put(&[change], 3).unwrap();
        }
        let bytes = std::fs::read(temporary.path().join(FIRST)).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 8;
        let kept = [&bytes[..77], &bytes[SEGMENT_HEADER_BYTES..end]].concat();
        write("segments", &format!("valid-{name}"), &kept);
        let extent = std::fs::read(temporary.path().join("extent")).unwrap();
        write("extents", "valid-one", &extent);
        let bases = TestDisk::default();
        let base = base::write(&bases, STORE_ID, &rows, &|| false).unwrap();
        let mut bytes = vec![0; usize::try_from(base.bytes).unwrap()];
        bases.open(BASE).unwrap().read_at(0, &mut bytes).unwrap();
        write("bases", &format!("valid-{name}"), &bytes);
    }
}
