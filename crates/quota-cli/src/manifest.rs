//! What `apply` reads and `export` writes: YAML with amounts and times as people type them.

use std::collections::BTreeMap;

use quota_client::ProtoDuration;
use quota_client::v1::{
    Enforcement, Limit, Period, Quota, QuotaOrigin, QuotaState, Rate, Resource, ResourceKind,
    Subject, WithoutQuota, limit,
};
use serde::{Deserialize, Serialize};

use crate::admin::quota::default_id;
use crate::times;
use crate::units::{self, Units};
use crate::{Failure, output};

/// A file.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Subjects with what people say about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) subjects: Vec<SubjectEntry>,
    /// Resources of one's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<ResourceEntry>,
    /// Quotas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quotas: Option<Vec<QuotaEntry>>,
}

/// A subject.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubjectEntry {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) display_name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// A resource.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourceEntry {
    pub(crate) key: String,
    #[serde(default = "allocation")]
    pub(crate) kind: String,
    pub(crate) base_unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_ratio: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) without_quota: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) display_name: String,
}

/// A quota. What is left out is the default and not what is there.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaEntry {
    pub(crate) subject: String,
    pub(crate) resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) limit: Scalar,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) anchor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bucket: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enforcement: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delay_max: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_request: Option<Scalar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) near: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) display_name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// An amount: a bare number, or a text with a unit.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl serde::de::Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an amount such as 128cores, 16GiB, 0 or unlimited")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
        i64::try_from(number)
            .map(Scalar::Number)
            .map_err(|_| E::custom(format!("{number} is too large for an amount")))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}

impl Default for Scalar {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    fn of(amount: i64, resource: &Resource) -> Self {
        let text = units::typed(amount, resource);
        match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Text(text),
        }
    }
}

fn allocation() -> String {
    "allocation".into()
}

impl Manifest {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| Failure::Usage(format!("YAML: {error}")))
    }

    /// Writes a file.
    pub(crate) fn print(&self) -> Result<String, Failure> {
        serde_saphyr::to_string(self).map_err(|error| Failure::Other(format!("YAML: {error}")))
    }
}

impl SubjectEntry {
    pub(crate) fn of(subject: &Subject) -> Self {
        Self {
            name: subject.name.clone(),
            display_name: subject.display_name.clone(),
            labels: subject.labels.clone(),
        }
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject {
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            labels: self.labels.clone(),
            ..Subject::default()
        }
    }
}

impl ResourceEntry {
    pub(crate) fn of(resource: &Resource) -> Self {
        let kind = ResourceKind::as_str_name(&resource.kind());
        let plain = resource.display_unit == resource.base_unit && resource.display_ratio <= 1;
        Self {
            key: resource.key.clone(),
            kind: word(kind, "RESOURCE_KIND_"),
            base_unit: resource.base_unit.clone(),
            display_unit: (!plain).then(|| resource.display_unit.clone()),
            display_ratio: (!plain).then_some(resource.display_ratio),
            without_quota: (resource.without_quota() == WithoutQuota::Deny).then(|| "deny".into()),
            display_name: resource.display_name.clone(),
        }
    }

    pub(crate) fn resource(&self) -> Result<Resource, Failure> {
        let place = format!("resource {}", self.key);
        let kind = named(
            &place,
            "kind",
            &self.kind,
            "RESOURCE_KIND_",
            ResourceKind::from_str_name,
        )?;
        let without = self.without_quota.as_deref().unwrap_or("allow");
        let without = named(
            &place,
            "without_quota",
            without,
            "WITHOUT_QUOTA_",
            WithoutQuota::from_str_name,
        )?;
        Ok(Resource {
            key: self.key.clone(),
            kind: kind.into(),
            base_unit: self.base_unit.clone(),
            display_unit: self
                .display_unit
                .clone()
                .unwrap_or_else(|| self.base_unit.clone()),
            display_ratio: self.display_ratio.unwrap_or(1),
            without_quota: without.into(),
            display_name: self.display_name.clone(),
            ..Resource::default()
        })
    }
}

impl QuotaEntry {
    pub(crate) async fn of(quota: &Quota, units: &mut Units<'_>) -> Result<Self, Failure> {
        let resource = units.of(&quota.resource).await?;
        let period = quota
            .period
            .clone()
            .filter(|period| times::period_name(period) != "none");
        let interval = quota.rate.and_then(|rate| rate.interval);
        let id = default_id(&quota.resource, period.as_ref(), interval.as_ref());
        let plain = quota.quota_id == id || (id.is_empty() && quota.quota_id == quota.resource);
        Ok(Self {
            subject: quota.subject.clone(),
            resource: quota.resource.clone(),
            id: (!plain).then(|| quota.quota_id.clone()),
            limit: match quota.limit.as_ref().and_then(|limit| limit.limit.as_ref()) {
                Some(limit::Limit::Value(value)) => Scalar::of(*value, &resource),
                _ => Scalar::Text("unlimited".into()),
            },
            anchor: period
                .as_ref()
                .and_then(|period| period.anchor_time)
                .map(output::exact_time),
            period: period.as_ref().map(times::period_name),
            rate: interval.as_ref().map(times::duration_name),
            bucket: quota
                .rate
                .and_then(|rate| rate.bucket)
                .map(|n| Scalar::of(n, &resource)),
            enforcement: (quota.enforcement() != Enforcement::Deny).then(|| {
                word(
                    Enforcement::as_str_name(&quota.enforcement()),
                    "ENFORCEMENT_",
                )
            }),
            delay_max: quota
                .rate
                .and_then(|rate| rate.delay_max)
                .as_ref()
                .map(times::duration_name),
            state: (quota.state() != QuotaState::Active)
                .then(|| word(QuotaState::as_str_name(&quota.state()), "QUOTA_STATE_")),
            from: quota.valid_from_time.map(output::exact_time),
            until: quota.valid_until_time.map(output::exact_time),
            max_request: quota.max_request.map(|n| Scalar::of(n, &resource)),
            near: quota.near_percent,
            origin: (quota.origin() != plain_origin(&quota.subject))
                .then(|| word(QuotaOrigin::as_str_name(&quota.origin()), "QUOTA_ORIGIN_")),
            display_name: quota.display_name.clone(),
            labels: quota.labels.clone(),
        })
    }

    /// The quota that is meant.
    pub(crate) async fn quota(&self, units: &mut Units<'_>) -> Result<Quota, Failure> {
        let place = format!("quota on {} of {}", self.resource, self.subject);
        let wrong = |field: &str, why: String| Failure::Usage(format!("{place}: {field}: {why}"));
        let period = match &self.period {
            Some(text) => Some(times::period(text).map_err(|why| wrong("period", why))?),
            None => None,
        };
        let instant = |field: &str, text: &Option<String>| match text {
            Some(text) => times::instant(text)
                .map(Some)
                .map_err(|why| wrong(field, why)),
            None => Ok(None),
        };
        let duration = |field: &str, text: &Option<String>| match text {
            Some(text) => times::duration(text)
                .map(Some)
                .map_err(|why| wrong(field, why)),
            None => Ok(None),
        };
        let anchor = instant("anchor", &self.anchor)?;
        let interval = duration("rate", &self.rate)?;
        let key = &self.resource;
        let rate = Rate {
            interval,
            bucket: amount(units, &place, key, ("bucket", self.bucket.as_ref())).await?,
            delay_max: duration("delay_max", &self.delay_max)?,
        };
        let given = self.id.clone().unwrap_or_default();
        let enforcement = self.enforcement.as_deref().unwrap_or("deny");
        let state = self.state.as_deref().unwrap_or("active");
        Ok(Quota {
            subject: self.subject.clone(),
            resource: key.clone(),
            quota_id: match given.is_empty() {
                false => given,
                true => match default_id(key, period.as_ref(), interval.as_ref()) {
                    id if id.is_empty() => key.clone(),
                    id => id,
                },
            },
            limit: Some(self.read_limit(units, &place).await?),
            enforcement: named(
                &place,
                "enforcement",
                enforcement,
                "ENFORCEMENT_",
                Enforcement::from_str_name,
            )?
            .into(),
            max_request: amount(
                units,
                &place,
                key,
                ("max_request", self.max_request.as_ref()),
            )
            .await?,
            near_percent: self.near,
            origin: match &self.origin {
                Some(origin) => named(
                    &place,
                    "origin",
                    origin,
                    "QUOTA_ORIGIN_",
                    QuotaOrigin::from_str_name,
                )?,
                None => plain_origin(&self.subject),
            }
            .into(),
            state: named(
                &place,
                "state",
                state,
                "QUOTA_STATE_",
                QuotaState::from_str_name,
            )?
            .into(),
            valid_from_time: instant("from", &self.from)?,
            valid_until_time: instant("until", &self.until)?,
            display_name: self.display_name.clone(),
            labels: self.labels.clone(),
            period: period.map(|period| Period {
                anchor_time: anchor,
                ..period
            }),
            rate: (rate != Rate::default()).then_some(rate),
            ..Quota::default()
        })
    }

    async fn read_limit(&self, units: &mut Units<'_>, place: &str) -> Result<Limit, Failure> {
        let limit = units.limit(&self.resource, &self.limit.text()).await;
        limit.map_err(|error| within(place, "limit", error))
    }
}

async fn amount(
    units: &mut Units<'_>,
    place: &str,
    key: &str,
    (field, typed): (&str, Option<&Scalar>),
) -> Result<Option<i64>, Failure> {
    let Some(typed) = typed else {
        return Ok(None);
    };
    let read = units.amount(key, &typed.text()).await;
    read.map(Some).map_err(|error| within(place, field, error))
}

/// Says where in the file a mistake is.
fn within(place: &str, field: &str, error: Failure) -> Failure {
    match error {
        Failure::Usage(why) => Failure::Usage(format!("{place}: {field}: {why}")),
        other => other,
    }
}

/// The value of an enum, by its name in small letters.
fn named<T>(
    place: &str,
    field: &str,
    name: &str,
    prefix: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, Failure> {
    let full = format!("{prefix}{}", name.to_uppercase().replace('-', "_"));
    let known = read(&full).filter(|_| !name.eq_ignore_ascii_case("unspecified"));
    known.ok_or_else(|| Failure::Usage(format!("{place}: {field}: {name:?} is none")))
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix)
        .to_lowercase()
        .replace('_', "-")
}

/// Where a quota comes from that does not say it.
fn plain_origin(subject: &str) -> QuotaOrigin {
    match subject.contains('*') {
        true => QuotaOrigin::Default,
        false => QuotaOrigin::Override,
    }
}

/// Whether two quotas say the same, whatever the server adds.
pub(crate) fn same(wanted: &Quota, live: &Quota) -> bool {
    differences(wanted, live).is_empty()
}

/// What of a quota would change, as `field: old → new`.
pub(crate) fn differences(wanted: &Quota, live: &Quota) -> Vec<String> {
    let mut changes = Vec::new();
    let mut note = |field: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{field}: {old} → {new}"));
        }
    };
    let limit = |quota: &Quota| match quota.limit.as_ref().and_then(|limit| limit.limit.as_ref()) {
        Some(limit::Limit::Value(value)) => value.to_string(),
        _ => "unlimited".into(),
    };
    let number = |number: Option<i64>| number.map_or("none".into(), |number| number.to_string());
    let at = |at: Option<quota_client::Timestamp>| at.map_or("always".into(), output::exact_time);
    let period = |quota: &Quota| {
        let period = quota.period.clone().unwrap_or_default();
        let anchor = period
            .anchor_time
            .map(output::exact_time)
            .unwrap_or_default();
        format!("{} {anchor}", times::period_name(&period))
    };
    let rate = |quota: &Quota| {
        let rate = quota.rate.unwrap_or_default();
        let shown = |length: Option<ProtoDuration>| {
            length.as_ref().map_or("none".into(), times::duration_name)
        };
        let bucket = number(rate.bucket);
        format!(
            "{}/{bucket}/{}",
            shown(rate.interval),
            shown(rate.delay_max)
        )
    };
    let enforcement = |quota: &Quota| {
        let all = [Enforcement::Unspecified, Enforcement::Deny];
        match all.contains(&quota.enforcement()) {
            true => "deny".into(),
            false => word(
                Enforcement::as_str_name(&quota.enforcement()),
                "ENFORCEMENT_",
            ),
        }
    };
    let state = |quota: &Quota| {
        let all = [QuotaState::Unspecified, QuotaState::Active];
        match all.contains(&quota.state()) {
            true => "active".into(),
            false => word(QuotaState::as_str_name(&quota.state()), "QUOTA_STATE_"),
        }
    };
    let near = |quota: &Quota| number(quota.near_percent.map(i64::from));
    note("limit", limit(live), limit(wanted));
    note("period", period(live), period(wanted));
    note("rate/bucket/delay", rate(live), rate(wanted));
    note("enforcement", enforcement(live), enforcement(wanted));
    note("state", state(live), state(wanted));
    note("from", at(live.valid_from_time), at(wanted.valid_from_time));
    note(
        "until",
        at(live.valid_until_time),
        at(wanted.valid_until_time),
    );
    note(
        "max_request",
        number(live.max_request),
        number(wanted.max_request),
    );
    note("near", near(live), near(wanted));
    let origin = |quota: &Quota| word(QuotaOrigin::as_str_name(&quota.origin()), "QUOTA_ORIGIN_");
    note("origin", origin(live), origin(wanted));
    note(
        "display_name",
        live.display_name.clone(),
        wanted.display_name.clone(),
    );
    note(
        "labels",
        output::labels(&live.labels),
        output::labels(&wanted.labels),
    );
    changes
}

#[cfg(test)]
mod tests;
