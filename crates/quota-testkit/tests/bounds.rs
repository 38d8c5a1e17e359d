//! Bounds that a script would be too long for (A2, A5).

use quota_core::Ledger;
use quota_testkit::bare::{BEGINNING, command, reply};
use quota_testkit::script::Call;

/// What a ReleaseMatching may touch: 4 MiB, and the row with which it comes to that.
const MATCHING_BYTES_MAX: usize = 4 << 20;

struct World {
    ledger: Ledger,
    made: u64,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(Default::default(), BEGINNING),
            made: 0,
        }
    }

    /// Asks a ledger, and nothing beside it: there are too many calls to check the invariants after each.
    fn ask(&mut self, text: &str) -> String {
        self.made += 1;
        let call = Call::parse(text);
        let command = command(&call, self.made, BEGINNING).expect("the call is well-formed");
        let decided = self.ledger.decide(BEGINNING, &command);
        for event in &decided.events {
            self.ledger.absorb(event);
        }
        reply(&call, decided.reply)
    }

    #[track_caller]
    fn check(&mut self, text: &str, due: &str) {
        assert_eq!(self.ask(text), due, "{text}");
    }
}

#[test]
fn a_thousand_resources() {
    let mut world = World::new();
    let more = 1000 - world.ledger.resources().iter().count();
    for number in 0..more {
        world.check(&format!("resource lab.r{number}"), "set");
    }
    world.check("resource lab.more", "error CAPACITY");
    world.check("resource lab.r7 deny", "set");
    world.check("unresource lab.r7", "deleted");
    world.check("resource lab.more", "set");
}

#[test]
fn a_thousand_quotas_on_a_subject() {
    let mut world = World::new();
    for number in 0..1000 {
        let resource = format!("lab.r{}", number / 16);
        if number % 16 == 0 {
            world.check(&format!("resource {resource}"), "set");
        }
        world.check(&format!("quota tenants/a {resource} 1 id=q{number}"), "set");
    }
    world.check("quota tenants/a compute.cpu 1", "error CAPACITY");
    world.check("quota tenants/a lab.r0 2 id=q0", "set");
    world.check("unquota tenants/a lab.r0 id=q0", "deleted");
    world.check("quota tenants/a compute.cpu 1", "set");
}

#[test]
fn a_hundred_thousand_patterns() {
    let mut world = World::new();
    for number in 0..100_000 {
        let pattern = format!("tenants/t{number}/users/*");
        world.check(&format!("quota {pattern} compute.cpu 1 force"), "set");
    }
    world.check("quota users/* compute.cpu 1", "error CAPACITY");
    // One that is there may have more of them, and a subject is no pattern.
    world.check("quota tenants/t7/users/* compute.memory 1 force", "set");
    world.check("quota tenants/t7 compute.cpu 1", "set");
    world.check("unquota tenants/t8/users/* compute.cpu", "deleted");
    world.check("quota users/* compute.cpu 1", "set");
}

#[test]
fn a_release_by_label_ends_before_its_images_are_too_large() {
    let mut world = World::new();
    let deep =
        |number: usize, place: usize| format!("tenants/a/b/{number}/c/{place}/d/1/e/1/f/1/g/1/h/1");
    for number in 0..300 {
        let also: Vec<String> = (1..5).map(|place| deep(number, place)).collect();
        let (subject, also) = (deep(number, 0), also.join(","));
        let text = format!("consume {subject} compute.cpu 1 id=vm also={also} label=host:h");
        world.check(&text, "granted");
    }
    let (mut pages, mut released) = (0, 0);
    loop {
        world.ledger.take_images();
        let answer = world.ask("release-matching tenants/a label=host:h most=1000");
        let bytes = world.ledger.images_weight();
        let words: Vec<&str> = answer.split(' ').collect();
        released += words[1].parse::<usize>().expect("a number of rows");
        pages += 1;
        assert!(bytes < MATCHING_BYTES_MAX * 5 / 4, "{answer} {bytes}");
        if words.last() != Some(&"more") {
            break;
        }
        assert!(bytes > MATCHING_BYTES_MAX / 2, "{answer} {bytes}");
    }
    assert_eq!(released, 300);
    assert!(pages > 1, "all of it fitted");
}
