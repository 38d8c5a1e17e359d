//! AdminService: subjects, resources, quotas, and what is in use. One file per noun; this one only sorts.

mod audit;
mod corrections;
mod history;
mod quotas;
mod resources;
mod server;
mod subjects;
mod usage;

use std::sync::Arc;

use quota_core::command::Existence;
use quota_proto::v1;
use quota_proto::v1::admin_service_server::AdminService;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::engine::Engine;
use crate::feed::Feed;
use crate::history::History;
use crate::telemetry::logs::LogFilter;

/// The service.
pub struct Admin {
    engine: Arc<Engine>,
    feed: Arc<Feed>,
    history: Arc<History>,
    /// Reads of long stretches of the journal: one at a time, so that they leave room for everybody else.
    scans: Arc<Semaphore>,
    log_filter: LogFilter,
}

impl Admin {
    /// The service on an engine, its journal, its history, and the log of the process.
    pub fn new(
        engine: Arc<Engine>,
        feed: Arc<Feed>,
        history: Arc<History>,
        log_filter: LogFilter,
    ) -> Self {
        Self {
            engine,
            feed,
            history,
            scans: Arc::new(Semaphore::new(1)),
            log_filter,
        }
    }
}

fn existence(allow_missing: bool) -> Existence {
    match allow_missing {
        true => Existence::Any,
        false => Existence::Known,
    }
}

/// Methods whose work is one function of the same name.
macro_rules! forward {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl AdminService for Admin {
            $(async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                let (request, caller) = super::split(request)?;
                self.$method(request, caller).await.map(Response::new)
            })*
        }
    };
}

forward! {
    create_subject(CreateSubjectRequest) -> CreateSubjectResponse;
    get_subject(GetSubjectRequest) -> GetSubjectResponse;
    list_subjects(ListSubjectsRequest) -> ListSubjectsResponse;
    update_subject(UpdateSubjectRequest) -> UpdateSubjectResponse;
    delete_subject(DeleteSubjectRequest) -> DeleteSubjectResponse;
    create_resource(CreateResourceRequest) -> CreateResourceResponse;
    get_resource(GetResourceRequest) -> GetResourceResponse;
    list_resources(ListResourcesRequest) -> ListResourcesResponse;
    update_resource(UpdateResourceRequest) -> UpdateResourceResponse;
    delete_resource(DeleteResourceRequest) -> DeleteResourceResponse;
    create_quota(CreateQuotaRequest) -> CreateQuotaResponse;
    get_quota(GetQuotaRequest) -> GetQuotaResponse;
    list_quotas(ListQuotasRequest) -> ListQuotasResponse;
    update_quota(UpdateQuotaRequest) -> UpdateQuotaResponse;
    delete_quota(DeleteQuotaRequest) -> DeleteQuotaResponse;
    batch_update_quotas(BatchUpdateQuotasRequest) -> BatchUpdateQuotasResponse;
    explain_quota(ExplainQuotaRequest) -> ExplainQuotaResponse;
    reset_usage(ResetUsageRequest) -> ResetUsageResponse;
    correct_usage(CorrectUsageRequest) -> CorrectUsageResponse;
    get_usage(GetUsageRequest) -> GetUsageResponse;
    get_usage_history(GetUsageHistoryRequest) -> GetUsageHistoryResponse;
    list_usage(ListUsageRequest) -> ListUsageResponse;
    get_allocation(GetAllocationRequest) -> GetAllocationResponse;
    list_allocations(ListAllocationsRequest) -> ListAllocationsResponse;
    verify_invariants(VerifyInvariantsRequest) -> VerifyInvariantsResponse;
    accept_clock(AcceptClockRequest) -> AcceptClockResponse;
    get_server_info(GetServerInfoRequest) -> GetServerInfoResponse;
    list_events(ListEventsRequest) -> ListEventsResponse;
    verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
    set_log_filter(SetLogFilterRequest) -> SetLogFilterResponse;
}
