//! C11.4: the invariants find what they are for.

use quota_core::amount::Account;
use quota_core::name::ResourceKey;
use quota_core::record::{Record, RecordKey, Records};
use quota_core::{Ledger, invariants};
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Script, check};

fn records() -> Vec<(RecordKey, Record)> {
    let script = Script::parse(
        "setup",
        "consume tenants/a/users/u compute.cpu 4 id=vm also=tenants/a/teams/t -> granted",
    );
    let mut world = BareLedger::new(&script);
    check(&script, &mut world, |_| {});
    let keys = world.ledger.record_keys();
    let record = |key: RecordKey| world.ledger.record(&key).map(|record| (key, record));
    keys.into_iter().filter_map(record).collect()
}

/// What the invariants say of these records after `change`.
fn broken(change: impl Fn(&mut Vec<(RecordKey, Record)>)) -> String {
    let mut all = records();
    change(&mut all);
    let mut laid = Records::default();
    for (key, record) in all {
        laid.lay(key, Some(record));
    }
    let ledger = Ledger::from_records(Default::default(), laid).expect("the records fit");
    invariants::check_state(&ledger).join("\n")
}

fn set_account(all: &mut [(RecordKey, Record)], name: &str, account: Account) {
    let cpu = ResourceKey::parse("compute.cpu").expect("a key");
    for (key, record) in all {
        if let (RecordKey::Subject(subject), Record::Subject { accounts, .. }) = (key, record)
            && subject.as_str() == name
        {
            *accounts = vec![(cpu.clone(), account)];
        }
    }
}

#[test]
fn each_is_found() {
    assert_eq!(broken(|_| {}), "");
    let more = broken(|all| set_account(all, "tenants/a", Account { used: 5, held: 0 }));
    assert!(
        more.contains("I2: tenants/a has 5 of compute.cpu used, its allocations hold 4"),
        "{more}"
    );
    let below = broken(|all| set_account(all, "system", Account { used: -1, held: 0 }));
    assert!(below.contains("I1: system"), "{below}");
    let orphan = broken(|all| {
        all.retain(
            |(key, _)| !matches!(key, RecordKey::Subject(name) if name.as_str() == "tenants/a"),
        );
    });
    assert!(
        orphan.contains("I3: tenants/a/users/u has an ancestor that is not there"),
        "{orphan}"
    );
    assert!(
        orphan.contains("charges tenants/a, which is not there"),
        "{orphan}"
    );
    let row_gone = broken(|all| all.retain(|(key, _)| !matches!(key, RecordKey::Allocation(_))));
    assert!(row_gone.contains("its allocations hold 0"), "{row_gone}");
}
