//! Callers: what they ask together, and whether each was told what the auditor says.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use quota_core::Ledger;
use quota_core::command::Command;
use quota_core::time::Timestamp;
use quota_server::engine::Fault as EngineFault;
use quota_server::engine::queue::Replies;
use quota_testkit::auditor::Auditor;
use quota_testkit::bare;
use quota_testkit::script::{Call, World as _};
use quota_testkit::sim::steps::{Caller, Patience};

use super::{COMPARED_EVERY, Decided, Doubt, QUEUE_MAX, TURNS_MAX, World, poll, same};
type Pending = Pin<Box<dyn Future<Output = Answer>>>;

/// A caller while it waits.
struct Waiting<'a> {
    caller: &'a Caller,
    commands: Vec<Command>,
    future: Option<Pending>,
    answer: Option<Answer>,
    /// Whether it was answered before the writer woke up.
    refused: bool,
    /// Order in which the writer comes to it: that of its lane, then its own.
    order: (usize, usize),
}

enum Answer {
    Replies(Result<Replies, EngineFault>),
    Read(Result<String, EngineFault>),
}

impl World {
    pub(super) fn group(&mut self, callers: &[Caller]) -> Result<(), String> {
        let now = self.now();
        self.auditor.set_now(now);
        self.woke_at = now;
        let down_before = self.doubt.is_some();
        let mut waiting = self.asked(callers, now);
        for _ in 0..TURNS_MAX {
            self.up_mut().driver.step();
            waiting.iter_mut().for_each(Waiting::poll);
            if waiting.iter().all(|one| one.future.is_none()) {
                break;
            }
        }
        if let Some(one) = waiting.iter().find(|one| one.future.is_some()) {
            return Err(format!("no answer to {}", one.caller));
        }
        self.written_later();
        let still_down = down_before && self.doubt.is_some();
        self.judged(waiting, now, down_before, still_down)?;
        self.closed_in_vain();
        self.same_health()?;
        self.groups += 1;
        match self.groups % COMPARED_EVERY {
            0 if self.doubt.is_none() => self.compare_live(),
            _ => Ok(()),
        }
    }

    /// All callers ask; those that do not wait vanish.
    fn asked<'a>(&mut self, callers: &'a [Caller], now: Timestamp) -> Vec<Waiting<'a>> {
        let mut lanes: Vec<String> = Vec::new();
        let mut waiting: Vec<Waiting<'_>> = Vec::new();
        for (at, caller) in callers.iter().enumerate() {
            let mut commands = Vec::new();
            for call in &caller.calls {
                self.made += 1;
                if !call.is_read() {
                    commands.push(bare::command(call, self.made, now).expect("names are names"));
                }
            }
            let lane = commands.first().map_or("", Command::lane).to_owned();
            let engine = self.up().engine.clone();
            let future: Pending = match caller.calls[0].is_read() {
                true => {
                    let call = caller.calls[0].clone();
                    let read = move |ledger: &Ledger| bare::read(ledger, &call, now);
                    Box::pin(async move { Answer::Read(engine.read(read).await) })
                }
                false => {
                    let commands = commands.clone();
                    let patience = (caller.patience == Patience::Late).then_some(Duration::ZERO);
                    Box::pin(async move {
                        Answer::Replies(engine.execute_all(commands, patience).await)
                    })
                }
            };
            let mut one = Waiting {
                caller,
                commands,
                future: Some(future),
                answer: None,
                refused: false,
                order: (0, at),
            };
            one.poll();
            one.refused = one.answer.is_some();
            // A lane that was shed as a whole has lost its turn.
            waiting.iter_mut().for_each(Waiting::poll);
            let waits = |at: usize| {
                let in_lane = |other: &Waiting<'_>| other.order.0 == at && other.answer.is_none();
                waiting.iter().any(in_lane)
            };
            for (at, lane) in lanes.iter_mut().enumerate() {
                if !waits(at) {
                    lane.clear();
                }
            }
            // Whoever is refused at once takes no place in a lane.
            if !one.refused {
                let known = lanes.iter().position(|have| *have == lane);
                one.order.0 = known.unwrap_or(lanes.len());
                if known.is_none() {
                    lanes.push(lane);
                }
            }
            waiting.push(one);
        }
        // Not before: nobody would know whether they were shed for those who came later.
        waiting.iter_mut().for_each(Waiting::poll);
        for one in &mut waiting {
            if one.caller.patience == Patience::Gone && one.answer.is_none() {
                one.future = None;
                self.coverage.note("engine", "withdrawn");
            }
        }
        waiting
    }

    /// Compares what everybody was told with what the auditor says.
    fn judged(
        &mut self,
        mut waiting: Vec<Waiting<'_>>,
        now: Timestamp,
        down_before: bool,
        still_down: bool,
    ) -> Result<(), String> {
        self.overloads(&waiting)?;
        waiting.sort_by_key(|one| one.order);
        let mut after = self.auditor.clone();
        let mut decided = Vec::new();
        let mut probe = None;
        let (mut durable, mut failed) = (0, 0);
        let mut unknowns = Vec::new();
        for one in &waiting {
            let Some(Answer::Replies(answer)) = &one.answer else {
                continue;
            };
            match answer {
                Err(EngineFault::Overloaded(_)) => self.coverage.note("engine", "overloaded"),
                Err(EngineFault::Deadline { unknown: false })
                    if one.caller.patience == Patience::Late =>
                {
                    self.coverage.note("engine", "deadline");
                }
                Err(EngineFault::JournalDown { unknown: false })
                    if still_down || (one.refused && down_before) =>
                {
                    self.coverage.note("engine", "journal-down");
                }
                Err(EngineFault::JournalDown { unknown }) => {
                    let texts = self.predicted(&mut after, one, now, &mut decided);
                    // What was answered long ago says nothing of this group, nor what is only tried. An answer may
                    // also be pushed out by this group and given anew by it.
                    let is_new = |(call, text): (&Call, &String)| {
                        !text.starts_with("error")
                            && !text.ends_with(" replayed")
                            && !call.has("dry")
                            && !self.auditor.keeps(call)
                    };
                    let calls = one.caller.calls.iter();
                    if let Some(at) = calls.zip(&texts).rposition(is_new) {
                        // The last one: it is the last to be forgotten.
                        probe = one.commands.get(at).cloned();
                    }
                    let due = texts.iter().any(|text| !text.starts_with("error"));
                    unknowns.push((*unknown, due, one.caller.calls.clone()));
                    failed += 1;
                }
                Ok(replies) => {
                    let texts = self.predicted(&mut after, one, now, &mut decided);
                    for ((call, reply), due) in one.caller.calls.iter().zip(replies).zip(&texts) {
                        let text = bare::reply(call, reply.clone());
                        self.coverage.answered(call, &text);
                        same(call, due, &text)?;
                    }
                    durable += 1;
                }
                Err(other) => return Err(format!("{}: {other}", one.caller)),
            }
        }
        if failed > 0 && durable > 0 {
            return Err("some of a group were told that it failed, others not".into());
        }
        if failed == 0 {
            self.auditor = after;
            self.history.extend(decided);
        } else {
            self.in_doubt(after, probe, decided, unknowns)?;
        }
        self.reads(&waiting, failed > 0 || still_down)
    }

    /// Nobody is refused for lack of room while there is some.
    fn overloads(&self, waiting: &[Waiting<'_>]) -> Result<(), String> {
        let total: usize = waiting.iter().map(Waiting::weight).sum();
        let refused = waiting.iter().any(|one| {
            matches!(
                &one.answer,
                Some(Answer::Replies(Err(EngineFault::Overloaded(_))))
            )
        });
        match refused && total <= QUEUE_MAX {
            true => Err(format!("overloaded by {total} of {QUEUE_MAX}")),
            false => Ok(()),
        }
    }

    fn predicted(
        &mut self,
        after: &mut Auditor,
        one: &Waiting<'_>,
        now: Timestamp,
        decided: &mut Vec<Decided>,
    ) -> Vec<String> {
        let answered = |call: &Call| {
            let hold = Call {
                verb: "hold".into(),
                ..call.clone()
            };
            let is_late = call.verb == "commit" && after.call(&hold) == "EXPIRED";
            let text = after.call(call);
            if is_late && text.starts_with("committed") && !text.ends_with(" replayed") {
                self.coverage.note("decision", "late");
            }
            decided.push(Decided {
                at: now,
                call: call.clone(),
                text: text.clone(),
            });
            text
        };
        one.caller.calls.iter().map(answered).collect()
    }

    /// A group failed: nothing of it is published, and it may be there or not after the power went.
    fn in_doubt(
        &mut self,
        after: Auditor,
        probe: Option<Command>,
        decided: Vec<Decided>,
        unknowns: Vec<(bool, bool, Vec<Call>)>,
    ) -> Result<(), String> {
        let told = unknowns.iter().any(|(unknown, ..)| *unknown);
        // The bookkeeping before the first call failed: nothing was decided.
        let before = !told && unknowns.iter().any(|(_, due, _)| *due);
        let wrong = |(unknown, due, _): &&(bool, bool, Vec<Call>)| !before && unknown != due;
        if let Some((unknown, _, calls)) = unknowns.iter().find(wrong) {
            return Err(format!("{}: told unknown: {unknown}", calls[0]));
        }
        for (unknown, _, calls) in unknowns {
            let name = if unknown {
                "journal-down-unknown"
            } else {
                "journal-down"
            };
            self.coverage.note("engine", name);
            if unknown {
                self.doubted.extend(calls);
            }
        }
        let sequence = self.up().driver.next_sequence();
        self.doubt = Some(match before {
            true => Doubt {
                after: self.auditor.clone(),
                probe: None,
                sequence,
                at: self.woke_at,
                decided: Vec::new(),
            },
            false => Doubt {
                after,
                probe,
                sequence,
                at: self.woke_at,
                decided,
            },
        });
        Ok(())
    }

    /// Reads see the group, once it is durable.
    fn reads(&mut self, waiting: &[Waiting<'_>], down: bool) -> Result<(), String> {
        for one in waiting {
            let call = &one.caller.calls[0];
            match &one.answer {
                Some(Answer::Read(Ok(text))) => {
                    let due = self.auditor.call(call);
                    self.coverage.answered(call, text);
                    same(call, &due, text)?;
                }
                Some(Answer::Read(Err(EngineFault::Overloaded(_)))) => {
                    self.coverage.note("engine", "overloaded");
                }
                Some(Answer::Read(Err(EngineFault::JournalDown { unknown: false }))) => {
                    // Bookkeeping may have failed just before.
                    if !down && !one.refused && !self.up().engine.is_journal_down() {
                        return Err(format!("{call}: the journal is not down"));
                    }
                }
                Some(Answer::Read(Err(other))) => return Err(format!("{call}: {other}")),
                Some(Answer::Replies(_)) | None => {}
            }
        }
        Ok(())
    }
}

impl Waiting<'_> {
    /// In single commands.
    fn weight(&self) -> usize {
        let weights = self.commands.iter().map(|command| command.action.weight());
        weights.sum::<usize>().max(1)
    }

    fn poll(&mut self) {
        if let Some(future) = &mut self.future
            && let Some(answer) = poll(future.as_mut())
        {
            self.answer = Some(answer);
            self.future = None;
        }
    }
}
