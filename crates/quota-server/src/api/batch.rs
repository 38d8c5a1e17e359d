//! Batches: several steps in one command, in their order (C5.5). An item that is malformed is answered with its
//! error; the others are decided.

use std::sync::Arc;

use quota_core::command::{Action, Command};
use quota_core::name::SubjectName;
use quota_core::outcome::{Answer, Reply};
use quota_core::rejection::{Rejection, Violation};
use quota_core::resource::Resources;
use quota_core::verdict::Decision;
use quota_proto::v1;
use tonic::Status;
use v1::batch_item::Item;
use v1::batch_result::Result as Kind;
use v1::linked_item::Item as LinkedKind;

use super::consume::{consumed, read_consume, read_release, read_resize, released, resized};
use super::from_proto::{Caller, Identity, Reader, identity};
use super::{command, decided, status, take_turns, to_proto, unexpected};
use crate::engine::Engine;

/// Most steps of a batch, those in linked groups included.
const ITEMS_MAX: usize = 1000;
/// Most steps of a linked group: what they can touch is copied before they are decided.
const LINKED_MAX: usize = 100;

/// What became of an item before the ledger saw it.
enum Prepared {
    Command(Box<Command>, Form),
    Bad(Rejection),
}

/// What the answer to an item looks like.
enum Form {
    Consume,
    Release,
    Resize,
    Linked(Vec<Form>),
}

/// Guards the number of entries of a list.
pub(super) fn guard_size(field: &str, size: usize) -> Result<(), Status> {
    match (1..=ITEMS_MAX).contains(&size) {
        true => Ok(()),
        false => {
            let text = format!("weighs {size}; 1 to {ITEMS_MAX}");
            Err(status::invalid(&[Violation::new(field, text)]))
        }
    }
}

pub(super) async fn run(
    engine: &Arc<Engine>,
    caller: Caller,
    request: v1::BatchRequest,
) -> Result<v1::BatchResponse, Status> {
    let weight = |item: &v1::BatchItem| match &item.item {
        Some(Item::Linked(group)) => group.items.len(),
        _ => 1,
    };
    guard_size("items", request.items.iter().map(weight).sum())?;
    let resources = engine.views().tables().resources.clone();
    let mut forms = Vec::new();
    let mut commands = Vec::new();
    for (step, item) in request.items.into_iter().enumerate() {
        take_turns(step).await;
        match prepare(&caller, &resources, item) {
            Prepared::Command(command, form) => {
                forms.push(Ok((form, command.operation.id.to_string())));
                commands.push(*command);
            }
            Prepared::Bad(rejection) => forms.push(Err(rejection)),
        }
    }
    if let (Some(span), Some(first)) = (&caller.span, commands.first()) {
        span.asked(first.lane(), commands.len());
    }
    let replies = match commands.is_empty() {
        true => Vec::new(),
        false => engine
            .execute_traced(commands, caller.patience, caller.span.clone())
            .await
            .map_err(|fault| status::of_fault(&fault))?,
    };
    if let Some(span) = &caller.span {
        span.answered(replies.iter().flatten());
    }
    let mut replies = replies.into_iter();
    let mut results = Vec::with_capacity(forms.len());
    for (step, form) in forms.into_iter().enumerate() {
        take_turns(step).await;
        let result = match form {
            Err(rejection) => Kind::Error(status::item_error(&rejection)),
            Ok((form, id)) => match replies.next() {
                Some(Ok(reply)) => answered(&reply, &reply.outcome.answer, &form, id)?,
                Some(Err(rejection)) => Kind::Error(status::item_error(&rejection)),
                None => return Err(status::bug()),
            },
        };
        results.push(v1::BatchResult {
            result: Some(result),
        });
    }
    Ok(v1::BatchResponse { results })
}

fn prepare(caller: &Caller, resources: &Resources, item: v1::BatchItem) -> Prepared {
    let mut reader = Reader::default();
    let (identity, action, form): (Identity, Action, Form) = match item.item {
        Some(Item::Consume(mut request)) => {
            let identity = identity!(reader, "Consume", request);
            let action = read_consume(&mut reader, resources, request);
            (identity, action, Form::Consume)
        }
        Some(Item::Release(mut request)) => {
            let identity = identity!(reader, "Release", request);
            let action = read_release(&mut reader, resources, request);
            (identity, action, Form::Release)
        }
        Some(Item::Resize(mut request)) => {
            let identity = identity!(reader, "Resize", request);
            let action = read_resize(&mut reader, resources, request);
            (identity, action, Form::Resize)
        }
        Some(Item::Linked(mut group)) => {
            let identity = identity!(reader, "Linked", group);
            let (action, forms) = read_linked(&mut reader, resources, group);
            (identity, action, Form::Linked(forms))
        }
        None => {
            let text = "is empty; one of consume, release, resize and linked";
            return Prepared::Bad(Rejection::Invalid(vec![Violation::new("item", text)]));
        }
    };
    match reader.finish_item() {
        Ok(()) => Prepared::Command(Box::new(command(&caller.actor, identity, action)), form),
        Err(rejection) => Prepared::Bad(rejection),
    }
}

fn read_linked(
    reader: &mut Reader,
    resources: &Resources,
    group: v1::LinkedGroup,
) -> (Action, Vec<Form>) {
    let mut members = Vec::new();
    let mut forms = Vec::new();
    if !(1..=LINKED_MAX).contains(&group.items.len()) {
        let text = format!("has {} steps; 1 to {LINKED_MAX}", group.items.len());
        reader.wrong("items", text);
        return (Action::Linked(members), forms);
    }
    for (at, item) in group.items.into_iter().enumerate() {
        let field = format!("items[{at}]");
        let mut part = Reader::default();
        let alone = |part: &mut Reader, id: &str, age: bool, source: &str| {
            for (field, given) in [
                ("operation_id", !id.is_empty()),
                ("operation_age", age),
                ("source", !source.is_empty()),
            ] {
                if given {
                    part.wrong(field, "is given; the group has one for all its steps");
                }
            }
        };
        let (name, member, form) = match item.item {
            Some(LinkedKind::Consume(request)) => {
                let aged = request.operation_age.is_some();
                alone(&mut part, &request.operation_id, aged, &request.source);
                (
                    "consume",
                    read_consume(&mut part, resources, request),
                    Form::Consume,
                )
            }
            Some(LinkedKind::Release(request)) => {
                let aged = request.operation_age.is_some();
                alone(&mut part, &request.operation_id, aged, &request.source);
                (
                    "release",
                    read_release(&mut part, resources, request),
                    Form::Release,
                )
            }
            Some(LinkedKind::Resize(request)) => {
                let aged = request.operation_age.is_some();
                alone(&mut part, &request.operation_id, aged, &request.source);
                (
                    "resize",
                    read_resize(&mut part, resources, request),
                    Form::Resize,
                )
            }
            None => {
                reader.wrong(field, "is empty; one of consume, release and resize");
                continue;
            }
        };
        reader.take_over(&format!("{field}.{name}"), part);
        members.push(member);
        forms.push(form);
    }
    guard_one_lane(reader, &members);
    (Action::Linked(members), forms)
}

/// All steps of a group share their first pair, within which its operation id is unique.
fn guard_one_lane(reader: &mut Reader, members: &[Action]) {
    let system = SubjectName::system();
    let lanes = || members.iter().map(Action::lane);
    let first = lanes().find(|lane| *lane != system.as_str());
    for (at, lane) in lanes().enumerate() {
        if first.is_some_and(|first| lane != first) {
            let first = first.unwrap_or_default();
            let text =
                format!("is below {lane}, not {first}; all steps of a group share the first pair");
            reader.wrong(format!("items[{at}]"), text);
        }
    }
}

fn answered(reply: &Reply, answer: &Answer, form: &Form, id: String) -> Result<Kind, Status> {
    Ok(match form {
        Form::Consume => Kind::Consume(consumed(reply, answer, id)?),
        Form::Release => Kind::Release(released(reply, answer, id)?),
        Form::Resize => Kind::Resize(resized(reply, answer, id)?),
        Form::Linked(forms) => Kind::Linked(linked(reply, answer, forms, id)?),
    })
}

fn linked(
    reply: &Reply,
    answer: &Answer,
    forms: &[Form],
    operation_id: String,
) -> Result<v1::LinkedResponse, Status> {
    use v1::linked_result::Result as Member;
    let Answer::Linked(answers) = answer else {
        return Err(unexpected(answer));
    };
    // The strongest of its steps'.
    let decisions = answers.iter().map(|answer| match answer {
        Answer::Charged { verdict, .. } => verdict.decision,
        _ => Decision::Granted,
    });
    let decision = decisions.min().unwrap_or(Decision::Granted);
    let mut results = Vec::with_capacity(answers.len());
    for (answer, form) in answers.iter().zip(forms) {
        if *answer == Answer::Undecided {
            results.push(v1::LinkedResult { result: None });
            continue;
        }
        let result = match form {
            Form::Release => Member::Release(released(reply, answer, String::new())?),
            Form::Resize => Member::Resize(resized(reply, answer, String::new())?),
            Form::Consume | Form::Linked(_) => {
                Member::Consume(consumed(reply, answer, String::new())?)
            }
        };
        results.push(v1::LinkedResult {
            result: Some(result),
        });
    }
    Ok(v1::LinkedResponse {
        decision: to_proto::decision(decision),
        results,
        operation_id,
        replayed: reply.replayed,
        decide_time: decided(reply),
    })
}
