//! The quotas of a run: what it sets, and what must not stand in its way.

use std::collections::BTreeSet;

use quota_client::Client;
use quota_client::v1::{Limit, Quota, UpdateQuotaRequest};

use super::log::Log;
use crate::Failure;
use crate::admin::quota::list_quotas;
use crate::units::Units;

const SYSTEM: &str = "system";
const UNLIMITED: &str = "unlimited";

/// `WHERE:RESOURCE=AMOUNT` as it was typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Typed {
    place: String,
    resource: String,
    amount: String,
}

pub(super) fn target(text: &str) -> Result<Typed, String> {
    let wrong =
        || format!("{text:?} is not WHERE:RESOURCE=AMOUNT, such as system:compute.cpu=128cores");
    let (rest, amount) = text.rsplit_once('=').ok_or_else(wrong)?;
    let (place, resource) = rest.rsplit_once(':').ok_or_else(wrong)?;
    if place.is_empty() || resource.is_empty() || amount.is_empty() {
        return Err(wrong());
    }
    Ok(Typed {
        place: place.into(),
        resource: resource.into(),
        amount: amount.into(),
    })
}

/// What a run sets before its first event.
pub(super) struct Plan {
    quotas: Vec<(String, String, Limit)>,
    resources: Vec<&'static str>,
}

impl Plan {
    pub(super) async fn new(
        client: &Client,
        log: &Log,
        limits: &[Typed],
        each: &[Typed],
    ) -> Result<Self, Failure> {
        let mut units = Units::new(client);
        let resources = log.resources();
        let mut typed: Vec<Typed> = Vec::new();
        for resource in &resources {
            let at_system = |t: &&Typed| t.place == SYSTEM && t.resource == *resource;
            typed.push(limits.iter().find(at_system).cloned().unwrap_or(Typed {
                place: SYSTEM.into(),
                resource: (*resource).into(),
                amount: UNLIMITED.into(),
            }));
        }
        typed.extend(
            limits
                .iter()
                .filter(|t| !typed.contains(t))
                .cloned()
                .collect::<Vec<_>>(),
        );
        for one in each {
            let patterns = patterns(log, &one.place);
            if patterns.is_empty() {
                return Err(Failure::Usage(format!(
                    "--limit-each {}: no subject of this log ends in {}",
                    one.place, one.place
                )));
            }
            typed.extend(patterns.into_iter().map(|place| Typed {
                place,
                ..one.clone()
            }));
        }
        let mut quotas = Vec::new();
        for one in typed {
            if !resources.contains(&one.resource.as_str()) {
                let used = resources.join(", ");
                return Err(Failure::Usage(format!(
                    "{}: the log does not use it; it uses {used}",
                    one.resource
                )));
            }
            let limit = units.limit(&one.resource, &one.amount).await?;
            let same = |(place, resource, _): &(String, String, Limit)| {
                *place == one.place && *resource == one.resource
            };
            if quotas.iter().any(same) {
                return Err(Failure::Usage(format!(
                    "{} of {} is limited twice",
                    one.resource, one.place
                )));
            }
            quotas.push((one.place, one.resource, limit));
        }
        Ok(Self { quotas, resources })
    }

    /// Names the run: the same log with the same limits has the same operations.
    pub(super) fn id(&self, bytes: &[u8], run: u32) -> String {
        let mut quotas: Vec<String> = self
            .quotas
            .iter()
            .map(|(place, resource, limit)| format!("{place}:{resource}={limit:?}\n"))
            .collect();
        quotas.sort();
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes);
        hasher.update(quotas.concat().as_bytes());
        format!("{}-{run}", &hasher.finalize().to_hex()[..24])
    }

    /// Sets the quotas, unless others would take part.
    pub(super) async fn apply(&self, client: &Client, force: bool) -> Result<(), Failure> {
        let mut there = Vec::new();
        for resource in &self.resources {
            there.extend(list_quotas(client, SYSTEM, resource).await?);
        }
        let strange: Vec<String> = there
            .iter()
            .filter(|quota| !self.has(quota))
            .map(|quota| {
                format!(
                    "{} of {} on {}",
                    quota.quota_id, quota.resource, quota.subject
                )
            })
            .collect();
        if !strange.is_empty() && !force {
            return Err(Failure::Usage(format!(
                "other quotas would take part in this run: {}; delete them, or use --force",
                strange.join(", ")
            )));
        }
        for (place, resource, limit) in &self.quotas {
            let wanted = |quota: &Quota| quota.subject == *place && quota.resource == *resource;
            if there.iter().any(|quota| wanted(quota) && self.has(quota)) {
                continue;
            }
            let request = UpdateQuotaRequest {
                quota: Some(Quota {
                    subject: place.clone(),
                    resource: resource.clone(),
                    limit: Some(*limit),
                    ..Quota::default()
                }),
                allow_missing: true,
                force,
                ..UpdateQuotaRequest::default()
            };
            client.update_quota(request).await?;
        }
        Ok(())
    }

    /// Whether this run would set just this quota.
    fn has(&self, quota: &Quota) -> bool {
        quota.quota_id == quota.resource
            && quota.max_request.is_none()
            && self.quotas.iter().any(|(place, resource, limit)| {
                quota.subject == *place
                    && quota.resource == *resource
                    && quota.limit.as_ref() == Some(limit)
            })
    }
}

/// Patterns of all subjects of a log, and of their ancestors, whose last collection is this one.
fn patterns(log: &Log, collection: &str) -> BTreeSet<String> {
    let mut patterns = BTreeSet::new();
    for job in &log.jobs {
        let parts: Vec<&str> = job.subject.split('/').collect();
        let collections: Vec<&str> = parts.iter().step_by(2).copied().collect();
        for (depth, name) in collections.iter().enumerate() {
            if *name == collection {
                let path: Vec<String> = collections[..=depth]
                    .iter()
                    .map(|collection| format!("{collection}/*"))
                    .collect();
                patterns.insert(path.join("/"));
            }
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::swf;

    #[test]
    fn limits_are_split_from_the_right() {
        let typed = target("tenants/a:b:compute.cpu=4cores").unwrap();
        assert_eq!(typed.place, "tenants/a:b");
        for bad in ["system=4", "system:cpu", ":cpu=4", "system:cpu="] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collection_becomes_patterns() {
        let log = swf::parse("7 1 5 9 1 -1 -1 1 -1 -1 1 3 2 -1 -1 -1 -1 -1").unwrap();
        assert_eq!(
            patterns(&log, "users"),
            ["tenants/*/users/*".to_owned()].into()
        );
        assert_eq!(patterns(&log, "tenants"), ["tenants/*".to_owned()].into());
        assert!(patterns(&log, "projects").is_empty());
    }
}
