//! The writer: takes a group, decides it, makes it durable, publishes it, answers it. In this order, always.

mod appending;
mod due;
mod retention;
mod rows;
mod untold;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quota_core::Ledger;
use quota_core::command::Command;
use quota_core::event::{Change, Event};
use quota_core::notice::Cause;
use quota_core::record::Image;
use quota_core::tally::Tally;
use quota_core::time::{SECOND_NS, Timestamp};
use quota_core::verdict::Finding;
use quota_store::applier::Applier;
use quota_store::{Batch, Journal};
use tracing::{error, info, warn};

use super::asker::{Asker, answer_all};
use super::breaker::Breaker;
use super::queue::{Item, Replies, Taken};
use super::{Fault, Parts, Shared};
use crate::telemetry::metrics::{seconds, violations};
use crate::telemetry::traces::CallSpan;
use due::CLOSE_IDLE_MAX;
use retention::Retention;
use untold::untold;

/// Longest wait for work; then what is due is looked after.
const IDLE: Duration = Duration::from_millis(500);
/// Bytes after which a group takes no more commands. One command adds at most
/// [`COMMAND_BYTES_MAX`](quota_core::ledger::COMMAND_BYTES_MAX), so a batch stays far below its largest size.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Answers forgotten per group, so that a burst an hour ago costs no burst now.
const FORGET_MAX: usize = 4096;
/// Most events whose room is kept for the next group.
const EVENTS_KEPT: usize = 32_768;
/// Process exit code when the writer can go on no more.
const EXIT_WRITER_LOST: i32 = 70;

pub(super) struct Writer {
    ledger: Ledger,
    journal: Box<dyn Journal>,
    applier: Applier,
    marks: VecDeque<(Timestamp, u64)>,
    shared: Arc<Shared>,
    breaker: Breaker,
    /// A batch whose flush failed; nothing else is written before it.
    failed: Option<Written>,
    /// The first batch with an answer that is still remembered, as of the last durable batch: what it says
    /// is forgotten has its floor in that batch or before.
    needed_by_answers: u64,
    retention: Retention,
    maintained_ns: i64,
    behind: bool,
    rows_failed: Option<String>,
    /// Number of the next event that is told.
    next_event: u64,
    /// What is told once a second.
    tally: Tally,
    /// The wall clock was in doubt when it was last looked at.
    doubted: bool,
    /// Room for the events of the next group: pages that are given back are cleared before they come again.
    room: Vec<Event>,
    /// The same for the bytes of its batch.
    body_room: Vec<u8>,
}

/// A decided group on its way to the journal.
struct Written {
    batch: Batch,
    images: Vec<Image>,
    now: Timestamp,
    needed_by_answers: u64,
    /// Limits that it violates, to be counted once it is durable.
    violations: Vec<Finding>,
}

/// What was decided and is not durable yet.
#[derive(Default)]
struct Undurable {
    events: Vec<Event>,
    answers: Vec<(Asker, Replies)>,
    /// The spans of the calls that are answered, as far as they have some.
    spans: Vec<CallSpan>,
    bytes: usize,
}

impl Writer {
    pub(super) fn new(parts: Parts, shared: Arc<Shared>) -> io::Result<Self> {
        // Where recovery began to read answers, as the last batch said. What was forgotten since, by tighter
        // bounds, is durably so with the next batch.
        let needed_by_answers = parts.marks.front().map_or(0, |(_, sequence)| *sequence);
        let keep = shared.options.audit_retention;
        let retention = Retention::new(shared.reader.clone(), parts.pins, keep);
        let left = parts.last.map(|last| untold(&*shared.reader, last));
        let tally = left.unwrap_or_else(|| Ok(Tally::default()));
        let tally = tally.unwrap_or_else(|error| {
            // A start does not need it, so damage there is no reason to refuse one.
            warn!(%error, "usage that changed just before the last stop is told with its next change");
            Tally::default()
        });
        let mut writer = Self {
            ledger: parts.ledger,
            journal: parts.journal,
            applier: parts.applier,
            marks: parts.marks,
            shared,
            breaker: Breaker::default(),
            failed: None,
            needed_by_answers,
            retention,
            maintained_ns: 0,
            behind: false,
            rows_failed: None,
            next_event: parts.next_event,
            tally,
            doubted: false,
            room: Vec::new(),
            body_room: Vec::new(),
        };
        let now = writer.shared.clock.now();
        let accepted = parts.clock_accepted_ns;
        let accepted = accepted.map(|offset_ns| writer.ledger.started_by(now, offset_ns));
        let started = parts.report.map(|report| {
            let change = Change::Started {
                batches: report.batches,
                rebuilt: report.rebuilt.is_some(),
            };
            writer.ledger.notice(now, Cause::default(), change)
        });
        let events: Vec<Event> = accepted.into_iter().chain(started).collect();
        for event in &events {
            writer.ledger.absorb(event);
        }
        if let Some(written) = writer.batch(&events) {
            let durable = writer.append(written).map_err(|(error, _)| error)?;
            writer.hand_on(durable);
        }
        Ok(writer)
    }

    pub(super) fn run(mut self) {
        let shared = self.shared.clone();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while self.turn(self.patience()) {}
            self.seal();
        }));
        if ended.is_err() {
            shared.queue.close();
            error!("the writer stopped on a bug; its state cannot be trusted any more");
            std::process::exit(EXIT_WRITER_LOST);
        }
    }

    /// One group, for which it waits at most `patience`; false when there will be no more.
    pub(super) fn turn(&mut self, patience: Duration) -> bool {
        let most = self.shared.options.group_max;
        let items = match self.shared.queue.take(most, patience) {
            Taken::Items(items) => items,
            Taken::Closed => return false,
        };
        if self.breaker.is_open() && !self.retry() {
            refuse(items);
            return true;
        }
        self.group(items);
        if !self.breaker.is_open() {
            self.maintain();
        }
        true
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.journal.next_sequence()
    }

    fn patience(&self) -> Duration {
        match self.breaker.is_open() {
            true => super::breaker::WAIT_MIN / 2,
            false => self.until_due().min(IDLE),
        }
    }

    /// How long until a row ends by itself and can be closed, or there is something to tell.
    fn until_due(&self) -> Duration {
        let second = |second: i64| Timestamp::from_nanos(second.saturating_mul(SECOND_NS));
        let due = [
            self.ledger.next_due().map(second),
            self.ledger.next_announcement(),
            self.tally.due(),
        ];
        let due = due.into_iter().flatten().min();
        due.map_or(IDLE, |due| due.since(self.shared.clock.now()))
    }

    fn group(&mut self, items: Vec<Item>) {
        let now = self.shared.clock.now();
        let taken_ns = self.shared.clock.boot_ns();
        let mut group = Undurable {
            events: std::mem::take(&mut self.room),
            ..Undurable::default()
        };
        let mut reads = Vec::new();
        self.tell(now, items.is_empty(), &mut group);
        self.close_due(now, items.is_empty(), &mut group);
        if self.breaker.is_open() {
            refuse(items);
            return;
        }
        let mut items = VecDeque::from(items);
        while let Some(item) = items.pop_front() {
            match item {
                Item::Read(read) => reads.push(read),
                Item::Commands {
                    commands,
                    asker,
                    ticket,
                } => {
                    if !ticket.claim() {
                        continue;
                    }
                    let waited = taken_ns.saturating_sub(ticket.queued_ns());
                    self.shared.metrics.queue_wait.observe(seconds(waited));
                    match self.decide_all(now, &commands, &mut group) {
                        Some(replies) => {
                            group.spans.extend(ticket.span().cloned());
                            group.answers.push((asker, replies));
                        }
                        None => asker.answer(Err(Fault::JournalDown { unknown: true })),
                    }
                }
            }
            if self.breaker.is_open() {
                refuse(items.into());
                refuse(reads.into_iter().map(Item::Read).collect());
                return;
            }
        }
        self.commit(group);
        let open = self.breaker.is_open();
        for read in reads {
            read(match open {
                true => Err(Fault::JournalDown { unknown: false }),
                false => Ok(&self.ledger),
            });
        }
    }

    /// Decides the commands of one caller; none where the journal failed on the way.
    fn decide_all(
        &mut self,
        now: Timestamp,
        commands: &[Command],
        group: &mut Undurable,
    ) -> Option<Replies> {
        let mut replies = Replies::with_capacity(commands.len());
        for command in commands {
            if self.is_full(group) {
                self.commit(std::mem::take(group));
                if self.breaker.is_open() {
                    return None;
                }
            }
            let decided = self.ledger.decide(now, command);
            if let Ok(reply) = &decided.reply
                && !reply.replayed
                && !command.validate_only
            {
                self.tally.refused(now, command, &reply.outcome.answer);
            }
            self.absorb(decided.events, group);
            replies.push(decided.reply);
        }
        Some(replies)
    }

    fn absorb(&mut self, events: Vec<Event>, group: &mut Undurable) {
        for event in &events {
            self.ledger.absorb(event);
            group.bytes = group.bytes.saturating_add(event.weight());
            if let Change::ClockAccepted { offset_ns, .. } = event.change {
                // Now, so that the batch with the event also bears the clock that was accepted: both are
                // durable, or neither is.
                self.shared.clock.accept();
                warn!(offset_ns, "the wall clock was accepted");
            }
        }
        group.events.extend(events);
    }

    /// Whether a batch of what is decided so far is as large as it should be.
    fn is_full(&self, group: &Undurable) -> bool {
        group.bytes.saturating_add(self.ledger.images_weight()) >= GROUP_BYTES_MAX
    }

    /// Makes a decided group durable, then answers it.
    fn commit(&mut self, mut group: Undurable) {
        if !group.events.is_empty() {
            let now = self.shared.clock.now();
            // Also where nobody calls any more, so that the journal need not keep their answers.
            self.ledger.expire_answers(now, FORGET_MAX);
            self.tally.stirred(now, self.ledger.changed());
            let told = self.ledger.announce(now, &group.events);
            self.absorb(told, &mut group);
        }
        let written = match !group.events.is_empty() || self.ledger.images_weight() > 0 {
            true => self.batch(&group.events),
            false => None,
        };
        let appended = written.map(|written| self.append_traced(written, &group));
        let durable = match appended.transpose() {
            Ok(durable) => durable,
            Err((failure, written)) => {
                self.journal_failed(&failure, *written);
                let answers = group.answers.into_iter().map(|(asker, replies)| {
                    // A stored answer is withheld too, and its operation was applied long ago.
                    let unknown = replies.iter().any(Result::is_ok);
                    (asker, Err(Fault::JournalDown { unknown }))
                });
                answer_all(answers.collect());
                return;
            }
        };
        let replies = group.answers.iter().flat_map(|(_, replies)| replies);
        self.shared.metrics.answered(replies);
        let answers = group.answers.into_iter();
        answer_all(
            answers
                .map(|(asker, replies)| (asker, Ok(replies)))
                .collect(),
        );
        // Nobody waits for the rest.
        if let Some(durable) = durable {
            self.hand_on(durable);
        }
        let room = group.events.capacity();
        if (self.room.capacity()..=EVENTS_KEPT).contains(&room) {
            group.events.clear();
            self.room = group.events;
        }
    }

    /// What was absorbed since the last batch, written down.
    fn batch(&mut self, events: &[Event]) -> Option<Written> {
        let images = self.ledger.take_images();
        if images.is_empty() && events.is_empty() {
            return None;
        }
        let stamp = self.shared.clock.stamp();
        let needed_by_answers = self.first_answered();
        let first_event = self.next_event;
        let told = events.iter().filter(|event| event.change.is_told());
        self.next_event += told.count() as u64;
        let room = std::mem::take(&mut self.body_room);
        let batch = Batch::new(room, stamp, needed_by_answers, first_event, events, &images);
        Some(Written {
            batch,
            images,
            now: stamp.now,
            needed_by_answers,
            violations: violations(events),
        })
    }

    /// Looks after what is due: at most twice a second.
    fn maintain(&mut self) {
        self.wait_for_rows();
        let now_ns = self.shared.clock.boot_ns();
        let apart = i64::try_from(IDLE.as_nanos()).unwrap_or(i64::MAX);
        if now_ns.saturating_sub(self.maintained_ns) < apart {
            return;
        }
        self.maintained_ns = now_ns;
        self.look_at_the_clock();
        let progress = self.applier.progress();
        self.report_rows(&progress);
        let last = self.journal.next_sequence().saturating_sub(1);
        let behind = last.saturating_sub(progress.applied);
        let journal_bytes = self.journal.size_bytes();
        let metrics = &self.shared.metrics;
        let sizes = self.ledger.sizes();
        metrics.measured(&sizes, journal_bytes, behind);
        *self.shared.sizes.lock() = sizes;
        let needed = self.needed_by_rows(&progress);
        *self.shared.progress.lock() = progress;
        self.trim_journal(needed);
    }

    /// Drops what nobody needs or wants any more; at the bound first what is only wanted, then the oldest answers.
    fn trim_journal(&mut self, needed_by_rows: u64) {
        let needed = needed_by_rows.min(self.needed_by_answers);
        let clock = &self.shared.clock;
        let wanted = self.retention.wanted(clock.now(), clock.boot_ns());
        self.trim(needed.min(wanted), 0);
        let most = self.shared.options.journal_bytes_max;
        if self.journal.size_bytes() > most && wanted < needed {
            let before = self.journal.first_sequence();
            self.trim(needed, most);
            let gone = self.journal.first_sequence().saturating_sub(before);
            if gone > 0 {
                self.retention.dropped(gone);
                self.shared.metrics.journal_dropped.inc_by(gone);
            }
        }
        if self.journal.size_bytes() > most {
            self.shorten(needed_by_rows);
        }
    }

    /// Tells when the wall clock comes into doubt, and when it no longer is.
    fn look_at_the_clock(&mut self) {
        let state = self.shared.clock.state();
        if state.suspect == self.doubted {
            return;
        }
        self.doubted = state.suspect;
        let change = Change::ClockDoubted {
            offset_ns: state.offset_ns,
            doubted: state.suspect,
        };
        let now = self.shared.clock.now();
        let events = vec![self.ledger.notice(now, Cause::default(), change)];
        self.commit(Undurable {
            events,
            ..Undurable::default()
        });
    }

    /// The first batch with an answer that is still remembered, to the minute.
    fn first_answered(&mut self) -> u64 {
        let Some(oldest) = self.ledger.oldest_answer() else {
            return self.journal.next_sequence();
        };
        while self.marks.get(1).is_some_and(|(at, _)| *at <= oldest) {
            self.marks.pop_front();
        }
        // Before the first mark no batch has an answer that is remembered.
        let first = self.marks.front().map(|(_, sequence)| *sequence);
        first.unwrap_or_else(|| self.journal.first_sequence())
    }

    fn trim(&mut self, sequence: u64, bytes_kept: u64) {
        match self.journal.trim(sequence, bytes_kept) {
            Ok(0) => {}
            Ok(bytes) => info!(bytes, sequence, "journal trimmed"),
            Err(error) => warn!(%error, "the journal could not be trimmed"),
        }
    }

    /// The journal is larger than it may be: the answers of its oldest minute are forgotten, durably; then
    /// that minute goes with the next trim.
    fn shorten(&mut self, needed: u64) {
        let Some((limit, sequence)) = self.marks.get(1).copied() else {
            return;
        };
        if sequence > needed {
            return;
        }
        let before = self.ledger.sizes().operations;
        self.ledger.forget_answers_before(limit, FORGET_MAX);
        let forgotten = before.saturating_sub(self.ledger.sizes().operations);
        if forgotten > 0 {
            warn!(
                forgotten,
                "answers forgotten early: the journal is at journal_bytes_max"
            );
        }
        if let Some(written) = self.batch(&[]) {
            self.append_whole(written);
        }
    }

    /// A last, empty batch says that the one before it was durable: after a clean stop, damage to the end
    /// of the journal cannot pass for a torn write.
    pub(super) fn seal(&mut self) {
        if self.failed.is_some() {
            self.breaker = Breaker::default();
            match self.failed.take().map(|written| self.append(written)) {
                None => {}
                Some(Ok(durable)) => self.hand_on(durable),
                Some(Err((failure, _))) => {
                    error!(error = %failure, "the last batch could not be written; its callers were told so");
                    return;
                }
            }
        }
        // What was counted of the last second is told before nobody is left to tell it.
        self.tally.end();
        let now = self.shared.clock.now();
        while !self.tally.is_empty() && !self.breaker.is_open() {
            let events = self.tally.tell(&self.ledger, now, CLOSE_IDLE_MAX);
            self.commit(Undurable {
                events,
                ..Undurable::default()
            });
        }
        let stamp = self.shared.clock.stamp();
        let sequence = self.journal.next_sequence();
        let (needed, next_event) = (self.needed_by_answers, self.next_event);
        let seal = Batch::new(Vec::new(), stamp, needed, next_event, &[], &[]);
        match self.journal.append(sequence, seal.body()) {
            Ok(()) => self.applier.offer(sequence, seal.into_rows(), 0),
            Err(error) => warn!(%error, "the journal could not be sealed"),
        }
    }
}

fn refuse(items: Vec<Item>) {
    for item in items {
        item.refuse(Fault::JournalDown { unknown: false });
    }
}
