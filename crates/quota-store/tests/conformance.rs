//! Every implementation of the two traits passes the same suite.

use std::sync::Arc;

use quota_store::conformance;
use quota_store::disk::RealDisk;
use quota_store::journal::{MemoryJournal, SegmentJournal, SegmentOptions};
use quota_store::rows::{MemoryRows, SledRows};

#[test]
fn memory_journal() {
    conformance::journal(MemoryJournal::new, |journal| journal);
}

#[test]
fn segment_journal() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
        let options = SegmentOptions {
            segment_bytes: 6000,
            store_id: [1; 16],
        };
        SegmentJournal::open(disk, options).unwrap()
    };
    conformance::journal(open, |journal| {
        drop(journal);
        open()
    });
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
