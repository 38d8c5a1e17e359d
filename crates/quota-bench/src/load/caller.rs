//! One call at a time, its answer looked at: anything but what is expected ends the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quota_proto::v1;
use quota_proto::v1::check_service_client::CheckServiceClient;
use quota_proto::v1::consume_service_client::ConsumeServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use v1::batch_item::Item;
use v1::batch_result::Result as Answer;

use super::recorder::{Kind, Recorder};
use super::work::{Call, Expect, RESOURCE, Work};
use super::{ANSWER_BYTES_MAX, Target};
use crate::{Failure, rival};

/// Numbers of operations: no two of a run are alike.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Numbers that nobody else gets; the first of them.
pub(super) fn numbers(count: usize) -> u64 {
    NEXT.fetch_add(count as u64, Ordering::Relaxed)
}

#[derive(Clone)]
pub(super) struct Caller {
    part: usize,
    channel: Channel,
    check: CheckServiceClient<Channel>,
    consume: ConsumeServiceClient<Channel>,
    work: Arc<Work>,
    recorder: Arc<Recorder>,
}

impl Caller {
    /// A caller on one of the target's connections.
    pub(super) fn new(
        target: &Target,
        at: usize,
        work: &Arc<Work>,
        recorder: &Arc<Recorder>,
    ) -> Self {
        let part = at % target.channels.len();
        let channel = &target.channels[part];
        Self {
            part,
            channel: channel.clone(),
            check: CheckServiceClient::new(channel.clone()),
            consume: ConsumeServiceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            work: work.clone(),
            recorder: recorder.clone(),
        }
    }

    /// Whether the round is over.
    pub(super) fn is_over(&self) -> bool {
        self.recorder.is_over()
    }

    /// What charges or asks; true where there is something to release.
    pub(super) async fn charge(&mut self, number: u64, began: Instant) -> Result<bool, Failure> {
        let expected = self.work.expect.decision();
        let operations = match self.work.call {
            Call::Check => {
                let request = check(self.work.names.at(number));
                let answer = self.check.check(request).await?.into_inner();
                demand(answer.verdict.as_ref(), expected)?;
                1
            }
            Call::Throttle => {
                rival::throttle(&self.channel, self.work.names.at(number)).await?;
                1
            }
            Call::Consume => {
                let request = consume(self.work.names.at(number), number);
                let answer = self.consume.consume(request).await?.into_inner();
                demand(answer.verdict.as_ref(), expected)?;
                1
            }
            Call::Batch(size) => {
                let steps = (number..).take(size);
                let items = steps.map(|number| v1::BatchItem {
                    item: Some(Item::Consume(consume(self.work.names.at(number), number))),
                });
                let items = items.collect();
                let answer = self.consume.batch(v1::BatchRequest { items }).await?;
                let results = answer.into_inner().results;
                for result in &results {
                    match &result.result {
                        Some(Answer::Consume(answer)) => demand(answer.verdict.as_ref(), expected)?,
                        other => return Err(format!("a Consume was answered {other:?}").into()),
                    }
                }
                same(results.len(), size)?
            }
        };
        self.recorder
            .record(self.part, Kind::Charge, began, operations);
        let takes = matches!(self.work.call, Call::Consume | Call::Batch(_));
        Ok(takes && self.work.expect == Expect::Granted)
    }

    /// Gives back what a charge of that number took.
    pub(super) async fn release(&mut self, number: u64, began: Instant) -> Result<(), Failure> {
        let operations = match self.work.call {
            Call::Batch(size) => {
                let steps = (number..).take(size);
                let items = steps.map(|number| v1::BatchItem {
                    item: Some(Item::Release(release(self.work.names.at(number), number))),
                });
                let items = items.collect();
                let answer = self.consume.batch(v1::BatchRequest { items }).await?;
                let results = answer.into_inner().results;
                for result in &results {
                    match &result.result {
                        Some(Answer::Release(answer)) => same(answer.released.len(), 1)?,
                        other => return Err(format!("a Release was answered {other:?}").into()),
                    };
                }
                same(results.len(), size)?
            }
            _ => {
                let request = release(self.work.names.at(number), number);
                let answer = self.consume.release(request).await?.into_inner();
                same(answer.released.len(), 1)?
            }
        };
        self.recorder
            .record(self.part, Kind::Release, began, operations);
        Ok(())
    }
}

fn amounts() -> Vec<v1::Amount> {
    vec![v1::Amount {
        resource: RESOURCE.into(),
        amount: 1,
    }]
}

pub(super) fn check(subject: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        subject: subject.into(),
        amounts: amounts(),
        ..v1::CheckRequest::default()
    }
}

pub(super) fn consume(subject: &str, number: u64) -> v1::ConsumeRequest {
    v1::ConsumeRequest {
        subject: subject.into(),
        amounts: amounts(),
        operation_id: format!("c-{number}"),
        allocation_id: format!("a-{number}"),
        ..v1::ConsumeRequest::default()
    }
}

pub(super) fn release(subject: &str, number: u64) -> v1::ReleaseRequest {
    v1::ReleaseRequest {
        subject: subject.into(),
        operation_id: format!("r-{number}"),
        allocation_id: format!("a-{number}"),
        ..v1::ReleaseRequest::default()
    }
}

fn demand(verdict: Option<&v1::Verdict>, expected: v1::Decision) -> Result<(), Failure> {
    match verdict {
        Some(verdict) if verdict.decision() == expected => Ok(()),
        other => Err(format!("expected {expected:?}, and the verdict is {other:?}").into()),
    }
}

fn same(count: usize, expected: usize) -> Result<usize, Failure> {
    match count == expected {
        true => Ok(count),
        false => Err(format!("{count} results instead of {expected}").into()),
    }
}
