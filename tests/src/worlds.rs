//! The second and third boundary: scripts on engine and store, and over gRPC.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use quota_client::v1;
use quota_client::{Client, Error, Options};
use quota_core::{Bounds, Ledger};
use quota_server::clock::{Clock, ManualClock};
use quota_server::config::Config;
use quota_server::engine::{Engine, EngineOptions, Fault, Parts};
use quota_server::server::{self, Limits};
use quota_store::Rows;
use quota_store::applier::{Applier, ApplierOptions};
use quota_store::journal::{SegmentJournal, SegmentOptions};
use quota_store::recovery::{Recovered, RecoveryError, recover};
use quota_store::rows::MemoryRows;
use quota_testkit::bare::{self, BEGINNING};
use quota_testkit::disk::TestDisk;
use quota_testkit::script::{self, Call, Script, World};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A store on a test disk that outlives its engines.
#[derive(Clone)]
pub struct TestStore {
    /// Where the journal is.
    pub journal: TestDisk,
    /// Where the bases are.
    pub bases: TestDisk,
    /// The rows.
    pub rows: Arc<MemoryRows>,
    /// The time.
    pub clock: ManualClock,
    /// The ledger's bounds.
    pub bounds: Bounds,
    /// Bytes of journal beyond which the oldest goes.
    pub journal_bytes_max: u64,
}

const STORE_ID: [u8; 16] = [7; 16];

impl TestStore {
    /// An empty store.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            journal: TestDisk::default(),
            bases: TestDisk::default(),
            rows: Arc::default(),
            clock: ManualClock::at(BEGINNING),
            bounds,
            journal_bytes_max: u64::MAX,
        }
    }

    /// Recovers what is there.
    pub fn recover(&self) -> Result<(SegmentJournal, Recovered), RecoveryError> {
        let options = SegmentOptions {
            segment_bytes: 1 << 15,
            store_id: STORE_ID,
        };
        let journal = SegmentJournal::open(Arc::new(self.journal.clone()), options)?;
        let recovered = recover(&journal, &*self.rows, &self.bases, STORE_ID, self.bounds)?;
        Ok((journal, recovered))
    }

    /// Starts an engine on what is there.
    pub fn start(&self) -> Engine {
        let (journal, recovered) = self.recover().unwrap_or_else(|error| panic!("{error}"));
        let ledger = recovered
            .ledger
            .unwrap_or_else(|| Ledger::new(self.bounds, self.clock.now()));
        let rows: Arc<dyn Rows> = self.rows.clone();
        let options = ApplierOptions {
            interval: Duration::from_millis(1),
            base_bytes: 1 << 14,
            store_id: STORE_ID,
            ..ApplierOptions::default()
        };
        let applier = Applier::start(rows, Arc::new(self.bases.clone()), options, 0).unwrap();
        let parts = Parts {
            ledger,
            journal: Box::new(journal),
            applier,
            marks: recovered.marks,
        };
        let options = EngineOptions {
            bounds: self.bounds,
            journal_bytes_max: self.journal_bytes_max,
            ..Config::default().engine()
        };
        Engine::start(parts, options, Arc::new(self.clock.clone())).unwrap()
    }

    /// The power goes and comes back.
    pub fn crash(&self, random: &mut Rng) {
        self.journal.crash(random);
        self.bases.crash(random);
    }
}

/// Scripts on engine and store; the power can go between any two lines.
pub struct EngineWorld {
    /// The store.
    pub store: TestStore,
    engine: Option<Engine>,
    runtime: Runtime,
    random: Rng,
    made: u64,
}

impl EngineWorld {
    /// A new store for a script.
    pub fn new(script: &Script) -> Self {
        let store = TestStore::new(script.bounds);
        Self {
            engine: Some(store.start()),
            store,
            runtime: runtime(),
            random: Rng::with_seed(script.lines.len() as u64),
            made: 0,
        }
    }

    /// The power goes and comes back.
    pub fn restart(&mut self) {
        self.store.crash(&mut self.random);
        drop(self.engine.take());
        // The old engine's last words went to handles of before the crash.
        self.engine = Some(self.store.start());
    }
}

/// A runtime for a test that asks an engine.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl World for EngineWorld {
    fn call(&mut self, call: &Call) -> String {
        let engine = self.engine.as_ref().unwrap();
        if call.verb == "used" {
            let call = call.clone();
            let read = engine.read(move |ledger| bare::used(ledger, &call));
            return self.runtime.block_on(read).unwrap();
        }
        if call.verb == "check" {
            // A check reads what is published; its evaluation is that of the ledger.
            let call = call.clone();
            let read = engine.read(move |ledger| bare::check(ledger, &call));
            return self.runtime.block_on(read).unwrap();
        }
        self.made += 1;
        let Ok(command) = bare::command(call, self.made) else {
            return "error INVALID_FIELDS".into();
        };
        match self.runtime.block_on(engine.execute(command, None)) {
            Ok(reply) => bare::reply(Ok(reply)),
            Err(Fault::Rejected(rejection)) => bare::reply(Err(rejection)),
            Err(other) => format!("fault {other}"),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.store.clock.advance(by);
    }
}

/// Scripts over gRPC against a server in this process.
pub struct GrpcWorld {
    runtime: Runtime,
    client: Client,
    store: TestStore,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl GrpcWorld {
    /// A new server for a script.
    pub fn new(script: &Script) -> Self {
        let store = TestStore::new(script.bounds);
        let engine = Arc::new(store.start());
        let runtime = runtime();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (endpoint, server) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let limits = Limits {
                message_bytes_max: 1 << 20,
                metadata_bytes_max: 16 << 10,
                streams_max: 64,
                drain_timeout: Duration::from_secs(1),
            };
            let server = tokio::spawn(async move {
                let stop = async {
                    let _ = stopped.await;
                };
                server::serve(engine, listener, limits, stop).await.unwrap();
            });
            (endpoint, server)
        });
        let client = runtime.block_on(async {
            Client::new(Options {
                endpoint,
                retry_for: Duration::ZERO,
                ..Options::default()
            })
            .unwrap()
        });
        Self {
            runtime,
            client,
            store,
            stop: Some(stop),
            server: Some(server),
        }
    }
}

impl Drop for GrpcWorld {
    fn drop(&mut self) {
        if let (Some(stop), Some(server)) = (self.stop.take(), self.server.take()) {
            let _ = stop.send(());
            let _ = self.runtime.block_on(server);
        }
    }
}

impl World for GrpcWorld {
    fn call(&mut self, call: &Call) -> String {
        match self.runtime.block_on(over_grpc(&self.client, call)) {
            Ok(text) => text,
            Err(error) => match error.reason {
                Some(reason) => {
                    format!(
                        "error {}",
                        reason.as_str_name().trim_start_matches("ERROR_REASON_")
                    )
                }
                None => format!("error without a reason: {error:?}"),
            },
        }
    }

    fn advance(&mut self, by: Duration) {
        self.store.clock.advance(by);
    }
}

async fn over_grpc(client: &Client, call: &Call) -> Result<String, Error> {
    let subject = call.place.clone();
    let operation_id = call.option("op").unwrap_or_default().to_owned();
    let allocation_id = call.option("id").unwrap_or_default().to_owned();
    let operation_age = call
        .age()
        .and_then(|age| quota_client::ProtoDuration::try_from(age).ok());
    let expected_generation = call.option("gen").map(|text| text.parse().unwrap());
    let mode = match call.has("record") {
        true => v1::ConsumeMode::Record.into(),
        false => v1::ConsumeMode::Strict.into(),
    };
    Ok(match call.verb.as_str() {
        "consume" => {
            let request = v1::ConsumeRequest {
                subject,
                also: call.list("also"),
                amounts: amounts(call),
                operation_id,
                allocation_id,
                mode,
                labels: call.labels(),
                operation_age,
                ..Default::default()
            };
            let a = client.consume(request).await?;
            verdict(a.decision(), a.replayed, &a.refusals, &a.exceeded)
        }
        "check" => {
            let request = v1::CheckRequest {
                subject,
                also: call.list("also"),
                amounts: amounts(call),
                mode,
                ..Default::default()
            };
            let a = client.check(request).await?;
            let text = verdict(a.decision(), false, &a.refusals, &a.exceeded);
            match a.unbounded_resources.is_empty() {
                true => text,
                false => format!("{text} unbounded"),
            }
        }
        "release" => {
            let request = v1::ReleaseRequest {
                subject,
                also: call.list("also"),
                allocation_id,
                amounts: amounts(call),
                operation_id,
                expected_generation,
                operation_age,
                ..Default::default()
            };
            let a = client.release(request).await?;
            let left = a.allocation.as_ref().map(|left| texts(&left.amounts));
            script::released(&texts(&a.released), left.as_deref(), a.replayed)
        }
        "resize" => {
            let request = v1::ResizeRequest {
                subject,
                allocation_id,
                amounts: amounts(call),
                mode,
                operation_id,
                expected_generation,
                operation_age,
                ..Default::default()
            };
            let a = client.resize(request).await?;
            verdict(a.decision(), a.replayed, &a.refusals, &a.exceeded)
        }
        "release-matching" => {
            let request = v1::ReleaseMatchingRequest {
                subject,
                labels: call.labels(),
                page_size: call.option("most").map_or(0, |text| text.parse().unwrap()),
                operation_id,
                operation_age,
                ..Default::default()
            };
            let a = client.release_matching(request).await?;
            let more = if a.more { " more" } else { "" };
            let suffix = if a.replayed { " replayed" } else { "" };
            format!("released {} allocations{more}{suffix}", a.released)
        }
        "used" => {
            let (resource, _) = call.amounts[0].clone();
            let request = v1::GetUsageRequest { subject, resource };
            let usage = client.get_usage(request).await?.usage.unwrap();
            usage
                .resources
                .first()
                .map_or(0, |line| line.used)
                .to_string()
        }
        _ => administer(client, call, operation_id).await?,
    })
}

async fn administer(client: &Client, call: &Call, operation_id: String) -> Result<String, Error> {
    let etag = call.option("etag").unwrap_or_default().to_owned();
    let allow_missing = !call.has("known");
    let done = |what: &str, replayed: bool| match replayed {
        true => format!("{what} replayed"),
        false => what.to_owned(),
    };
    Ok(match call.verb.as_str() {
        "subject" => {
            let subject = Some(v1::Subject {
                name: call.place.clone(),
                display_name: call.option("name").unwrap_or_default().to_owned(),
                labels: call.labels(),
                etag,
                ..Default::default()
            });
            let replayed = if call.has("new") {
                let request = v1::CreateSubjectRequest {
                    subject,
                    operation_id,
                };
                client.create_subject(request).await?.replayed
            } else {
                let request = v1::UpdateSubjectRequest {
                    subject,
                    allow_missing,
                    operation_id,
                };
                client.update_subject(request).await?.replayed
            };
            done("set", replayed)
        }
        "resource" => {
            let without_quota = match call.has("deny") {
                true => v1::WithoutQuota::Deny,
                false => v1::WithoutQuota::Allow,
            };
            let resource = Some(v1::Resource {
                key: call.place.clone(),
                kind: v1::ResourceKind::Allocation.into(),
                base_unit: "count".into(),
                without_quota: without_quota.into(),
                etag,
                ..Default::default()
            });
            let replayed = if call.has("new") {
                let request = v1::CreateResourceRequest {
                    resource,
                    operation_id,
                };
                client.create_resource(request).await?.replayed
            } else {
                let request = v1::UpdateResourceRequest {
                    resource,
                    allow_missing,
                    operation_id,
                };
                client.update_resource(request).await?.replayed
            };
            done("set", replayed)
        }
        "unresource" => {
            let request = v1::DeleteResourceRequest {
                key: call.place.clone(),
                etag,
                operation_id,
            };
            done("deleted", client.delete_resource(request).await?.replayed)
        }
        "quota" => {
            let (replayed, warnings) = set_quota(client, call, operation_id, etag).await?;
            let what = if warnings.is_empty() {
                "set"
            } else {
                "set warned"
            };
            done(what, replayed)
        }
        "unquota" => {
            let request = v1::DeleteQuotaRequest {
                subject: call.place.clone(),
                resource: call.amounts[0].0.clone(),
                quota_id: call.option("id").unwrap_or_default().to_owned(),
                etag,
                force: call.has("force"),
                operation_id,
            };
            done("deleted", client.delete_quota(request).await?.replayed)
        }
        other => panic!("no call is named {other}"),
    })
}

async fn set_quota(
    client: &Client,
    call: &Call,
    operation_id: String,
    etag: String,
) -> Result<(bool, Vec<String>), Error> {
    let (resource, limit) = call.amounts[0].clone();
    let limit = match limit.as_str() {
        "unlimited" => v1::limit::Limit::Unlimited(v1::Unlimited {}),
        number => v1::limit::Limit::Value(number.parse().unwrap()),
    };
    let quota = Some(v1::Quota {
        subject: call.place.clone(),
        resource,
        quota_id: call.option("id").unwrap_or_default().to_owned(),
        limit: Some(v1::Limit { limit: Some(limit) }),
        max_request: call.option("max").map(|text| text.parse().unwrap()),
        labels: call.labels(),
        etag,
        ..Default::default()
    });
    let force = call.has("force");
    if call.has("new") {
        let request = v1::CreateQuotaRequest {
            quota,
            force,
            operation_id,
        };
        let answer = client.create_quota(request).await?;
        return Ok((answer.replayed, answer.warnings));
    }
    let request = v1::UpdateQuotaRequest {
        quota,
        allow_missing: !call.has("known"),
        force,
        operation_id,
    };
    let answer = client.update_quota(request).await?;
    Ok((answer.replayed, answer.warnings))
}

fn amounts(call: &Call) -> Vec<v1::Amount> {
    call.numbers()
        .into_iter()
        .map(|(resource, amount)| v1::Amount { resource, amount })
        .collect()
}

fn texts(amounts: &[v1::Amount]) -> Vec<(String, i64)> {
    amounts
        .iter()
        .map(|amount| (amount.resource.clone(), amount.amount))
        .collect()
}

fn verdict(
    decision: v1::Decision,
    replayed: bool,
    refusals: &[v1::LimitFinding],
    exceeded: &[v1::LimitFinding],
) -> String {
    script::verdict(
        decision == v1::Decision::Denied,
        replayed,
        &findings(refusals),
        &findings(exceeded),
    )
}

fn findings(findings: &[v1::LimitFinding]) -> Vec<script::Finding<'_>> {
    findings
        .iter()
        .map(|finding| {
            let reason = v1::RefusalReason::as_str_name(&finding.reason());
            let limit = finding
                .limit
                .as_ref()
                .and_then(|limit| limit.limit.as_ref());
            script::Finding {
                reason: reason.trim_start_matches("REFUSAL_REASON_"),
                resource: &finding.resource,
                subject: &finding.subject,
                quota: &finding.quota,
                taken: finding.used + finding.held,
                requested: finding.requested,
                limit: match limit {
                    Some(v1::limit::Limit::Value(value)) => value.to_string(),
                    Some(v1::limit::Limit::Unlimited(_)) => "unlimited".into(),
                    None => String::new(),
                },
            }
        })
        .collect()
}
