//! What readers beside the writer of every journal must do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::journal::{Cursor, Journal, JournalError, JournalReader, KeptBatch, Link, verify};

/// Batches that one thread writes while others read.
const BESIDE: u64 = 1000;

fn body(sequence: u64) -> Vec<u8> {
    let times = usize::try_from(sequence % 7).unwrap_or(0);
    format!("{sequence:020}|")
        .repeat(times.saturating_add(1))
        .into_bytes()
}

fn number(body: &[u8]) -> u64 {
    let text = body.get(..20).and_then(|text| str::from_utf8(text).ok());
    let number = text.and_then(|text| text.parse().ok());
    number.expect("a body of this suite begins with its number")
}

fn rest(cursor: &mut dyn Cursor) -> Vec<KeptBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = cursor.next().expect("a healthy journal can be read") {
        batches.push(batch);
    }
    batches
}

fn at(reader: &dyn JournalReader, sequence: u64) -> Box<dyn Cursor> {
    let cursor = reader.cursor(sequence);
    cursor.expect("a healthy journal has a place for a batch that is there")
}

fn append<J: Journal>(journal: &mut J, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        journal
            .append(sequence, &body(sequence))
            .expect("an append to a healthy journal succeeds");
    }
}

/// The suite of [`JournalReader`] and [`Cursor`]; `reopen` closes a journal and opens what it left.
pub fn journal_reader<J: Journal>(new: impl FnOnce() -> J, reopen: impl Fn(J) -> J) {
    let mut journal = new();
    let reader = journal.reader();
    assert_eq!((reader.first_sequence(), reader.next_sequence()), (1, 1));
    let mut early = at(&*reader, 1);
    let mut later = at(&*reader, 30);
    assert_eq!(early.next().expect("nothing is there"), None);
    assert!(
        rest(
            &mut *reader
                .seek(&mut |_, _| Ok(true))
                .expect("an empty one has an end")
        )
        .is_empty()
    );

    let heard = Arc::new(AtomicU64::new(0));
    let hears = heard.clone();
    reader.on_durable(Box::new(move |next| hears.store(next, Ordering::SeqCst)));
    append(&mut journal, 1..20);
    assert_eq!(
        (reader.next_sequence(), heard.load(Ordering::SeqCst)),
        (20, 20)
    );
    let _ = journal.append(7, b"fenced");
    let begun = rest(&mut *early);
    assert_eq!((begun.len(), early.sequence()), (19, 20));
    append(&mut journal, 20..61);
    let whole = [begun, rest(&mut *early)].concat();
    follow_each_other(&whole, 1, 61);
    assert_eq!(rest(&mut *later), whole.get(29..).unwrap_or_default());
    for sequence in 1..=61_u64 {
        let from = usize::try_from(sequence.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut cursor = at(&*reader, sequence);
        assert_eq!(rest(&mut *cursor), whole.get(from..).unwrap_or_default());
    }
    find(&*reader, 1);
    verified(&*reader, &whole);

    let journal = reopen(journal);
    let reader = journal.reader();
    assert_eq!(rest(&mut *at(&*reader, 1)), whole);
    trimmed(journal);
}

/// Every batch has its body and the hash of the one before it.
fn follow_each_other(batches: &[KeptBatch], first: u64, end: u64) {
    assert_eq!(batches.len() as u64, end.saturating_sub(first));
    for (due, batch) in (first..end).zip(batches) {
        assert_eq!((batch.sequence, &batch.body), (due, &body(due)));
    }
    for pair in batches.windows(2) {
        let [one, next] = pair else { continue };
        assert_eq!(next.previous, one.hash, "before batch {}", next.sequence);
    }
}

/// A look in parts finds the same as one at once, and a part that does not follow the one before it.
fn verified(reader: &dyn JournalReader, whole: &[KeptBatch]) {
    let look = |from, follows, bytes_max| {
        verify(reader, from, follows, bytes_max).expect("a healthy journal is whole")
    };
    let at_once = look(1, Some([0; 32]), u64::MAX);
    let hashes = |found: Option<Link>| found.map(|link| (link.sequence, link.hash));
    let of = |batch: Option<&KeptBatch>| batch.map(|batch| (batch.sequence, batch.hash));
    assert_eq!(
        (at_once.batches, at_once.next, at_once.is_end),
        (60, 61, true)
    );
    assert_eq!(hashes(at_once.first), of(whole.first()));
    assert_eq!(hashes(at_once.last), of(whole.last()));
    let mut part = look(1, None, 0);
    let mut batches = part.batches;
    while !part.is_end {
        part = look(part.next, part.last.map(|last| last.hash), 200);
        assert!(part.bytes < 400);
        batches = batches.saturating_add(part.batches);
    }
    assert_eq!((batches, part.last), (60, at_once.last));
    let nothing = look(61, part.last.map(|last| last.hash), 200);
    assert_eq!(
        (nothing.batches, nothing.next, nothing.is_end),
        (0, 61, true)
    );
    match verify(reader, 7, Some([1; 32]), 200) {
        Err(JournalError::Batch { sequence: 7, .. }) => {}
        other => panic!("a part that does not follow: {other:?}"),
    }
}

/// A place is found by what is in batches, wherever it is, and reading on from it finds the very batch.
fn find(reader: &dyn JournalReader, first: u64) {
    for wanted in [0, 1, first, 29, 30, 31, 59, 60, 61, u64::MAX] {
        let mut asked: u32 = 0;
        let found = reader.seek(&mut |sequence, bytes| {
            assert_eq!(number(bytes), sequence);
            asked = asked.saturating_add(1);
            Ok(sequence <= wanted)
        });
        let mut cursor = found.expect("a healthy journal can be searched");
        assert!(asked <= 7, "{asked} batches were looked at");
        assert!((first..=wanted.max(first)).contains(&cursor.sequence()));
        let batches = rest(&mut *cursor);
        let there = batches.iter().any(|batch| batch.sequence == wanted);
        assert_eq!(there, (first..61).contains(&wanted), "{wanted}");
    }
    let gives_up = reader.seek(&mut |_, _| Err(JournalError::Reader("enough".into())));
    assert!(matches!(gives_up, Err(JournalError::Reader(_))));
}

/// What was trimmed is an error that says so, wherever a cursor was.
fn trimmed<J: Journal>(mut journal: J) {
    let reader = journal.reader();
    let (mut unread, mut read) = (at(&*reader, 1), at(&*reader, 1));
    let before = read
        .next()
        .expect("it is there")
        .map(|batch| batch.sequence);
    assert_eq!(before, Some(1));
    journal.trim(40, 0).expect("a trim succeeds");
    let first = reader.first_sequence();
    assert!((2..=40).contains(&first));
    assert_eq!(journal.first_sequence(), first);
    match reader
        .cursor(first.saturating_sub(1))
        .map(|cursor| cursor.sequence())
    {
        Err(JournalError::Trimmed { first: told }) => assert_eq!(told, first),
        other => panic!("a place before the first batch: {other:?}"),
    }
    for cursor in [&mut unread, &mut read] {
        let mut due = cursor.sequence();
        // Either may happen, never another batch.
        loop {
            match cursor.next() {
                Ok(Some(batch)) => assert_eq!((batch.sequence, batch.body), (due, body(due))),
                Ok(None) => break,
                Err(JournalError::Trimmed { first: told }) => {
                    assert_eq!((told, cursor.sequence()), (first, due));
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            due = due.saturating_add(1);
        }
    }
    let kept = rest(&mut *at(&*reader, first));
    follow_each_other(&kept, first, 61);
    find(&*reader, first);
    beside(journal);
}

/// Readers go on while the writer writes, begins segments and trims.
fn beside<J: Journal>(mut journal: J) {
    let end = journal.next_sequence().saturating_add(BESIDE);
    let reader = journal.reader();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let tails: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| tail(&*reader, end, &ended)))
            .collect();
        for sequence in journal.next_sequence()..end {
            append(&mut journal, sequence..sequence.saturating_add(1));
            if sequence % 50 == 0 {
                journal
                    .trim(sequence.saturating_sub(200), 0)
                    .expect("a trim succeeds");
            }
        }
        ended.store(true, Ordering::SeqCst);
        for tail in tails {
            assert!(tail.join().expect("a reader does not panic") > 0);
        }
    });
}

/// Reads to the end, beginning again where a trim overtook it; says how many batches it saw.
fn tail(reader: &dyn JournalReader, end: u64, ended: &AtomicBool) -> u64 {
    let mut seen: u64 = 0;
    let mut due = reader.first_sequence();
    let mut cursor = reader.cursor(due);
    while due < end {
        let is_last = ended.load(Ordering::SeqCst);
        let next = match &mut cursor {
            Ok(cursor) => cursor.next(),
            Err(error) => Err(std::mem::replace(error, JournalError::Trimmed { first: 0 })),
        };
        match next {
            Ok(Some(batch)) => {
                assert_eq!((batch.sequence, batch.body), (due, body(due)));
                due = due.saturating_add(1);
                seen = seen.saturating_add(1);
            }
            Ok(None) => {
                assert!(!is_last, "batch {due} was never seen");
                thread::yield_now();
            }
            Err(JournalError::Trimmed { .. }) => {
                due = reader.first_sequence();
                cursor = reader.cursor(due);
            }
            Err(error) => panic!("{error}"),
        }
    }
    seen
}
