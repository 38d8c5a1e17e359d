//! A cluster log as jobs, and their events in strict order.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::Failure;

/// Largest log, unpacked, in bytes.
const LOG_BYTES_MAX: u64 = 1 << 30;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A cluster log.
#[derive(Default)]
pub(super) struct Log {
    /// Jobs that ask for something.
    pub(super) jobs: Vec<Job>,
    /// Jobs that ask for nothing.
    pub(super) skipped: usize,
}

/// One job of a log.
pub(super) struct Job {
    /// Whom it is charged to.
    pub(super) subject: String,
    /// Its name there.
    pub(super) allocation: String,
    /// What it holds, in base units.
    pub(super) amounts: Vec<(&'static str, i64)>,
    /// When it takes it, in seconds of the log.
    pub(super) start: i64,
    /// When it gives it back.
    pub(super) end: i64,
}

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    time: i64,
    /// At one instant releases come before consumes.
    pub(super) consumes: bool,
    /// Position of the job in the log.
    pub(super) job: usize,
}

/// Any text is a log of jobs that end after they start and ask for something, or an error that says why not.
#[cfg(test)]
pub(super) fn fuzz(corpus: &str, pieces: &[&str], parse: fn(&str) -> Result<Log, String>) {
    let is_sound =
        |job: &Job| job.start < job.end && job.amounts.iter().all(|(_, amount)| *amount > 0);
    quota_testkit::fuzz::fuzz_text(corpus, 2000, pieces, |text| match parse(text) {
        Ok(log) => {
            assert!(log.jobs.iter().all(is_sound), "{text:?}");
            true
        }
        Err(error) => {
            assert!(!error.is_empty());
            false
        }
    });
}

impl Log {
    /// The events: by time, releases first, then by position in the file.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::with_capacity(self.jobs.len() * 2);
        for (job, at) in self.jobs.iter().enumerate() {
            for (time, consumes) in [(at.start, true), (at.end, false)] {
                events.push(Event {
                    time,
                    consumes,
                    job,
                });
            }
        }
        events.sort_unstable();
        events
    }

    /// The resources that it uses, sorted.
    pub(super) fn resources(&self) -> Vec<&'static str> {
        let all = self.jobs.iter().flat_map(|job| job.amounts.iter());
        let mut keys: Vec<&str> = all.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Reads a file, unpacked.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::Usage(format!("{}: {error}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut magic = Vec::new();
    reader
        .by_ref()
        .take(2)
        .read_to_end(&mut magic)
        .map_err(failed)?;
    let packed = magic == GZIP_MAGIC;
    let whole = std::io::Cursor::new(magic).chain(reader);
    let mut bytes = Vec::new();
    let read = match packed {
        true => MultiGzDecoder::new(whole)
            .take(LOG_BYTES_MAX + 1)
            .read_to_end(&mut bytes),
        false => whole.take(LOG_BYTES_MAX + 1).read_to_end(&mut bytes),
    };
    read.map_err(failed)?;
    if bytes.len() as u64 > LOG_BYTES_MAX {
        let most = LOG_BYTES_MAX >> 20;
        return Err(Failure::Usage(format!(
            "{}: more than {most} MiB unpacked",
            path.display()
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_come_first_at_one_instant() {
        let job = |start, end| Job {
            subject: String::new(),
            allocation: String::new(),
            amounts: Vec::new(),
            start,
            end,
        };
        let log = Log {
            jobs: vec![job(5, 9), job(0, 5), job(5, 6)],
            skipped: 0,
        };
        let order: Vec<(bool, usize)> = log
            .events()
            .iter()
            .map(|event| (event.consumes, event.job))
            .collect();
        let expected = [
            (true, 1),
            (false, 1),
            (true, 0),
            (true, 2),
            (false, 2),
            (false, 0),
        ];
        assert_eq!(order, expected);
    }
}
