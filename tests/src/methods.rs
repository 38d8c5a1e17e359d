//! Every method of the wire by its name, without a socket: bytes of a request in, bytes of an answer out.

use std::sync::Arc;

use prost::Message;
use quota_proto::v1;
use quota_proto::v1::admin_service_server::AdminService;
use quota_proto::v1::check_service_server::CheckService;
use quota_proto::v1::consume_service_server::ConsumeService;
use quota_proto::v1::reserve_service_server::ReserveService;
use quota_proto::v1::watch_service_server::WatchService;
use quota_server::api::{Admin, Check, Consume, Reserve, Watch};
use quota_server::config::Config;
use quota_server::engine::Engine;
use quota_server::feed::Feed;
use quota_server::telemetry::logs::LogFilter;
use quota_store::rows::MemoryRows;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::worlds::{TestStore, history_of, runtime};

/// The services on an engine.
pub struct Methods {
    admin: Admin,
    check: Check,
    consume: Consume,
    reserve: Reserve,
    watch: Watch,
    runtime: Runtime,
}

macro_rules! methods {
    ($($service:ident { $($method:ident $call:ident $request:ident;)* })*) => {
        impl Methods {
            /// Calls a method; absent where the bytes are no request of it.
            pub fn call(
                &self,
                method: &str,
                bytes: &[u8],
                metadata: MetadataMap,
            ) -> Option<Result<Vec<u8>, Status>> {
                match method {
                    $($(stringify!($method) => {
                        let mut request = Request::new(v1::$request::decode(bytes).ok()?);
                        *request.metadata_mut() = metadata;
                        let answer = self.runtime.block_on(self.$service.$call(request));
                        Some(answer.map(|answer| answer.into_inner().encode_to_vec()))
                    })*)*
                    "Watch" => {
                        let mut request = Request::new(v1::WatchRequest::decode(bytes).ok()?);
                        *request.metadata_mut() = metadata;
                        Some(self.runtime.block_on(self.watched(request)))
                    }
                    other => panic!("{other} is new: name it here"),
                }
            }
        }
    };
}

methods! {
    check {
        Check check CheckRequest;
        BatchCheck batch_check BatchCheckRequest;
    }
    consume {
        Consume consume ConsumeRequest;
        Release release ReleaseRequest;
        Resize resize ResizeRequest;
        Batch batch BatchRequest;
        RenewAllocations renew_allocations RenewAllocationsRequest;
        ReleaseMatching release_matching ReleaseMatchingRequest;
    }
    reserve {
        Reserve reserve ReserveRequest;
        CommitHold commit_hold CommitHoldRequest;
        RenewHold renew_hold RenewHoldRequest;
        CancelHold cancel_hold CancelHoldRequest;
        GetHold get_hold GetHoldRequest;
        ListHolds list_holds ListHoldsRequest;
    }
    admin {
        CreateSubject create_subject CreateSubjectRequest;
        GetSubject get_subject GetSubjectRequest;
        ListSubjects list_subjects ListSubjectsRequest;
        UpdateSubject update_subject UpdateSubjectRequest;
        DeleteSubject delete_subject DeleteSubjectRequest;
        CreateResource create_resource CreateResourceRequest;
        GetResource get_resource GetResourceRequest;
        ListResources list_resources ListResourcesRequest;
        UpdateResource update_resource UpdateResourceRequest;
        DeleteResource delete_resource DeleteResourceRequest;
        CreateQuota create_quota CreateQuotaRequest;
        GetQuota get_quota GetQuotaRequest;
        ListQuotas list_quotas ListQuotasRequest;
        UpdateQuota update_quota UpdateQuotaRequest;
        DeleteQuota delete_quota DeleteQuotaRequest;
        BatchUpdateQuotas batch_update_quotas BatchUpdateQuotasRequest;
        ExplainQuota explain_quota ExplainQuotaRequest;
        GetUsage get_usage GetUsageRequest;
        GetUsageHistory get_usage_history GetUsageHistoryRequest;
        ListUsage list_usage ListUsageRequest;
        ResetUsage reset_usage ResetUsageRequest;
        CorrectUsage correct_usage CorrectUsageRequest;
        GetAllocation get_allocation GetAllocationRequest;
        ListAllocations list_allocations ListAllocationsRequest;
        VerifyInvariants verify_invariants VerifyInvariantsRequest;
        AcceptClock accept_clock AcceptClockRequest;
        GetServerInfo get_server_info GetServerInfoRequest;
        ListEvents list_events ListEventsRequest;
        VerifyAudit verify_audit VerifyAuditRequest;
        SetLogFilter set_log_filter SetLogFilterRequest;
    }
}

impl Methods {
    /// The services on an engine of a store.
    pub fn new(store: &TestStore) -> Self {
        let engine: Arc<Engine> = Arc::new(store.start());
        let feed = Arc::new(Feed::new(engine.journal().clone()));
        let history = history_of(&engine, Arc::new(MemoryRows::default()));
        Self {
            admin: Admin::new(engine.clone(), feed.clone(), history, LogFilter::default()),
            watch: Watch::new(feed, Config::default().limits().watch, engine.metrics()),
            check: Check::new(engine.clone()),
            consume: Consume::new(engine.clone()),
            reserve: Reserve::new(engine),
            runtime: runtime(),
        }
    }

    /// The first of what a watcher is sent; there always is one.
    async fn watched(&self, request: Request<v1::WatchRequest>) -> Result<Vec<u8>, Status> {
        let mut responses = self.watch.watch(request).await?.into_inner();
        let first = responses.next().await;
        Ok(first.expect("it begins at once")?.encode_to_vec())
    }
}
