//! The bounded queue before the writer. Full means refused at once: a queue that hides overload only moves
//! it into everybody's latency.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quota_core::Ledger;
use quota_core::command::Command;
use quota_core::outcome::Reply;
use tokio::sync::oneshot;

use super::Fault;

/// What the writer does next.
pub enum Item {
    /// Decide a command.
    Command {
        /// The command.
        command: Box<Command>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Reply, Fault>>,
        /// Whether the caller still waits.
        ticket: Arc<Ticket>,
    },
    /// Show the ledger; without one, the read is refused.
    Read(Read),
}

/// A look at the ledger.
pub type Read = Box<dyn FnOnce(Option<&Ledger>) + Send>;

/// Settles, once, whether a command is decided or withdrawn.
#[derive(Default, Debug)]
pub struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
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
        self.0.load(Ordering::Acquire) == CLAIMED
    }

    fn swap(&self, to: u8) -> bool {
        self.0
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
    items: VecDeque<Item>,
    closed: bool,
}

/// What the writer took.
pub enum Taken {
    /// Items, perhaps none after a while without any.
    Items(Vec<Item>),
    /// The queue is closed and empty.
    Closed,
}

impl Queue {
    /// A queue of at most `most` items.
    pub fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            most,
        }
    }

    /// Adds an item, unless the queue is full or closed.
    pub fn push(&self, item: Item) -> Result<(), Fault> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Fault::Draining);
        }
        if state.items.len() >= self.most {
            return Err(Fault::Overloaded(self.most));
        }
        state.items.push_back(item);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes up to `most` items, waiting at most `patience` for the first.
    pub fn take(&self, most: usize, patience: Duration) -> Taken {
        let mut state = self.state.lock();
        let nothing = |state: &mut State| state.items.is_empty() && !state.closed;
        self.wake.wait_while_for(&mut state, nothing, patience);
        if state.items.is_empty() && state.closed {
            return Taken::Closed;
        }
        let count = most.min(state.items.len());
        Taken::Items(state.items.drain(..count).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_drains() {
        let read = || Item::Read(Box::new(|_| {}));
        let queue = Queue::new(2);
        queue.push(read()).unwrap();
        queue.push(read()).unwrap();
        assert_eq!(queue.push(read()), Err(Fault::Overloaded(2)));
        queue.close();
        assert_eq!(queue.push(read()), Err(Fault::Draining));
        let items = |taken| match taken {
            Taken::Items(items) => items.len(),
            Taken::Closed => 0,
        };
        assert_eq!(items(queue.take(9, Duration::ZERO)), 2);
        assert_eq!(items(queue.take(9, Duration::ZERO)), 0);
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
