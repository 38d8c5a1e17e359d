//! What is asked of a server.

use std::sync::Arc;

use quota_proto::v1::Decision;

/// What is charged.
pub(crate) const RESOURCE: &str = "compute.cpu";

/// The calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    /// Check.
    Check,
    /// Consume, and then Release of the same allocation, if it was granted.
    Consume,
    /// What a rival calls its decision.
    Throttle,
    /// A Batch of so many Consumes, and then one of their Releases.
    Batch(usize),
}

/// What every answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    Granted,
    Denied,
}

impl Expect {
    pub(crate) fn decision(self) -> Decision {
        match self {
            Self::Granted => Decision::Granted,
            Self::Denied => Decision::Denied,
        }
    }
}

/// Calls on subjects.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) call: Call,
    pub(crate) names: Arc<Names>,
    pub(crate) expect: Expect,
}

impl Work {
    /// Calls that are granted.
    pub(crate) fn granted(call: Call, names: &Arc<Names>) -> Self {
        Self {
            call,
            names: names.clone(),
            expect: Expect::Granted,
        }
    }
}

/// Names of subjects, made before they are used.
pub(crate) struct Names(Vec<String>);

impl Names {
    /// Users of 100 projects of 10 tenants: four levels with the system.
    pub(crate) fn users(count: usize) -> Arc<Self> {
        Arc::new(Self((0..count).map(user).collect()))
    }

    /// The same, with so many further levels below.
    pub(crate) fn deeper(count: usize, levels: usize) -> Arc<Self> {
        let below: String = DEEPER.iter().take(levels).copied().collect();
        let names = (0..count).map(|at| user(at) + &below);
        Arc::new(Self(names.collect()))
    }

    /// Users of one tenant.
    pub(crate) fn of_tenant(tenant: &str, count: usize) -> Arc<Self> {
        let name = |at| format!("tenants/{tenant}/projects/p{}/users/u{at}", at % 10);
        Arc::new(Self((0..count).map(name).collect()))
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[String] {
        &self.0
    }

    /// A name for each number, in no order.
    pub(crate) fn at(&self, number: u64) -> &str {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let at = scattered % self.0.len() as u64;
        &self.0[usize::try_from(at).unwrap_or_default()]
    }
}

const DEEPER: [&str; 4] = ["/apps/a", "/jobs/j", "/tasks/t", "/steps/s"];

fn user(at: usize) -> String {
    format!("tenants/t{}/projects/p{}/users/u{at}", at % 10, at % 100)
}
