//! `apply` makes quotas, subjects and resources as a file says; `export` writes such a file. Quotas change all
//! together or not at all, a thousand at a time, each only while it is as it was when it was compared.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use quota_client::v1::{
    BatchUpdateQuotasRequest, DeleteQuotaRequest, ErrorReason, GetResourceRequest,
    GetSubjectRequest, ListResourcesRequest, ListSubjectsRequest, Quota, Resource, Subject,
    UpdateQuotaRequest, UpdateResourceRequest, UpdateSubjectRequest,
};
use quota_client::{Client, Error};
use serde_json::{Value, json};

use crate::admin::quota::{describe_limit, list_quotas};
use crate::manifest::{Manifest, QuotaEntry, ResourceEntry, SubjectEntry, differences, same};
use crate::output::{Output, note};
use crate::pages::all_pages;
use crate::units::Units;
use crate::{Ending, Failure};

/// Most quotas that one call changes.
const BATCH: usize = 1000;
/// Etag of a built-in resource that nobody has changed.
const AS_IT_CAME: &str = "0";
/// Largest file.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// The file; `-` reads stdin.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    /// Delete the quotas at and below --scope that the file does not name.
    #[arg(long)]
    prune: bool,
    /// Where to prune.
    #[arg(
        long,
        value_name = "SUBJECT",
        default_value = "system",
        requires = "prune"
    )]
    scope: String,
    /// Accept limits below what is in use, and lower defaults.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Only what is at and below this subject or pattern.
    #[arg(default_value = "system")]
    prefix: String,
}

/// One line of the plan.
struct Step {
    action: &'static str,
    what: String,
    details: String,
}

/// What the file and the server differ in.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    subjects: Vec<Subject>,
    resources: Vec<Resource>,
    quotas: Vec<Quota>,
    deleted: Vec<Quota>,
    unchanged: usize,
}

pub(crate) async fn apply(
    client: &Client,
    output: &Output,
    args: ApplyArgs,
) -> Result<Ending, Failure> {
    let manifest = Manifest::parse(&read(&args.file)?)?;
    let mut units = Units::new(client);
    let mut plan = Plan::default();
    // Resources first: the units of the quotas may be theirs.
    plan.compare_resources(client, &mut units, &manifest)
        .await?;
    plan.compare_subjects(client, &manifest).await?;
    plan.compare_quotas(client, &mut units, &manifest, &args)
        .await?;
    // Everything is validated before anything is done.
    plan.run(client, &args, true, &mut Vec::new()).await?;
    if !args.dry_run {
        let mut done = Vec::new();
        let made = plan.run(client, &args, false, &mut done).await;
        if made.is_err() && !done.is_empty() {
            note(&format!(
                "quotactl: done before it failed: {}",
                done.join(", ")
            ));
        }
        made?;
    }
    plan.report(output, args.dry_run)?;
    Ok(Ending::Done)
}

fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin()
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text),
        false => std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    read.map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(Failure::Usage(format!(
            "{shown}: is larger than {FILE_BYTES_MAX} bytes"
        ))),
        false => Ok(text),
    }
}

impl Plan {
    fn note(&mut self, action: &'static str, what: String, details: String) {
        self.steps.push(Step {
            action,
            what,
            details,
        });
    }

    async fn compare_resources(
        &mut self,
        client: &Client,
        units: &mut Units<'_>,
        manifest: &Manifest,
    ) -> Result<(), Failure> {
        for entry in &manifest.resources {
            let wanted = entry.resource()?;
            let key = wanted.key.clone();
            let live = match client.get_resource(GetResourceRequest { key }).await {
                Ok(answer) => answer.resource,
                Err(error) if error.reason == Some(ErrorReason::ResourceUnknown) => None,
                Err(error) => return Err(error.into()),
            };
            let what = format!("resource {}", wanted.key);
            match &live {
                Some(live) if plain_resource(live) == wanted => self.unchanged += 1,
                Some(live) => {
                    self.note("change", what, String::new());
                    self.resources.push(Resource {
                        etag: live.etag.clone(),
                        ..wanted.clone()
                    });
                }
                None => {
                    self.note("create", what, String::new());
                    self.resources.push(wanted.clone());
                }
            }
            units.learn(wanted);
        }
        Ok(())
    }

    async fn compare_subjects(
        &mut self,
        client: &Client,
        manifest: &Manifest,
    ) -> Result<(), Failure> {
        for entry in &manifest.subjects {
            let wanted = entry.subject();
            let name = wanted.name.clone();
            let live = match client.get_subject(GetSubjectRequest { name }).await {
                Ok(answer) => answer.subject,
                Err(error) if error.reason == Some(ErrorReason::SubjectUnknown) => None,
                Err(error) => return Err(error.into()),
            };
            let what = format!("subject {}", wanted.name);
            match live {
                Some(live)
                    if live.labels == wanted.labels && live.display_name == wanted.display_name =>
                {
                    self.unchanged += 1;
                }
                Some(live) => {
                    self.note("change", what, String::new());
                    self.subjects.push(Subject {
                        etag: live.etag,
                        ..wanted
                    });
                }
                None => {
                    self.note("create", what, String::new());
                    self.subjects.push(wanted);
                }
            }
        }
        Ok(())
    }

    async fn compare_quotas(
        &mut self,
        client: &Client,
        units: &mut Units<'_>,
        manifest: &Manifest,
        args: &ApplyArgs,
    ) -> Result<(), Failure> {
        let key = |quota: &Quota| {
            let parts = (&quota.subject, &quota.resource, &quota.quota_id);
            (parts.0.clone(), parts.1.clone(), parts.2.clone())
        };
        let all = list_quotas(client, "system", "").await?;
        let mut live: BTreeMap<_, Quota> =
            all.into_iter().map(|quota| (key(&quota), quota)).collect();
        let mut seen = std::collections::BTreeSet::new();
        if args.prune && manifest.quotas.is_none() {
            let text =
                "the file has no `quotas`, so that --prune would delete all; `quotas: []` says so";
            return Err(Failure::Usage(text.into()));
        }
        for entry in manifest.quotas.iter().flatten() {
            let wanted = entry.quota(units).await?;
            let what = format!(
                "quota {} on {} of {}",
                wanted.quota_id, wanted.resource, wanted.subject
            );
            if !seen.insert(key(&wanted)) {
                return Err(Failure::Usage(format!("{what}: is in the file twice")));
            }
            match live.remove(&key(&wanted)) {
                Some(live) if same(&wanted, &live) => self.unchanged += 1,
                Some(live) => {
                    let details = differences(&wanted, &live).join("; ");
                    self.note("change", what, details);
                    self.quotas.push(Quota {
                        etag: live.etag,
                        ..wanted
                    });
                }
                None => {
                    let details = describe_limit(units, &wanted).await;
                    self.note("create", what, details);
                    self.quotas.push(wanted);
                }
            }
        }
        if args.prune {
            for quota in live
                .into_values()
                .filter(|quota| is_within(&quota.subject, &args.scope))
            {
                let what = format!(
                    "quota {} on {} of {}",
                    quota.quota_id, quota.resource, quota.subject
                );
                let details = describe_limit(units, &quota).await;
                self.note("delete", what, details);
                self.deleted.push(quota);
            }
        }
        Ok(())
    }

    /// Makes it so, or has the server say whether it would be.
    async fn run(
        &self,
        client: &Client,
        args: &ApplyArgs,
        validate_only: bool,
        done: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for resource in &self.resources {
            let request = UpdateResourceRequest {
                resource: Some(resource.clone()),
                allow_missing: true,
                validate_only,
                ..UpdateResourceRequest::default()
            };
            client.update_resource(request).await?;
            done.push(format!("resource {}", resource.key));
        }
        for subject in &self.subjects {
            let request = UpdateSubjectRequest {
                subject: Some(subject.clone()),
                allow_missing: true,
                validate_only,
                ..UpdateSubjectRequest::default()
            };
            client.update_subject(request).await?;
            done.push(format!("subject {}", subject.name));
        }
        // A quota on a resource that only would be there cannot be validated.
        let new: Vec<&str> = self
            .resources
            .iter()
            .filter(|resource| resource.etag.is_empty())
            .map(|resource| resource.key.as_str())
            .collect();
        let ready = |quota: &&Quota| !validate_only || !new.contains(&quota.resource.as_str());
        let quotas: Vec<&Quota> = self.quotas.iter().filter(ready).collect();
        let sets = quotas.into_iter().map(Change::Set);
        let changes: Vec<Change<'_>> = sets
            .chain(self.deleted.iter().map(Change::Delete))
            .collect();
        for chunk in changes.chunks(BATCH) {
            let request = BatchUpdateQuotasRequest {
                requests: chunk.iter().filter_map(|one| one.set(args.force)).collect(),
                deletes: chunk
                    .iter()
                    .filter_map(|one| one.delete(args.force))
                    .collect(),
                validate_only,
                ..BatchUpdateQuotasRequest::default()
            };
            let answer = client.batch_update_quotas(request).await;
            let answer = answer.map_err(|error| with_names(error, chunk))?;
            if validate_only {
                continue;
            }
            done.push(format!("{} changes of quotas", chunk.len()));
            for warning in answer.responses.iter().flat_map(|one| &one.warnings) {
                note(&format!("quotactl: warning: {warning}"));
            }
        }
        Ok(())
    }

    fn report(&self, output: &Output, dry_run: bool) -> Result<(), Failure> {
        if output.is_json() {
            let steps = self.steps.iter().map(
                |step| json!({"action": step.action, "what": step.what, "details": step.details}),
            );
            return output.object(&json!({
                "applied": !dry_run,
                "steps": steps.collect::<Value>(),
                "unchanged": self.unchanged,
            }));
        }
        if !self.steps.is_empty() {
            let row = |step: &Step| {
                vec![
                    step.action.to_owned(),
                    step.what.clone(),
                    step.details.clone(),
                ]
            };
            let rows = self.steps.iter().map(row).collect();
            output.table(&["", "what", ""], rows, "")?;
        }
        let count = self.steps.len();
        let verb = if dry_run { "would be made" } else { "made" };
        output.text(&format!(
            "{count} changes {verb}, {} as they are\n",
            self.unchanged
        ))
    }
}

/// A change of a quota.
enum Change<'a> {
    Set(&'a Quota),
    Delete(&'a Quota),
}

impl Change<'_> {
    fn set(&self, force: bool) -> Option<UpdateQuotaRequest> {
        let Self::Set(quota) = self else {
            return None;
        };
        Some(UpdateQuotaRequest {
            quota: Some((*quota).clone()),
            allow_missing: true,
            force,
            ..UpdateQuotaRequest::default()
        })
    }

    fn delete(&self, force: bool) -> Option<DeleteQuotaRequest> {
        let Self::Delete(quota) = self else {
            return None;
        };
        Some(DeleteQuotaRequest {
            subject: quota.subject.clone(),
            resource: quota.resource.clone(),
            quota_id: quota.quota_id.clone(),
            etag: quota.etag.clone(),
            force,
            ..DeleteQuotaRequest::default()
        })
    }
}

/// An error of a batch with the names of the quotas in place of their numbers.
fn with_names(error: Error, chunk: &[Change<'_>]) -> Error {
    let mut message = error.message.clone();
    let (mut sets, mut deletes) = (0, 0);
    for change in chunk {
        let (list, at, quota) = match change {
            Change::Set(quota) => ("requests", &mut sets, quota),
            Change::Delete(quota) => ("deletes", &mut deletes, quota),
        };
        let place = format!("{list}[{at}]");
        *at += 1;
        if message.contains(&place) {
            let Quota {
                quota_id,
                resource,
                subject,
                ..
            } = quota;
            let name = format!("quota {quota_id} on {resource} of {subject}");
            message = message.replace(&place, &name);
        }
    }
    Error { message, ..error }
}

/// A resource without what only the server says.
fn plain_resource(live: &Resource) -> Resource {
    Resource {
        built_in: false,
        etag: String::new(),
        ..live.clone()
    }
}

/// Whether a subject or pattern is `scope` or below it, by whole pairs.
fn is_within(name: &str, scope: &str) -> bool {
    scope == "system"
        || name
            .strip_prefix(scope)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(crate) async fn export(
    client: &Client,
    output: &Output,
    args: ExportArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let mut manifest = Manifest::default();
    if args.prefix == "system" {
        let request = ListResourcesRequest::default();
        let all: Vec<Resource> = all_pages!(client.list_resources(request).resources);
        let own = all
            .iter()
            .filter(|resource| !resource.built_in || resource.etag != AS_IT_CAME);
        manifest.resources = own.map(ResourceEntry::of).collect();
    }
    if !args.prefix.contains('*') {
        let request = ListSubjectsRequest {
            subject_prefix: args.prefix.clone(),
            ..ListSubjectsRequest::default()
        };
        let all: Vec<Subject> = all_pages!(client.list_subjects(request).subjects);
        let described = all
            .iter()
            .filter(|subject| !subject.labels.is_empty() || !subject.display_name.is_empty());
        manifest.subjects = described.map(SubjectEntry::of).collect();
    }
    let mut quotas = Vec::new();
    for quota in list_quotas(client, &args.prefix, "").await? {
        quotas.push(QuotaEntry::of(&quota, &mut units).await?);
    }
    manifest.quotas = Some(quotas);
    match output.is_json() {
        true => {
            let value = serde_json::to_value(&manifest)
                .map_err(|error| Failure::Other(error.to_string()))?;
            output.object(&value)?;
        }
        false => output.text(&manifest.print()?)?,
    }
    Ok(Ending::Done)
}
