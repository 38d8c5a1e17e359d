//! WatchService: events as they become durable.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use quota_proto::v1;
use quota_proto::v1::watch_service_server::WatchService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::events::Filter;
use super::from_proto::Reader;
use super::{split, status};
use crate::engine::Fault;
use crate::feed::{Feed, FeedError, Place};
use crate::telemetry::metrics::Metrics;

/// Most events in one response.
const EVENTS_MAX: usize = 256;
/// Most batches and events that are looked at for one response.
const LOOKED_MAX: usize = 16_384;
/// Responses that wait for a watcher to take them.
const RESPONSES_MAX: usize = 2;
/// Least time between two looks at what is new.
const PACE: Duration = Duration::from_millis(25);
/// A response comes at least that often, so that both sides know that the other is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Bounds on watchers.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// Most watchers.
    pub watchers_max: usize,
    /// A watcher that takes nothing for longer is cut off.
    pub stall_max: Duration,
}

/// The service.
pub struct Watch {
    feed: Arc<Feed>,
    places: Arc<Semaphore>,
    limits: WatchLimits,
    watchers: Gauge,
    cut_off: Counter,
}

impl Watch {
    /// The service on a feed.
    pub fn new(feed: Arc<Feed>, limits: WatchLimits, metrics: &Metrics) -> Self {
        Self {
            watchers: metrics.watchers.clone(),
            cut_off: metrics.watchers_cut.clone(),
            feed,
            places: Arc::new(Semaphore::new(limits.watchers_max)),
            limits,
        }
    }
}

#[tonic::async_trait]
impl WatchService for Watch {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Responses>, Status> {
        let (request, _) = split(request)?;
        let mut reader = Reader::default();
        let v1::WatchRequest {
            from_sequence,
            subject_prefix,
            kinds,
            severity_min,
        } = request;
        let filter = Filter::read(&mut reader, &subject_prefix, &kinds, severity_min);
        if from_sequence == Some(0) {
            reader.wrong("from_sequence", "is 0; events are numbered from 1");
        }
        reader.finish()?;
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            return Err(status::too_many_watchers(self.limits.watchers_max));
        };
        let feed = self.feed.clone();
        let place = blocking(move || match from_sequence {
            Some(event) => feed.at_event(event),
            None => feed.end(),
        });
        let place = place.await?;
        let (send, responses) = mpsc::channel(RESPONSES_MAX);
        let cut = Arc::new(OnceLock::new());
        let watcher = Watcher {
            feed: self.feed.clone(),
            filter: Arc::new(filter),
            send,
            cut: cut.clone(),
            stall_max: self.limits.stall_max,
            cut_off: self.cut_off.clone(),
        };
        tokio::spawn(watcher.run(place));
        Ok(Response::new(Responses {
            responses,
            cut,
            _place: Held::new(permit, self.watchers.clone()),
        }))
    }
}

/// Responses, and at the end why there are no more.
pub struct Responses {
    responses: mpsc::Receiver<v1::WatchResponse>,
    cut: Arc<OnceLock<Status>>,
    /// Held until the call is over: one that was cut off and takes nothing still has responses waiting for it.
    _place: Held,
}

impl Stream for Responses {
    type Item = Result<v1::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.responses.poll_recv(context));
        Poll::Ready(match next {
            Some(response) => Some(Ok(response)),
            // Once; then it has ended.
            None => {
                let cut = std::mem::take(&mut self.cut);
                cut.get().cloned().map(Err)
            }
        })
    }
}

struct Watcher {
    feed: Arc<Feed>,
    filter: Arc<Filter>,
    send: mpsc::Sender<v1::WatchResponse>,
    cut: Arc<OnceLock<Status>>,
    stall_max: Duration,
    cut_off: Counter,
}

/// The place of a watcher, counted as long as it is held.
struct Held {
    _permit: OwnedSemaphorePermit,
    watchers: Gauge,
}

impl Held {
    fn new(permit: OwnedSemaphorePermit, watchers: Gauge) -> Self {
        watchers.inc();
        Self {
            _permit: permit,
            watchers,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.watchers.dec();
    }
}

impl Watcher {
    /// Follows the journal until the watcher goes, is cut off, or the journal cannot be read.
    async fn run(self, mut place: Place) {
        let mut durable = self.feed.durable();
        // The first response says where this begins.
        let mut due = true;
        // Where to go on from, as of what was handed over.
        let mut sent = place.event;
        // Also while nothing is found in a long journal.
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        while !self.send.is_closed() {
            durable.mark_unchanged();
            let (feed, filter) = (self.feed.clone(), self.filter.clone());
            let step = blocking(move || {
                let pick = |number, told: &_| ControlFlow::Continue(filter.pick(number, told));
                let events = feed.collect(&mut place, EVENTS_MAX, LOOKED_MAX, pick)?;
                Ok((events, place))
            });
            let events;
            (events, place) = match step.await {
                Ok(step) => step,
                Err(why) => {
                    let _ = self.cut.set(why);
                    return;
                }
            };
            due |= tokio::time::timeout(Duration::ZERO, heartbeat.tick())
                .await
                .is_ok();
            if due || !events.is_empty() {
                let next = place.event;
                let response = v1::WatchResponse {
                    events,
                    next_sequence: next,
                };
                match tokio::time::timeout(self.stall_max, self.send.send(response)).await {
                    Ok(Ok(())) => (due, sent) = (false, next),
                    Ok(Err(_)) => return,
                    Err(_) => {
                        self.cut_off.inc();
                        let _ = self.cut.set(status::watcher_too_slow(self.stall_max, sent));
                        return;
                    }
                }
            }
            if self.feed.is_at_end(&place) {
                // Many watchers of a busy server are woken up together, and not once per batch.
                tokio::time::sleep(PACE).await;
                tokio::select! {
                    more = durable.changed() => if more.is_err() {
                        let _ = self.cut.set(status::of_fault(&Fault::Draining));
                        return;
                    },
                    _ = heartbeat.tick() => due = true,
                    () = self.send.closed() => return,
                }
            }
        }
    }
}

/// Reads the journal, away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, FeedError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(|error| status::of_feed(&error)),
        Err(_) => Err(status::bug()),
    }
}
