//! `GET /metrics` in the text format of OpenMetrics, for those who ask for it in that of Prometheus, and nothing
//! else. The port has no authentication, so a
//! stranger can take little: few connections at a time, one request each, small heads, short times.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::metrics::{seconds, whole};
use super::subjects;
use crate::engine::{Condition, Engine};
use crate::history;

/// The one path.
pub const PATH: &str = "/metrics";
/// Most connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// Most header lines of a request.
const HEADERS_MAX: usize = 64;
/// Most bytes that wait to be read or written.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// Longest wait for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time of a connection, which serves one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait after the system could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers scrapes until it is dropped.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, engine.clone(), permit));
            }
            Err(error) => {
                warn!(%error, "connections for metrics cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, engine: Arc<Engine>, _permit: OwnedSemaphorePermit) {
    let service = service_fn(move |request| respond(request, engine.clone()));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for metrics"),
        Err(_) => debug!("a connection for metrics took too long"),
    }
}

async fn respond(
    request: Request<Incoming>,
    engine: Arc<Engine>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH || request.method() != Method::GET {
        return Ok(plain(StatusCode::NOT_FOUND, "only GET /metrics is here\n"));
    }
    // Thousands of accounts may be evaluated: not on a thread that answers calls.
    let text = tokio::task::spawn_blocking(move || gather(&engine)).await;
    let Ok(text) = text else {
        return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"));
    };
    let (text, content) = match wants_older(request.headers()) {
        true => (older(&text), PROMETHEUS),
        false => (text, OPENMETRICS),
    };
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(CONTENT_TYPE, content);
    Ok(response)
}

/// Whether a caller names plain text, and OpenMetrics not at all.
fn wants_older(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|text| text.contains("text/plain") && !text.contains("openmetrics"))
}

/// The same page in the older format, where the name of a counter is that of its samples, and units and the end
/// are not told.
fn older(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let counters: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in page.lines() {
        let told = line.strip_prefix("# ").and_then(|rest| {
            let (what, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((what, name, rest))
        });
        match told {
            None if line.starts_with('#') => {}
            Some(("UNIT", ..)) => {}
            Some((what, name, rest)) if counters.contains(name) => {
                text.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let content = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}

/// Everything, as of now.
pub fn gather(engine: &Engine) -> String {
    let metrics = engine.metrics();
    let _alone = metrics.scraping.lock();
    let clock = engine.clock();
    subjects::read(engine.views(), clock.now(), metrics);
    let (hits, misses) = (metrics.cache_hits.get(), metrics.cache_misses.get());
    let ratio = share(hits, hits.saturating_add(misses));
    metrics.cache_hit_ratio.set(ratio);
    metrics.queue_depth.set(whole(engine.queued()));
    metrics.breaker_state.set(match engine.condition() {
        Condition::Writing => 0,
        Condition::Failed => 1,
        Condition::Stalled => 2,
    });
    metrics.subjects.set(whole(engine.views().count()));
    let progress = engine.progress();
    let failing = progress.failed.is_some() || progress.base_failed.is_some();
    metrics.apply_failing.set(i64::from(failing));
    metrics.apply_lag.set(whole(progress.waiting_bytes));
    let unwritten = history::unwritten(engine.journal().as_ref(), engine.pins());
    metrics.history_lag_batches.set(whole(unwritten));
    let state = clock.state();
    metrics.clock_offset.set(seconds(state.offset_ns));
    metrics.clock_suspect.set(i64::from(state.suspect));
    let mut page = String::new();
    match text::encode(&mut page, &metrics.registry) {
        Ok(()) => page,
        Err(std::fmt::Error) => unreachable!("text can be written to a string"),
    }
}

/// A share, of nothing too: what was never looked up was never missed.
#[allow(clippy::cast_precision_loss)]
fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 1.0,
        whole => part as f64 / whole as f64,
    }
}
