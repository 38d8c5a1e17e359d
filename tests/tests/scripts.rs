//! Every script at every boundary: a bare ledger; engine and store, with the power going between any two
//! lines; over gRPC. Same text, same answers.

use std::path::Path;

use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Script, check};
use quota_tests::worlds::{EngineWorld, GrpcWorld};

fn scripts() -> Vec<Script> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "script"))
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "the scripts are gone");
    let script = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        Script::parse(&name, &std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(script).collect()
}

#[test]
fn on_a_bare_ledger() {
    for script in scripts() {
        check(&script, &mut BareLedger::new(&script), |_| {});
    }
}

#[test]
fn on_engine_and_store_with_the_power_going_between_any_two_lines() {
    for script in scripts() {
        check(
            &script,
            &mut EngineWorld::new(&script),
            EngineWorld::restart,
        );
    }
}

#[test]
fn over_grpc() {
    for script in scripts() {
        check(&script, &mut GrpcWorld::new(&script), |_| {});
    }
}
