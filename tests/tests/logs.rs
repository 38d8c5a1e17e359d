//! Log lines of the real server: which of them are written can be changed while it runs, a call can be found by
//! its id, and what a caller's metadata holds is in none of them.

use std::path::Path;

use quota_proto::v1::check_service_client::CheckServiceClient;
use quota_proto::v1::{Amount, CheckRequest};
use quota_tests::process::{Launch, Server, quotactl, quotactl_json};
use tonic::Request;
use tonic::metadata::MetadataValue;

fn launch(directory: &Path, log: &Path) -> Server {
    let launch = Launch {
        settings: &[("QUOTA_LOG_FORMAT", "json")],
        stderr: Some(log),
        ..Launch::default()
    };
    Server::launch(&directory.join("data"), &launch).unwrap()
}

/// Checks with an id and a secret; answers the id that came back.
async fn check(endpoint: &str, id: &str) -> String {
    let mut client = CheckServiceClient::connect(endpoint.to_owned())
        .await
        .unwrap();
    let mut request = Request::new(CheckRequest {
        subject: "tenants/acme".into(),
        amounts: vec![Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        }],
        ..CheckRequest::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert("authorization", "Bearer tell-nobody".parse().unwrap());
    if !id.is_empty() {
        metadata.insert("x-request-id", MetadataValue::try_from(id).unwrap());
    }
    let answer = client.check(request).await.unwrap();
    let id = answer.metadata().get("x-request-id").unwrap();
    id.to_str().unwrap().to_owned()
}

/// The lines about calls, as objects.
fn lines(log: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(!text.contains("tell-nobody"), "{text}");
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &serde_json::Value| line["fields"]["message"] == "call")
        .collect()
}

#[tokio::test]
async fn the_filter_is_changed_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let server = launch(directory.path(), &log);
    assert_eq!(check(&server.endpoint, "first").await, "first");
    assert_eq!(lines(&log).len(), 0);

    let set = ["server", "set-log-filter", "quota_server=debug"];
    let (said, code) = quotactl_json(&server.endpoint, &set);
    assert_eq!((said["previous"].as_str(), code), (Some("warn"), Some(0)));
    assert_eq!(check(&server.endpoint, "second").await, "second");
    // Everything that the process has, its libraries' own lines included, still says no secret.
    let set = ["server", "set-log-filter", "trace"];
    assert!(quotactl(&server.endpoint, &set).status.success());
    assert_eq!(check(&server.endpoint, "third").await, "third");
    let set = ["server", "set-log-filter", "off"];
    assert!(quotactl(&server.endpoint, &set).status.success());
    check(&server.endpoint, "fourth").await;
    // Whoever hides what is done from the log does not hide that.
    let text = std::fs::read_to_string(&log).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["fields"]["message"], "the log filter was changed");
    assert_eq!(last["fields"]["filter"], "off");

    let lines = lines(&log);
    let seen: Vec<&str> = lines
        .iter()
        .filter(|line| line["fields"]["method"] == "Check")
        .map(|line| line["fields"]["request_id"].as_str().unwrap())
        .collect();
    assert_eq!(seen, ["second", "third"]);
    let fields = &lines
        .iter()
        .find(|line| line["fields"]["request_id"] == "second")
        .unwrap()["fields"];
    assert_eq!(fields["service"], "quota.v1.CheckService");
    assert_eq!(fields["code"], "OK");
    assert!(fields["took_ns"].as_i64().unwrap() > 0);
}

#[tokio::test]
async fn a_filter_that_is_none_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = launch(directory.path(), &directory.path().join("log"));
    let long = "a".repeat(1025);
    for bad in ["", "quota_server=loud", "info\nfake", &long] {
        let set = ["server", "set-log-filter", bad];
        let output = quotactl(&server.endpoint, &set);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(said.contains("log_filter"), "{said}");
    }
    let (said, _) = quotactl_json(&server.endpoint, &["server", "set-log-filter", "info"]);
    assert_eq!(said["previous"], "warn");
}

/// An id that cannot be logged as it is gives way to one of the server's, and no two of those are alike.
#[tokio::test]
async fn ids_that_the_server_makes() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut seen = std::collections::BTreeSet::new();
    for bad in ["", "with a space", "\"quoted\"", &"x".repeat(65)] {
        let id = check(&server.endpoint, bad).await;
        assert_ne!(id, bad);
        assert!((10..=64).contains(&id.len()), "{id}");
        assert!(seen.insert(id));
    }
}

/// With text lines for people, as the default is.
#[test]
fn text_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let launch = Launch {
        settings: &[("QUOTA_LOG_FILTER", "info")],
        stderr: Some(&log),
        ..Launch::default()
    };
    let server = Server::launch(&directory.path().join("data"), &launch).unwrap();
    assert_eq!(server.terminate(), Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    for word in ["INFO", "serving", "SIGTERM: draining", "stopped"] {
        assert!(text.contains(word), "{text}");
    }
}
