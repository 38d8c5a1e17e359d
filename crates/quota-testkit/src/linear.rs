//! Linearizability: whether some order of the calls explains what everybody was told, in which each call
//! happens at one instant between its beginning and its end. The search is that of Wing and Gong, with
//! Lowe's memory of what was tried; the order's judge is the auditor.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::auditor::Auditor;
use crate::script::{Call, World as _};

/// A call with what its caller saw.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The call, without an operation id: asking again until there is an answer is one operation.
    pub call: Call,
    /// When it began, by a clock that all callers share.
    pub began: u64,
    /// When it ended, and what was answered. Absent where nobody ever knew: it happened at some instant
    /// after it began, or never.
    pub ended: Option<(u64, String)>,
}

/// Why there is no order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unexplained {
    /// None explains the answers; the longest that does, up to the operations that could not come next.
    NoOrder {
        /// Operations that could be ordered, by index.
        longest: Vec<usize>,
        /// Those that should have followed, with what they should have been answered.
        stuck: Vec<(usize, String)>,
    },
    /// So many states were tried, and there are more.
    TooHard(usize),
}

/// Most states that are tried.
const STATES_MAX: usize = 200_000;

/// One step of the search.
struct Frame {
    auditor: Auditor,
    /// What can come next, the first to end first.
    candidates: Vec<usize>,
    tried: usize,
}

/// An order of a history from `auditor` on, by index; operations without an answer may be left out.
pub fn explain(auditor: &Auditor, history: &[Operation]) -> Result<Vec<usize>, Unexplained> {
    let mut done = vec![false; history.len()];
    let mut order: Vec<usize> = Vec::new();
    let mut longest: Vec<usize> = Vec::new();
    let mut stuck = Vec::new();
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut frames = vec![Frame {
        auditor: auditor.clone(),
        candidates: candidates(history, &done),
        tried: 0,
    }];
    while let Some(frame) = frames.last_mut() {
        if all_answered(history, &done) {
            return Ok(order);
        }
        let Some(&next) = frame.candidates.get(frame.tried) else {
            frames.pop();
            if let Some(undone) = order.pop() {
                done[undone] = false;
            }
            continue;
        };
        frame.tried += 1;
        let mut after = frame.auditor.clone();
        let text = after.call(&history[next].call);
        let due = history[next].ended.as_ref().map(|(_, answer)| answer);
        if due.is_some_and(|due| *due != text) {
            if order.len() == longest.len() {
                stuck.push((next, text));
            }
            continue;
        }
        done[next] = true;
        if !seen.insert((digest(&done), after.digest())) {
            done[next] = false;
            continue;
        }
        if seen.len() > STATES_MAX {
            return Err(Unexplained::TooHard(STATES_MAX));
        }
        order.push(next);
        if order.len() > longest.len() {
            longest.clone_from(&order);
            stuck.clear();
        }
        frames.push(Frame {
            auditor: after,
            candidates: candidates(history, &done),
            tried: 0,
        });
    }
    Err(Unexplained::NoOrder { longest, stuck })
}

fn all_answered(history: &[Operation], done: &[bool]) -> bool {
    let open = |(operation, done): (&Operation, &bool)| !done && operation.ended.is_some();
    !history.iter().zip(done).any(open)
}

/// Operations that began before every other one that is left had ended.
fn candidates(history: &[Operation], done: &[bool]) -> Vec<usize> {
    let left = || (0..history.len()).filter(|at| !done[*at]);
    let end = |at: &usize| {
        history[*at]
            .ended
            .as_ref()
            .map_or(u64::MAX, |(end, _)| *end)
    };
    let first_end = left().map(|at| end(&at)).min().unwrap_or(u64::MAX);
    let mut found: Vec<usize> = left()
        .filter(|at| history[*at].began <= first_end)
        .collect();
    found.sort_by_key(end);
    found
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use quota_core::Bounds;

    use super::*;

    fn auditor() -> Auditor {
        let mut auditor = Auditor::with_bounds(Bounds::default());
        assert_eq!(
            auditor.call(&Call::parse("quota system compute.cpu 10")),
            "set"
        );
        auditor
    }

    /// `began ended call -> answer` a line; `-` for what nobody knows.
    fn history(text: &str) -> Vec<Operation> {
        let line = |line: &str| {
            let words: Vec<&str> = line.trim().splitn(3, ' ').collect();
            let (call, answer) = words[2].split_once(" -> ").unwrap();
            Operation {
                call: Call::parse(call),
                began: words[0].parse().unwrap(),
                ended: words[1].parse().ok().map(|end| (end, answer.to_owned())),
            }
        };
        text.trim().lines().map(line).collect()
    }

    fn is_explained(text: &str) -> bool {
        explain(&auditor(), &history(text)).is_ok()
    }

    #[test]
    fn what_overlaps_may_have_any_order() {
        let text = "1 6 consume a/1 compute.cpu 6 id=x -> denied LIMIT compute.cpu system 5+6>10
            2 5 consume a/1 compute.cpu 5 id=y -> granted
            3 4 used system compute.cpu -> 0";
        let order = explain(&auditor(), &history(text)).unwrap();
        assert_eq!(order, [2, 1, 0]);
    }

    #[test]
    fn two_grants_beyond_the_limit() {
        assert!(!is_explained(
            "1 3 consume a/1 compute.cpu 6 id=x -> granted
             2 4 consume a/1 compute.cpu 6 id=y -> granted"
        ));
    }

    #[test]
    fn a_stale_read() {
        let stale = "1 2 consume a/1 compute.cpu 6 id=x -> granted
            3 4 used system compute.cpu -> 0";
        assert!(!is_explained(stale));
        assert!(
            is_explained(&stale.replace("3 4", "1 4")),
            "it may have been first"
        );
    }

    #[test]
    fn a_lost_write() {
        assert!(!is_explained(
            "1 2 consume a/1 compute.cpu 6 id=x -> granted
             3 4 consume a/1 compute.cpu 6 id=y -> granted
             5 6 used system compute.cpu -> 6"
        ));
    }

    #[test]
    fn what_was_charged_twice() {
        assert!(!is_explained(
            "1 9 consume a/1 compute.cpu 3 -> granted
             10 11 used system compute.cpu -> 6"
        ));
    }

    #[test]
    fn what_nobody_knows_may_have_happened_or_not() {
        let text = "1 - consume a/1 compute.cpu 6 id=x -> -
            2 3 used system compute.cpu -> 0
            4 5 used system compute.cpu -> 6";
        assert!(is_explained(text));
        assert!(is_explained(&text.replace("-> 6", "-> 0")));
        assert!(!is_explained(&text.replace("-> 6", "-> 3")));
        let back = format!("{text}\n6 7 used system compute.cpu -> 0");
        assert!(!is_explained(&back), "once it has happened it stays");
    }

    #[test]
    fn what_was_undone_and_done_again() {
        assert!(!is_explained(
            "1 2 consume a/1 compute.cpu 6 id=x -> granted
             3 4 release a/1 id=x -> released compute.cpu 6
             5 6 release a/1 id=x -> released compute.cpu 6"
        ));
    }

    #[test]
    fn the_report_names_what_is_stuck() {
        let text = "1 2 consume a/1 compute.cpu 6 id=x -> granted
            3 4 consume a/1 compute.cpu 6 id=y -> granted";
        let Err(Unexplained::NoOrder { longest, stuck }) = explain(&auditor(), &history(text))
        else {
            panic!("explained");
        };
        assert_eq!(longest, [0]);
        assert_eq!(
            stuck,
            [(1, "denied LIMIT compute.cpu system 6+6>10".to_owned())]
        );
    }
}
