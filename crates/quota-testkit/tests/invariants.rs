//! C11.4: the invariants find what they are for.

use quota_core::account::Account;
use quota_core::name::ResourceKey;
use quota_core::record::{Record, RecordKey, Records};
use quota_core::{Ledger, invariants};
use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Script, check};

fn records() -> Vec<(RecordKey, Record)> {
    let script = Script::parse(
        "setup",
        "consume tenants/a/users/u compute.cpu 4 id=vm also=tenants/a/teams/t -> granted\n\
         reserve tenants/a/users/u compute.cpu 2 id=h also=tenants/a/teams/t -> held",
    );
    let mut world = BareLedger::new(&script);
    assert!(check(&script, &mut world, |_| {}).is_empty());
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
            *accounts = vec![(cpu.clone(), account.clone())];
        }
    }
}

fn account(used: i64, held: i64) -> Account {
    Account {
        used,
        held,
        ..Account::default()
    }
}

#[test]
fn each_is_found() {
    assert_eq!(broken(|_| {}), "");
    let more = broken(|all| set_account(all, "tenants/a", account(5, 2)));
    assert!(
        more.contains("I2: tenants/a has 5 of compute.cpu used, its allocations 4"),
        "{more}"
    );
    let below = broken(|all| set_account(all, "system", account(-1, 2)));
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
    let held = broken(|all| set_account(all, "tenants/a", account(4, 3)));
    assert!(
        held.contains("I2: tenants/a has 3 of compute.cpu held, its holds 2"),
        "{held}"
    );
    let hold_gone = broken(|all| all.retain(|(key, _)| !matches!(key, RecordKey::Hold(_))));
    assert!(hold_gone.contains("its holds 0"), "{hold_gone}");
    let row_gone = broken(|all| all.retain(|(key, _)| !matches!(key, RecordKey::Allocation(_))));
    assert!(row_gone.contains("its allocations 0"), "{row_gone}");
}
