//! The auditor: naive, independent, written from the contract. Plain vectors and loops; nothing of the
//! ledger is used, so the two can only agree by being right, or wrong in the same way.

/// A limit: on a subject, or where a part is `*` on all that match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Subject or pattern.
    pub place: String,
    /// Resource.
    pub resource: String,
    /// The limit.
    pub limit: i64,
}

/// Something held.
#[derive(Clone, Debug)]
struct Held {
    subjects: Vec<String>,
    name: String,
    amounts: Vec<(String, i64)>,
}

/// Keeps quotas by the contract, slowly.
#[derive(Clone, Debug, Default)]
pub struct Auditor {
    rules: Vec<Rule>,
    held: Vec<Held>,
}

impl Auditor {
    /// An auditor of these limits.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            held: Vec::new(),
        }
    }

    /// Sets a limit, in place of any on the same place and resource.
    pub fn set(&mut self, rule: Rule) {
        self.rules
            .retain(|have| have.place != rule.place || have.resource != rule.resource);
        self.rules.push(rule);
    }

    /// What a subject and all that is charged to it has in use.
    pub fn used(&self, subject: &str, resource: &str) -> i64 {
        let mut sum = 0;
        for held in &self.held {
            if held.subjects.iter().any(|name| name == subject) {
                for (key, amount) in &held.amounts {
                    if key == resource {
                        sum += amount;
                    }
                }
            }
        }
        sum
    }

    /// Subjects and resources whose limits refuse; granted and charged where there is none.
    pub fn consume(
        &mut self,
        name: &str,
        subjects: &[&str],
        amounts: &[(String, i64)],
    ) -> Vec<(String, String)> {
        let set = charged(subjects);
        let mut refusing = Vec::new();
        for (resource, amount) in amounts {
            for subject in &set {
                if let Some(limit) = self.limit(subject, resource)
                    && self.used(subject, resource) + amount > limit
                {
                    refusing.push((subject.clone(), resource.clone()));
                }
            }
        }
        if refusing.is_empty() {
            self.held.push(Held {
                subjects: set,
                name: name.to_owned(),
                amounts: amounts.to_vec(),
            });
        }
        refusing
    }

    /// Gives back all of something; says whether it was there.
    pub fn release(&mut self, name: &str) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.name != name);
        self.held.len() < before
    }

    /// Sets one amount of something held, unless a limit refuses its growth; says whether it did.
    pub fn resize(&mut self, name: &str, resource: &str, amount: i64) -> bool {
        let at = self.held.iter().position(|held| held.name == name).unwrap();
        let held = self.held[at].clone();
        let before = held.amounts.iter().find(|(key, _)| key == resource);
        let growth = amount - before.map_or(0, |(_, amount)| *amount);
        if growth > 0 {
            for subject in &held.subjects {
                if let Some(limit) = self.limit(subject, resource)
                    && self.used(subject, resource) + growth > limit
                {
                    return false;
                }
            }
        }
        let amounts = &mut self.held[at].amounts;
        amounts.retain(|(key, _)| key != resource);
        if amount > 0 {
            amounts.push((resource.to_owned(), amount));
        }
        if self.held[at].amounts.is_empty() {
            self.held.remove(at);
        }
        true
    }

    /// Names of what is held.
    pub fn names(&self) -> Vec<String> {
        self.held.iter().map(|held| held.name.clone()).collect()
    }

    /// The limit on a subject itself: its own, or that of the most specific pattern.
    fn limit(&self, subject: &str, resource: &str) -> Option<i64> {
        let mut best: Option<(Vec<bool>, i64)> = None;
        for rule in &self.rules {
            if rule.resource != resource || !matches(&rule.place, subject) {
                continue;
            }
            let stars: Vec<bool> = rule.place.split('/').map(|part| part == "*").collect();
            if best.as_ref().is_none_or(|(least, _)| stars < *least) {
                best = Some((stars, rule.limit));
            }
        }
        best.map(|(_, limit)| limit)
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let subject: Vec<&str> = subject.split('/').collect();
    pattern.len() == subject.len()
        && pattern
            .iter()
            .zip(&subject)
            .all(|(p, s)| *p == "*" || p == s)
}

/// All that a request charges: the named, their ancestors, the root; each once.
fn charged(subjects: &[&str]) -> Vec<String> {
    let mut set = vec!["system".to_owned()];
    for subject in subjects {
        let parts: Vec<&str> = subject.split('/').collect();
        for end in (2..=parts.len()).step_by(2) {
            let name = parts[..end].join("/");
            if *subject != "system" && !set.contains(&name) {
                set.push(name);
            }
        }
    }
    set
}
