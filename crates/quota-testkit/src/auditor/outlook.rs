//! What a Check says beside its verdict: the least limits on the path, and what accounts would have (C4.4, C6.1).

use super::book::{Book, Kind};
use super::judge::{duration, number};
use super::rules::Rule;
use crate::script::{self, Call};

/// An account, or a rule's own count or bucket.
struct Seen {
    resource: String,
    subject: String,
    quota: String,
    used: i128,
    held: i128,
    projected: i128,
    left: Option<i128>,
}

impl Book {
    pub(super) fn outlook(
        &self,
        call: &Call,
        set: &[String],
        amounts: &[(String, i128)],
        unbounded: bool,
    ) -> String {
        let mut least: Vec<(String, Rule)> = Vec::new();
        let mut seen: Vec<Seen> = Vec::new();
        for (resource, amount) in amounts {
            least.extend(self.least(set, resource));
            for name in set {
                self.foresee(name, resource, *amount, &mut seen);
            }
        }
        let mut outlook = script::Outlook {
            unbounded,
            effective: Vec::new(),
            projected: Vec::new(),
        };
        for (subject, rule) in &least {
            outlook.effective.push(script::Effective {
                resource: &rule.resource,
                subject,
                quota: &rule.id,
                limit: match rule.limit {
                    Some(limit) => limit.to_string(),
                    None => "unlimited".to_owned(),
                },
            });
        }
        for seen in &seen {
            outlook.projected.push(script::Projected {
                resource: &seen.resource,
                subject: &seen.subject,
                quota: &seen.quota,
                used: number(seen.used),
                held: number(seen.held),
                projected: number(seen.projected),
                left: seen.left.map(duration),
            });
        }
        script::outlook(call, &outlook)
    }

    /// The account of a subject where there is one, and each rule that has a count or a bucket of its own.
    fn foresee(&self, name: &str, resource: &str, amount: i128, seen: &mut Vec<Seen>) {
        let kind = self.kind(resource);
        let held = match kind {
            Kind::Rate | Kind::PerRequest => 0,
            _ => self.held(name, resource),
        };
        let account = |quota: &str, used: i128, left| Seen {
            resource: resource.to_owned(),
            subject: name.to_owned(),
            quota: quota.to_owned(),
            used,
            held,
            projected: used + amount,
            left,
        };
        if !matches!(kind, Kind::Rate | Kind::PerRequest) {
            seen.push(account("", self.used(name, resource), None));
        }
        for rule in self.in_force(name, resource) {
            let end = self
                .period(&rule)
                .and_then(|period| period.window(self.now).1);
            if rule.rate.is_some() || end.is_some() {
                let used = self.taken(name, &rule) - held;
                seen.push(account(&rule.id, used, end.map(|end| end - self.now)));
            }
        }
    }
}
