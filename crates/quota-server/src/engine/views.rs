//! Live views: the state that the writer last made durable, for readers that never wait for it.
//!
//! A view holds state and not answers, so a Check runs the ledger's own evaluation on it: a cached yes that
//! admits too much, or a cached no that refuses what would fit, cannot exist.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use quota_core::charge::charge_set;
use quota_core::defaults::Defaults;
use quota_core::evaluate::Scene;
use quota_core::hash::RandomState;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::quota::Target;
use quota_core::record::{Image, RecordKey};
use quota_core::resource::{Kind, Resources};
use quota_core::subject::Subject;
use quota_core::time::Timestamp;
use quota_core::{Ledger, is_dead};

use crate::telemetry::subjects::{Selection, ShownSubjects};

/// The published state.
pub struct Views {
    subjects: papaya::HashMap<SubjectName, Arc<Subject>, RandomState>,
    tables: ArcSwap<Tables>,
    /// Which of them have metrics of their own, where there are metrics.
    shown: OnceLock<ShownSubjects>,
}

/// What is swapped whole.
#[derive(Clone)]
pub struct Tables {
    /// The default quotas.
    pub defaults: Arc<Defaults>,
    /// The resources.
    pub resources: Arc<Resources>,
    /// Deleted subjects whose subtrees are not swept yet.
    pub dying: Arc<BTreeMap<SubjectName, u64>>,
}

/// The state of one charge set, each account at least as new as the last answer before it was taken.
pub struct Snapshot<'a> {
    subject: &'a str,
    lines: Vec<(&'a str, Option<Arc<Subject>>)>,
    tables: Arc<Tables>,
}

impl Views {
    /// The views of a whole ledger.
    pub fn of(ledger: &Ledger) -> Self {
        let views = Self {
            subjects: papaya::HashMap::with_hasher(RandomState::new()),
            tables: ArcSwap::from_pointee(Tables::of(ledger)),
            shown: OnceLock::new(),
        };
        let subjects = views.subjects.pin();
        for subject in ledger.subjects() {
            subjects.insert(subject.name.clone(), subject.clone());
        }
        drop(subjects);
        views
    }

    /// Publishes what a durable batch touched.
    pub fn publish(&self, ledger: &Ledger, images: &[Image]) {
        let subjects = self.subjects.pin();
        let mut tables = false;
        for image in images {
            match &image.key {
                RecordKey::Subject(name) | RecordKey::Quotas(Target::Subject(name)) => {
                    match ledger.shared_subject(name.as_str()) {
                        Some(subject) => {
                            let known = subjects.insert(name.clone(), subject.clone());
                            if known.is_none() {
                                self.came(name);
                            }
                        }
                        None => {
                            if subjects.remove(name.as_str()).is_some() {
                                self.went(name);
                            }
                        }
                    }
                }
                RecordKey::Resource(_)
                | RecordKey::Quotas(Target::Pattern(_))
                | RecordKey::Dying(_) => tables = true,
                RecordKey::Meta
                | RecordKey::Allocation(_)
                | RecordKey::Hold(_)
                | RecordKey::Floor(_) => {}
            }
        }
        if tables {
            self.tables.store(Arc::new(Tables::of(ledger)));
        }
    }

    /// The state of a subject.
    pub fn subject(&self, name: &str) -> Option<Arc<Subject>> {
        let found = self.subjects.pin().get(name).cloned();
        found.filter(|subject| !is_dead(&self.tables().dying, subject))
    }

    /// Chooses the subjects that have metrics of their own; once.
    pub fn show(&self, selection: Selection) {
        let shown = self.shown.get_or_init(|| ShownSubjects::new(selection));
        shown.fill(|each| {
            for name in self.subjects.pin().keys() {
                each(name);
            }
        });
    }

    /// The subjects that have metrics of their own.
    pub fn shown(&self) -> Option<&ShownSubjects> {
        self.shown.get()
    }

    fn came(&self, name: &SubjectName) {
        if let Some(shown) = self.shown.get() {
            shown.came(name);
        }
    }

    fn went(&self, name: &SubjectName) {
        if let Some(shown) = self.shown.get() {
            shown.went(name);
        }
    }

    /// How many subjects there are.
    pub fn count(&self) -> usize {
        self.subjects.len()
    }

    /// The tables.
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// The state of the charge set of (`subject`, `also`).
    pub fn snapshot<'a>(&self, subject: &'a SubjectName, also: &'a [SubjectName]) -> Snapshot<'a> {
        let subjects = self.subjects.pin();
        let tables = self.tables();
        let living = |name: &str| {
            let found = subjects.get(name).cloned();
            found.filter(|subject| !is_dead(&tables.dying, subject))
        };
        let lines = charge_set(subject, also)
            .into_iter()
            .map(|name| (name, living(name)))
            .collect();
        Snapshot {
            subject: subject.as_str(),
            lines,
            tables,
        }
    }
}

impl Tables {
    fn of(ledger: &Ledger) -> Self {
        Self {
            defaults: ledger.defaults().clone(),
            resources: ledger.resources().clone(),
            dying: ledger.dying().clone(),
        }
    }
}

impl Snapshot<'_> {
    /// The scene to evaluate at `now`.
    pub fn scene(&self, now: Timestamp) -> Scene<'_> {
        let lines = self
            .lines
            .iter()
            .map(|(name, subject)| (*name, subject.as_deref()));
        Scene::new(
            self.subject,
            lines,
            &self.tables.defaults,
            &self.tables.resources,
            now,
        )
    }

    /// The kind of a resource.
    pub fn kind(&self, resource: &ResourceKey) -> Kind {
        self.tables.resources.kind(resource)
    }

    /// How many subjects of the charge set exist.
    pub fn known(&self) -> usize {
        self.lines.len().saturating_sub(self.unknown())
    }

    /// How many subjects of the charge set do not exist.
    pub fn unknown(&self) -> usize {
        self.lines
            .iter()
            .filter(|(_, subject)| subject.is_none())
            .count()
    }

    /// Whether a subject of the charge set exists.
    pub fn exists(&self, name: &str) -> bool {
        self.lines
            .iter()
            .any(|(have, subject)| *have == name && subject.is_some())
    }
}
