//! Letting go: pages that are older than they are kept, and accounts of which nothing is left to tell.

use std::ops::ControlFlow;

use quota_core::time::Timestamp;
use quota_store::Rows;
use quota_store::rows::{RowChange, RowsError};

use super::format;
use super::rollup::{Level, Step};
use super::series::Keep;

/// Accounts that are looked at in one round.
const ACCOUNTS_MAX: usize = 256;
/// Pages that go in one round.
const PAGES_MAX: usize = 1024;

/// Goes around all accounts, a few at a time. The alternative, rows in the order of time beside those in the order
/// of accounts, would make twice as many rows to spare a look that costs microseconds.
#[derive(Default)]
pub struct Sweep {
    /// The account at which it goes on; empty for the first.
    next: Vec<u8>,
}

impl Sweep {
    /// Removes what is too old at `now`, of the next few accounts. Says whether it came around.
    pub fn round(
        &mut self,
        rows: &dyn Rows,
        keep: &Keep,
        now: Timestamp,
    ) -> Result<bool, RowsError> {
        let prefix = format::accounts_prefix();
        let mut accounts = Vec::new();
        let mut next = None;
        rows.scan_from(&prefix, &self.next, &mut |row| {
            if accounts.len() == ACCOUNTS_MAX {
                next = Some(row.key);
                return Ok(ControlFlow::Break(()));
            }
            accounts.push(row);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut gone = Vec::new();
        for row in accounts {
            let (subject, resource) = format::account_of_key(&row.key)?;
            for step in Step::ALL {
                let prefix = format::pages_prefix(&subject, &resource, step);
                let first_kept = format::page_of(keep.oldest(step, now));
                rows.scan_from(&prefix, &prefix, &mut |page| {
                    let old = format::page_of_key(&prefix, &page.key)? < first_kept;
                    if !old || gone.len() >= PAGES_MAX {
                        return Ok(ControlFlow::Break(()));
                    }
                    gone.push(page.key);
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            if gone.len() >= PAGES_MAX {
                // The rest of this account comes with the next round.
                next = Some(row.key);
                break;
            }
            let account = format::account_of_bytes(&row.value)?;
            let idle = Step::Day.number(account.rollup.at) < keep.oldest(Step::Day, now);
            if idle && account.rollup.level == Level::default() && account.own.is_empty() {
                gone.push(row.key);
            }
        }
        let changes: Vec<RowChange> = gone
            .into_iter()
            .map(|key| RowChange {
                key,
                value: None,
                sequence: rows.applied(),
            })
            .collect();
        if !changes.is_empty() {
            rows.put(&changes, rows.applied())?;
        }
        self.next = next.unwrap_or_default();
        Ok(self.next.is_empty())
    }
}
