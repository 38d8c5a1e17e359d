//! What is in use: accounts, allocations, and the check of the invariants.

use std::sync::Arc;

use quota_core::allocation::{Allocation, AllocationKey};
use quota_core::invariants;
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::rejection::Rejection;
use quota_proto::v1;
use tonic::Status;

use super::Admin;
use crate::api::from_proto::{Caller, Reader};
use crate::api::{page, status, to_proto};

impl Admin {
    pub(super) async fn get_usage(
        &self,
        request: v1::GetUsageRequest,
        _: Caller,
    ) -> Result<v1::GetUsageResponse, Status> {
        let mut reader = Reader::default();
        let subject = reader.subject("subject", &request.subject);
        let only = reader.resource_filter(&request.resource);
        reader.finish()?;
        let snapshot = self.engine.views().snapshot(&subject, &[]);
        if !snapshot.exists(subject.as_str()) {
            return Err(status::of_rejection(&Rejection::NoSubject(subject)));
        }
        let now = self.engine.clock().now();
        let usage = to_proto::usage(subject.as_str(), &snapshot.scene(now), only.as_ref());
        Ok(v1::GetUsageResponse {
            usage: Some(self.add_history(usage, now).await),
            read_time: Some(to_proto::timestamp(now)),
        })
    }

    pub(super) async fn list_usage(
        &self,
        request: v1::ListUsageRequest,
        _: Caller,
    ) -> Result<v1::ListUsageResponse, Status> {
        let mut reader = Reader::default();
        let prefix = reader.prefix("subject_prefix", &request.subject_prefix);
        let only = reader.resource_filter(&request.resource);
        let size = page::size(&mut reader, request.page_size);
        let filter = format!("ListUsage {prefix} {}", request.resource);
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let now = self.engine.clock().now();
        let read = self.engine.read(move |ledger| {
            page::collect(
                ledger.subject_names(prefix.as_str(), &after),
                size,
                |name| name.to_string(),
                |name| {
                    let mut path: Vec<&str> = name.lineage().collect();
                    path.reverse();
                    let usage = to_proto::usage(
                        name.as_str(),
                        &ledger.scene(name.as_str(), &path, now),
                        only.as_ref(),
                    );
                    (only.is_none() || !usage.resources.is_empty()).then_some(usage)
                },
            )
        });
        let (usage, next) = read.await.map_err(|fault| status::of_fault(&fault))?;
        Ok(v1::ListUsageResponse {
            usage,
            next_page_token: next.map_or(String::new(), |last| page::token(&filter, &last)),
        })
    }

    pub(super) async fn get_allocation(
        &self,
        request: v1::GetAllocationRequest,
        _: Caller,
    ) -> Result<v1::GetAllocationResponse, Status> {
        let mut reader = Reader::default();
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let id = reader.id("allocation_id", &request.allocation_id);
        reader.finish()?;
        let key = AllocationKey::new(&subject, id.as_ref(), &also);
        let text = key.as_str().to_owned();
        let now = self.engine.clock().now();
        let read = self
            .engine
            .read(move |ledger| ledger.live_allocation(key.as_str(), now));
        match read.await.map_err(|fault| status::of_fault(&fault))? {
            Some(allocation) => Ok(v1::GetAllocationResponse {
                allocation: Some(to_proto::allocation(&allocation)),
            }),
            None => Err(status::of_rejection(&Rejection::AllocationUnknown(text))),
        }
    }

    pub(super) async fn list_allocations(
        &self,
        request: v1::ListAllocationsRequest,
        _: Caller,
    ) -> Result<v1::ListAllocationsResponse, Status> {
        let mut reader = Reader::default();
        let prefix = reader.prefix("subject_prefix", &request.subject_prefix);
        let only = reader.resource_filter(&request.resource);
        let labels = reader.labels("labels", request.labels, ROW_LABELS_MAX);
        let size = page::size(&mut reader, request.page_size);
        let filter = format!("ListAllocations {prefix} {} {labels:?}", request.resource);
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let now = self.engine.clock().now();
        let wanted = move |allocation: &Arc<Allocation>| {
            let holds = only.as_ref().is_none_or(|key| allocation.amount(key) > 0);
            let bears = |(key, value)| allocation.labels.get(key) == Some(value);
            holds && labels.iter().all(bears)
        };
        let read = self.engine.read(move |ledger| {
            page::collect(
                ledger.allocations(prefix.as_str(), &after),
                size,
                |allocation| allocation.key.as_str().to_owned(),
                |allocation| {
                    let live = ledger.live_allocation(allocation.key.as_str(), now)?;
                    wanted(&live).then_some(live)
                },
            )
        });
        let (found, next) = read.await.map_err(|fault| status::of_fault(&fault))?;
        Ok(v1::ListAllocationsResponse {
            allocations: found.iter().map(|row| to_proto::allocation(row)).collect(),
            next_page_token: next.map_or(String::new(), |last| page::token(&filter, &last)),
        })
    }

    pub(super) async fn verify_invariants(
        &self,
        _: v1::VerifyInvariantsRequest,
        _: Caller,
    ) -> Result<v1::VerifyInvariantsResponse, Status> {
        let read = self
            .engine
            .read(|ledger| (invariants::check_state(ledger), ledger.sizes()));
        let (violations, sizes) = read.await.map_err(|fault| status::of_fault(&fault))?;
        let count = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        Ok(v1::VerifyInvariantsResponse {
            violations,
            subjects: count(sizes.subjects),
            allocations: count(sizes.allocations),
            read_time: Some(to_proto::timestamp(self.engine.clock().now())),
        })
    }
}
