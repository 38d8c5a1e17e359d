//! Every script answered by the auditor, and by a bare ledger.

use quota_testkit::auditor::Auditor;
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{self, Call, Script, World};

fn check_all<W: World>(world: impl Fn(&Script) -> W) {
    let wrong: Vec<String> = script::all()
        .iter()
        .flat_map(|script| script::check(script, &mut world(script), |_| {}))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn by_the_auditor() {
    check_all(Auditor::new);
}

#[test]
fn on_a_bare_ledger() {
    check_all(BareLedger::new);
}

#[test]
fn calls_are_written_as_they_are_read() {
    for script in script::all() {
        for line in script.lines {
            let again = Call::parse(&line.call.to_string());
            assert_eq!(again, line.call, "{}:{}", script.name, line.number);
        }
    }
}
