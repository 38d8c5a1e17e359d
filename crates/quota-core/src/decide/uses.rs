//! What can be done with resources of which kind: the table of C6, one cell after the other.

use crate::command::Amounts;
use crate::rejection::Violation;
use crate::resource::{Kind, Resources};

/// What is to be done with amounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Check and Consume. `ends` says that an id and a TTL are given.
    Consume {
        /// Whether the request has an id for the allocation.
        named: bool,
        /// Whether the request has a TTL.
        ends: bool,
    },
    /// Check: as Consume; the id and the TTL say nothing there.
    Check,
    /// Release.
    Release,
    /// Resize.
    Resize,
    /// Reserve.
    Reserve,
    /// CommitHold.
    Commit,
    /// CorrectUsage.
    Correct,
    /// ResetUsage.
    Reset,
}

/// Names every amount whose resource is unknown or cannot be used like this, and says what to use instead.
pub fn check_use(resources: &Resources, amounts: &Amounts, purpose: Use) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut kept = false;
    let mut ending = None;
    for (at, (key, _)) in amounts.iter().enumerate() {
        let field = || format!("amounts[{at}].resource");
        let Some(resource) = resources.get(key.as_str()) else {
            let text = format!("{key} is not a resource; `ListResources` names them");
            violations.push(Violation::new(field(), text));
            continue;
        };
        kept |= matches!(resource.kind, Kind::Allocation | Kind::Concurrency);
        if resource.kind == Kind::Concurrency {
            ending.get_or_insert(key);
        }
        if let Some(instead) = instead(resource.kind, purpose) {
            let kind = resource.kind.name();
            violations.push(Violation::new(
                field(),
                format!("{key} is of kind {kind}; {instead}"),
            ));
        }
    }
    if let Use::Consume { named, ends } = purpose {
        check_end(
            named,
            ends,
            kept,
            ending.map(|key| key.as_str()),
            &mut violations,
        );
    }
    violations
}

/// CONCURRENCY needs an id and a TTL; nothing else can have a TTL, and an id needs something to name.
fn check_end(
    named: bool,
    ends: bool,
    kept: bool,
    ending: Option<&str>,
    violations: &mut Vec<Violation>,
) {
    let mut wrong = |field: &str, text: String| violations.push(Violation::new(field, text));
    match ending {
        Some(key) => {
            if !named {
                let text =
                    format!("is empty; {key} is of kind CONCURRENCY and needs an id to renew");
                wrong("allocation_id", text);
            }
            if !ends {
                let text = format!("is not given; {key} is of kind CONCURRENCY and needs a TTL");
                wrong("ttl", text);
            }
        }
        None if ends => wrong(
            "ttl",
            "is given, and no resource of the request is of kind CONCURRENCY".into(),
        ),
        None => {}
    }
    if named && !kept {
        wrong(
            "allocation_id",
            "is given, and no resource of the request is kept: none is of kind ALLOCATION or CONCURRENCY"
                .into(),
        );
    }
}

/// What to use instead where a kind cannot be used like this.
fn instead(kind: Kind, purpose: Use) -> Option<&'static str> {
    use Kind as K;
    use Use as U;
    match (kind, purpose) {
        (K::Measured, _) => Some("it is measured and never admitted"),
        (_, U::Consume { .. } | U::Check | U::Reserve | U::Commit) => None,
        (K::Allocation | K::Concurrency, U::Release | U::Resize) => None,
        (K::Counter, U::Release | U::Resize) => Some(
            "what was counted is not given back; an administrator corrects it with CorrectUsage",
        ),
        (K::Rate, U::Release | U::Resize) => {
            Some("its bucket refills by itself; an administrator empties it with ResetUsage")
        }
        (K::PerRequest, U::Release | U::Resize) => {
            Some("it bounds single requests, and nothing of it is kept to be given back")
        }
        (K::Counter, U::Correct | U::Reset) | (K::Rate, U::Reset) => None,
        (K::Rate, U::Correct) => {
            Some("nothing of it is counted; use ResetUsage to empty its buckets")
        }
        (K::Allocation | K::Concurrency, U::Correct | U::Reset) => Some(
            "its account is the sum of allocations and holds; use Release, Resize or CancelHold",
        ),
        (K::PerRequest, U::Correct | U::Reset) => {
            Some("it bounds single requests and counts nothing")
        }
    }
}
