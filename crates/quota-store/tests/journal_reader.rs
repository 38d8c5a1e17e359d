//! Reading beside the writer on the test disk: failed flushes, damage, and what a catch-up costs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use quota_store::Journal;
use quota_store::disk::Disk;
use quota_store::journal::{Cursor, JournalError, SegmentJournal, SegmentOptions};
use quota_testkit::disk::TestDisk;

const SEGMENT_BYTES: u64 = 16 << 10;
/// Where the batches of a segment begin.
const SEGMENT_HEADER_BYTES: usize = 4096;

fn open(disk: &TestDisk, segment_bytes: u64) -> SegmentJournal {
    let options = SegmentOptions {
        segment_bytes,
        store_id: [1; 16],
        whole: false,
    };
    SegmentJournal::open(Arc::new(disk.clone()), options).unwrap()
}

fn body(sequence: u64) -> Vec<u8> {
    format!("batch {sequence}").repeat(10).into_bytes()
}

fn append(journal: &mut SegmentJournal, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        journal.append(sequence, &body(sequence)).unwrap();
    }
}

/// Reads on, up to an error.
fn rest(cursor: &mut dyn Cursor) -> (Vec<u64>, Option<JournalError>) {
    let mut read = Vec::new();
    loop {
        match cursor.next() {
            Ok(Some(batch)) => {
                assert_eq!(batch.body, body(batch.sequence), "another batch");
                read.push(batch.sequence);
            }
            Ok(None) => return (read, None),
            Err(error) => return (read, Some(error)),
        }
    }
}

/// A batch whose flush failed is not seen before it is durable, and then once, from the segment that counts.
#[test]
fn a_failed_flush() {
    let disk = TestDisk::default();
    let mut journal = open(&disk, SEGMENT_BYTES);
    let reader = journal.reader();
    let mut tail = reader.cursor(1).unwrap();
    append(&mut journal, 1..10);
    assert_eq!(rest(&mut *tail).0.len(), 9);
    for failing in [10, 20] {
        append(&mut journal, tail.sequence()..failing);
        let before: Vec<u64> = (tail.sequence()..failing).collect();
        disk.fail_syncs(2);
        for _ in 0..2 {
            // What is abandoned in the older segment is another batch.
            journal.append(failing, b"abandoned").unwrap_err();
            assert_eq!(reader.next_sequence(), failing);
        }
        assert_eq!(rest(&mut *tail).0, before);
        append(&mut journal, failing..failing + 3);
        assert_eq!(rest(&mut *tail).0, [failing, failing + 1, failing + 2]);
    }
    let mut all = reader.cursor(1).unwrap();
    assert_eq!(rest(&mut *all).0, (1..23).collect::<Vec<u64>>());
    let segments = disk.names().iter().filter(|n| n.ends_with(".seg")).count();
    assert_eq!(segments, 3);
}

/// A flipped bit anywhere in a segment ends what is read with an error that names the place; no other batch is
/// ever shown, from wherever it is read.
#[test]
fn damage_anywhere() {
    let disk = TestDisk::default();
    let mut journal = open(&disk, SEGMENT_BYTES);
    append(&mut journal, 1..200);
    let reader = journal.reader();
    let name = "0000000001.seg";
    let bytes = disk.bytes(name);
    let second = reader.seek(&mut |at, _| Ok(at < 100)).unwrap().sequence();
    assert!((50..100).contains(&second), "{second}");
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut damaged = 0;
    for _ in 0..500 {
        let offset = random.usize(SEGMENT_HEADER_BYTES..=used);
        disk.flip(name, offset);
        for from in [1, 40, second] {
            let (read, error) = match reader.cursor(from) {
                Ok(mut cursor) => rest(&mut *cursor),
                Err(error) => (Vec::new(), Some(error)),
            };
            let due = from..from + read.len() as u64;
            assert_eq!(read, due.clone().collect::<Vec<u64>>());
            match error {
                Some(JournalError::Damaged {
                    file, offset: at, ..
                }) => {
                    assert!(from < second && file == name);
                    // In the very batch; where headers are hopped over, also behind the one that lies.
                    assert!(at <= offset as u64 || from == 40, "{at}, {offset}");
                    damaged += 1;
                }
                Some(other) => panic!("{other}"),
                // Padding between batches says nothing, nor does what stands before the place.
                None => assert_eq!(due.end, 200),
            }
        }
        disk.flip(name, offset);
    }
    assert!(damaged > 500, "{damaged}");
}

/// A segment of another history, whole in itself, is noticed by the chain of hashes.
#[test]
fn a_segment_of_another_history() {
    let (disk, other) = (TestDisk::default(), TestDisk::default());
    let mut journal = open(&disk, SEGMENT_BYTES);
    append(&mut journal, 1..300);
    let mut twin = open(&other, SEGMENT_BYTES);
    twin.append(1, &[b'x'; 70]).unwrap();
    append(&mut twin, 2..300);
    let name = "0000000002.seg";
    let mut file = disk.open(name).unwrap();
    file.write_at(0, &other.bytes(name)).unwrap();
    let (read, error) = rest(&mut *journal.reader().cursor(1).unwrap());
    assert!(read.len() > 50, "{}", read.len());
    let error = error.expect("the chain is broken").to_string();
    assert!(
        error.contains("does not follow") && error.contains(name),
        "{error}"
    );
}

/// Small batches cost no call each while catching up; at the tail a batch costs one.
#[test]
fn reading_ahead() {
    let disk = TestDisk::default();
    let mut journal = open(&disk, 8 << 20);
    append(&mut journal, 1..5001);
    let reader = journal.reader();
    let before = disk.calls();
    let mut cursor = reader.cursor(1).unwrap();
    assert_eq!(rest(&mut *cursor).0.len(), 5000);
    let calls = disk.calls() - before;
    assert!(calls < 20, "{calls} calls for 5000 batches");

    let before = disk.calls();
    assert_eq!(rest(&mut *reader.cursor(4999).unwrap()).0, [4999, 5000]);
    let calls = disk.calls() - before;
    assert!(calls < 20, "{calls} calls to find a place");

    for sequence in 5001..5101 {
        append(&mut journal, sequence..sequence + 1);
        let before = disk.calls();
        assert_eq!(rest(&mut *cursor).0, [sequence]);
        assert_eq!(disk.calls() - before, 1);
    }
}

/// Batches larger than what is read ahead.
#[test]
fn large_batches() {
    let disk = TestDisk::default();
    let mut journal = open(&disk, 1 << 20);
    let reader = journal.reader();
    let mut tail = reader.cursor(1).unwrap();
    let sizes = [
        10,
        300_000,
        16 << 10,
        (16 << 10) - 64,
        2 << 20,
        0,
        262_144,
        700_000,
        3,
    ];
    for (sequence, size) in (1..).zip(sizes) {
        journal.append(sequence, &vec![7; size]).unwrap();
        assert_eq!(tail.next().unwrap().unwrap().body, vec![7; size]);
    }
    let mut again = reader.cursor(1).unwrap();
    for size in sizes {
        assert_eq!(again.next().unwrap().unwrap().body, vec![7; size]);
    }
    assert_eq!(again.next().unwrap(), None);
    assert_eq!(
        reader.cursor(9).unwrap().next().unwrap().unwrap().body,
        [7; 3]
    );
}

/// A trim overtakes a cursor: it says so, before and after the file is gone.
#[test]
fn overtaken_by_a_trim() {
    let disk = TestDisk::default();
    let mut journal = open(&disk, SEGMENT_BYTES);
    append(&mut journal, 1..300);
    let reader = journal.reader();
    let mut unopened = reader.cursor(300).unwrap();
    let mut opened = reader.cursor(5).unwrap();
    opened.next().unwrap();
    // Extent and file: the power of the disk goes between the two, and the segment stays in the list.
    let mut first = 1;
    for calls in 0..9 {
        disk.lose_power_after(calls);
        let trimmed = journal.trim(290, 0);
        disk.keep_power();
        assert!(reader.first_sequence() >= first);
        first = reader.first_sequence();
        if trimmed.is_ok() {
            break;
        }
        match reader.cursor(1) {
            Ok(mut cursor) => assert_eq!(rest(&mut *cursor).0.len(), 299),
            Err(JournalError::Trimmed { first: told }) => assert_eq!(told, first),
            Err(other) => panic!("{other}"),
        }
        let found = reader.seek(&mut |at, _| Ok(at <= 250)).unwrap();
        assert!((first..=250).contains(&found.sequence()));
    }
    journal.trim(290, 0).unwrap();
    assert!(first > 1);
    let (read, error) = rest(&mut *opened);
    let at = opened.sequence();
    assert!(matches!(error, Some(JournalError::Trimmed { first }) if first > at));
    assert_eq!(read, (6..at).collect::<Vec<u64>>());
    append(&mut journal, 300..302);
    assert_eq!(rest(&mut *unopened).0, [300, 301]);
}
