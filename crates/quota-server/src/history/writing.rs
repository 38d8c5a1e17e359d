//! Writing down: pages first, then accounts and the position. Whatever a crash leaves of it can be gone on from:
//! an account whose row is older closes the same buckets again, and puts them in the same places.

use std::collections::BTreeMap;
use std::sync::Arc;

use quota_core::name::{ResourceKey, SubjectName, SubjectPattern};
use quota_core::quota::{QuotaList, Target};
use quota_core::record::{Record, RecordKey};
use quota_store::Rows;
use quota_store::journal::{Hash, JournalReader, Pins};
use quota_store::rows::{RowChange, RowsError};

use super::book::Book;
use super::format;
use super::rollup::Bucket;

/// The key of the row that says which journal this is the history of, and from where on it is whole.
const ORIGIN: &[u8] = b"o";

/// The name of its pin in the journal.
pub(super) const PIN: &str = "history";

/// Which journal a history is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// Batches before this one were not all told; 0 where all were.
    pub gap: u64,
    /// The last batch that was told.
    pub position: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Origin {
    /// Reads it; none where nothing was written yet.
    pub fn read(rows: &dyn Rows) -> Result<Option<Self>, RowsError> {
        let Some(row) = rows.get(ORIGIN)? else {
            return Ok(None);
        };
        let (Some(gap), Some(position), Some(hash)) = (
            row.value.get(..8).and_then(|bytes| bytes.try_into().ok()),
            row.value.get(8..16).and_then(|bytes| bytes.try_into().ok()),
            row.value.get(16..).and_then(|bytes| bytes.try_into().ok()),
        ) else {
            return Err(RowsError("the row of the origin is damaged".into()));
        };
        Ok(Some(Self {
            gap: u64::from_le_bytes(gap),
            position: u64::from_le_bytes(position),
            hash,
        }))
    }

    fn row(&self) -> RowChange {
        let mut value = self.gap.to_le_bytes().to_vec();
        value.extend_from_slice(&self.position.to_le_bytes());
        value.extend_from_slice(&self.hash);
        RowChange {
            key: ORIGIN.to_vec(),
            value: Some(value),
            sequence: self.position,
        }
    }
}

/// The first batch that is not written down.
pub(super) fn needed_from(rows: &dyn Rows) -> u64 {
    rows.applied().saturating_add(1)
}

/// Durable batches that a history still needs, as its pin says: so it can be told also while the history cannot be
/// opened, or hangs. None where none is kept.
pub fn unwritten(journal: &dyn JournalReader, pins: &Pins) -> u64 {
    let needed = pins.list().into_iter().filter(|(name, _)| name == PIN);
    needed.map(|(_, from)| from).min().map_or(0, |from| {
        let from = from.max(journal.first_sequence());
        journal.next_sequence().saturating_sub(from)
    })
}

/// What is to be written down, as of one batch.
pub struct Writing {
    origin: Origin,
    /// Buckets that are over, by the page that they belong on.
    pages: BTreeMap<Vec<u8>, Vec<Bucket>>,
    accounts: Vec<RowChange>,
    /// Which accounts those are, the last batch of each, and how many of its buckets stand on pages now.
    of: Vec<(SubjectName, ResourceKey, u64, usize)>,
    defaults: Vec<(SubjectPattern, Arc<QuotaList>)>,
}

impl Book {
    /// What is to be written down, with the hash of the batch at the position.
    pub fn writing(&self, hash: Hash) -> Writing {
        let mut writing = Writing {
            origin: Origin {
                gap: self.gap,
                position: self.position,
                hash,
            },
            pages: BTreeMap::new(),
            accounts: Vec::new(),
            of: Vec::new(),
            defaults: Vec::new(),
        };
        for (subject, accounts) in &self.subjects {
            for (resource, loaded) in accounts.iter().filter(|(_, loaded)| loaded.dirty) {
                for (step, bucket) in &loaded.closed {
                    let prefix = format::pages_prefix(subject, resource, *step);
                    let key = format::page_key(&prefix, format::page_of(bucket.number));
                    let page = writing.pages.entry(key).or_default();
                    page.push(bucket.clone());
                }
                writing.accounts.push(RowChange {
                    key: format::account_key(subject, resource),
                    value: Some(format::account_bytes(&loaded.account)),
                    sequence: loaded.through,
                });
                let of = (subject.clone(), resource.clone());
                let closed = loaded.closed.len();
                writing.of.push((of.0, of.1, loaded.through, closed));
            }
        }
        for (pattern, quotas) in self.limits.changed() {
            writing.defaults.push((pattern.clone(), quotas.clone()));
        }
        writing
    }

    /// It is written down.
    pub fn written(&mut self, writing: &Writing) {
        for (subject, resource, through, closed) in &writing.of {
            let accounts = self.subjects.get_mut(subject);
            if let Some(loaded) = accounts.and_then(|accounts| accounts.get_mut(resource)) {
                loaded.closed.drain(..*closed);
                loaded.dirty = loaded.through != *through;
            }
        }
        for (pattern, quotas) in &writing.defaults {
            self.limits.written(pattern, quotas);
        }
    }
}

impl Writing {
    /// Writes it, durably.
    pub fn write(&self, rows: &dyn Rows) -> Result<(), RowsError> {
        let mut pages = Vec::new();
        for (key, closed) in &self.pages {
            let mut page: BTreeMap<i64, &Bucket> = BTreeMap::new();
            let before = match rows.get(key)? {
                Some(row) => format::page_of_bytes(&row.value)?,
                None => Vec::new(),
            };
            page.extend(
                before
                    .iter()
                    .chain(closed)
                    .map(|bucket| (bucket.number, bucket)),
            );
            let buckets: Vec<Bucket> = page.into_values().cloned().collect();
            pages.push(RowChange {
                key: key.clone(),
                value: Some(format::page_bytes(&buckets)),
                sequence: self.origin.position,
            });
        }
        if !pages.is_empty() {
            // Not moved: accounts are still those of before.
            rows.put(&pages, rows.applied())?;
        }
        let mut changes = self.accounts.clone();
        for (pattern, quotas) in &self.defaults {
            let key = RecordKey::Quotas(Target::Pattern(pattern.clone()));
            let record = Record::Quotas(quotas.clone());
            let value = quota_store::batch::row_value(&record);
            changes.push(RowChange {
                key: quota_store::batch::row_key(&key),
                value: (!quotas.is_empty()).then_some(value),
                sequence: self.origin.position,
            });
        }
        changes.push(self.origin.row());
        rows.put(&changes, self.origin.position)
    }
}
