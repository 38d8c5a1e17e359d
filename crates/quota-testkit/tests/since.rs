//! C3.4: from when on a count is complete. Scripts do not say it, and no decision depends on it.

use quota_core::name::ResourceKey;
use quota_testkit::bare::{BEGINNING, BareLedger};
use quota_testkit::script::{Script, World as _, check};

/// Seconds after the beginning from which on the quota of that id has counted everything; none where that is
/// the whole of its period.
fn since(setup: &str, subject: &str, resource: &str, id: &str) -> Option<i64> {
    let script = Script::parse("setup", setup);
    let mut world = BareLedger::new(&script);
    assert_eq!(
        check(&script, &mut world, |_| {}),
        Vec::<String>::new(),
        "{setup}"
    );
    let resource = ResourceKey::parse(resource).expect("a resource");
    let scene = world.ledger.scene(subject, &[subject], world.now());
    let gauges = scene.lines()[0].gauges(&resource);
    let named = format!("{resource}.{id}");
    let gauge = gauges
        .iter()
        .find(|gauge| gauge.quota().id.as_str() == named);
    let since = gauge.expect("the quota is in force").since;
    since.map(|at| at.whole_second() - BEGINNING.whole_second())
}

#[test]
fn a_new_definition_counts_from_now_on() {
    let setup = "advance 10s
        quota tenants/a api.calls 10 period=hour -> set";
    assert_eq!(since(setup, "tenants/a", "api.calls", "hour"), Some(10));
    let next = format!("{setup}\nadvance next-hour");
    assert_eq!(since(&next, "tenants/a", "api.calls", "hour"), None);
}

#[test]
fn one_of_the_same_pattern_goes_on() {
    let setup = "quota tenants/* api.calls 10 period=hour -> set
        quota tenants/* api.messages 10 period=day -> set
        advance 10s
        quota tenants/* api.calls 9 period=hour id=.second -> set
        quota tenants/* api.calls 8 period=day -> set
        quota tenants/* api.messages 8 period=hour state=disabled -> set
        advance 10s
        quota tenants/* api.messages 8 period=hour id=.second -> set
        unquota tenants/* api.calls id=.hour -> deleted";
    // As long as the first would have.
    assert_eq!(since(setup, "tenants/a", "api.calls", "second"), Some(0));
    // Neither one of other periods, nor of another resource, nor one that is not in force.
    assert_eq!(since(setup, "tenants/a", "api.calls", "day"), Some(10));
    assert_eq!(
        since(setup, "tenants/a", "api.messages", "second"),
        Some(20)
    );
}

#[test]
fn all_of_one_definition_share_their_count() {
    let setup = "quota tenants/a api.calls 10 period=hour -> set
        advance 10s
        quota tenants/* api.calls 9 period=hour id=.second -> set";
    assert_eq!(since(setup, "tenants/a", "api.calls", "second"), Some(0));
    assert_eq!(since(setup, "tenants/b", "api.calls", "second"), Some(10));
}
