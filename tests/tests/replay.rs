//! `quotactl replay` against the live server: figures as the auditor's, through kills, with exit codes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use quota_testkit::workload::{Job, Totals, audit, openb, swf};
use quota_tests::logs::real;
use quota_tests::process::{Server, binary, quotactl, quotactl_json, root};
use serde_json::Value;
use tokio::time::Instant;

fn sample() -> PathBuf {
    root().join("tests/data/sample.swf")
}

fn totals(shown: &Value) -> Totals {
    let number = |key: &str| {
        shown[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} in {shown}"))
    };
    let peak = shown["peak"].as_object().unwrap();
    Totals {
        granted: usize::try_from(number("granted")).unwrap(),
        refused: usize::try_from(number("refused")).unwrap(),
        peak: peak
            .iter()
            .map(|(key, value)| (key.clone(), value.as_i64().unwrap()))
            .collect(),
    }
}

fn finals(shown: &Value) -> Vec<i64> {
    let all = shown["final"].as_object().unwrap();
    all.values().map(|value| value.as_i64().unwrap()).collect()
}

fn sample_jobs() -> Vec<Job> {
    swf(&std::fs::read_to_string(sample()).unwrap())
}

const LIMITS: [&str; 4] = [
    "--limit",
    "system:compute.cpu=64cores",
    "--limit-each",
    "users:compute.cpu=16cores",
];

fn rules() -> Vec<(&'static str, &'static str, i64)> {
    vec![
        ("system", "compute.cpu", 64_000),
        ("tenants/*/users/*", "compute.cpu", 16_000),
    ]
}

#[test]
fn the_sample_and_its_limits() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let file = sample();
    let file = file.to_str().unwrap();
    let jobs = sample_jobs();

    // Unlimited: all are granted.
    let (shown, code) = quotactl_json(&server.endpoint, &["replay", "swf", file]);
    assert_eq!(code, Some(0));
    assert_eq!(totals(&shown), audit(&jobs, &[]));
    assert_eq!(shown["skipped"], 4);
    assert_eq!(shown["jobs"], 240);

    // The same run again is known.
    let again = quotactl(&server.endpoint, &["replay", "swf", file]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("use --resume or --run"));
    // As another run it is new; resumed it is told again.
    let (third, code) = quotactl_json(&server.endpoint, &["replay", "swf", file, "--run", "1"]);
    assert_eq!((totals(&third), code), (totals(&shown), Some(0)));
    let (resumed, _) = quotactl_json(&server.endpoint, &["replay", "swf", file, "--resume"]);
    assert_eq!(totals(&resumed), totals(&shown));
    assert_eq!(resumed["operations"], shown["operations"]);

    // Other quotas on its resources stop a run.
    let limited = [&["replay", "swf", file], &LIMITS[..]].concat();
    let other = quotactl(&server.endpoint, &limited);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("other quotas"));
    let forced = [&limited[..], &["--force"]].concat();
    let (shown, code) = quotactl_json(&server.endpoint, &forced);
    assert_eq!(code, Some(0));
    assert_eq!(totals(&shown), audit(&jobs, &rules()));
    assert!(totals(&shown).refused > 0);
    assert_eq!(finals(&shown), [0, 0]);
}

/// Killed on the way, three times: exit 4 within five seconds, and with --resume the figures of one run.
#[test]
fn killed_three_times_and_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = sample();
    let run = |endpoint: &str, resume: bool| {
        let mut replay = Command::new(binary("quotactl"));
        replay
            .args(["--endpoint", endpoint, "--output", "json", "replay", "swf"])
            .arg(&file)
            .args(LIMITS)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if resume {
            replay.arg("--resume");
        }
        replay.spawn().unwrap()
    };
    let mut cut_off = 0;
    for kill in 0..3 {
        let server = Server::start(&data);
        let mut replay = run(&server.endpoint, kill > 0);
        std::thread::sleep(Duration::from_millis(60 + 60 * kill));
        server.kill();
        let began = Instant::now();
        let code = replay.wait().unwrap().code();
        let took = began.elapsed();
        if code == Some(4) {
            cut_off += 1;
            assert!(took < Duration::from_secs(5), "took {took:?}");
        }
    }
    assert!(cut_off > 0, "no run was cut off");
    let server = Server::start(&data);
    let mut replay = run(&server.endpoint, true);
    let mut text = String::new();
    replay
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(replay.wait().unwrap().code(), Some(0));
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(totals(&shown), audit(&sample_jobs(), &rules()));
    assert_eq!(finals(&shown), [0, 0]);
}

/// What a server has forgotten cannot be resumed, and the message says how to clear up.
#[test]
fn a_forgotten_run_says_how_to_clear_up() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let few = directory.path().join("few.toml");
    std::fs::write(&few, "operations_outcomes_max = 10\n").unwrap();
    let server = Server::start_with(&data, &["--config", few.to_str().unwrap()]);
    let file = sample();
    let file = file.to_str().unwrap();
    assert!(
        quotactl(&server.endpoint, &["replay", "swf", file])
            .status
            .success()
    );
    let resumed = quotactl(&server.endpoint, &["replay", "swf", file, "--resume"]);
    assert_eq!(resumed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&resumed.stderr);
    assert!(
        said.contains("release-matching system --label replay="),
        "{said}"
    );
}

#[test]
fn an_unreachable_server_is_exit_4_within_five_seconds() {
    let file = sample();
    let began = Instant::now();
    let lost = quotactl(
        "http://127.0.0.1:1",
        &["replay", "swf", file.to_str().unwrap()],
    );
    let took = began.elapsed();
    assert_eq!(lost.status.code(), Some(4));
    assert!(took < Duration::from_secs(5), "took {took:?}");
}

#[test]
fn a_real_pod_list_with_limits_equals_the_auditor() {
    let Some((path, text)) = real("openb_pod_list_gpuspec33.csv.gz") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let limits = [
        "--limit",
        "system:compute.gpu=100GPUs",
        "--limit",
        "tenants/BE:compute.cpu=64cores",
        "--limit-each",
        "projects:compute.memory=1TiB",
    ];
    let path: &Path = &path;
    let arguments = [&["replay", "openb", path.to_str().unwrap()], &limits[..]].concat();
    let (shown, code) = quotactl_json(&server.endpoint, &arguments);
    assert_eq!(code, Some(0));
    let rules = vec![
        ("system", "compute.gpu", 100_000),
        ("tenants/BE", "compute.cpu", 64_000),
        ("tenants/*/projects/*", "compute.memory", 1 << 40),
    ];
    let audited = audit(&openb(&text), &rules);
    assert!(audited.refused > 100, "{audited:?}");
    assert_eq!(totals(&shown), audited);
    assert_eq!(finals(&shown), [0, 0, 0, 0]);
}
