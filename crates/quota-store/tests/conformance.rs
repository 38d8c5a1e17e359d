//! Every implementation of the two traits passes the same suite.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;

use quota_store::conformance;
use quota_store::disk::RealDisk;
use quota_store::journal::{MemoryJournal, SegmentJournal, SegmentOptions};
use quota_store::rows::{MemoryRows, SledRows};

fn open(directory: &Path) -> SegmentJournal {
    let disk = Arc::new(RealDisk::new(directory).unwrap());
    let options = SegmentOptions {
        segment_bytes: 6000,
        store_id: [1; 16],
        whole: false,
    };
    SegmentJournal::open(disk, options).unwrap()
}

#[test]
fn memory_journal() {
    conformance::journal(MemoryJournal::new, |journal| journal);
    conformance::journal_reader(MemoryJournal::new, |journal| journal);
}

#[test]
fn segment_journal() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    conformance::journal(
        || open(first.path()),
        |journal| {
            drop(journal);
            open(first.path())
        },
    );
    conformance::journal_reader(
        || open(second.path()),
        |journal| {
            drop(journal);
            open(second.path())
        },
    );
}

#[test]
fn memory_rows() {
    conformance::rows(MemoryRows::default, |rows| rows);
}

#[test]
fn sled_rows() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SledRows::open(directory.path()).unwrap();
    conformance::rows(open, |rows| {
        drop(rows);
        open()
    });
}
