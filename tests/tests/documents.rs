//! The documents keep their word: every pasted line of docs/API.md is run by a real grpcurl against a new
//! server, and every call of every service has one.

use std::collections::BTreeSet;
use std::process::Command;

use prost::Message;
use prost_types::FileDescriptorSet;
use quota_proto::FILE_DESCRIPTOR_SET;
use quota_tests::process::{Server, root};

/// The commands of a document: lines that begin with `grpcurl`, with those that continue them.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let quotes = line.matches('\'').count() % 2 == 1;
        if open {
            let last = commands.last_mut().unwrap();
            last.push('\n');
            last.push_str(line);
            open = !quotes;
        } else if line.starts_with("grpcurl ") {
            commands.push(line.to_owned());
            open = quotes;
        }
    }
    commands
}

/// Every call that the server has.
fn calls() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours = set.file.iter().filter(|file| file.package() == "quota.v1");
    let services = ours.flat_map(|file| &file.service);
    let calls = services.flat_map(|service| {
        let calls = service.method.iter();
        calls.map(move |call| format!("quota.v1.{}/{}", service.name(), call.name()))
    });
    calls.collect()
}

#[test]
fn every_line_of_the_api_document_works() {
    let text = std::fs::read_to_string(root().join("docs/API.md")).unwrap();
    let commands = commands(&text);
    let missing: Vec<String> = calls()
        .into_iter()
        .filter(|call| {
            !commands
                .iter()
                .any(|command| command.ends_with(call.as_str()))
        })
        .collect();
    assert!(
        missing.is_empty(),
        "docs/API.md has no line for {missing:?}"
    );

    if Command::new("grpcurl").arg("-version").output().is_err() {
        eprintln!("skipped: there is no grpcurl");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let address = server.endpoint.trim_start_matches("http://");
    for command in &commands {
        let command = command.replace("127.0.0.1:50051", address);
        let run = Command::new("sh").args(["-c", &command]).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        let wrong = String::from_utf8_lossy(&run.stderr);
        // A watch has no end but its time.
        let over = command.ends_with("/Watch") && wrong.contains("DeadlineExceeded");
        let ended = run.status.success() || (over && said.contains("LIMIT_CHANGED"));
        assert!(ended, "{command}\n{said}{wrong}");
        for word in ["\"error\"", "BROKEN", "violations"] {
            assert!(!said.contains(word), "{command}\n{said}");
        }
    }
}
