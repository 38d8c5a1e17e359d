//! The client: what a service embeds to ask the quota authority.
//!
//! It is thin on purpose. It adds to the generated code what every caller would otherwise get wrong: an
//! operation id is made before the first attempt and reused only when the answer was lost, errors say
//! whether anything was changed, and a refusal is an answer and not an error.
//!
//! Check is no substitute for Consume: two callers that both see *granted* may not both fit.

#![deny(missing_docs)]

mod error;
mod retry;
mod watch;

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

pub use error::{Applied, Error, FieldViolation, positive, refusal_status};
pub use prost_types::{Duration as ProtoDuration, Timestamp};
pub use quota_proto::v1;
pub use retry::new_operation_id;
use retry::{Attempts, Idempotent};
pub use watch::Watch;

use v1::admin_service_client::AdminServiceClient;
use v1::check_service_client::CheckServiceClient;
use v1::consume_service_client::ConsumeServiceClient;
use v1::reserve_service_client::ReserveServiceClient;

/// Where a server is by default.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// An error that names many bad fields travels in the trailers.
const HEADERS_BYTES_MAX: u32 = 256 << 10;
const ACTOR: &str = "quota-actor";

/// How a client calls.
#[derive(Clone, Debug)]
pub struct Options {
    /// URL of the server, `http://HOST:PORT`.
    pub endpoint: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// How long a call whose answer was lost is tried again, with the same operation id.
    pub retry_for: Duration,
    /// Who asks; recorded with every change. Printable ASCII, at most 128 bytes; empty for nobody.
    pub actor: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.into(),
            timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(5),
            actor: String::new(),
        }
    }
}

/// A connection to a server. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    options: Options,
    actor: Option<MetadataValue<Ascii>>,
}

/// Methods of the services. A call whose answer was lost is tried again; a mutation has an operation id
/// before its first attempt, and says its age from the second on.
macro_rules! calls {
    ($($(#[doc = $doc:literal])+ $service:ident.$method:ident($request:ident) -> $response:ident, $kind:ident;)*) => {
        impl Client {
            $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// See [`Error`].
                pub async fn $method(&self, request: v1::$request) -> Result<v1::$response, Error> {
                    let mut request = request;
                    calls!(@name $kind, request);
                    let mut service = $service::new(self.channel.clone())
                        .max_decoding_message_size(ANSWER_BYTES_MAX);
                    let mut attempts = Attempts::begin(self.options.retry_for);
                    let mut attempt = request.clone();
                    loop {
                        let error = match service.$method(self.request(attempt)).await {
                            Ok(answer) => return Ok(answer.into_inner()),
                            Err(status) => Error::from(status),
                        };
                        if !attempts.wait(&error).await {
                            return Err(error);
                        }
                        attempt = request.clone();
                        calls!(@age $kind, attempt, attempts);
                    }
                }
            )*
        }
    };
    (@name mutation, $request:ident) => { $request.name() };
    (@name read, $request:ident) => { let _ = &mut $request; };
    (@age mutation, $request:ident, $attempts:ident) => { $request.set_age($attempts.age()) };
    (@age read, $request:ident, $attempts:ident) => {};
}

calls! {
    /// What a Consume would answer now. It promises nothing.
    CheckServiceClient.check(CheckRequest) -> CheckResponse, read;
    /// Several Checks, each for itself.
    CheckServiceClient.batch_check(BatchCheckRequest) -> BatchCheckResponse, read;
    /// Checks and charges in one step.
    ConsumeServiceClient.consume(ConsumeRequest) -> ConsumeResponse, mutation;
    /// Gives back all or part of an allocation.
    ConsumeServiceClient.release(ReleaseRequest) -> ReleaseResponse, mutation;
    /// Sets new absolute amounts of an allocation.
    ConsumeServiceClient.resize(ResizeRequest) -> ResizeResponse, mutation;
    /// Several steps in their order. Those without an operation id get one before the first attempt.
    ConsumeServiceClient.batch(BatchRequest) -> BatchResponse, mutation;
    /// Gives CONCURRENCY allocations more time.
    ConsumeServiceClient.renew_allocations(RenewAllocationsRequest) -> RenewAllocationsResponse, mutation;
    /// Releases whole allocations by label.
    ConsumeServiceClient.release_matching(ReleaseMatchingRequest) -> ReleaseMatchingResponse, mutation;
    /// Holds for a time.
    ReserveServiceClient.reserve(ReserveRequest) -> ReserveResponse, mutation;
    /// Turns a hold into use.
    ReserveServiceClient.commit_hold(CommitHoldRequest) -> CommitHoldResponse, mutation;
    /// Gives a hold more time.
    ReserveServiceClient.renew_hold(RenewHoldRequest) -> RenewHoldResponse, mutation;
    /// Gives a hold up.
    ReserveServiceClient.cancel_hold(CancelHoldRequest) -> CancelHoldResponse, mutation;
    /// Reads a hold.
    ReserveServiceClient.get_hold(GetHoldRequest) -> GetHoldResponse, read;
    /// Lists holds.
    ReserveServiceClient.list_holds(ListHoldsRequest) -> ListHoldsResponse, read;
    /// Creates a subject.
    AdminServiceClient.create_subject(CreateSubjectRequest) -> CreateSubjectResponse, mutation;
    /// Reads a subject.
    AdminServiceClient.get_subject(GetSubjectRequest) -> GetSubjectResponse, read;
    /// Lists subjects.
    AdminServiceClient.list_subjects(ListSubjectsRequest) -> ListSubjectsResponse, read;
    /// Replaces what may change of a subject.
    AdminServiceClient.update_subject(UpdateSubjectRequest) -> UpdateSubjectResponse, mutation;
    /// Deletes a subject with all below it.
    AdminServiceClient.delete_subject(DeleteSubjectRequest) -> DeleteSubjectResponse, mutation;
    /// Creates a resource.
    AdminServiceClient.create_resource(CreateResourceRequest) -> CreateResourceResponse, mutation;
    /// Reads a resource.
    AdminServiceClient.get_resource(GetResourceRequest) -> GetResourceResponse, read;
    /// Lists resources.
    AdminServiceClient.list_resources(ListResourcesRequest) -> ListResourcesResponse, read;
    /// Replaces what may change of a resource.
    AdminServiceClient.update_resource(UpdateResourceRequest) -> UpdateResourceResponse, mutation;
    /// Deletes a resource.
    AdminServiceClient.delete_resource(DeleteResourceRequest) -> DeleteResourceResponse, mutation;
    /// Creates a quota.
    AdminServiceClient.create_quota(CreateQuotaRequest) -> CreateQuotaResponse, mutation;
    /// Reads a quota.
    AdminServiceClient.get_quota(GetQuotaRequest) -> GetQuotaResponse, read;
    /// Lists quotas.
    AdminServiceClient.list_quotas(ListQuotasRequest) -> ListQuotasResponse, read;
    /// Replaces a quota; usage is never touched.
    AdminServiceClient.update_quota(UpdateQuotaRequest) -> UpdateQuotaResponse, mutation;
    /// Deletes a quota.
    AdminServiceClient.delete_quota(DeleteQuotaRequest) -> DeleteQuotaResponse, mutation;
    /// Replaces quotas, all of them or none.
    AdminServiceClient.batch_update_quotas(BatchUpdateQuotasRequest) -> BatchUpdateQuotasResponse, mutation;
    /// Explains which quotas bound a resource of a subject.
    AdminServiceClient.explain_quota(ExplainQuotaRequest) -> ExplainQuotaResponse, read;
    /// Sets counts or buckets to zero.
    AdminServiceClient.reset_usage(ResetUsageRequest) -> ResetUsageResponse, mutation;
    /// Changes what was counted.
    AdminServiceClient.correct_usage(CorrectUsageRequest) -> CorrectUsageResponse, mutation;
    /// Reads the accounts of a subject.
    AdminServiceClient.get_usage(GetUsageRequest) -> GetUsageResponse, read;
    /// Reads how an account went, in steps of time.
    AdminServiceClient.get_usage_history(GetUsageHistoryRequest) -> GetUsageHistoryResponse, read;
    /// Lists accounts.
    AdminServiceClient.list_usage(ListUsageRequest) -> ListUsageResponse, read;
    /// Reads an allocation.
    AdminServiceClient.get_allocation(GetAllocationRequest) -> GetAllocationResponse, read;
    /// Lists allocations.
    AdminServiceClient.list_allocations(ListAllocationsRequest) -> ListAllocationsResponse, read;
    /// Recomputes every account and compares.
    AdminServiceClient.verify_invariants(VerifyInvariantsRequest) -> VerifyInvariantsResponse, read;
    /// Accepts a step of the wall clock.
    AdminServiceClient.accept_clock(AcceptClockRequest) -> AcceptClockResponse, mutation;
    /// Says what runs there, and how it is.
    AdminServiceClient.get_server_info(GetServerInfoRequest) -> GetServerInfoResponse, read;
    /// Lists what happened.
    AdminServiceClient.list_events(ListEventsRequest) -> ListEventsResponse, read;
    /// Checks a part of the journal.
    AdminServiceClient.verify_audit(VerifyAuditRequest) -> VerifyAuditResponse, read;
    /// Says which log lines are written there.
    AdminServiceClient.set_log_filter(SetLogFilterRequest) -> SetLogFilterResponse, read;
}

impl Client {
    /// A client that connects with its first call.
    ///
    /// # Errors
    /// An endpoint or actor that is none.
    pub fn new(options: Options) -> Result<Self, Error> {
        let wrong = |why: &str| Error::local(format!("endpoint {:?} {why}", options.endpoint));
        let host = options.endpoint.strip_prefix("http://");
        if options.endpoint.starts_with("https://") {
            return Err(wrong(
                "asks for TLS, which this version does not speak: http://HOST:PORT",
            ));
        }
        if host.is_none_or(str::is_empty) {
            return Err(wrong("is no URL such as http://127.0.0.1:50051"));
        }
        let endpoint = Endpoint::from_shared(options.endpoint.clone())
            .map_err(|error| wrong(&format!("is no URL: {error}")))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .connect_lazy();
        let actor = match options.actor.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| Error::local(format!("actor {text:?}: printable ASCII")))?,
            ),
        };
        Ok(Self {
            channel,
            options,
            actor,
        })
    }

    /// The same connection, without trying again: the caller learns of every lost answer.
    #[must_use]
    pub fn without_retries(&self) -> Self {
        let mut client = self.clone();
        client.options.retry_for = Duration::ZERO;
        client
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.options.timeout);
        if let Some(actor) = &self.actor {
            request.metadata_mut().insert(ACTOR, actor.clone());
        }
        request
    }
}
