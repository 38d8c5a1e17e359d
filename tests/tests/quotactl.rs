//! `quotactl` as its users meet it: pipes that close, disks that are full, servers that come and go.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use quota_tests::process::{Server, binary, quotactl, quotactl_json};
use serde_json::Value;

/// Longer than a call is tried again.
const LONG: Duration = Duration::from_secs(4);

/// A `quotactl` that runs, and what it says.
struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(endpoint: &str, arguments: &[&str]) -> Self {
        let mut child = command(endpoint, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            stderr: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
        }
    }

    /// The next line for people; empty where there is none.
    fn said(&mut self) -> String {
        self.stderr.next().map(Result::unwrap).unwrap_or_default()
    }

    /// The number of the next event.
    fn event(&mut self) -> u64 {
        let line = self.stdout.next().expect("there is another event").unwrap();
        let event: Value = serde_json::from_str(&line).expect("a line is an event");
        event["sequence"].as_u64().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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

/// A server that is started again where it was.
fn start_at(data: &Path, port: u16) -> Server {
    Server::start_with(data, &["--listen", &format!("127.0.0.1:{port}")])
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
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
        let watches = arguments.contains(&"watch");
        assert_eq!(said.contains("go on with --from 1\n"), watches, "{said}");
    }
}

#[test]
fn a_watch_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let port = free_port();
    let server = start_at(&data, port);
    let endpoint = server.endpoint.clone();
    consume(&server);
    let arguments = ["--output", "json", "watch", "--from", "1"];
    let mut watch = Running::start(&endpoint, &arguments);
    assert_eq!(watch.said(), "watching from event 1");
    assert_eq!(watch.event(), 1);
    server.kill();
    assert_eq!(watch.said(), "the server is lost; waiting for it");
    std::thread::sleep(LONG);
    assert_eq!(watch.child.try_wait().unwrap(), None);
    let server = start_at(&data, port);
    let said = watch.said();
    let again = said.strip_prefix("the server is back; going on from event ");
    let again: u64 = again.expect(&said).parse().unwrap();
    for sequence in 2..again {
        assert_eq!(watch.event(), sequence);
    }
    // What the start itself tells, and more.
    consume(&server);
    assert_eq!(watch.event(), again);
    server.kill();
    assert_eq!(watch.said(), "the server is lost; waiting for it");
    // Another store does not have the events that are next.
    let _other = start_at(&directory.path().join("other"), port);
    let mut rest = String::new();
    for line in watch.stderr.by_ref() {
        rest.push_str(&line.unwrap());
        rest.push('\n');
    }
    assert_eq!(watch.child.wait().unwrap().code(), Some(2), "{rest}");
    let mut next = again + 1;
    for line in watch.stdout.by_ref() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(event["sequence"], next, "only events, one a line: {event}");
        next += 1;
    }
    let hint = format!("go on with --from {next}\n");
    assert!(rest.contains(&hint), "{rest}: {hint}");
}

#[test]
fn a_watch_without_a_server() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let output = quotactl(&endpoint, &["--output", "json", "watch"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(!said.contains("waiting"), "{said}");
    assert!(!said.contains("--from"), "{said}");
}

#[test]
fn the_place_of_a_watch() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    consume(&server);
    let mut watch = Running::start(&server.endpoint, &["--output", "json", "watch"]);
    let said = watch.said();
    let first = said.strip_prefix("watching from event ").expect(&said);
    consume(&server);
    assert_eq!(watch.event().to_string(), first);
}

/// CloudEvents wants `source` and `id` to be of one event only, whoever else sends some.
#[test]
fn stores_are_sources() {
    let mut sources = Vec::new();
    for _ in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::start(directory.path());
        consume(&server);
        for _ in 0..2 {
            let (info, _) = quotactl_json(&server.endpoint, &["server", "info"]);
            let source = format!("/quota.v1/stores/{}", info["store_id"].as_str().unwrap());
            let arguments = ["events", "--export", "cloudevents"];
            let output = quotactl(&server.endpoint, &arguments);
            let text = String::from_utf8(output.stdout).unwrap();
            let mut events = 0;
            for line in text.lines() {
                let event: Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["source"], source);
                events += 1;
            }
            assert!(events > 0);
            sources.push(source);
            assert_eq!(server.terminate(), Some(0));
            server = Server::start(directory.path());
        }
    }
    assert_eq!(sources[0], sources[1], "over a restart");
    assert_eq!(sources[2], sources[3], "over a restart");
    assert_ne!(sources[0], sources[2]);
}
