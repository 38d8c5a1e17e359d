//! `quotactl apply` and `export`: what is exported changes nothing when it is applied, what a file says is made,
//! and what it does not say goes only when asked.

use std::path::Path;

use quota_tests::process::{Server, quotactl};

fn run(endpoint: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = quotactl(endpoint, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn done(endpoint: &str, arguments: &[&str]) -> String {
    let (code, said, wrong) = run(endpoint, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}{wrong}");
    said
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const FILE: &str = "
subjects:
- name: tenants/acme
  display_name: 'Acme: & sons'
  labels: {tier: gold, note: 'yes'}
resources:
- key: gpu.h100
  base_unit: count
  without_quota: deny
- key: disk.scratch
  base_unit: bytes
  display_unit: GiB
  display_ratio: 1073741824
quotas:
- {subject: system, resource: compute.cpu, limit: 128cores}
- {subject: tenants/acme, resource: compute.memory, limit: 1.5TiB, max_request: 64GiB, near: 70}
- {subject: tenants/acme, resource: compute.gpu, limit: unlimited}
- {subject: tenants/acme, resource: compute.containers, limit: 0, state: suspended}
- {subject: 'tiers/freemium/users/*', resource: api.calls, limit: 10, period: hour, near: 90}
- {subject: 'tiers/freemium/users/*', resource: api.calls, limit: 1000, period: month, anchor: 2026-01-15}
- {subject: tenants/acme, resource: api.messages, limit: 7, period: 600s, enforcement: warn}
- {subject: tenants/acme, resource: cost, limit: 12units, id: budget, labels: {owner: ann}}
- {subject: tenants/acme, resource: api.requests, limit: 30, rate: 60s, bucket: 10, enforcement: throttle, delay_max: 5s}
- {subject: tenants/acme, resource: network.throughput, limit: 1GB, rate: 1s, enforcement: shadow}
- {subject: tenants/acme, resource: compute.volumes, limit: 1, from: 2027-01-01, until: '2027-02-01T12:30:00Z'}
- {subject: tenants/acme, resource: disk.scratch, limit: 10GiB, state: disabled}
";

#[test]
fn what_is_exported_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let endpoint = &server.endpoint;
    let text = FILE.replace("compute.volumes", "storage.volumes");
    let file = write(&directory.path().join("quotas.yaml"), &text);
    let shown = done(endpoint, &["apply", "-f", &file, "--dry-run"]);
    assert!(
        shown.contains("15 changes would be made, 0 as they are"),
        "{shown}"
    );
    assert!(done(endpoint, &["quota", "list"]).contains("no quotas"));

    assert!(done(endpoint, &["apply", "-f", &file]).contains("15 changes made"));
    let again = done(endpoint, &["apply", "-f", &file]);
    assert!(again.contains("0 changes made, 15 as they are"), "{again}");

    let exported = done(endpoint, &["export"]);
    let copy = write(&directory.path().join("copy.yaml"), &exported);
    let same = done(endpoint, &["apply", "-f", &copy, "--prune", "--dry-run"]);
    assert!(
        same.contains("0 changes would be made, 15 as they are"),
        "{same}\n{exported}"
    );
    // On an empty server the copy makes the same.
    let other = tempfile::tempdir().unwrap();
    let fresh = Server::start(other.path());
    done(&fresh.endpoint, &["apply", "-f", &copy]);
    assert_eq!(done(&fresh.endpoint, &["export"]), exported);
}

#[test]
fn changes_are_shown_and_made_together() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let endpoint = &server.endpoint;
    let path = directory.path().join("quotas.yaml");
    let quotas = |limits: [&str; 3]| {
        let lines = ["a", "b", "c"].iter().zip(limits).map(|(tenant, limit)| {
            format!("- {{subject: tenants/{tenant}, resource: compute.cpu, limit: {limit}}}\n")
        });
        format!("quotas:\n{}", lines.collect::<String>())
    };
    done(
        endpoint,
        &[
            "apply",
            "-f",
            &write(&path, &quotas(["4cores", "4cores", "4cores"])),
        ],
    );
    done(endpoint, &["consume", "tenants/c", "compute.cpu=3cores"]);
    // One that cuts what is in use stops all of them.
    let file = write(&path, &quotas(["5cores", "4cores", "2cores"]));
    let (code, said, wrong) = run(endpoint, &["apply", "-f", &file]);
    assert_eq!(code, Some(1), "{said}{wrong}");
    assert!(
        wrong.contains("compute.cpu of tenants/c") && wrong.contains("force"),
        "{wrong}"
    );
    assert!(done(endpoint, &["export"]).matches("4cores").count() == 3);
    let shown = done(endpoint, &["apply", "-f", &file, "--force"]);
    assert!(
        shown.contains("limit: 4000 → 5000") && shown.contains("limit: 4000 → 2000"),
        "{shown}"
    );
    // Pruned only where it is asked for.
    let file = write(&path, "quotas: []\n");
    assert!(done(endpoint, &["apply", "-f", &file]).contains("0 changes made"));
    let shown = done(
        endpoint,
        &["apply", "-f", &file, "--prune", "--scope", "tenants/a"],
    );
    assert!(shown.contains("1 changes made"), "{shown}");
    assert!(done(endpoint, &["apply", "-f", &file, "--prune"]).contains("2 changes made"));
    assert!(done(endpoint, &["quota", "list"]).contains("no quotas"));
}

/// What is made and what is pruned is one step: a low default and the override that it would uncover.
#[test]
fn making_and_pruning_is_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let endpoint = &server.endpoint;
    done(
        endpoint,
        &["quota", "set", "tenants/a", "compute.cpu", "--limit", "100"],
    );
    let text = "quotas: [{subject: tenants/*, resource: compute.cpu, limit: 10}]\n";
    let file = write(&directory.path().join("quotas.yaml"), text);
    for arguments in [
        &["apply", "-f", &file, "--prune", "--dry-run"][..],
        &["apply", "-f", &file, "--prune"][..],
    ] {
        let (code, said, wrong) = run(endpoint, arguments);
        assert_eq!(code, Some(1), "{said}{wrong}");
        assert!(
            wrong.contains("compute.cpu of tenants/a") && wrong.contains("force"),
            "{wrong}"
        );
    }
    let listed = done(endpoint, &["quota", "list"]);
    assert!(
        listed.contains("tenants/a") && !listed.contains("tenants/*"),
        "{listed}"
    );
    let made = done(endpoint, &["apply", "-f", &file, "--prune", "--force"]);
    assert!(made.contains("2 changes made"), "{made}");
    let listed = done(endpoint, &["quota", "list"]);
    assert!(
        listed.contains("tenants/*") && !listed.contains("tenants/a "),
        "{listed}"
    );
}

#[test]
fn bad_files_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let endpoint = &server.endpoint;
    let path = directory.path().join("quotas.yaml");
    for (bad, why) in [
        (
            "quotas:\n- subject: a/b\n  resource: compute.cpu\n  limit: 4apples\n",
            "apples",
        ),
        (
            "quotas:\n- subject: a/b\n  resource: compute.cpu\n  limit: 1\n  limti: 2\n",
            "limti",
        ),
        (
            "quotas:\n- {subject: a/b, resource: compute.cpu, limit: 1, period: fortnight}\n",
            "fortnight",
        ),
        (
            "quotas:\n- {subject: a/b, resource: compute.cpu, limit: 1, enforcement: maybe}\n",
            "maybe",
        ),
        (
            "quotas:\n- {subject: a/b, resource: compute.cpu, limit: 1, period: hour}\n",
            "period",
        ),
        (
            "quotas:\n- {subject: A, resource: compute.cpu, limit: 1}\n",
            "subject",
        ),
        (
            "quotas:\n- {subject: a/b, resource: compute.cpu, limit: 1}\n- {subject: a/b, resource: compute.cpu, limit: 2}\n",
            "twice",
        ),
        ("[", "YAML"),
    ] {
        let file = write(&path, bad);
        let (code, said, wrong) = run(endpoint, &["apply", "-f", &file]);
        assert_eq!(code, Some(2), "{bad}{said}{wrong}");
        assert!(wrong.contains(why), "{wrong}");
    }
    assert!(done(endpoint, &["quota", "list"]).contains("no quotas"));
}
