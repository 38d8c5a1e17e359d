//! Subjects.

use quota_core::command::{Action, Existence, SetSubject};
use quota_core::labels::SUBJECT_LABELS_MAX;
use quota_core::outcome::{Answer, Reply};
use quota_core::rejection::Rejection;
use quota_proto::v1;
use tonic::Status;

use super::{Admin, existence};
use crate::api::from_proto::{Caller, DISPLAY_BYTES_MAX, Identity, Reader, admin_identity};
use crate::api::{execute, page, status, to_proto, unexpected};

impl Admin {
    pub(super) async fn create_subject(
        &self,
        mut request: v1::CreateSubjectRequest,
        caller: Caller,
    ) -> Result<v1::CreateSubjectResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "CreateSubject", request);
        let etag = request.subject.as_ref().is_some_and(|s| !s.etag.is_empty());
        if etag {
            reader.wrong("subject.etag", "must be empty: there is no version yet");
        }
        let set = read(reader, request.subject, Existence::New)?;
        let (reply, operation_id) = self.set_subject(caller, identity, set).await?;
        Ok(v1::CreateSubjectResponse {
            subject: Some(subject_of(&reply)?),
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn update_subject(
        &self,
        mut request: v1::UpdateSubjectRequest,
        caller: Caller,
    ) -> Result<v1::UpdateSubjectResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "UpdateSubject", request);
        let set = read(reader, request.subject, existence(request.allow_missing))?;
        let (reply, operation_id) = self.set_subject(caller, identity, set).await?;
        Ok(v1::UpdateSubjectResponse {
            subject: Some(subject_of(&reply)?),
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn delete_subject(
        &self,
        mut request: v1::DeleteSubjectRequest,
        caller: Caller,
    ) -> Result<v1::DeleteSubjectResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "DeleteSubject", request);
        let name = reader.subject("name", &request.name);
        reader.finish()?;
        let action = Action::DeleteSubject {
            name,
            etag: request.etag,
        };
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        Ok(v1::DeleteSubjectResponse {
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn get_subject(
        &self,
        request: v1::GetSubjectRequest,
        _: Caller,
    ) -> Result<v1::GetSubjectResponse, Status> {
        let mut reader = Reader::default();
        let name = reader.subject("name", &request.name);
        reader.finish()?;
        match self.engine.views().subject(name.as_str()) {
            Some(subject) => Ok(v1::GetSubjectResponse {
                subject: Some(to_proto::subject(&subject)),
            }),
            None => Err(status::of_rejection(&Rejection::NoSubject(name))),
        }
    }

    pub(super) async fn list_subjects(
        &self,
        request: v1::ListSubjectsRequest,
        _: Caller,
    ) -> Result<v1::ListSubjectsResponse, Status> {
        let mut reader = Reader::default();
        let prefix = reader.prefix("subject_prefix", &request.subject_prefix);
        let size = page::size(&mut reader, request.page_size);
        let labels = reader.labels("labels", request.labels, SUBJECT_LABELS_MAX);
        let filter = format!("ListSubjects {prefix} {labels:?}");
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let read = self.engine.read(move |ledger| {
            page::collect(
                ledger.subject_names(prefix.as_str(), &after),
                size,
                |name| name.to_string(),
                |name| {
                    let subject = ledger.subject(name.as_str())?;
                    let bears = |(key, value)| subject.profile.labels.get(key) == Some(value);
                    labels.iter().all(bears).then(|| to_proto::subject(subject))
                },
            )
        });
        let (subjects, next) = read.await.map_err(|fault| status::of_fault(&fault))?;
        Ok(v1::ListSubjectsResponse {
            subjects,
            next_page_token: next.map_or(String::new(), |last| page::token(&filter, &last)),
        })
    }

    async fn set_subject(
        &self,
        caller: Caller,
        identity: Identity,
        set: SetSubject,
    ) -> Result<(Reply, String), Status> {
        execute(&self.engine, caller, identity, Action::SetSubject(set)).await
    }
}

fn read(
    mut reader: Reader,
    subject: Option<v1::Subject>,
    existence: Existence,
) -> Result<SetSubject, Status> {
    if subject.is_none() {
        reader.wrong("subject", "is missing");
    }
    let subject = subject.unwrap_or_default();
    let set = SetSubject {
        name: reader.subject("subject.name", &subject.name),
        display_name: reader.text(
            "subject.display_name",
            subject.display_name,
            DISPLAY_BYTES_MAX,
        ),
        labels: reader.labels("subject.labels", subject.labels, SUBJECT_LABELS_MAX),
        existence,
        etag: subject.etag,
    };
    reader.finish()?;
    Ok(set)
}

fn subject_of(reply: &Reply) -> Result<v1::Subject, Status> {
    match &reply.outcome.answer {
        Answer::Subject(subject) => Ok(to_proto::subject(subject)),
        other => Err(unexpected(other)),
    }
}
