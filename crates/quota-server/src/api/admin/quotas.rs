//! Quotas.

use quota_core::Ledger;
use quota_core::amount::AMOUNT_MAX;
use quota_core::command::{Action, Existence, SetQuota};
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::name::{Id, ResourceKey, SubjectName, is_within};
use quota_core::outcome::{Answer, Reply};
use quota_core::quota::{Origin, QuotaList, Target};
use quota_core::rejection::Rejection;
use quota_proto::v1;
use tonic::Status;

use super::{Admin, existence};
use crate::api::from_proto::{Caller, DISPLAY_BYTES_MAX, Identity, Reader};
use crate::api::{execute, page, status, to_proto, unexpected};

impl Admin {
    pub(super) async fn create_quota(
        &self,
        mut request: v1::CreateQuotaRequest,
        caller: Caller,
    ) -> Result<v1::CreateQuotaResponse, Status> {
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let identity = reader.identity("CreateQuota", &request, &id, None, String::new());
        let etag = request.quota.as_ref().is_some_and(|q| !q.etag.is_empty());
        if etag {
            reader.wrong("quota.etag", "must be empty: there is no version yet");
        }
        let set = read(reader, request.quota, Existence::New, request.force)?;
        let (reply, operation_id) = self.set_quota(caller, identity, set).await?;
        let (quota, warnings) = quota_of(&reply)?;
        Ok(v1::CreateQuotaResponse {
            quota: Some(quota),
            warnings,
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn update_quota(
        &self,
        mut request: v1::UpdateQuotaRequest,
        caller: Caller,
    ) -> Result<v1::UpdateQuotaResponse, Status> {
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let identity = reader.identity("UpdateQuota", &request, &id, None, String::new());
        let existence = existence(request.allow_missing);
        let set = read(reader, request.quota, existence, request.force)?;
        let (reply, operation_id) = self.set_quota(caller, identity, set).await?;
        let (quota, warnings) = quota_of(&reply)?;
        Ok(v1::UpdateQuotaResponse {
            quota: Some(quota),
            warnings,
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn delete_quota(
        &self,
        mut request: v1::DeleteQuotaRequest,
        caller: Caller,
    ) -> Result<v1::DeleteQuotaResponse, Status> {
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let identity = reader.identity("DeleteQuota", &request, &id, None, String::new());
        let (target, resource, id) = read_key(
            reader,
            &request.subject,
            &request.resource,
            &request.quota_id,
        )?;
        let action = Action::DeleteQuota {
            target,
            resource,
            id,
            etag: request.etag,
            force: request.force,
        };
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        Ok(v1::DeleteQuotaResponse {
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn get_quota(
        &self,
        request: v1::GetQuotaRequest,
        _: Caller,
    ) -> Result<v1::GetQuotaResponse, Status> {
        let (target, resource, id) = read_key(
            Reader::default(),
            &request.subject,
            &request.resource,
            &request.quota_id,
        )?;
        let views = self.engine.views();
        let quota = match &target {
            Target::Subject(name) => views
                .subject(name.as_str())
                .and_then(|subject| subject.quotas.find(&resource, &id).cloned()),
            Target::Pattern(pattern) => views
                .tables()
                .defaults
                .get(pattern)
                .and_then(|entry| entry.quotas.find(&resource, &id).cloned()),
        };
        match quota {
            Some(quota) => Ok(v1::GetQuotaResponse {
                quota: Some(to_proto::quota(&target, &quota)),
            }),
            None => Err(status::of_rejection(&Rejection::QuotaUnknown {
                target,
                resource,
                id,
            })),
        }
    }

    pub(super) async fn list_quotas(
        &self,
        request: v1::ListQuotasRequest,
        _: Caller,
    ) -> Result<v1::ListQuotasResponse, Status> {
        let mut reader = Reader::default();
        let prefix = match request.subject_prefix.as_str() {
            "" => "system".to_owned(),
            text => read_target(&mut reader, "subject_prefix", text).to_string(),
        };
        let only = reader.resource_filter(&request.resource);
        let size = page::size(&mut reader, request.page_size);
        let filter = format!("ListQuotas {prefix} {}", request.resource);
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let read = self.engine.read(move |ledger| {
            page::collect(
                entries(ledger, &prefix, &after),
                size,
                |entry| entry.position.clone(),
                |entry| {
                    let quota = entry.quota.as_ref()?;
                    let wanted = only.as_ref().is_none_or(|only| *only == quota.resource);
                    wanted.then(|| to_proto::quota(&entry.target, quota))
                },
            )
        });
        let (quotas, next) = read.await.map_err(|fault| status::of_fault(&fault))?;
        Ok(v1::ListQuotasResponse {
            quotas,
            next_page_token: next.map_or(String::new(), |last| page::token(&filter, &last)),
        })
    }

    async fn set_quota(
        &self,
        caller: Caller,
        identity: Identity,
        set: SetQuota,
    ) -> Result<(Reply, String), Status> {
        execute(&self.engine, caller, identity, Action::SetQuota(set)).await
    }
}

/// A quota in the list of all, or a target without one.
struct Entry {
    target: Target,
    quota: Option<std::sync::Arc<quota_core::quota::Quota>>,
    position: String,
}

/// The quotas after a position, patterns first. A position is a class, a target, a resource and an id.
fn entries<'a>(
    ledger: &'a Ledger,
    prefix: &'a str,
    after: &'a str,
) -> impl Iterator<Item = Entry> + 'a {
    let mut words = after.split(' ');
    let (class, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let patterns = ledger
        .defaults()
        .iter()
        .map(|entry| Target::Pattern(entry.pattern.clone()))
        .filter(move |_| class != "s")
        .filter(move |target| is_within(target.as_str(), prefix));
    let before = if class == "s" { name } else { "" };
    let this = SubjectName::parse(before).ok();
    let subjects = this
        .into_iter()
        .chain(ledger.subject_names(prefix, before).cloned())
        .map(Target::Subject);
    let listed = move |class: &'static str, target: Target| {
        let quotas: Vec<_> = ledger
            .quotas(&target)
            .map(QuotaList::iter)
            .into_iter()
            .flatten()
            .cloned()
            .map(Some)
            .collect();
        let quotas = if quotas.is_empty() {
            vec![None]
        } else {
            quotas
        };
        quotas.into_iter().map(move |quota| {
            let rest = quota
                .as_ref()
                .map(|quota| format!("{} {}", quota.resource, quota.id))
                .unwrap_or_default();
            Entry {
                position: format!("{class} {target} {rest}"),
                target: target.clone(),
                quota,
            }
        })
    };
    let position = after.to_owned();
    patterns
        .map(|target| ("p", target))
        .chain(subjects.map(|target| ("s", target)))
        .flat_map(move |(class, target)| listed(class, target))
        .filter(move |entry| entry.position > position)
}

fn read(
    mut reader: Reader,
    quota: Option<v1::Quota>,
    existence: Existence,
    force: bool,
) -> Result<SetQuota, Status> {
    if quota.is_none() {
        reader.wrong("quota", "is missing");
    }
    let quota = quota.unwrap_or_default();
    let target = read_target(&mut reader, "quota.subject", &quota.subject);
    let resource = reader
        .resource("quota.resource", &quota.resource)
        .unwrap_or_else(stand_in);
    let id = match reader.id("quota.quota_id", &quota.quota_id) {
        Some(id) => id,
        None => default_id(&resource),
    };
    let deny = [v1::Enforcement::Unspecified, v1::Enforcement::Deny];
    let denies = v1::Enforcement::try_from(quota.enforcement).is_ok_and(|e| deny.contains(&e));
    reader.unsupported(
        "quota.enforcement",
        !denies,
        "another enforcement than DENY",
    );
    let active = [v1::QuotaState::Unspecified, v1::QuotaState::Active];
    let is_active = v1::QuotaState::try_from(quota.state).is_ok_and(|s| active.contains(&s));
    reader.unsupported("quota.state", !is_active, "another state than ACTIVE");
    reader.unsupported(
        "quota.near_percent",
        quota.near_percent.is_some(),
        "a near share",
    );
    let validity = [
        ("quota.valid_from_time", quota.valid_from_time.is_some()),
        ("quota.valid_until_time", quota.valid_until_time.is_some()),
    ];
    for (field, present) in validity {
        reader.unsupported(field, present, "a validity range");
    }
    if let Some(most) = quota.max_request
        && !(1..=AMOUNT_MAX).contains(&most)
    {
        let text = format!("is {most}; 1 to {AMOUNT_MAX} base units, or absent");
        reader.wrong("quota.max_request", text);
    }
    let display_name = quota.display_name;
    let set = SetQuota {
        limit: reader.limit("quota.limit", quota.limit),
        max_request: quota.max_request,
        display_name: reader.text("quota.display_name", display_name, DISPLAY_BYTES_MAX),
        labels: reader.labels("quota.labels", quota.labels, ROW_LABELS_MAX),
        origin: read_origin(&mut reader, quota.origin, &target),
        target,
        resource,
        id,
        existence,
        etag: quota.etag,
        force,
    };
    reader.finish()?;
    Ok(set)
}

fn read_origin(reader: &mut Reader, origin: i32, target: &Target) -> Origin {
    match (v1::QuotaOrigin::try_from(origin), target) {
        (Ok(v1::QuotaOrigin::Unspecified), Target::Pattern(_)) => Origin::Default,
        (Ok(v1::QuotaOrigin::Unspecified), Target::Subject(_)) => Origin::Override,
        (Ok(v1::QuotaOrigin::Default), _) => Origin::Default,
        (Ok(v1::QuotaOrigin::Template), _) => Origin::Template,
        (Ok(v1::QuotaOrigin::Policy), _) => Origin::Policy,
        (Ok(v1::QuotaOrigin::Override), _) => Origin::Override,
        (Ok(v1::QuotaOrigin::Automatic), _) => Origin::Automatic,
        (Err(_), _) => {
            reader.wrong("quota.origin", format!("{origin} is no origin"));
            Origin::Override
        }
    }
}

fn read_key(
    mut reader: Reader,
    subject: &str,
    resource: &str,
    id: &str,
) -> Result<(Target, ResourceKey, Id), Status> {
    let target = read_target(&mut reader, "subject", subject);
    let resource = reader
        .resource("resource", resource)
        .unwrap_or_else(stand_in);
    let id = reader
        .id("quota_id", id)
        .unwrap_or_else(|| default_id(&resource));
    reader.finish()?;
    Ok((target, resource, id))
}

fn read_target(reader: &mut Reader, field: &str, text: &str) -> Target {
    Target::parse(text).unwrap_or_else(|error| {
        reader.wrong(field, error.0);
        Target::Subject(SubjectName::system())
    })
}

/// C4.2: without an id a quota is named after its resource.
fn default_id(resource: &ResourceKey) -> Id {
    Id::parse(resource.as_str()).expect("every resource key is an id")
}

fn quota_of(reply: &Reply) -> Result<(v1::Quota, Vec<String>), Status> {
    match &reply.outcome.answer {
        Answer::Quota {
            target,
            quota,
            warnings,
        } => Ok((to_proto::quota(target, quota), warnings.clone())),
        other => Err(unexpected(other)),
    }
}

/// Never used: a bad key does not get past its reader.
fn stand_in() -> ResourceKey {
    ResourceKey::parse("none").expect("a word is a key")
}
