//! Every script at every boundary: a bare ledger; engine and store, with the power going between any two
//! lines; over gRPC. Same text, same answers.

use std::path::Path;

use quota_testkit::bare::BareLedger;
use quota_testkit::script::{Script, World, check};
use quota_tests::grpc::GrpcWorld;
use quota_tests::worlds::EngineWorld;

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

/// Runs every script in worlds of its own and reports all lines that answer otherwise.
fn check_all<W: World>(world: impl Fn(&Script) -> W, between: impl Fn(&mut W)) {
    let wrong: Vec<String> = scripts()
        .iter()
        .flat_map(|script| check(script, &mut world(script), &between))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn on_a_bare_ledger() {
    check_all(BareLedger::new, |_| {});
}

#[test]
fn on_engine_and_store_with_the_power_going_between_any_two_lines() {
    check_all(EngineWorld::new, EngineWorld::restart);
}

#[test]
fn over_grpc() {
    check_all(GrpcWorld::new, |_| {});
}
