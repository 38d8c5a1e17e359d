//! The third boundary: scripts over gRPC.

mod words;

use std::sync::Arc;
use std::time::Duration;

use quota_client::v1;
use quota_client::{Client, Error, Timestamp as ProtoTimestamp};
use quota_core::time::Timestamp;
use quota_server::api::WatchLimits;
use quota_server::clock::Clock;
use quota_server::config::Config;
use quota_server::engine::Engine;
use quota_server::server::{self, Limits};
use quota_server::telemetry::Telemetry;
use quota_store::rows::MemoryRows;
use quota_testkit::script::{self, Call, Script, World};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use v1::batch_item::Item;
use v1::linked_item::Item as LinkedKind;

use crate::process;
use crate::worlds::{TestStore, history_of, runtime};
use words::*;

/// A server in this process.
pub struct InProcess {
    /// Its URL.
    pub endpoint: String,
    /// What it runs on.
    pub runtime: Runtime,
    /// What it serves.
    pub engine: Arc<Engine>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl InProcess {
    /// Serves an engine on a free port.
    pub fn serve(engine: Engine) -> Self {
        Self::serve_watched(engine, |_| Telemetry::default())
    }

    /// The same with logs and traces, which are made in the runtime.
    pub fn serve_watched(engine: Engine, telemetry: impl FnOnce(&Engine) -> Telemetry) -> Self {
        let engine = Arc::new(engine);
        let served = engine.clone();
        let history = history_of(&engine, Arc::new(MemoryRows::default()));
        let runtime = runtime();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (endpoint, server) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let limits = Limits {
                streams_max: 64,
                connections_max: 64,
                drain_timeout: Duration::from_secs(1),
                watch: WatchLimits {
                    watchers_max: 8,
                    stall_max: Duration::from_millis(500),
                },
                ..Config::default().limits()
            };
            let telemetry = telemetry(&served);
            let server = tokio::spawn(async move {
                let stop = async {
                    let _ = stopped.await;
                };
                let served = server::serve(served, history, listener, limits, telemetry, stop);
                served.await.unwrap();
            });
            (endpoint, server)
        });
        Self {
            endpoint,
            runtime,
            engine,
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// A client that does not try again.
    pub fn client(&self) -> Client {
        self.runtime
            .block_on(async { process::client(&self.endpoint) })
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let (Some(stop), Some(server)) = (self.stop.take(), self.server.take()) {
            let _ = stop.send(());
            let _ = self.runtime.block_on(server);
        }
    }
}

/// Scripts over gRPC against a server in this process.
pub struct GrpcWorld {
    client: Client,
    store: TestStore,
    server: InProcess,
}

impl GrpcWorld {
    /// A new server for a script.
    pub fn new(script: &Script) -> Self {
        let store = TestStore::new(script.bounds);
        let server = InProcess::serve(store.start());
        Self {
            client: server.client(),
            store,
            server,
        }
    }
}

impl World for GrpcWorld {
    fn call(&mut self, call: &Call) -> String {
        let now = self.store.clock.now();
        let asked = self.server.runtime.block_on(ask(&self.client, call, now));
        asked.unwrap_or_else(|error| refused(&error))
    }

    fn advance(&mut self, by: Duration) {
        self.store.clock.advance(by);
    }

    fn now(&self) -> Timestamp {
        self.store.clock.now()
    }
}

/// An error in the words of scripts.
pub fn refused(error: &Error) -> String {
    match error.reason {
        Some(reason) => {
            let name = reason.as_str_name();
            format!("error {}", name.trim_start_matches("ERROR_REASON_"))
        }
        None => format!("error without a reason: {error:?}"),
    }
}

/// Asks over gRPC; the answer in the words of scripts.
pub async fn ask(client: &Client, call: &Call, now: Timestamp) -> Result<String, Error> {
    Ok(match call.verb.as_str() {
        "consume" => {
            let a = client.consume(consume(call)).await?;
            verdict(call, a.verdict.as_ref(), a.replayed)
        }
        "release" => released(&client.release(release(call)).await?),
        "resize" => {
            let a = client.resize(resize(call)).await?;
            verdict(call, a.verdict.as_ref(), a.replayed)
        }
        "linked" => linked(client, call).await?,
        "check" => check(client, call).await?,
        "renew" => {
            let request = v1::RenewAllocationsRequest {
                subject: call.place.clone(),
                allocation_ids: call.list("ids"),
                ttl: proto(call.option("ttl")),
                operation_id: operation_id(call),
                operation_age: age(call),
                ..Default::default()
            };
            let a = client.renew_allocations(request).await?;
            let (renewed, missing) = (a.renewed.len(), a.missing_allocation_ids.len());
            done(&format!("renewed {renewed} missing {missing}"), a.replayed)
        }
        "release-matching" => {
            let request = v1::ReleaseMatchingRequest {
                subject: call.place.clone(),
                labels: call.labels(),
                page_size: call.option("most").map_or(0, |text| text.parse().unwrap()),
                operation_id: operation_id(call),
                operation_age: age(call),
                ..Default::default()
            };
            let a = client.release_matching(request).await?;
            let more = if a.more { " more" } else { "" };
            done(
                &format!("released {} allocations{more}", a.released),
                a.replayed,
            )
        }
        "used" | "held" | "counted" => usage(client, call).await?,
        "reserve" | "commit" | "renew-hold" | "cancel" | "hold" => holds(client, call).await?,
        _ => administer(client, call, now).await?,
    })
}

async fn check(client: &Client, call: &Call) -> Result<String, Error> {
    let text = check_at(client, call, false).await?;
    // Nothing else happens here, so the writer's instant is the views'.
    assert_eq!(check_at(client, call, true).await?, text);
    Ok(text)
}

/// A check; `consistent` asks for one instant over all accounts.
pub async fn check_at(client: &Client, call: &Call, consistent: bool) -> Result<String, Error> {
    let request = v1::CheckRequest {
        subject: call.place.clone(),
        also: call.list("also"),
        amounts: amounts(call),
        mode: mode(call),
        minimum: minimum(call),
        consistent,
    };
    let a = client.check(request).await?;
    let text = verdict(call, a.verdict.as_ref(), false);
    Ok(format!("{text}{}", outlook(call, &a)))
}

async fn usage(client: &Client, call: &Call) -> Result<String, Error> {
    let (resource, _) = call.amounts[0].clone();
    let request = v1::GetUsageRequest {
        subject: call.place.clone(),
        resource: resource.clone(),
    };
    let usage = client.get_usage(request).await?.usage.unwrap();
    let line = usage.resources.first();
    Ok(match call.verb.as_str() {
        "used" => line.map_or(0, |line| line.used).to_string(),
        "held" => line.map_or(0, |line| line.held).to_string(),
        _ => {
            let id = call.option("id").map(|id| format!("{resource}.{id}"));
            let quotas = line.map(|line| line.quotas.as_slice()).unwrap_or_default();
            let quota = quotas
                .iter()
                .find(|quota| id.as_ref().is_none_or(|id| quota.quota_id == *id));
            quota.map_or("none".into(), |quota| quota.used.to_string())
        }
    })
}

async fn holds(client: &Client, call: &Call) -> Result<String, Error> {
    let subject = call.place.clone();
    let hold_id = call.option("id").unwrap_or_default().to_owned();
    Ok(match call.verb.as_str() {
        "reserve" => {
            let request = v1::ReserveRequest {
                subject,
                also: call.list("also"),
                amounts: amounts(call),
                hold_id,
                allocation_id: call.option("as").unwrap_or_default().to_owned(),
                ttl: proto(call.option("ttl")),
                labels: call.labels(),
                operation_id: operation_id(call),
                operation_age: age(call),
                ..Default::default()
            };
            let a = client.reserve(request).await?;
            let text = verdict(call, a.verdict.as_ref(), a.replayed);
            text.replacen("granted", "held", 1)
        }
        "commit" => {
            let request = v1::CommitHoldRequest {
                subject,
                hold_id,
                amounts: amounts(call),
                more: uncovered(call.option("more")),
                late: uncovered(call.option("late")),
                ttl: proto(call.option("ttl")),
                operation_id: operation_id(call),
                operation_age: age(call),
                ..Default::default()
            };
            let a = client.commit_hold(request).await?;
            let text = verdict(call, a.verdict.as_ref(), a.replayed);
            text.replacen("granted", "committed", 1)
        }
        "renew-hold" => {
            let request = v1::RenewHoldRequest {
                subject,
                hold_id,
                ttl: proto(call.option("ttl")),
                operation_id: operation_id(call),
                operation_age: age(call),
                ..Default::default()
            };
            done("renewed", client.renew_hold(request).await?.replayed)
        }
        "cancel" => {
            let request = v1::CancelHoldRequest {
                subject,
                hold_id,
                operation_id: operation_id(call),
                operation_age: age(call),
                ..Default::default()
            };
            let a = client.cancel_hold(request).await?;
            done(&state(&a.hold.unwrap()), a.replayed)
        }
        _ => {
            let request = v1::GetHoldRequest { subject, hold_id };
            state(&client.get_hold(request).await?.hold.unwrap())
        }
    })
}

fn state(hold: &v1::Hold) -> String {
    let name = hold.state().as_str_name();
    name.trim_start_matches("HOLD_STATE_").to_owned()
}

async fn linked(client: &Client, call: &Call) -> Result<String, Error> {
    let item = |member: &Call| v1::LinkedItem {
        item: Some(match member.verb.as_str() {
            "consume" => LinkedKind::Consume(consume(member)),
            "release" => LinkedKind::Release(release(member)),
            "resize" => LinkedKind::Resize(resize(member)),
            other => panic!("no step of a group is named {other}"),
        }),
    };
    let group = v1::LinkedGroup {
        items: call.members.iter().map(item).collect(),
        operation_id: operation_id(call),
        operation_age: age(call),
        ..Default::default()
    };
    let items = vec![v1::BatchItem {
        item: Some(Item::Linked(group)),
    }];
    let answer = client.batch(v1::BatchRequest { items }).await?;
    Ok(
        match answer.results.into_iter().next().unwrap().result.unwrap() {
            v1::batch_result::Result::Linked(group) => {
                let decision = word(group.decision());
                let members = call.members.iter().zip(&group.results);
                let texts: Vec<String> = members
                    .map(|(member, result)| match result.result.as_ref() {
                        None => "undecided".into(),
                        Some(result) => step(member, result),
                    })
                    .collect();
                done(
                    &format!("{decision} [{}]", texts.join("; ")),
                    group.replayed,
                )
            }
            v1::batch_result::Result::Error(error) => {
                let reason = error.reason().as_str_name().to_owned();
                format!("error {}", reason.trim_start_matches("ERROR_REASON_"))
            }
            other => panic!("{other:?}"),
        },
    )
}

/// One step of a linked group.
fn step(member: &Call, result: &v1::linked_result::Result) -> String {
    match result {
        v1::linked_result::Result::Consume(a) => verdict(member, a.verdict.as_ref(), false),
        v1::linked_result::Result::Resize(a) => verdict(member, a.verdict.as_ref(), false),
        v1::linked_result::Result::Release(a) => released(&v1::ReleaseResponse {
            replayed: false,
            ..a.clone()
        }),
    }
}

async fn administer(client: &Client, call: &Call, now: Timestamp) -> Result<String, Error> {
    let etag = call.option("etag").unwrap_or_default().to_owned();
    let allow_missing = !call.has("known");
    let validate_only = call.has("dry");
    let operation_id = operation_id(call);
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
                    validate_only,
                };
                client.create_subject(request).await?.replayed
            } else {
                let request = v1::UpdateSubjectRequest {
                    subject,
                    allow_missing,
                    operation_id,
                    validate_only,
                };
                client.update_subject(request).await?.replayed
            };
            done("set", replayed)
        }
        "unsubject" => {
            let request = v1::DeleteSubjectRequest {
                name: call.place.clone(),
                etag,
                operation_id,
                validate_only,
            };
            done("deleted", client.delete_subject(request).await?.replayed)
        }
        "resource" => {
            let without_quota = match call.has("deny") {
                true => v1::WithoutQuota::Deny,
                false => v1::WithoutQuota::Allow,
            };
            let kind = call.option("kind").unwrap_or("allocation");
            let kind = format!("RESOURCE_KIND_{}", kind.to_uppercase().replace('-', "_"));
            let kind = v1::ResourceKind::from_str_name(&kind).expect("a kind");
            let resource = Some(v1::Resource {
                key: call.place.clone(),
                kind: kind.into(),
                base_unit: "count".into(),
                without_quota: without_quota.into(),
                etag,
                ..Default::default()
            });
            let replayed = if call.has("new") {
                let request = v1::CreateResourceRequest {
                    resource,
                    operation_id,
                    validate_only,
                };
                client.create_resource(request).await?.replayed
            } else {
                let request = v1::UpdateResourceRequest {
                    resource,
                    allow_missing,
                    operation_id,
                    validate_only,
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
                validate_only,
            };
            done("deleted", client.delete_resource(request).await?.replayed)
        }
        "quota" => {
            let (replayed, warnings) = set_quota(client, call, operation_id, etag, now).await?;
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
                quota_id: quota_id(call),
                etag,
                force: call.has("force"),
                operation_id,
                validate_only,
            };
            done("deleted", client.delete_quota(request).await?.replayed)
        }
        "reset" => {
            let resource = call.amounts[0].0.clone();
            let request = v1::ResetUsageRequest {
                subject: call.place.clone(),
                quota_id: call
                    .option("id")
                    .map(|id| format!("{resource}.{id}"))
                    .unwrap_or_default(),
                resource,
                operation_id,
                validate_only,
                purpose: String::new(),
            };
            let a = client.reset_usage(request).await?;
            done(&format!("was {}", a.previous), a.replayed)
        }
        "correct" => {
            let request = v1::CorrectUsageRequest {
                subject: call.place.clone(),
                also: call.list("also"),
                amounts: amounts(call),
                past: call.has("past"),
                purpose: "a script".into(),
                operation_id,
                validate_only,
            };
            let a = client.correct_usage(request).await?;
            let counts = a.counts.iter().map(|c| (c.subject.as_str(), c.previous));
            let counts: Vec<(&str, i64)> = counts.collect();
            done(&script::corrected(call, &counts), a.replayed)
        }
        other => panic!("no call is named {other}"),
    })
}

async fn set_quota(
    client: &Client,
    call: &Call,
    operation_id: String,
    etag: String,
    now: Timestamp,
) -> Result<(bool, Vec<String>), Error> {
    let (resource, limit) = call.amounts[0].clone();
    let limit = match limit.as_str() {
        "unlimited" => v1::limit::Limit::Unlimited(v1::Unlimited {}),
        number => v1::limit::Limit::Value(number.parse().unwrap()),
    };
    let named = |prefix: &str, name: Option<&str>| {
        name.map(|name| format!("{prefix}{}", name.to_uppercase()))
    };
    let enforcement = named("ENFORCEMENT_", call.option("enforce"))
        .map(|name| v1::Enforcement::from_str_name(&name).expect("an enforcement"));
    let state = named("QUOTA_STATE_", call.option("state"))
        .map(|name| v1::QuotaState::from_str_name(&name).expect("a state"));
    let later = |key| {
        let at = now.plus(script::duration(call.option(key)?));
        Some(ProtoTimestamp {
            seconds: at.whole_second(),
            nanos: (at.nanos() % 1_000_000_000) as i32,
        })
    };
    let rate = call.option("rate").map(|interval| v1::Rate {
        interval: proto(Some(interval)),
        bucket: call.option("bucket").map(|text| text.parse().unwrap()),
        delay_max: proto(call.option("delay")),
    });
    let quota = Some(v1::Quota {
        subject: call.place.clone(),
        resource,
        quota_id: quota_id(call),
        limit: Some(v1::Limit { limit: Some(limit) }),
        enforcement: enforcement.unwrap_or_default().into(),
        state: state.unwrap_or_default().into(),
        valid_from_time: later("from"),
        valid_until_time: later("until"),
        max_request: call.option("max").map(|text| text.parse().unwrap()),
        near_percent: call.option("share").map(|text| text.parse().unwrap()),
        period: call.option("period").map(period),
        rate,
        labels: call.labels(),
        etag,
        ..Default::default()
    });
    let force = call.has("force");
    let validate_only = call.has("dry");
    if call.has("new") {
        let request = v1::CreateQuotaRequest {
            quota,
            force,
            operation_id,
            validate_only,
        };
        let answer = client.create_quota(request).await?;
        return Ok((answer.replayed, answer.warnings));
    }
    let request = v1::UpdateQuotaRequest {
        quota,
        allow_missing: !call.has("known"),
        force,
        operation_id,
        validate_only,
    };
    let answer = client.update_quota(request).await?;
    Ok((answer.replayed, answer.warnings))
}
