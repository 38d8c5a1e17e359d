//! The feed: committed events, read back from the journal for whoever watches.
//!
//! A watcher is a place in the journal and nothing else, so one that is slow costs no memory and no time of the
//! writer's. Those that follow the end share what was read last, decoded once. The alternative, a queue per
//! watcher that the writer fills, has to drop something when it is full.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use quota_core::time::Timestamp;
use quota_store::batch::Head;
use quota_store::journal::{Cursor, JournalError, JournalReader};
use quota_store::told::{Told, ToldBatch};
use tokio::sync::watch;

/// Most events of batches that watchers at the end share.
const SHARED_EVENTS_MAX: usize = 8192;
/// Most batches of them.
const SHARED_BATCHES_MAX: usize = 1024;

/// Reads committed events.
pub struct Feed {
    reader: Arc<dyn JournalReader>,
    tail: Mutex<Tail>,
    durable: watch::Receiver<u64>,
}

/// What was read last.
#[derive(Default)]
struct Tail {
    cursor: Option<Box<dyn Cursor>>,
    batches: VecDeque<(u64, Arc<ToldBatch>)>,
    events: usize,
}

/// A place between two events.
pub struct Place {
    /// The batch that comes next.
    pub batch: u64,
    /// The number of the event that comes next.
    pub event: u64,
    cursor: Option<Box<dyn Cursor>>,
    /// The batch that was read last.
    read: Option<(u64, Arc<ToldBatch>)>,
}

impl Place {
    /// Before an event of a batch.
    pub fn new(batch: u64, event: u64) -> Self {
        Self {
            batch,
            event,
            cursor: None,
            read: None,
        }
    }
}

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// They are not kept any more.
    #[error("events before number {first} are not kept any more")]
    Trimmed {
        /// Number of the oldest event that is.
        first: u64,
    },
    /// They have not happened yet.
    #[error("the next event has number {next}")]
    Ahead {
        /// Number of the next event.
        next: u64,
    },
    /// The journal cannot be read there.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Feed {
    /// A feed on a journal.
    pub fn new(reader: Arc<dyn JournalReader>) -> Self {
        let (tell, durable) = watch::channel(0);
        reader.on_durable(Box::new(move |next| {
            tell.send_replace(next);
        }));
        Self {
            reader,
            tail: Mutex::default(),
            durable,
        }
    }

    /// What changes whenever more is durable.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// The journal.
    pub fn reader(&self) -> &Arc<dyn JournalReader> {
        &self.reader
    }

    /// Whether there is such a place: before a durable batch, or at the end of all.
    pub fn is_durable(&self, place: &Place) -> bool {
        place.batch <= self.reader.next_sequence()
    }

    /// Whether a place is at the end of what is durable.
    pub fn is_at_end(&self, place: &Place) -> bool {
        place.batch >= self.reader.next_sequence()
    }

    /// The place after the last durable event. Reads a batch: not for the runtime's threads, like all that follows.
    pub fn end(&self) -> Result<Place, FeedError> {
        let next = self.reader.next_sequence();
        let last = next.saturating_sub(1).max(self.reader.first_sequence());
        let event = match self.reader.cursor(last)?.next()? {
            Some(kept) => read(kept.sequence, &kept.body)?.next(),
            None => 1,
        };
        Ok(Place::new(next, event))
    }

    /// The number of the oldest event that is kept.
    pub fn first_event(&self) -> Result<u64, FeedError> {
        let first = self.reader.first_sequence();
        let oldest = self.reader.cursor(first)?.next()?;
        Ok(match oldest {
            Some(kept) => Head::of_batch(kept.sequence, &kept.body)?.first_event,
            None => 1,
        })
    }

    /// The place before the event of this number.
    pub fn at_event(&self, event: u64) -> Result<Place, FeedError> {
        let before = |head: &Head| head.first_event <= event;
        let Some((batch, head)) = self.last_where(&before)? else {
            let first = self.first_event()?;
            return Err(FeedError::Trimmed { first });
        };
        if head.first_event > event {
            return Err(FeedError::Trimmed {
                first: head.first_event,
            });
        }
        let end = self.end()?;
        if event > end.event {
            return Err(FeedError::Ahead { next: end.event });
        }
        Ok(Place::new(batch, event))
    }

    /// The place before the first batch of which no event is earlier than this instant.
    pub fn at_time(&self, at: Timestamp) -> Result<Place, FeedError> {
        let found = self.last_where(&|head: &Head| head.now < at)?;
        let Some((batch, head)) = found else {
            return self.end();
        };
        Ok(Place::new(batch, head.first_event))
    }

    /// The last batch whose head is before what is looked for; the oldest where none is; none where there is
    /// nothing.
    fn last_where(&self, before: &dyn Fn(&Head) -> bool) -> Result<Option<(u64, Head)>, FeedError> {
        let mut cursor = self
            .reader
            .seek(&mut |sequence, body| Ok(before(&Head::of_batch(sequence, body)?)))?;
        let mut last = None;
        while let Some(kept) = cursor.next()? {
            let head = Head::of_batch(kept.sequence, &kept.body)?;
            let is_before = before(&head);
            if is_before || last.is_none() {
                last = Some((kept.sequence, head));
            }
            if !is_before {
                break;
            }
        }
        Ok(last)
    }

    /// What `pick` takes of the events that come next: at most `most`, until it breaks off, or batches and events
    /// that were looked at are `looked_max`. Moves the place behind all of those.
    pub fn collect<T>(
        &self,
        place: &mut Place,
        most: usize,
        looked_max: usize,
        mut pick: impl FnMut(u64, &Told) -> ControlFlow<(), Option<T>>,
    ) -> Result<Vec<T>, FeedError> {
        let mut picked = Vec::new();
        let mut looked: usize = 0;
        while looked < looked_max
            && let Some(told) = self.batch(place)?
        {
            looked = looked.saturating_add(told.events.len()).saturating_add(1);
            for (number, event) in (told.first..).zip(&told.events) {
                if number < place.event {
                    continue;
                }
                if picked.len() == most {
                    return Ok(picked);
                }
                match pick(number, event) {
                    ControlFlow::Continue(one) => picked.extend(one),
                    ControlFlow::Break(()) => return Ok(picked),
                }
                place.event = number + 1;
            }
            place.batch += 1;
            place.event = place.event.max(told.next());
        }
        Ok(picked)
    }

    /// The batch that comes next; none while it is not durable.
    fn batch(&self, place: &mut Place) -> Result<Option<Arc<ToldBatch>>, FeedError> {
        if let Some((sequence, told)) = &place.read
            && *sequence == place.batch
        {
            return Ok(Some(told.clone()));
        }
        let told = match self.shared(place.batch)? {
            Some(told) => Some(told),
            None => self.own(place)?,
        };
        place.read = told.clone().map(|told| (place.batch, told));
        Ok(told)
    }

    /// A batch that others read lately, or the first to be read after those.
    fn shared(&self, sequence: u64) -> Result<Option<Arc<ToldBatch>>, FeedError> {
        // Whoever is beyond the end leads nobody.
        if sequence >= self.reader.next_sequence() {
            return Ok(None);
        }
        let mut tail = self.tail.lock();
        if let Some((first, _)) = tail.batches.front() {
            let at = sequence.checked_sub(*first);
            let at = at.and_then(|at| usize::try_from(at).ok());
            if let Some((_, told)) = at.and_then(|at| tail.batches.get(at)) {
                return Ok(Some(told.clone()));
            }
        }
        let follows = tail.cursor.as_ref().map(|cursor| cursor.sequence());
        if follows != Some(sequence) {
            // Whoever is farther on than all others leads; whoever is behind reads alone.
            if follows.is_some_and(|follows| sequence < follows) {
                return Ok(None);
            }
            tail.batches.clear();
            tail.events = 0;
            tail.cursor = Some(self.reader.cursor(sequence)?);
        }
        let Some(cursor) = tail.cursor.as_mut() else {
            return Ok(None);
        };
        let Some(kept) = cursor.next()? else {
            return Ok(None);
        };
        let told = Arc::new(read(kept.sequence, &kept.body)?);
        tail.keep(kept.sequence, told.clone());
        Ok(Some(told))
    }

    fn own(&self, place: &mut Place) -> Result<Option<Arc<ToldBatch>>, FeedError> {
        if place.batch >= self.reader.next_sequence() {
            return Ok(None);
        }
        let mut cursor = match place.cursor.take() {
            Some(cursor) if cursor.sequence() == place.batch => cursor,
            _ => self.reader.cursor(place.batch)?,
        };
        let kept = cursor.next()?;
        place.cursor = Some(cursor);
        match kept {
            Some(kept) => Ok(Some(Arc::new(read(kept.sequence, &kept.body)?))),
            None => Ok(None),
        }
    }
}

impl Tail {
    fn keep(&mut self, sequence: u64, told: Arc<ToldBatch>) {
        self.events += told.events.len();
        self.batches.push_back((sequence, told));
        while self.events > SHARED_EVENTS_MAX || self.batches.len() > SHARED_BATCHES_MAX {
            let Some((_, oldest)) = self.batches.pop_front() else {
                break;
            };
            self.events -= oldest.events.len();
        }
    }
}

fn read(sequence: u64, body: &[u8]) -> Result<ToldBatch, JournalError> {
    ToldBatch::read(body).map_err(JournalError::of_batch(sequence))
}
