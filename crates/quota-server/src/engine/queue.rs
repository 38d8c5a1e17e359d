//! The bounded queue before the writer, fair between tenants.
//!
//! Each first pair has a lane of its own. The writer takes from the lanes in turn, by the weight of the work
//! and not by the number of calls, so that a lane with ten thousand waiting commands delays another's single
//! command by one turn. Full means that somebody is refused at once: the newest work of the longest lane, so
//! that whoever floods the queue sheds their own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quota_core::Ledger;
use quota_core::command::Command;
use quota_core::hash::HashMap;
use quota_core::outcome::Reply;
use quota_core::rejection::Rejection;

use super::Fault;
use super::asker::Asker;
use crate::telemetry::traces::CallSpan;

/// Weight that a lane may take in its turn.
const QUANTUM: usize = 32;
/// The lane of reads, which belong to no tenant.
pub const READS: &str = "";

/// What a caller of several commands is told, by index.
pub type Replies = Vec<Result<Reply, Rejection>>;

/// What the writer does next.
pub enum Item {
    /// Decide commands, one after the other.
    Commands {
        /// The commands; at least one.
        commands: Vec<Command>,
        /// Who waits for the answer.
        asker: Asker,
        /// Whether the caller still waits.
        ticket: Arc<Ticket>,
    },
    /// Show the ledger; without one, the read is refused.
    Read(Read),
}

impl Item {
    /// How much work it is, in single commands.
    fn weight(&self) -> usize {
        match self {
            Self::Commands { commands, .. } => {
                let weights = commands.iter().map(|command| command.action.weight());
                weights.sum::<usize>().max(1)
            }
            Self::Read(_) => 1,
        }
    }

    /// Says that it is not done, and that nothing was changed.
    pub fn refuse(self, fault: Fault) {
        match self {
            Self::Commands { asker, ticket, .. } => {
                ticket.withdraw();
                asker.answer(Err(fault));
            }
            Self::Read(read) => read(Err(fault)),
        }
    }
}

/// A look at the ledger, or why there is none.
pub type Read = Box<dyn FnOnce(Result<&Ledger, Fault>) + Send>;

/// Settles, once, whether a command is decided or withdrawn.
#[derive(Default, Debug)]
pub struct Ticket {
    state: AtomicU8,
    /// When the command was queued, by the boot-time clock.
    queued_ns: i64,
    /// The span of its call, where it has one.
    span: Option<CallSpan>,
}

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// The ticket of a command that is queued at an instant of the boot-time clock.
    pub fn queued_at(queued_ns: i64, span: Option<CallSpan>) -> Self {
        Self {
            queued_ns,
            span,
            ..Self::default()
        }
    }

    /// The span of its call, where it has one.
    pub fn span(&self) -> Option<&CallSpan> {
        self.span.as_ref()
    }

    /// When the command was queued, by the boot-time clock.
    pub fn queued_ns(&self) -> i64 {
        self.queued_ns
    }

    /// The writer takes the command, unless it was withdrawn.
    pub fn claim(&self) -> bool {
        self.swap(CLAIMED)
    }

    /// The caller waits no longer; the command is not decided, unless it was claimed.
    pub fn withdraw(&self) -> bool {
        self.swap(WITHDRAWN)
    }

    /// Whether the writer took it.
    pub fn was_claimed(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLAIMED
    }

    fn swap(&self, to: u8) -> bool {
        self.state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    lanes: HashMap<Arc<str>, Lane>,
    /// Lanes with work, the next one first.
    turns: VecDeque<Arc<str>>,
    /// The same by how much waits in them.
    by_weight: BTreeSet<(usize, Arc<str>)>,
    weight: usize,
    closed: bool,
}

#[derive(Default)]
struct Lane {
    items: VecDeque<(usize, Item)>,
    weight: usize,
    /// What is left of its turns.
    credit: usize,
}

/// What the writer took.
pub enum Taken {
    /// Items, perhaps none after a while without any.
    Items(Vec<Item>),
    /// The queue is closed and empty.
    Closed,
}

impl Queue {
    /// A queue of items that weigh at most `most` together.
    pub fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            most,
        }
    }

    /// Adds an item to a lane, unless the queue is closed, or full and no other lane is longer. Where another
    /// is, the newest items of the longest make room.
    pub fn push(&self, lane: &str, item: Item) -> Result<(), Fault> {
        // One that weighs more than the queue may is let into an empty one.
        let weight = item.weight().min(self.most);
        let mut shed = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return Err(Fault::Draining);
        }
        let missing = state
            .weight
            .saturating_add(weight)
            .saturating_sub(self.most);
        if missing > 0 {
            // The lane would be so long; what others have beyond that can make room.
            let own = state.lanes.get(lane).map_or(0, |lane| lane.weight);
            let length = own.saturating_add(weight);
            let longer = state
                .by_weight
                .iter()
                .rev()
                .map(|(other, _)| other.saturating_sub(length));
            let room: usize = longer.take_while(|beyond| *beyond > 0).sum();
            if room < missing {
                return Err(Fault::Overloaded(self.most));
            }
        }
        while state.weight.saturating_add(weight) > self.most
            && let Some((_, longest)) = state.by_weight.last().cloned()
        {
            shed.extend(state.drop_newest(&longest));
        }
        state.add(lane, weight, item);
        drop(state);
        self.wake.notify_one();
        shed_all(shed, self.most);
        Ok(())
    }

    /// Takes items of a weight of about `most`, waiting at most `patience` for the first.
    pub fn take(&self, most: usize, patience: Duration) -> Taken {
        let mut state = self.state.lock();
        let nothing = |state: &mut State| state.turns.is_empty() && !state.closed;
        self.wake.wait_while_for(&mut state, nothing, patience);
        if state.turns.is_empty() && state.closed {
            return Taken::Closed;
        }
        Taken::Items(state.take(most))
    }

    /// The weight of what waits.
    pub fn weight(&self) -> usize {
        self.state.lock().weight
    }

    /// Whether it takes no more items.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes no more items.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}

impl State {
    fn add(&mut self, name: &str, weight: usize, item: Item) {
        let known = self.lanes.get_key_value(name).map(|(name, _)| name.clone());
        let name: Arc<str> = known.unwrap_or_else(|| name.into());
        let lane = self.lanes.entry(name.clone()).or_default();
        if lane.items.is_empty() {
            self.turns.push_back(name.clone());
        }
        self.by_weight.remove(&(lane.weight, name.clone()));
        lane.items.push_back((weight, item));
        lane.weight = lane.weight.saturating_add(weight);
        self.by_weight.insert((lane.weight, name));
        self.weight = self.weight.saturating_add(weight);
    }

    fn drop_newest(&mut self, name: &Arc<str>) -> Option<Item> {
        let lane = self.lanes.get_mut(name)?;
        let (weight, item) = lane.items.pop_back()?;
        self.weigh_less(name, weight);
        if self
            .lanes
            .get(name)
            .is_some_and(|lane| lane.items.is_empty())
        {
            self.lanes.remove(name);
            self.turns.retain(|turn| turn != name);
        }
        Some(item)
    }

    fn weigh_less(&mut self, name: &Arc<str>, weight: usize) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        self.by_weight.remove(&(lane.weight, name.clone()));
        lane.weight = lane.weight.saturating_sub(weight);
        if lane.weight > 0 {
            self.by_weight.insert((lane.weight, name.clone()));
        }
        self.weight = self.weight.saturating_sub(weight);
    }

    /// Deficit round robin: each turn gives a lane the same credit, whatever its items weigh.
    fn take(&mut self, most: usize) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut total: usize = 0;
        while total < most
            && let Some(name) = self.turns.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&name) else {
                continue;
            };
            lane.credit = lane.credit.saturating_add(QUANTUM);
            let mut gone: usize = 0;
            while let Some((weight, _)) = lane.items.front()
                && *weight <= lane.credit
                && total < most
            {
                let Some((weight, item)) = lane.items.pop_front() else {
                    break;
                };
                lane.credit = lane.credit.saturating_sub(weight);
                gone = gone.saturating_add(weight);
                total = total.saturating_add(weight);
                taken.push(item);
            }
            let empty = lane.items.is_empty();
            self.weigh_less(&name, gone);
            if empty {
                self.lanes.remove(&name);
            } else {
                self.turns.push_back(name);
            }
        }
        taken
    }
}

fn shed_all(items: Vec<Item>, most: usize) {
    for item in items {
        item.refuse(Fault::Overloaded(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item that says its name when it is looked at, and `!` when it is refused.
    fn item(name: &str, said: &Arc<Mutex<String>>) -> Item {
        let (name, said) = (name.to_owned(), said.clone());
        Item::Read(Box::new(move |ledger| {
            let refused = if ledger.is_err() { "!" } else { "" };
            said.lock().push_str(&format!("{name}{refused} "));
        }))
    }

    fn look_at(taken: Taken) -> usize {
        let Taken::Items(items) = taken else {
            return 0;
        };
        let count = items.len();
        let ledger = Ledger::new(Default::default(), Default::default());
        for item in items {
            if let Item::Read(read) = item {
                read(Ok(&ledger));
            }
        }
        count
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_drains() {
        let said = Arc::default();
        let queue = Queue::new(2);
        queue.push("a", item("1", &said)).unwrap();
        queue.push("a", item("2", &said)).unwrap();
        assert_eq!(queue.push("a", item("3", &said)), Err(Fault::Overloaded(2)));
        queue.close();
        assert_eq!(queue.push("a", item("4", &said)), Err(Fault::Draining));
        assert_eq!(look_at(queue.take(9, Duration::ZERO)), 2);
        assert_eq!(look_at(queue.take(9, Duration::ZERO)), 0);
        assert_eq!(*said.lock(), "1 2 ");
    }

    /// One lane's flood waits behind the others' turns and sheds itself.
    #[test]
    fn a_flood_delays_and_sheds_itself() {
        let said = Arc::default();
        let queue = Queue::new(200);
        for n in 0..200 {
            queue.push("flood", item(&format!("f{n}"), &said)).unwrap();
        }
        assert!(queue.push("flood", item("f200", &said)).is_err());
        queue.push("calm", item("calm", &said)).unwrap();
        assert_eq!(*said.lock(), "f199! ");
        assert_eq!(queue.weight(), 200);
        said.lock().clear();
        look_at(queue.take(QUANTUM + 1, Duration::ZERO));
        let said = said.lock().clone();
        assert!(said.ends_with("f31 calm "), "{said}");
    }

    /// As many lanes as fit share the queue alike: the newest of the longest goes, until all are as long.
    #[test]
    fn lanes_that_flood_together_share() {
        let said = Arc::default();
        let queue = Queue::new(100);
        for lane in ["a", "b", "c", "d"] {
            for n in 0..100 {
                let _ = queue.push(lane, item(&format!("{lane}{n}"), &said));
            }
        }
        let state = queue.state.lock();
        let weights: Vec<usize> = state.by_weight.iter().map(|(weight, _)| *weight).collect();
        assert_eq!(state.weight, 100);
        assert!(
            weights.iter().all(|weight| (24..=27).contains(weight)),
            "{weights:?}"
        );
    }

    /// Nobody is shed for one who does not get in all the same.
    #[test]
    fn nobody_is_shed_in_vain() {
        let said = Arc::default();
        let queue = Queue::new(100);
        for n in 0..60 {
            queue.push("a", item(&format!("a{n}"), &said)).unwrap();
        }
        for n in 0..40 {
            queue.push("b", item(&format!("b{n}"), &said)).unwrap();
        }
        let commands = vec![command(); 50];
        let (asker, mut answer) = Asker::new();
        let batch = Item::Commands {
            commands,
            asker,
            ticket: Arc::default(),
        };
        assert_eq!(queue.push("c", batch), Err(Fault::Overloaded(100)));
        assert!(answer.try_recv().is_err());
        assert_eq!(*said.lock(), "");
        assert_eq!(queue.weight(), 100);
    }

    fn command() -> Command {
        use quota_core::command::{Action, Operation};
        use quota_core::name::OperationId;
        Command {
            operation: Operation {
                id: OperationId::parse("x").unwrap(),
                given: false,
                digest: [0; 16],
                age: None,
            },
            provenance: Arc::default(),
            action: Action::AcceptClock { offset_ns: 0 },
            validate_only: false,
        }
    }

    #[test]
    fn a_ticket_is_settled_once() {
        let ticket = Ticket::default();
        assert!(ticket.claim());
        assert!(!ticket.withdraw());
        assert!(ticket.was_claimed());
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        assert!(!ticket.claim());
    }
}
