//! Traces: one span for each call that is chosen, one for the group in which it became durable, sent to a
//! collector in OTLP.
//!
//! The choice comes before the span. The usual way, a span for every call that an exporter's sampler then
//! throws away, costs every call more than its decision does; here a call that is not chosen costs a
//! look at its metadata and a multiplication, and without a collector not even that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use quota_core::command::Action;
use quota_core::outcome::{Answer, Reply};
use quota_core::verdict::Decision;
use tonic::Code;
use tracing::{info, warn};

use super::metrics::{self, Metrics, SpanLabels, whole};
use super::subjects::level_of;

/// Most spans that wait to be sent; further ones are dropped.
const WAITING_MAX: usize = 8192;
/// Most spans sent at once.
const BATCH_MAX: usize = 512;
/// Longest time that a span waits to be sent.
const SEND_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the collector, and for the last spans when the server stops.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Most calls that the span of a group is linked to.
const LINKS_MAX: usize = 128;
/// Odd, so that it runs through all numbers: what makes a sequence look random.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Sends the spans of chosen calls to a collector.
#[derive(Clone)]
pub struct Traces {
    shared: Arc<Shared>,
}

struct Shared {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    /// A call without a parent is chosen where a random number is below it.
    below: u128,
    random: AtomicU64,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("otlp_endpoint: {0}")]
pub struct TraceError(String);

impl Traces {
    /// Sends to the collector at `endpoint`. Of the calls that bring no trace, a share of `ratio` is chosen;
    /// of those that do, the ones that their caller chose. A runtime must be there, which carries the
    /// connection.
    pub fn start(endpoint: &str, ratio: f64, metrics: &Metrics) -> Result<Self, TraceError> {
        let exporter = Otlp::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(SEND_TIMEOUT)
            .build()
            .map_err(|error| TraceError(error.to_string()))?;
        let counter = |result| {
            metrics
                .trace_spans
                .get_or_create_owned(&SpanLabels { result })
        };
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Counted {
            exporter,
            waiting: waiting.clone(),
            exported: counter("exported"),
            failed: counter("failed"),
            failing: AtomicBool::new(false),
        };
        let options = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(SEND_INTERVAL)
            .build();
        let processor = Bounded {
            inner: BatchSpanProcessor::builder(counted)
                .with_batch_config(options)
                .build(),
            waiting,
            dropped: counter("failed"),
        };
        let resource = Resource::builder()
            .with_service_name("quota-server")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::AlwaysOn)
            .with_max_links_per_span(whole_u32(LINKS_MAX))
            .with_resource(resource)
            .build();
        let (_, seed) = uuid::Uuid::now_v7().as_u64_pair();
        let shared = Shared {
            tracer: provider.tracer("quota-server"),
            provider,
            propagator: TraceContextPropagator::new(),
            below: threshold(ratio),
            random: AtomicU64::new(seed),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The span of a call, if it is chosen.
    pub(super) fn begin(
        &self,
        service: &str,
        method: &str,
        headers: &HeaderMap,
        request_id: &str,
    ) -> Option<CallSpan> {
        let shared = &self.shared;
        let parent = self.parent(headers);
        let chosen = match &parent {
            Some(parent) => parent.span().span_context().is_sampled(),
            None => u128::from(shared.random()) < shared.below,
        };
        if !chosen {
            return None;
        }
        let attributes = [
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("quota.request_id", request_id.to_owned()),
        ];
        let builder = SpanBuilder::from_name(format!("{service}/{method}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let parent = parent.unwrap_or_default();
        let span = shared.tracer.build_with_context(builder, &parent);
        Some(CallSpan(Arc::new(Traced {
            context: span.span_context().clone(),
            span: Mutex::new(span),
            tracer: shared.tracer.clone(),
        })))
    }

    /// Where the caller's own trace is, if it says so in a way that can be read.
    fn parent(&self, headers: &HeaderMap) -> Option<Context> {
        headers.get("traceparent")?;
        let context = Context::default();
        let context = self
            .shared
            .propagator
            .extract_with_context(&context, &Metadata(headers));
        context.span().span_context().is_valid().then_some(context)
    }

    /// Sends what waits, and no more from then on. It blocks.
    pub fn stop(&self) {
        if let Err(error) = self.shared.provider.shutdown_with_timeout(SEND_TIMEOUT) {
            warn!(%error, "the last spans were not sent");
        }
    }
}

impl Shared {
    /// Splitmix64: enough to choose by.
    fn random(&self) -> u64 {
        let mut mixed = self.random.fetch_add(GOLDEN, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn threshold(ratio: f64) -> u128 {
    (ratio.clamp(0.0, 1.0) * 2_f64.powi(64)) as u128
}

fn whole_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The two lines of metadata that a trace is told in.
struct Metadata<'a>(&'a HeaderMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of a call that was chosen; handlers and the writer say on it what they know.
#[derive(Clone)]
pub struct CallSpan(Arc<Traced>);

struct Traced {
    context: SpanContext,
    span: Mutex<Span>,
    tracer: SdkTracer,
}

impl fmt::Debug for CallSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallSpan({})", self.0.context.span_id())
    }
}

impl CallSpan {
    /// The trace that it belongs to.
    pub(super) fn trace_id(&self) -> String {
        self.0.context.trace_id().to_string()
    }

    fn set(&self, name: &'static str, value: impl Into<opentelemetry::Value>) {
        let mut span = self.0.span.lock();
        span.set_attribute(KeyValue::new(name, value));
    }

    /// What is asked, of whom.
    pub(crate) fn asked(&self, subject: &str, resources: usize) {
        self.set("quota.subject_level", level_of(subject).to_owned());
        self.set("quota.resources", whole(resources));
    }

    /// The same of a command.
    pub(crate) fn commanded(&self, action: &Action) {
        let (subject, resources) = match action {
            Action::Consume(consume) => (consume.subject.as_str(), consume.amounts.len()),
            Action::Release(release) => (release.subject.as_str(), release.amounts.len()),
            Action::Resize(resize) => (resize.subject.as_str(), resize.amounts.len()),
            Action::Reserve(reserve) => (reserve.subject.as_str(), reserve.amounts.len()),
            Action::CommitHold(commit) => (commit.hold.subject.as_str(), commit.amounts.len()),
            Action::RenewHold { hold, .. } | Action::CancelHold(hold) => (hold.subject.as_str(), 0),
            Action::CorrectUsage(correct) => (correct.subject.as_str(), correct.amounts.len()),
            Action::ResetUsage(reset) => (reset.subject.as_str(), 1),
            other => (other.lane(), 0),
        };
        self.asked(subject, resources);
    }

    /// What was decided; of several decisions the strongest.
    pub(crate) fn answered<'a>(&self, replies: impl IntoIterator<Item = &'a Reply>) {
        let mut strongest = None;
        for reply in replies {
            strongest = stronger(strongest, &reply.outcome.answer);
        }
        if let Some(decision) = strongest {
            self.decided(decision);
        }
    }

    /// What was decided.
    pub(crate) fn decided(&self, decision: Decision) {
        self.set("quota.decision", metrics::decision(decision).1);
    }

    /// How the call ended.
    pub(super) fn end(&self, code: Code) {
        let mut span = self.0.span.lock();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", code as i64));
        if is_ours(code) {
            span.set_status(Status::error(code.description()));
        }
        span.end();
    }
}

/// Whether a code is the server's fault and not its caller's.
fn is_ours(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn stronger(than: Option<Decision>, answer: &Answer) -> Option<Decision> {
    match answer {
        Answer::Charged { verdict, .. }
        | Answer::Reserved { verdict, .. }
        | Answer::Committed { verdict, .. } => {
            let decision = verdict.decision;
            Some(than.map_or(decision, |than| than.min(decision)))
        }
        Answer::Linked(members) => members.iter().fold(than, stronger),
        _ => than,
    }
}

/// The span of a group that is made durable and answers at least one call with a span.
pub(crate) struct CommitSpan(Span);

impl CommitSpan {
    /// Begins where one of the calls has a span.
    pub(crate) fn begin(calls: &[CallSpan]) -> Option<Self> {
        let tracer = &calls.first()?.0.tracer;
        let links = calls.iter().take(LINKS_MAX);
        let links = links.map(|call| Link::with_context(call.0.context.clone()));
        let builder = SpanBuilder::from_name("commit")
            .with_kind(SpanKind::Internal)
            .with_links(links.collect());
        let span = tracer.build_with_context(builder, &Context::default());
        Some(Self(span))
    }

    /// The group is durable as the batch of this sequence, and its calls learn of it; or the journal cannot be
    /// written.
    pub(crate) fn end(mut self, durable: Option<u64>, commands: usize, calls: &[CallSpan]) {
        let Some(sequence) = durable else {
            let failed = Status::error("the journal cannot be written");
            self.0.set_status(failed);
            return self.0.end();
        };
        let group = whole(sequence);
        self.0.set_attribute(KeyValue::new("quota.group", group));
        let commands = KeyValue::new("quota.commands", whole(commands));
        self.0.set_attribute(commands);
        self.0.end();
        for call in calls {
            let mut span = call.0.span.lock();
            span.set_attribute(KeyValue::new("quota.group", group));
            span.add_link(self.0.span_context().clone(), Vec::new());
        }
    }
}

/// Drops spans beyond those that may wait, and counts them: the queue behind it drops without a word.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    /// Those that are not sent yet; at least what the queue holds.
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        if waiting >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.inc();
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter that counts what it sends, and says once when it cannot.
#[derive(Debug)]
struct Counted {
    exporter: Otlp,
    waiting: Arc<AtomicUsize>,
    exported: Counter,
    failed: Counter,
    failing: AtomicBool,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let batch_len = batch.len();
        let spans = batch_len as u64;
        let sent = self.exporter.export(batch).await;
        self.waiting.fetch_sub(batch_len, Ordering::Relaxed);
        match &sent {
            Ok(()) => {
                self.exported.inc_by(spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("spans are sent again");
                }
            }
            Err(error) => {
                self.failed.inc_by(spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(%error, "spans cannot be sent and are lost until they can");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A collector that takes nothing until it is let go.
    #[derive(Clone, Debug, Default)]
    struct Stuck {
        stuck: Arc<Mutex<()>>,
        taken: Arc<AtomicUsize>,
    }

    impl SpanExporter for Stuck {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            drop(self.stuck.lock());
            self.taken.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(())
        }
    }

    /// What finds the queue full is counted, and the queue itself drops nothing.
    #[test]
    fn spans_that_may_not_wait_are_counted() {
        const BEYOND: usize = 100;
        let stuck = Stuck::default();
        let held = stuck.stuck.lock();
        let dropped = Counter::default();
        let options = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .build();
        let processor = Bounded {
            inner: BatchSpanProcessor::builder(stuck.clone())
                .with_batch_config(options)
                .build(),
            waiting: Arc::default(),
            dropped: dropped.clone(),
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .build();
        let tracer = provider.tracer("test");
        for _ in 0..WAITING_MAX + BEYOND {
            tracer.start("a span").end();
        }
        assert_eq!(dropped.get(), BEYOND as u64);
        drop(held);
        provider.shutdown().unwrap();
        assert_eq!(stuck.taken.load(Ordering::Relaxed), WAITING_MAX);
    }

    #[test]
    fn shares() {
        assert_eq!(threshold(0.0), 0);
        assert_eq!(threshold(1.0), 1 << 64);
        assert_eq!(threshold(0.5), 1 << 63);
    }
}
