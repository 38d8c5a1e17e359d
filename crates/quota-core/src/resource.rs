//! Resources: what is limited, and how it is counted (C3).

use std::sync::Arc;

use crate::name::{ResourceKey, SYSTEM};
use crate::named::Named;

/// Most resources: every subject may have an account of each.
pub const RESOURCES_MAX: usize = 1_000;

/// How a resource is counted (C3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Held until released.
    Allocation,
    /// An allocation that ends unless renewed.
    Concurrency,
    /// Grows within a period.
    Counter,
    /// Token bucket.
    Rate,
    /// A bound on one request.
    PerRequest,
    /// A sampled fact.
    Measured,
}

impl Kind {
    /// The kind's name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allocation => "ALLOCATION",
            Self::Concurrency => "CONCURRENCY",
            Self::Counter => "COUNTER",
            Self::Rate => "RATE",
            Self::PerRequest => "PER_REQUEST",
            Self::Measured => "MEASURED",
        }
    }
}

/// What happens where no subject of the charge set has a quota in force (C3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WithoutQuota {
    /// Usage is counted, nothing is refused.
    Allow,
    /// Refused with NO_QUOTA.
    Deny,
}

/// Something limited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Its key.
    pub key: ResourceKey,
    /// How it is counted.
    pub kind: Kind,
    /// Unit of every amount.
    pub base_unit: String,
    /// Unit for people.
    pub display_unit: String,
    /// Base units in one display unit; at least 1.
    pub display_ratio: i64,
    /// What happens without any quota.
    pub without_quota: WithoutQuota,
    /// For people.
    pub display_name: String,
    /// Whether it came with the server.
    pub built_in: bool,
    /// Revision of the ledger that last changed it; 0 for a built-in one as it came.
    pub version: u64,
}

/// All resources, by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources(Named<ResourceKey, Arc<Resource>>);

impl Default for Resources {
    fn default() -> Self {
        let mut resources = Self(Named::default());
        for row in BUILT_IN {
            resources.put(Arc::new(built_in(row)));
        }
        resources
    }
}

impl Resources {
    /// The resource of that key.
    pub fn get(&self, key: &str) -> Option<&Arc<Resource>> {
        self.0.get(key)
    }

    /// The same key, shared where it is known.
    pub(crate) fn shared(&self, key: &ResourceKey) -> ResourceKey {
        let known = self.get(key.as_str());
        known.map_or(key, |known| &known.key).clone()
    }

    /// The kind of a resource; one that nobody defined is an ALLOCATION.
    pub fn kind(&self, key: &ResourceKey) -> Kind {
        self.get(key.as_str())
            .map_or(Kind::Allocation, |resource| resource.kind)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.after("")
    }

    /// Those after `key`, by key.
    pub fn after(&self, key: &str) -> impl Iterator<Item = &Arc<Resource>> {
        let all = self.0.below(SYSTEM, key);
        all.map(|(_, resource)| resource)
    }

    pub(crate) fn put(&mut self, resource: Arc<Resource>) {
        self.0.insert(resource.key.clone(), resource);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

type Row = (&'static str, Kind, &'static str, &'static str, i64);

const GIB: i64 = 1 << 30;
const GB: i64 = 1_000_000_000;

/// C3.3: key, kind, base unit, display unit, base units in one display unit.
const BUILT_IN: &[Row] = &[
    ("api.calls", Kind::Counter, "count", "calls", 1),
    ("api.messages", Kind::Counter, "count", "messages", 1),
    ("api.requests", Kind::Rate, "count", "requests", 1),
    (
        "compute.containers",
        Kind::Allocation,
        "count",
        "containers",
        1,
    ),
    (
        "compute.containers_running",
        Kind::Allocation,
        "count",
        "containers",
        1,
    ),
    ("compute.cpu", Kind::Allocation, "millicores", "cores", 1000),
    ("compute.gpu", Kind::Allocation, "milli", "GPUs", 1000),
    (
        "compute.instances",
        Kind::Allocation,
        "count",
        "instances",
        1,
    ),
    ("compute.memory", Kind::Allocation, "bytes", "GiB", GIB),
    ("cost", Kind::Counter, "micro", "units", 1_000_000),
    (
        "network.bandwidth",
        Kind::Allocation,
        "bytes/s",
        "Mbit/s",
        125_000,
    ),
    (
        "network.connections",
        Kind::Allocation,
        "count",
        "connections",
        1,
    ),
    ("network.egress", Kind::Counter, "bytes", "GB", GB),
    (
        "network.floating_ips",
        Kind::Allocation,
        "count",
        "addresses",
        1,
    ),
    (
        "network.load_balancers",
        Kind::Allocation,
        "count",
        "load balancers",
        1,
    ),
    ("network.throughput", Kind::Rate, "bytes", "MB", 1_000_000),
    ("storage.backups", Kind::Allocation, "count", "backups", 1),
    ("storage.disk", Kind::Allocation, "bytes", "GiB", GIB),
    (
        "storage.snapshots",
        Kind::Allocation,
        "count",
        "snapshots",
        1,
    ),
    ("storage.temporary", Kind::Allocation, "bytes", "GiB", GIB),
    ("storage.volumes", Kind::Allocation, "count", "volumes", 1),
    ("tasks.actions", Kind::Counter, "count", "actions", 1),
    ("tasks.concurrent", Kind::Concurrency, "count", "tasks", 1),
    (
        "tasks.file_size",
        Kind::PerRequest,
        "bytes",
        "MB",
        1_000_000,
    ),
    ("tasks.files", Kind::Counter, "count", "files", 1),
    ("tasks.queue_depth", Kind::Allocation, "count", "tasks", 1),
    (
        "tasks.runtime",
        Kind::Counter,
        "milliseconds",
        "hours",
        3_600_000,
    ),
];

fn built_in(&(key, kind, base, display, ratio): &Row) -> Resource {
    Resource {
        key: ResourceKey::parse(key).expect("the built-in keys are well formed"),
        kind,
        base_unit: base.into(),
        display_unit: display.into(),
        display_ratio: ratio,
        without_quota: WithoutQuota::Allow,
        display_name: String::new(),
        built_in: true,
        version: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C3.3
    #[test]
    fn the_built_in_resources_are_all_there() {
        let resources = Resources::default();
        assert_eq!(resources.iter().count(), BUILT_IN.len());
        assert_eq!(resources.get("compute.cpu").unwrap().display_ratio, 1000);
        assert_eq!(resources.get("api.requests").unwrap().kind, Kind::Rate);
    }
}
