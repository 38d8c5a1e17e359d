//! Quotas.

use quota_core::Ledger;
use quota_core::command::{Action, DeleteQuota, Existence, SetQuota};
use quota_core::decide::several_quotas;
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::name::{Id, ResourceKey, SubjectName, is_within};
use quota_core::outcome::{Answer, QuotaAnswer, Reply};
use quota_core::quota::{QuotaList, Target, default_id};
use quota_core::rejection::Rejection;
use quota_proto::v1;
use tonic::Status;

use super::{Admin, existence};
use crate::api::from_proto::{Caller, Identity, Reader, admin_identity, read_quota, read_target};
use crate::api::{execute, page, status, to_proto, unexpected};

/// Most quotas that one call changes.
const BATCH_MAX: usize = 1000;

impl Admin {
    pub(super) async fn create_quota(
        &self,
        mut request: v1::CreateQuotaRequest,
        caller: Caller,
    ) -> Result<v1::CreateQuotaResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "CreateQuota", request);
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
        let identity = admin_identity!(reader, "UpdateQuota", request);
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

    pub(super) async fn batch_update_quotas(
        &self,
        mut request: v1::BatchUpdateQuotasRequest,
        caller: Caller,
    ) -> Result<v1::BatchUpdateQuotasResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "BatchUpdateQuotas", request);
        let size = request.requests.len().saturating_add(request.deletes.len());
        if !(1..=BATCH_MAX).contains(&size) {
            let text = format!("and deletes are {size} quotas; 1 to {BATCH_MAX}");
            reader.wrong("requests", text);
            request.requests.clear();
            request.deletes.clear();
        }
        let mut sets = Vec::with_capacity(request.requests.len());
        for (at, one) in request.requests.into_iter().enumerate() {
            let mut part = Reader::default();
            if !one.operation_id.is_empty() || one.validate_only {
                part.wrong("operation_id", "and validate_only are those of the batch");
            }
            let existence = existence(one.allow_missing);
            sets.push(read_quota(&mut part, one.quota, existence, one.force));
            reader.take_over(&format!("requests[{at}]"), part);
        }
        let mut deletes = Vec::with_capacity(request.deletes.len());
        for (at, one) in request.deletes.into_iter().enumerate() {
            let mut part = Reader::default();
            if !one.operation_id.is_empty() || one.validate_only {
                part.wrong("operation_id", "and validate_only are those of the batch");
            }
            deletes.push(read_delete(&mut part, one));
            reader.take_over(&format!("deletes[{at}]"), part);
        }
        reader.finish()?;
        // Also where it is one quota: what is wrong with it is said of `requests[0]`.
        let action = Action::ChangeQuotas { sets, deletes };
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let responses = quotas_of(&reply)?.iter().map(|answer| {
            let (quota, warnings) = shown(answer, &reply);
            v1::UpdateQuotaResponse {
                quota: Some(quota),
                warnings,
                operation_id: String::new(),
                replayed: reply.replayed,
            }
        });
        Ok(v1::BatchUpdateQuotasResponse {
            responses: responses.collect(),
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn explain_quota(
        &self,
        request: v1::ExplainQuotaRequest,
        _: Caller,
    ) -> Result<v1::ExplainQuotaResponse, Status> {
        let mut reader = Reader::default();
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let resource = reader.resource("resource", &request.resource);
        reader.finish()?;
        let resource = resource.unwrap_or_else(stand_in);
        let views = self.engine.views();
        if views.tables().resources.get(resource.as_str()).is_none() {
            return Err(status::of_rejection(&Rejection::ResourceUnknown(resource)));
        }
        let snapshot = views.snapshot(&subject, &also);
        let now = self.engine.clock().now();
        let scene = snapshot.scene(now);
        let least = scene.effective_limits(&resource);
        Ok(v1::ExplainQuotaResponse {
            quotas: to_proto::explained(&scene, &resource, now),
            effective_limits: to_proto::effective_limits(&resource, &least),
            read_time: Some(to_proto::timestamp(now)),
        })
    }

    pub(super) async fn delete_quota(
        &self,
        mut request: v1::DeleteQuotaRequest,
        caller: Caller,
    ) -> Result<v1::DeleteQuotaResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "DeleteQuota", request);
        let delete = read_delete(&mut reader, request);
        reader.finish()?;
        let action = Action::DeleteQuota(delete);
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
        let mut reader = Reader::default();
        let (target, resource, id) = read_key(
            &mut reader,
            &request.subject,
            &request.resource,
            &request.quota_id,
        );
        reader.finish()?;
        let views = self.engine.views();
        let found = |quotas: &QuotaList| {
            let found = quotas.find_or_only(&resource, id.as_ref());
            found.map(|found| found.cloned())
        };
        let quota = match &target {
            Target::Subject(name) => views.subject(name.as_str()).map(|s| found(&s.quotas)),
            Target::Pattern(pattern) => {
                let tables = views.tables();
                tables
                    .defaults
                    .get(pattern)
                    .map(|entry| found(&entry.quotas))
            }
        };
        let quota = quota
            .unwrap_or(Ok(None))
            .map_err(|ids| status::of_rejection(&several_quotas(ids)))?;
        match quota {
            Some(quota) => Ok(v1::GetQuotaResponse {
                quota: Some(to_proto::quota(&target, &quota, self.engine.clock().now())),
            }),
            None => Err(status::of_rejection(&Rejection::QuotaUnknown {
                id: id.unwrap_or_else(|| default_id(&resource, None, None)),
                target,
                resource,
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
        let state = v1::QuotaState::try_from(request.state).unwrap_or_else(|_| {
            let text = format!(
                "{} is no state; ACTIVE, DISABLED or SUSPENDED",
                request.state
            );
            reader.wrong("state", text);
            v1::QuotaState::Unspecified
        });
        let labels = reader.labels("labels", request.labels, ROW_LABELS_MAX);
        let filter = format!(
            "ListQuotas {prefix} {} {} {labels:?}",
            request.resource, request.state
        );
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let now = self.engine.clock().now();
        let read = self.engine.read(move |ledger| {
            page::collect(
                entries(ledger, &prefix, &after),
                size,
                |entry| entry.position.clone(),
                |entry| {
                    let quota = entry.quota.as_ref()?;
                    let shown = to_proto::quota(&entry.target, quota, now);
                    let fits = only.as_ref().is_none_or(|only| *only == quota.resource);
                    let any = state == v1::QuotaState::Unspecified;
                    let bears = |(key, value)| quota.labels.get(key) == Some(value);
                    let wanted = fits && (any || shown.state() == state);
                    (wanted && labels.iter().all(bears)).then_some(shown)
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
        execute(&self.engine, caller, identity, Action::SetQuotas(vec![set])).await
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

fn read_delete(reader: &mut Reader, request: v1::DeleteQuotaRequest) -> DeleteQuota {
    let (target, resource, id) = read_key(
        reader,
        &request.subject,
        &request.resource,
        &request.quota_id,
    );
    DeleteQuota {
        target,
        resource,
        id,
        etag: request.etag,
        force: request.force,
    }
}

fn read_key(
    reader: &mut Reader,
    subject: &str,
    resource: &str,
    id: &str,
) -> (Target, ResourceKey, Option<Id>) {
    let target = read_target(reader, "subject", subject);
    let resource = reader
        .resource("resource", resource)
        .unwrap_or_else(stand_in);
    let id = reader.id("quota_id", id);
    (target, resource, id)
}

/// The fields of a quota in a list of requests.
fn read(
    mut reader: Reader,
    quota: Option<v1::Quota>,
    existence: Existence,
    force: bool,
) -> Result<SetQuota, Status> {
    let set = read_quota(&mut reader, quota, existence, force);
    reader.finish()?;
    Ok(set)
}

/// What is answered to the change of quotas.
fn quotas_of(reply: &Reply) -> Result<&[QuotaAnswer], Status> {
    match &reply.outcome.answer {
        Answer::Quotas(answers) => Ok(answers),
        other => Err(unexpected(other)),
    }
}

/// The same for one.
fn quota_of(reply: &Reply) -> Result<(v1::Quota, Vec<String>), Status> {
    match quotas_of(reply)? {
        [answer] => Ok(shown(answer, reply)),
        _ => Err(unexpected(&reply.outcome.answer)),
    }
}

fn shown(answer: &QuotaAnswer, reply: &Reply) -> (v1::Quota, Vec<String>) {
    let now = reply.outcome.decided;
    let quota = to_proto::quota(&answer.target, &answer.quota, now);
    (quota, answer.warnings.clone())
}

/// Never used: a bad key does not get past its reader.
fn stand_in() -> ResourceKey {
    ResourceKey::parse("none").expect("a word is a key")
}
