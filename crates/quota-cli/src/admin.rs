//! What administrators do: subjects, resources, quotas.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use quota_client::Client;
use quota_client::v1::{
    CreateResourceRequest, CreateSubjectRequest, DeleteQuotaRequest, DeleteResourceRequest,
    ErrorReason, GetQuotaRequest, GetResourceRequest, GetSubjectRequest, ListQuotasRequest,
    ListResourcesRequest, ListSubjectsRequest, Quota, Resource, ResourceKind, Subject,
    UpdateQuotaRequest, UpdateResourceRequest, UpdateSubjectRequest, WithoutQuota,
};
use serde_json::{Value, json};

use crate::operate::label;
use crate::output::{Output, labels, time};
use crate::pages::all_pages;
use crate::units::Units;
use crate::{Ending, Failure, json as show};

#[derive(Subcommand)]
pub(crate) enum SubjectCommand {
    /// Create a subject and its ancestors.
    Create(SubjectArgs),
    /// Change its display name or labels; what is not given stays.
    Update(SubjectArgs),
    /// Show one.
    Get {
        /// Its name.
        name: String,
    },
    /// List those at and below a subject.
    List {
        /// Where to begin.
        #[arg(default_value = "system")]
        prefix: String,
    },
}

#[derive(Args)]
pub(crate) struct SubjectArgs {
    /// Its name, such as tenants/acme/projects/web.
    name: String,
    /// For people.
    #[arg(long)]
    display_name: Option<String>,
    /// A label; may be repeated. On update they take the place of those that were there.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Only while this is the current version.
    #[arg(long, default_value = "")]
    etag: String,
}

#[derive(Subcommand)]
pub(crate) enum ResourceCommand {
    /// Create an ALLOCATION resource.
    Create(ResourceArgs),
    /// Change its display unit, its name, or what happens without a quota; what is not given stays.
    Update(ResourceArgs),
    /// Show one.
    Get {
        /// Its key.
        key: String,
    },
    /// List all.
    List,
    /// Delete one that is not built in, has no quotas and was never charged.
    Delete {
        /// Its key.
        key: String,
        /// Only while this is the current version.
        #[arg(long, default_value = "")]
        etag: String,
    },
}

#[derive(Args)]
pub(crate) struct ResourceArgs {
    /// Its key, such as gpu.h100.
    key: String,
    /// Unit of every amount, such as count. Needed to create; cannot change.
    #[arg(long)]
    base_unit: Option<String>,
    /// Unit for people.
    #[arg(long)]
    display_unit: Option<String>,
    /// Base units in one display unit.
    #[arg(long)]
    display_ratio: Option<i64>,
    /// What happens where no quota is in force: count only, or refuse.
    #[arg(long, value_enum)]
    without_quota: Option<Without>,
    /// For people.
    #[arg(long)]
    display_name: Option<String>,
    /// Only while this is the current version.
    #[arg(long, default_value = "")]
    etag: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Without {
    Allow,
    Deny,
}

#[derive(Subcommand)]
pub(crate) enum QuotaCommand {
    /// Create a quota, or change it; what is not given stays. Usage is never touched.
    Set(SetArgs),
    /// Show one.
    Get(KeyArgs),
    /// List those at and below a subject or pattern.
    List {
        /// Where to begin.
        #[arg(default_value = "system")]
        prefix: String,
        /// Only this resource.
        #[arg(long, default_value = "")]
        resource: String,
    },
    /// Delete one. Usage stays.
    Delete {
        #[command(flatten)]
        key: KeyArgs,
        /// Accept that a lower default comes into force.
        #[arg(long)]
        force: bool,
        /// Only while this is the current version.
        #[arg(long, default_value = "")]
        etag: String,
    },
}

#[derive(Args)]
pub(crate) struct KeyArgs {
    /// A subject, or a pattern such as 'tenants/*'.
    subject: String,
    /// Key of the resource.
    resource: String,
    /// Id of the quota; the resource's key where it is left out.
    #[arg(long, default_value = "")]
    id: String,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The limit, such as 128cores, 1TiB, 0 or unlimited.
    #[arg(long, value_name = "AMOUNT|unlimited")]
    limit: String,
    /// Largest amount of one request; `unlimited` takes the bound away.
    #[arg(long, value_name = "AMOUNT|unlimited")]
    max_request: Option<String>,
    /// For people.
    #[arg(long)]
    display_name: Option<String>,
    /// A label; may be repeated. They take the place of those that were there.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Accept a limit below what is in use, or a lower default.
    #[arg(long)]
    force: bool,
    /// Only while this is the current version.
    #[arg(long, default_value = "")]
    etag: String,
}

pub(crate) async fn subject(
    client: &Client,
    output: &Output,
    command: SubjectCommand,
) -> Result<Ending, Failure> {
    let subject = match command {
        SubjectCommand::Create(args) => {
            let request = CreateSubjectRequest {
                subject: Some(subject_of(args, Subject::default())),
                ..CreateSubjectRequest::default()
            };
            client.create_subject(request).await?.subject
        }
        SubjectCommand::Update(args) => {
            let name = args.name.clone();
            let live = client.get_subject(GetSubjectRequest { name }).await?;
            let request = UpdateSubjectRequest {
                subject: Some(subject_of(args, live.subject.unwrap_or_default())),
                ..UpdateSubjectRequest::default()
            };
            client.update_subject(request).await?.subject
        }
        SubjectCommand::Get { name } => {
            let request = GetSubjectRequest { name };
            client.get_subject(request).await?.subject
        }
        SubjectCommand::List { prefix } => {
            let request = ListSubjectsRequest {
                subject_prefix: prefix,
                ..ListSubjectsRequest::default()
            };
            let all = all_pages!(client.list_subjects(request).subjects);
            return print_subjects(output, &all, true);
        }
    };
    print_subjects(output, &[subject.unwrap_or_default()], false)
}

/// What was typed over what is there, as one version of it.
fn subject_of(args: SubjectArgs, live: Subject) -> Subject {
    Subject {
        name: args.name,
        display_name: args.display_name.unwrap_or(live.display_name),
        labels: labels_of(args.labels, args.no_labels, live.labels),
        etag: given_or(args.etag, live.etag),
        ..Subject::default()
    }
}

fn labels_of(
    given: Vec<(String, String)>,
    none: bool,
    live: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    match (given.is_empty(), none) {
        (_, true) => BTreeMap::new(),
        (true, false) => live,
        (false, false) => given.into_iter().collect(),
    }
}

fn given_or(given: String, live: String) -> String {
    match given.is_empty() {
        true => live,
        false => given,
    }
}

fn print_subjects(output: &Output, subjects: &[Subject], many: bool) -> Result<Ending, Failure> {
    if output.is_json() {
        let all: Vec<Value> = subjects.iter().map(show::subject).collect();
        print_json(output, "subjects", all, many)?;
        return Ok(Ending::Done);
    }
    let row = |subject: &Subject| {
        vec![
            subject.name.clone(),
            subject.display_name.clone(),
            labels(&subject.labels),
            time(subject.create_time),
            subject.etag.clone(),
        ]
    };
    let header = ["subject", "display name", "labels", "since", "etag"];
    output.table(&header, subjects.iter().map(row).collect(), "no subjects")?;
    Ok(Ending::Done)
}

pub(crate) async fn resource(
    client: &Client,
    output: &Output,
    command: ResourceCommand,
) -> Result<Ending, Failure> {
    let resource = match command {
        ResourceCommand::Create(args) => {
            let request = CreateResourceRequest {
                resource: Some(resource_of(args, Resource::default())),
                ..CreateResourceRequest::default()
            };
            client.create_resource(request).await?.resource
        }
        ResourceCommand::Update(args) => {
            let request = GetResourceRequest {
                key: args.key.clone(),
            };
            let live = client.get_resource(request).await?.resource;
            let request = UpdateResourceRequest {
                resource: Some(resource_of(args, live.unwrap_or_default())),
                ..UpdateResourceRequest::default()
            };
            client.update_resource(request).await?.resource
        }
        ResourceCommand::Get { key } => {
            let request = GetResourceRequest { key };
            client.get_resource(request).await?.resource
        }
        ResourceCommand::List => {
            let request = ListResourcesRequest::default();
            let all = all_pages!(client.list_resources(request).resources);
            return print_resources(output, &all, true);
        }
        ResourceCommand::Delete { key, etag } => {
            let request = DeleteResourceRequest {
                key,
                etag,
                ..DeleteResourceRequest::default()
            };
            client.delete_resource(request).await?;
            return deleted(output);
        }
    };
    print_resources(output, &[resource.unwrap_or_default()], false)
}

/// What was typed over what is there, as one version of it.
fn resource_of(args: ResourceArgs, live: Resource) -> Resource {
    let kind = match live.kind() {
        ResourceKind::Unspecified => ResourceKind::Allocation,
        kind => kind,
    };
    Resource {
        key: args.key,
        kind: kind.into(),
        base_unit: args.base_unit.unwrap_or(live.base_unit),
        display_unit: args.display_unit.unwrap_or(live.display_unit),
        display_ratio: args.display_ratio.unwrap_or(live.display_ratio),
        without_quota: match args.without_quota {
            Some(Without::Allow) => WithoutQuota::Allow.into(),
            Some(Without::Deny) => WithoutQuota::Deny.into(),
            None => live.without_quota,
        },
        display_name: args.display_name.unwrap_or(live.display_name),
        etag: given_or(args.etag, live.etag),
        ..Resource::default()
    }
}

fn print_resources(output: &Output, resources: &[Resource], many: bool) -> Result<Ending, Failure> {
    if output.is_json() {
        let all: Vec<Value> = resources.iter().map(show::resource).collect();
        print_json(output, "resources", all, many)?;
        return Ok(Ending::Done);
    }
    let name = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_owned();
    let row = |resource: &Resource| {
        let display = match (resource.display_unit.as_str(), resource.display_ratio) {
            (unit, _) if unit == resource.base_unit => String::new(),
            (unit, ratio) => format!("1 {unit} = {ratio}"),
        };
        vec![
            resource.key.clone(),
            name(
                ResourceKind::as_str_name(&resource.kind()),
                "RESOURCE_KIND_",
            ),
            resource.base_unit.clone(),
            display,
            name(
                WithoutQuota::as_str_name(&resource.without_quota()),
                "WITHOUT_QUOTA_",
            ),
            resource.etag.clone(),
        ]
    };
    let header = [
        "resource",
        "kind",
        "base unit",
        "display unit",
        "without quota",
        "etag",
    ];
    output.table(&header, resources.iter().map(row).collect(), "no resources")?;
    Ok(Ending::Done)
}

pub(crate) async fn quota(
    client: &Client,
    output: &Output,
    command: QuotaCommand,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let quota = match command {
        QuotaCommand::Set(args) => {
            let resource = &args.key.resource;
            let limit = units.limit(resource, &args.limit).await?;
            let max_request = match args.max_request.as_deref() {
                Some("unlimited") => Some(None),
                Some(text) => Some(Some(units.amount(resource, text).await?)),
                None => None,
            };
            let live = live_quota(client, &args.key).await?;
            let request = UpdateQuotaRequest {
                quota: Some(Quota {
                    subject: args.key.subject,
                    resource: args.key.resource,
                    quota_id: args.key.id,
                    limit: Some(limit),
                    max_request: max_request.unwrap_or(live.max_request),
                    display_name: args.display_name.unwrap_or(live.display_name),
                    labels: labels_of(args.labels, args.no_labels, live.labels),
                    origin: live.origin,
                    etag: given_or(args.etag, live.etag),
                    ..Quota::default()
                }),
                allow_missing: true,
                force: args.force,
                operation_id: String::new(),
            };
            let answer = client.update_quota(request).await?;
            for warning in &answer.warnings {
                eprintln!("quotactl: warning: {warning}");
            }
            answer.quota
        }
        QuotaCommand::Get(key) => {
            let request = GetQuotaRequest {
                subject: key.subject,
                resource: key.resource,
                quota_id: key.id,
            };
            client.get_quota(request).await?.quota
        }
        QuotaCommand::List { prefix, resource } => {
            let all = list_quotas(client, &prefix, &resource).await?;
            return print_quotas(output, &mut units, &all, true).await;
        }
        QuotaCommand::Delete { key, force, etag } => {
            let request = DeleteQuotaRequest {
                subject: key.subject,
                resource: key.resource,
                quota_id: key.id,
                etag,
                force,
                operation_id: String::new(),
            };
            client.delete_quota(request).await?;
            return deleted(output);
        }
    };
    print_quotas(output, &mut units, &[quota.unwrap_or_default()], false).await
}

/// The quota as it is, or an empty one.
async fn live_quota(client: &Client, key: &KeyArgs) -> Result<Quota, Failure> {
    let request = GetQuotaRequest {
        subject: key.subject.clone(),
        resource: key.resource.clone(),
        quota_id: key.id.clone(),
    };
    match client.get_quota(request).await {
        Ok(answer) => Ok(answer.quota.unwrap_or_default()),
        Err(error) if error.reason == Some(ErrorReason::QuotaUnknown) => Ok(Quota::default()),
        Err(error) => Err(error.into()),
    }
}

/// All quotas at and below a subject or pattern.
pub(crate) async fn list_quotas(
    client: &Client,
    prefix: &str,
    resource: &str,
) -> Result<Vec<Quota>, Failure> {
    let request = ListQuotasRequest {
        subject_prefix: prefix.into(),
        resource: resource.into(),
        ..ListQuotasRequest::default()
    };
    Ok(all_pages!(client.list_quotas(request).quotas))
}

async fn print_quotas(
    output: &Output,
    units: &mut Units<'_>,
    quotas: &[Quota],
    many: bool,
) -> Result<Ending, Failure> {
    if output.is_json() {
        let all: Vec<Value> = quotas.iter().map(show::quota).collect();
        print_json(output, "quotas", all, many)?;
        return Ok(Ending::Done);
    }
    let mut rows = Vec::new();
    for quota in quotas {
        let most = match quota.max_request {
            Some(most) => units.show(&quota.resource, most).await,
            None => "-".into(),
        };
        rows.push(vec![
            quota.subject.clone(),
            quota.resource.clone(),
            quota.quota_id.clone(),
            units
                .show_limit(&quota.resource, quota.limit.as_ref())
                .await,
            most,
            labels(&quota.labels),
            quota.etag.clone(),
        ]);
    }
    let header = [
        "subject",
        "resource",
        "id",
        "limit",
        "largest request",
        "labels",
        "etag",
    ];
    output.table(&header, rows, "no quotas")?;
    Ok(Ending::Done)
}

fn print_json(output: &Output, name: &str, all: Vec<Value>, many: bool) -> Result<(), Failure> {
    match many {
        true => output.object(&json!({ name: all })),
        false => output.object(&all.into_iter().next().unwrap_or(Value::Null)),
    }
}

fn deleted(output: &Output) -> Result<Ending, Failure> {
    match output.is_json() {
        true => output.object(&json!({"deleted": true}))?,
        false => output.text("deleted\n")?,
    }
    Ok(Ending::Done)
}
