//! `quotactl` as its users meet it: pipes that close, disks that are full.

use std::process::Command;

use quota_tests::process::{Server, binary, quotactl};

fn command(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("quotactl"));
    command.args(["--endpoint", endpoint]).args(arguments);
    command
}

fn consume(server: &Server) {
    let arguments = ["consume", "tenants/a", "compute.cpu=1"];
    let done = quotactl(&server.endpoint, &arguments);
    assert!(done.status.success(), "{done:?}");
}

const READS: &[&[&str]] = &[
    &["events"],
    &["events", "--export", "jsonl"],
    &["events", "--export", "cloudevents"],
    &["--output", "json", "events"],
    &["watch", "--from", "1"],
    &["--output", "json", "watch", "--from", "1"],
    &["audit"],
    &["usage", "tenants/a"],
    &["usage", "tenants/a", "--history", "7d"],
    &["server", "info"],
    &["export"],
];

#[test]
fn a_closed_pipe_is_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    consume(&server);
    for arguments in READS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&server.endpoint, arguments)
            .stdout(writer)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("stdout"), "{arguments:?}: {said}");
        // `2>&1 | true`
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = command(&server.endpoint, arguments)
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
}

/// What was decided is told all the same: by the exit code.
#[test]
fn a_closed_pipe_does_not_hide_a_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let limited = ["quota", "set", "tenants/a", "compute.cpu", "--limit", "1"];
    let done = quotactl(&server.endpoint, &limited);
    assert!(done.status.success(), "{done:?}");
    for (amount, code) in [("compute.cpu=1", 0), ("compute.cpu=1", 3)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = command(&server.endpoint, &["consume", "tenants/a", amount])
            .stdout(writer)
            .status();
        assert_eq!(status.unwrap().code(), Some(code));
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    consume(&server);
    for arguments in READS {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = command(&server.endpoint, arguments)
            .stdout(full.unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("stdout: No space left"), "{said}");
    }
}
