//! Every script on engine and store, with the power going between any two lines, and over gRPC. The test kit's
//! own tests run them on a bare ledger and by the auditor. Same text, same answers.

use quota_testkit::script::{self, Script, World};
use quota_tests::grpc::GrpcWorld;
use quota_tests::worlds::EngineWorld;

/// Runs every script in worlds of its own and reports all lines that answer otherwise.
fn check_all<W: World>(world: impl Fn(&Script) -> W, between: impl Fn(&mut W)) {
    let wrong: Vec<String> = script::all()
        .iter()
        .flat_map(|script| script::check(script, &mut world(script), &between))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn on_engine_and_store_with_the_power_going_between_any_two_lines() {
    check_all(EngineWorld::new, EngineWorld::restart);
}

#[test]
fn over_grpc() {
    check_all(GrpcWorld::new, |_| {});
}
