//! ResetUsage and CorrectUsage.

use quota_core::amount::AMOUNT_MAX;
use quota_core::command::{self, Action};
use quota_core::decide::Use;
use quota_core::name::ResourceKey;
use quota_core::outcome::Answer;
use quota_proto::v1;
use tonic::Status;

use super::Admin;
use crate::api::from_proto::{Caller, RESOURCES_MAX, Reader, admin_identity};
use crate::api::{execute, unexpected};

impl Admin {
    pub(super) async fn reset_usage(
        &self,
        mut request: v1::ResetUsageRequest,
        caller: Caller,
    ) -> Result<v1::ResetUsageResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "ResetUsage", request);
        let subject = reader.subject("subject", &request.subject);
        let resource = reader.resource("resource", &request.resource);
        let quota = reader.id("quota_id", &request.quota_id);
        let purpose = reader.purpose(request.purpose);
        reader.finish()?;
        let action = Action::ResetUsage(command::ResetUsage {
            subject,
            resource: resource.unwrap_or_else(stand_in),
            quota,
            purpose,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Corrected(counts) = &reply.outcome.answer else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(v1::ResetUsageResponse {
            previous: counts.first().map_or(0, |(_, _, counted)| *counted),
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn correct_usage(
        &self,
        mut request: v1::CorrectUsageRequest,
        caller: Caller,
    ) -> Result<v1::CorrectUsageResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "CorrectUsage", request);
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        if request.purpose.is_empty() {
            reader.wrong("purpose", "is empty; say why what was counted is wrong");
        }
        // Of too many only their number is reported.
        for (at, amount) in request.amounts.iter().enumerate().take(RESOURCES_MAX) {
            if amount.amount == 0 {
                reader.wrong(
                    format!("amounts[{at}].amount"),
                    "is 0; what to add or take off",
                );
            }
        }
        let amounts = reader.some_amounts(&request.amounts, AMOUNT_MAX.saturating_neg());
        let resources = self.engine.views().tables().resources.clone();
        reader.doubt(&resources, &amounts, Use::Correct);
        let purpose = reader.purpose(request.purpose);
        reader.finish()?;
        let action = Action::CorrectUsage(command::CorrectUsage {
            subject,
            also,
            amounts,
            past: request.past,
            purpose,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Corrected(counts) = &reply.outcome.answer else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(v1::CorrectUsageResponse {
            counts: counts
                .iter()
                .map(|(subject, resource, counted)| v1::CorrectedCount {
                    subject: subject.to_string(),
                    resource: resource.to_string(),
                    previous: *counted,
                })
                .collect(),
            operation_id,
            replayed: reply.replayed,
        })
    }
}

/// Never used: a bad key does not get past its reader.
fn stand_in() -> ResourceKey {
    ResourceKey::parse("none").expect("a word is a key")
}
