//! Resources.

use clap::{Args, Subcommand, ValueEnum};
use quota_client::Client;
use quota_client::v1::{
    CreateResourceRequest, DeleteResourceRequest, GetResourceRequest, ListResourcesRequest,
    Resource, ResourceKind, UpdateResourceRequest, WithoutQuota,
};
use serde_json::Value;

use super::{ChangeArgs, deleted, given_or, print_json};
use crate::output::Output;
use crate::pages::all_pages;
use crate::{Ending, Failure, json as show};

#[derive(Subcommand)]
pub(crate) enum ResourceCommand {
    /// Create a resource.
    Create(ResourceArgs),
    /// Change its display unit, its name, or what happens without a quota; what is not given stays.
    Update(ResourceArgs),
    /// Show one.
    Get {
        /// Its key.
        key: String,
    },
    /// List all.
    List {
        /// Only those of this kind.
        #[arg(long, value_enum)]
        kind: Option<KindArg>,
    },
    /// Delete one that is not built in, has no quotas and was never charged.
    Delete {
        /// Its key.
        key: String,
        #[command(flatten)]
        change: ChangeArgs,
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
    /// How it is counted; ALLOCATION where it is created without. Cannot change.
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// Held until released.
    Allocation,
    /// An allocation that ends unless renewed.
    Concurrency,
    /// Grows within a period.
    Counter,
    /// Token bucket.
    Rate,
    /// A bound on one request.
    PerRequest,
}

impl From<KindArg> for ResourceKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Allocation => Self::Allocation,
            KindArg::Concurrency => Self::Concurrency,
            KindArg::Counter => Self::Counter,
            KindArg::Rate => Self::Rate,
            KindArg::PerRequest => Self::PerRequest,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Without {
    Allow,
    Deny,
}

pub(crate) async fn resource(
    client: &Client,
    output: &Output,
    command: ResourceCommand,
) -> Result<Ending, Failure> {
    let resource = match command {
        ResourceCommand::Create(args) => {
            let request = CreateResourceRequest {
                validate_only: args.change.dry_run,
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
                validate_only: args.change.dry_run,
                resource: Some(resource_of(args, live.unwrap_or_default())),
                ..UpdateResourceRequest::default()
            };
            client.update_resource(request).await?.resource
        }
        ResourceCommand::Get { key } => {
            let request = GetResourceRequest { key };
            client.get_resource(request).await?.resource
        }
        ResourceCommand::List { kind } => {
            let request = ListResourcesRequest {
                kind: kind.map_or(ResourceKind::Unspecified, Into::into).into(),
                ..ListResourcesRequest::default()
            };
            let all = all_pages!(client.list_resources(request).resources);
            return print_resources(output, &all, true);
        }
        ResourceCommand::Delete { key, change } => {
            let request = DeleteResourceRequest {
                key,
                etag: change.etag,
                validate_only: change.dry_run,
                ..DeleteResourceRequest::default()
            };
            client.delete_resource(request).await?;
            return deleted(output, change.dry_run);
        }
    };
    print_resources(output, &[resource.unwrap_or_default()], false)
}

/// What was typed over what is there, as one version of it.
fn resource_of(args: ResourceArgs, live: Resource) -> Resource {
    let kind = match (args.kind, live.kind()) {
        (Some(kind), _) => kind.into(),
        (None, ResourceKind::Unspecified) => ResourceKind::Allocation,
        (None, kind) => kind,
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
        etag: given_or(args.change.etag, live.etag),
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
