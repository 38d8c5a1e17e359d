//! What every implementation of the two traits must pass. Each suite takes a maker of empty stores, and
//! where the store survives its process, a way to open it again.

mod reader;

use std::ops::ControlFlow;

use crate::journal::{AppendError, Journal};
use crate::rows::{RowChange, Rows};

pub use reader::journal_reader;

/// Reads everything from `sequence` on.
pub fn read(journal: &dyn Journal, sequence: u64) -> Vec<(u64, Vec<u8>)> {
    let mut batches = Vec::new();
    journal
        .read_from(sequence, &mut |at, body| {
            batches.push((at, body.to_vec()));
            Ok(())
        })
        .expect("a journal that was just written can be read");
    batches
}

/// The suite of [`Journal`]; `reopen` closes a journal and opens what it left.
pub fn journal<J: Journal>(new: impl FnOnce() -> J, reopen: impl Fn(J) -> J) {
    let body = |sequence: u64| format!("batch {sequence}").repeat(20).into_bytes();
    let mut journal = new();
    assert_eq!((journal.first_sequence(), journal.next_sequence()), (1, 1));
    assert!(read(&journal, 1).is_empty());

    for sequence in 1..=40 {
        journal
            .append(sequence, &body(sequence))
            .expect("an append to a healthy journal succeeds");
        assert_eq!(journal.next_sequence(), sequence.saturating_add(1));
    }
    for wrong in [0, 1, 40, 42, u64::MAX] {
        match journal.append(wrong, b"fenced") {
            Err(AppendError::Fenced { actual: 41 }) => {}
            other => panic!("batch {wrong} at 41: {other:?}"),
        }
    }
    let all: Vec<(u64, Vec<u8>)> = (1..=40).map(|at| (at, body(at))).collect();
    assert_eq!(read(&journal, 0), all);
    assert_eq!(read(&journal, 38).len(), 3);
    assert!(read(&journal, 41).is_empty());

    let mut journal = reopen(journal);
    assert_eq!(read(&journal, 1), all);
    journal
        .append(41, b"")
        .expect("an empty batch is a batch too");
    journal.append(42, &body(42)).expect("and so is the next");

    let size = journal.size_bytes();
    assert_eq!(journal.trim(30, size).expect("a trim succeeds"), 0);
    let given_back = journal
        .trim(20, size.saturating_sub(1))
        .expect("a trim succeeds");
    assert!(given_back > 0 && journal.first_sequence() < 20);
    let size = journal.size_bytes();
    let given_back = journal.trim(30, 0).expect("a trim succeeds");
    assert_eq!(journal.size_bytes(), size.saturating_sub(given_back));
    assert!(
        (2..=30).contains(&journal.first_sequence()),
        "something went"
    );
    let journal = reopen(journal);
    let kept = read(&journal, 30);
    assert_eq!(kept.len(), 13);
    assert_eq!(kept.first(), Some(&(30, body(30))));
    assert_eq!(journal.next_sequence(), 43);
}

/// The suite of [`Rows`]; `reopen` closes rows and opens what they left.
pub fn rows<R: Rows>(new: impl FnOnce() -> R, reopen: impl Fn(R) -> R) {
    let change = |key: &str, value: Option<Vec<u8>>, sequence| RowChange {
        key: key.as_bytes().to_vec(),
        value,
        sequence,
    };
    let keys = |rows: &R, prefix: &str| -> Vec<String> {
        let mut keys = Vec::new();
        rows.scan(prefix.as_bytes(), &mut |row| {
            keys.push(String::from_utf8_lossy(&row.key).into_owned());
            Ok(())
        })
        .expect("healthy rows can be scanned");
        keys
    };
    let value = |rows: &R, key: &str| {
        rows.get(key.as_bytes())
            .expect("healthy rows can be read")
            .map(|row| (row.sequence, row.value))
    };
    let large = vec![7; 20_000];

    let rows = new();
    assert_eq!(rows.applied(), 0);
    assert_eq!(value(&rows, "sa"), None);
    let first = [
        change("sa", Some(b"1".to_vec()), 1),
        change("sa/b", Some(large.clone()), 2),
        change("sa/c", Some(Vec::new()), 2),
        change("t", Some(b"4".to_vec()), 2),
    ];
    rows.put(&first, 2).expect("a put to healthy rows succeeds");
    assert_eq!(rows.applied(), 2);
    assert_eq!(keys(&rows, ""), ["sa", "sa/b", "sa/c", "t"]);
    assert_eq!(keys(&rows, "sa/"), ["sa/b", "sa/c"]);
    let from = |prefix: &str, from: &str, most: usize| -> Vec<String> {
        let mut keys = Vec::new();
        rows.scan_from(prefix.as_bytes(), from.as_bytes(), &mut |row| {
            keys.push(String::from_utf8_lossy(&row.key).into_owned());
            Ok(match keys.len() < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })
        .expect("healthy rows can be scanned");
        keys
    };
    assert_eq!(from("sa", "sa/bb", 9), ["sa/c"]);
    assert_eq!(from("sa", "", 2), ["sa", "sa/b"]);
    assert!(from("sa", "sb", 9).is_empty());
    assert_eq!(value(&rows, "sa/b"), Some((2, large.clone())));
    assert_eq!(value(&rows, "sa/c"), Some((2, Vec::new())));

    let rows = reopen(rows);
    assert_eq!(rows.applied(), 2);
    assert_eq!(value(&rows, "sa/b"), Some((2, large.clone())));
    let second = [
        change("sa/b", Some(b"short".to_vec()), 3),
        change("sa", None, 4),
        change("absent", None, 4),
        change("t", Some(large.clone()), 5),
    ];
    rows.put(&second, 5)
        .expect("a put to healthy rows succeeds");
    // Absolute values: doing it twice is harmless.
    rows.put(&second, 5)
        .expect("a put to healthy rows succeeds");
    let rows = reopen(rows);
    assert_eq!(keys(&rows, ""), ["sa/b", "sa/c", "t"]);
    assert_eq!(value(&rows, "sa/b"), Some((3, b"short".to_vec())));
    rows.put(&[change("t", None, 6)], 6)
        .expect("a put to healthy rows succeeds");
    assert_eq!(keys(&rows, ""), ["sa/b", "sa/c"]);

    rows.clear().expect("healthy rows can be cleared");
    let rows = reopen(rows);
    assert_eq!((rows.applied(), keys(&rows, "")), (0, Vec::new()));
}
