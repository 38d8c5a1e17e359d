//! A subject: who it is, what it has in use, and its own quotas (C2, C3.4).

use std::sync::{Arc, LazyLock};

use smallvec::SmallVec;

use crate::account::Account;
use crate::labels::Labels;
use crate::name::{ResourceKey, SubjectName};
use crate::quota::QuotaList;
use crate::resource::Resources;
use crate::time::Timestamp;

/// What most subjects have of their own.
static NO_QUOTAS: LazyLock<Arc<QuotaList>> = LazyLock::new(Arc::default);

/// The state of one subject. The writer owns one; readers see the copies that it publishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its name.
    pub name: SubjectName,
    /// What people say about it; shared, because it changes far less often than the accounts.
    pub profile: Arc<Profile>,
    /// Its own quotas; shared for the same reason.
    pub quotas: Arc<QuotaList>,
    accounts: SmallVec<[(ResourceKey, Account); 1]>,
}

/// The part of a subject that only administrators change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// For people.
    pub display_name: String,
    /// At most 32 labels.
    pub labels: Labels,
    /// Number of this life of the name.
    pub incarnation: u64,
    /// When it came into being.
    pub created: Timestamp,
    /// When the profile last changed.
    pub updated: Timestamp,
    /// Revision of the ledger that last changed the profile.
    pub version: u64,
}

impl Subject {
    /// A subject without accounts or quotas.
    pub fn new(name: SubjectName, profile: Arc<Profile>) -> Self {
        Self {
            name,
            profile,
            quotas: NO_QUOTAS.clone(),
            accounts: SmallVec::new(),
        }
    }

    /// About how many bytes its record takes.
    pub(crate) fn weight(&self) -> usize {
        const SUBJECT: usize = 512;
        let accounts = self.accounts.iter().map(|(_, account)| account.weight());
        accounts.fold(SUBJECT, usize::saturating_add)
    }

    /// What it has of a resource; none where it was never charged.
    pub fn account(&self, resource: &ResourceKey) -> Option<&Account> {
        self.accounts
            .iter()
            .find(|(key, _)| key == resource)
            .map(|(_, account)| account)
    }

    /// Every account that was ever charged, by resource.
    pub fn accounts(&self) -> &[(ResourceKey, Account)] {
        &self.accounts
    }

    /// The account of a resource, made where there is none.
    pub(crate) fn account_mut(
        &mut self,
        resource: &ResourceKey,
        resources: &Resources,
    ) -> &mut Account {
        let at = match self.accounts.binary_search_by(|(key, _)| key.cmp(resource)) {
            Ok(at) => at,
            Err(at) => {
                // Most have one, and it has its place in here.
                self.accounts.reserve_exact(1);
                let account = (resources.shared(resource), Account::default());
                self.accounts.insert(at, account);
                at
            }
        };
        &mut self.accounts.get_mut(at).expect("found or inserted").1
    }
}
