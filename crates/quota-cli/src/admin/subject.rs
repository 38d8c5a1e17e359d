//! Subjects.

use clap::{Args, Subcommand};
use quota_client::Client;
use quota_client::v1::{
    CreateSubjectRequest, DeleteSubjectRequest, GetSubjectRequest, ListSubjectsRequest, Subject,
    UpdateSubjectRequest,
};
use serde_json::Value;

use super::{ChangeArgs, deleted, given_or, labels_of, print_json};
use crate::operate::label;
use crate::output::{Output, labels, time};
use crate::pages::all_pages;
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
        /// Only those with this label; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Delete one with all below it, its quotas and the patterns below it. It must have nothing in use.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
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
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn subject(
    client: &Client,
    output: &Output,
    command: SubjectCommand,
) -> Result<Ending, Failure> {
    let subject = match command {
        SubjectCommand::Create(args) => {
            let request = CreateSubjectRequest {
                validate_only: args.change.dry_run,
                subject: Some(subject_of(args, Subject::default())),
                ..CreateSubjectRequest::default()
            };
            client.create_subject(request).await?.subject
        }
        SubjectCommand::Update(args) => {
            let name = args.name.clone();
            let live = client.get_subject(GetSubjectRequest { name }).await?;
            let request = UpdateSubjectRequest {
                validate_only: args.change.dry_run,
                subject: Some(subject_of(args, live.subject.unwrap_or_default())),
                ..UpdateSubjectRequest::default()
            };
            client.update_subject(request).await?.subject
        }
        SubjectCommand::Get { name } => {
            let request = GetSubjectRequest { name };
            client.get_subject(request).await?.subject
        }
        SubjectCommand::Delete { name, change } => {
            let request = DeleteSubjectRequest {
                name,
                etag: change.etag,
                validate_only: change.dry_run,
                ..DeleteSubjectRequest::default()
            };
            client.delete_subject(request).await?;
            return deleted(output, change.dry_run);
        }
        SubjectCommand::List { prefix, labels } => {
            let request = ListSubjectsRequest {
                subject_prefix: prefix,
                labels: labels.into_iter().collect(),
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
        etag: given_or(args.change.etag, live.etag),
        ..Subject::default()
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
