//! What a server has before it is measured: quotas, and subjects that use something.

use std::net::SocketAddr;

use quota_client::v1::batch_item::Item;
use quota_client::v1::batch_result::Result as Answer;
use quota_client::v1::{
    Amount, BatchItem, BatchRequest, BatchUpdateQuotasRequest, ConsumeRequest, Decision, Limit,
    Quota, UpdateQuotaRequest, limit,
};
use quota_client::{Client, Options};

use crate::Failure;
use crate::load::{Names, RESOURCE};

/// Most steps of a request.
const STEPS_MAX: usize = 1000;
/// A limit that nothing reaches.
const AMPLE: i64 = 1 << 50;

/// The four levels, each with a quota.
pub(crate) const LEVELS: [&str; 4] = [
    "system",
    "tenants/*",
    "tenants/*/projects/*",
    "tenants/*/projects/*/users/*",
];

/// An ample quota on what is charged.
pub(crate) fn ample(subject: &str) -> Quota {
    limited(subject, AMPLE)
}

/// A quota on what is charged.
pub(crate) fn limited(subject: &str, limit: i64) -> Quota {
    Quota {
        subject: subject.into(),
        resource: RESOURCE.into(),
        limit: Some(Limit {
            limit: Some(limit::Limit::Value(limit)),
        }),
        ..Quota::default()
    }
}

/// Sets quotas.
pub(crate) async fn set(address: SocketAddr, quotas: Vec<Quota>) -> Result<(), Failure> {
    let client = client(address)?;
    for some in quotas.chunks(STEPS_MAX) {
        let requests = some.iter().map(|quota| UpdateQuotaRequest {
            quota: Some(quota.clone()),
            allow_missing: true,
            ..UpdateQuotaRequest::default()
        });
        let request = BatchUpdateQuotasRequest {
            requests: requests.collect(),
            ..BatchUpdateQuotasRequest::default()
        };
        client.batch_update_quotas(request).await?;
    }
    Ok(())
}

/// Every subject takes something and keeps it.
pub(crate) async fn settle(address: SocketAddr, names: &Names) -> Result<(), Failure> {
    let client = client(address)?;
    for some in names.all().chunks(STEPS_MAX) {
        let items = some.iter().map(|subject| BatchItem {
            item: Some(Item::Consume(ConsumeRequest {
                subject: subject.clone(),
                amounts: vec![Amount {
                    resource: RESOURCE.into(),
                    amount: 1,
                }],
                ..ConsumeRequest::default()
            })),
        });
        let items = items.collect();
        for result in client.batch(BatchRequest { items }).await?.results {
            match result.result {
                Some(Answer::Consume(answer))
                    if answer.verdict.as_ref().map(|verdict| verdict.decision())
                        == Some(Decision::Granted) => {}
                other => return Err(format!("a subject could not settle: {other:?}").into()),
            }
        }
    }
    Ok(())
}

fn client(address: SocketAddr) -> Result<Client, Failure> {
    Ok(Client::new(Options {
        endpoint: format!("http://{address}"),
        ..Options::default()
    })?)
}
