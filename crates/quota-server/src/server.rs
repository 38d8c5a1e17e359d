//! The gRPC server: services, health, reflection, bounds, and the way out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quota_proto::FILE_DESCRIPTOR_SET;
use quota_proto::v1::admin_service_server::{AdminServiceServer, SERVICE_NAME as ADMIN};
use quota_proto::v1::check_service_server::{CheckServiceServer, SERVICE_NAME as CHECK};
use quota_proto::v1::consume_service_server::{ConsumeServiceServer, SERVICE_NAME as CONSUME};
use quota_proto::v1::reserve_service_server::{ReserveServiceServer, SERVICE_NAME as RESERVE};
use quota_proto::v1::watch_service_server::{SERVICE_NAME as WATCH, WatchServiceServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;
use tracing::{error, warn};

use crate::api::status::complete;
use crate::api::{Admin, Check, Consume, Reserve, Watch, WatchLimits};
use crate::connections::Connections;
use crate::engine::Engine;
use crate::feed::Feed;
use crate::history::History;
use crate::telemetry::Telemetry;
use crate::telemetry::calls::Calls;
use crate::telemetry::logs::LogFilter;
use crate::workers::Workers;

/// Name of the clock in the health service.
const CLOCK: &str = "quota.v1.Clock";
/// How often health follows the engine.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// A connection that does not answer a ping for that long is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last answers may take to be sent.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// A shutdown ends when no call has awaited the writer for that long.
const DRAIN_QUIET: Duration = Duration::from_millis(500);
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// Largest answer, in bytes: a page of 1,000 long names.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Bounds of what a caller may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request, in bytes.
    pub message_bytes_max: usize,
    /// Largest metadata, in bytes.
    pub metadata_bytes_max: u32,
    /// Most calls under way on one connection.
    pub streams_max: u32,
    /// Most connections.
    pub connections_max: usize,
    /// How long a shutdown waits for calls under way.
    pub drain_timeout: Duration,
    /// Of watchers.
    pub watch: WatchLimits,
}

/// Serves until `stop`, then answers what is under way, and drains the engine.
pub async fn serve(
    engine: Arc<Engine>,
    history: Arc<History>,
    listener: TcpListener,
    limits: Limits,
    telemetry: Telemetry,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let follower = tokio::spawn(follow_health(reporter, engine.clone()));
    let calls = Calls::new(engine.clone(), telemetry.traces);
    let routes = routes(health, &engine, history, &limits, telemetry.log_filter);
    let (stopping, stopped) = watch::channel(false);
    let mut workers = Workers::start(move |incoming| {
        let server = Server::builder()
            .layer(calls.clone())
            .layer(MapResponseLayer::new(complete::<tonic::body::Body>))
            .http2_max_header_list_size(limits.metadata_bytes_max)
            .max_concurrent_streams(limits.streams_max)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes.clone());
        let mut stopped = stopped.clone();
        async move {
            let stop = async {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stop).await {
                error!(%error, "connections are not served any more");
            }
        }
    })?;
    let connections = Connections::new(
        listener,
        limits.connections_max,
        engine.metrics().connections.clone(),
        engine.metrics().connections_refused.clone(),
    );
    let served = tokio::select! {
        lost = workers.share(connections) => Err(lost),
        () = stop => Ok(()),
    };
    engine.refuse_new();
    stopping.send_replace(true);
    let quiet = async {
        tokio::select! {
            () = workers.ended() => {}
            () = answered(&engine) => {}
        }
    };
    let _ = tokio::time::timeout(limits.drain_timeout, quiet).await;
    follower.abort();
    // While they are served, so that who is still waiting is answered; not for ever, where a disk hangs.
    let mut draining = tokio::task::spawn_blocking(move || engine.drain());
    let drained = tokio::time::timeout(limits.drain_timeout, &mut draining).await;
    let _ = tokio::time::timeout(LAST_ANSWERS, workers.ended()).await;
    workers.end().await;
    if drained.is_err() {
        let _ = draining.await;
    }
    served
}

/// Everything that can be called.
fn routes(
    health: HealthServer<impl Health>,
    engine: &Arc<Engine>,
    history: Arc<History>,
    limits: &Limits,
    log_filter: LogFilter,
) -> Routes {
    let feed = Arc::new(Feed::new(engine.journal().clone()));
    let admin = Admin::new(engine.clone(), feed.clone(), history, log_filter);
    let check = CheckServiceServer::new(Check::new(engine.clone()));
    let consume = ConsumeServiceServer::new(Consume::new(engine.clone()));
    let reserve = ReserveServiceServer::new(Reserve::new(engine.clone()));
    let watch = WatchServiceServer::new(Watch::new(feed, limits.watch, engine.metrics()));
    let most = limits.message_bytes_max;
    Routes::new(health)
        .add_service(reflection_v1())
        .add_service(reflection_v1alpha())
        .add_service(
            check
                .max_decoding_message_size(most)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            consume
                .max_decoding_message_size(most)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            reserve
                .max_decoding_message_size(most)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            watch
                .max_decoding_message_size(most)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .add_service(
            AdminServiceServer::new(admin)
                .max_decoding_message_size(most)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        )
        .prepare()
}

/// Until nobody has awaited the writer for a while, so that the last answers are on their way. Streams that
/// never end, such as a watched health, do not hold up a shutdown.
async fn answered(engine: &Engine) {
    let mut quiet = Duration::ZERO;
    while quiet < DRAIN_QUIET {
        tokio::time::sleep(DRAIN_POLL).await;
        quiet = match engine.is_idle() {
            true => quiet.saturating_add(DRAIN_POLL),
            false => Duration::ZERO,
        };
    }
}

/// Health per service, and for the whole under the empty name (C11.3): checks go on without a journal. A wall
/// clock in doubt is a service of its own and stops none of the others (C1.3).
async fn follow_health(reporter: HealthReporter, engine: Arc<Engine>) {
    let mut last = None;
    let mut last_clock = None;
    for service in [CHECK, WATCH] {
        reporter
            .set_service_status(service, ServingStatus::Serving)
            .await;
    }
    loop {
        let writable = engine.is_writable();
        if last.replace(writable) != Some(writable) {
            let status = match writable {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            for service in ["", CONSUME, RESERVE, ADMIN] {
                reporter.set_service_status(service, status).await;
            }
        }
        let clock = engine.clock().state();
        if last_clock.replace(clock.suspect) != Some(clock.suspect) {
            let status = match clock.suspect {
                false => ServingStatus::Serving,
                true => ServingStatus::NotServing,
            };
            if clock.suspect {
                let offset_ns = clock.offset_ns;
                warn!(
                    offset_ns,
                    "the wall clock stepped and is not followed until it is accepted"
                );
            }
            reporter.set_service_status(CLOCK, status).await;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

fn reflection_v1() -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the generated descriptors are well formed")
}

/// The grpcurl that most people have asks for this one.
fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
        .expect("the generated descriptors are well formed")
}

/// Whether an address is reached from this machine only.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}
