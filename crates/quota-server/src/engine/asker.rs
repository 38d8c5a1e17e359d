//! Who waits for an answer, and how the answers of a group get to them.

use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;

use super::Fault;
use super::queue::Replies;

/// What a caller is told.
pub type Answer = Result<Replies, Fault>;

/// Who is told what.
type Told = Vec<(Asker, Answer)>;

/// A caller that waits.
pub struct Asker {
    reply: oneshot::Sender<Answer>,
    /// Where it waits; none for one without a runtime.
    runtime: Option<Handle>,
}

impl Asker {
    /// One that waits where this is called, and what it waits on.
    pub fn new() -> (Self, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        (Self { reply, runtime }, answer)
    }

    /// Answers it alone.
    pub fn answer(self, answer: Answer) {
        // Whoever went away needs no answer.
        let _ = self.reply.send(answer);
    }
}

/// Answers those of a group. To wake a caller from outside its runtime takes a lock and a system call; so each
/// runtime is woken once, and the rest happens inside it.
pub fn answer_all(answers: Told) {
    let mut inside: Vec<(Id, Handle, Told)> = Vec::new();
    for (asker, answer) in answers {
        let Some(runtime) = &asker.runtime else {
            asker.answer(answer);
            continue;
        };
        let id = runtime.id();
        match inside.iter_mut().find(|(known, ..)| *known == id) {
            Some((.., answers)) => answers.push((asker, answer)),
            None => inside.push((id, runtime.clone(), vec![(asker, answer)])),
        }
    }
    for (_, runtime, answers) in inside {
        match answers.len() {
            1 => answer_here(answers),
            _ => drop(runtime.spawn(async { answer_here(answers) })),
        }
    }
}

fn answer_here(answers: Told) {
    for (asker, answer) in answers {
        asker.answer(answer);
    }
}
