//! The metrics port of the real server: who may listen where, what strangers get, and whether what is deployed
//! beside it (rules, dashboard, a real Prometheus) knows the same names.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quota_server::telemetry::metrics::Metrics;
use quota_tests::http2::tcp;
use quota_tests::process::{Launch, Server, quotactl, refused, root};
use quota_tests::scrape::{ask, samples, scrape, value};
use serde_json::Value;

fn deploy(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

/// Charges all of a limit of 4 cores.
fn fill(server: &Server) {
    for line in [
        "quota set tenants/acme compute.cpu --limit 4cores",
        "consume tenants/acme/projects/web compute.cpu=4cores",
        "check tenants/acme/projects/web compute.cpu=1cores",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let output = quotactl(&server.endpoint, &words);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    }
}

#[test]
fn one_path_in_two_formats() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    fill(&server);
    let page = ask("GET", &server.metrics, "");
    assert_eq!(page.status, 200);
    assert!(
        page.head
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    assert!(page.body.ends_with("# EOF\n"));
    let account = r#"quota_utilization{entity_id="tenants/acme",resource_type="compute.cpu""#;
    assert_eq!(value(&page.body, account), Some(1.0));
    assert_eq!(ask("GET", &format!("{}/x", server.metrics), "").status, 404);
    assert_eq!(
        ask("POST", &server.metrics, "content-length: 0\r\n").status,
        404
    );
    assert_eq!(
        ask("GET", &server.metrics.replace("/metrics", "/"), "").status,
        404
    );

    let older = ask(
        "GET",
        &server.metrics,
        "accept: text/plain;version=0.0.4\r\n",
    );
    assert!(
        older
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    assert_eq!(
        samples(&older.body, "quota_usage"),
        samples(&page.body, "quota_usage")
    );
    let Some(mut promtool) = tool("promtool", &["check", "metrics"]) else {
        return;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(older.body.as_bytes()).unwrap();
    drop(stdin);
    succeeds(promtool);
}

#[test]
fn where_it_listens() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refused(directory.path(), &["--metrics-listen", &address]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("--metrics-listen"), "{said}");
    let (code, said) = refused(directory.path(), &["--metrics-listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("metrics_listen") && said.contains("--insecure"),
        "{said}"
    );
    let (code, said) = refused(directory.path(), &["--metrics-listen", "9464"]);
    assert_eq!(code, Some(2), "{said}");
    let server = Server::start_with(directory.path(), &["--metrics-listen", "off"]);
    assert_eq!(server.metrics, "");
}

/// The usual address is for the first who comes; the next one says so and serves without.
#[test]
fn the_usual_address() {
    let usual = TcpListener::bind("127.0.0.1:9464");
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let launch = Launch {
        settings: &[("QUOTA_METRICS_LISTEN", "auto")],
        stderr: Some(&log),
        ..Launch::default()
    };
    let server = Server::launch(&directory.path().join("data"), &launch).unwrap();
    assert_eq!(server.metrics, "");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("the usual address is in use"), "{said}");
    drop(usual);
}

/// Connections that say nothing give their places back, and heads are bounded.
#[test]
fn strangers_take_little() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let address = server.metrics.trim_start_matches("http://");
    let address = address.split('/').next().unwrap();
    let silent: Vec<_> = (0..40).map(|_| tcp(address)).collect();
    let mut slow = tcp(address);
    slow.set_read_timeout(Some(Duration::from_secs(40)))
        .unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    slow.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop(silent);
    let many = "a: b\r\n".repeat(65);
    assert_eq!(ask("GET", &server.metrics, &many).status, 431);
    let long = format!("a: {}\r\n", "b".repeat(16 << 10));
    assert_eq!(ask("GET", &server.metrics, &long).status, 431);
    scrape(&server.metrics);
}

/// Further subjects by name and by pattern.
#[test]
fn subjects_that_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        settings: &[(
            "QUOTA_METRICS_SUBJECTS",
            "tenants/a/teams/t/users/u, tenants/*/services/*/tiers/*",
        )],
        ..Launch::default()
    };
    let server = Server::launch(directory.path(), &launch).unwrap();
    for subject in [
        "tenants/a/teams/t/users/u",
        "tenants/a/teams/t/users/v",
        "tenants/b/services/s/tiers/t",
    ] {
        let output = quotactl(
            &server.endpoint,
            &["consume", subject, "compute.cpu=1cores"],
        );
        assert!(output.status.success(), "{output:?}");
    }
    let page = scrape(&server.metrics);
    let shown = |name: &str| page.contains(&format!(r#"quota_usage{{entity_id="{name}""#));
    assert!(shown("tenants/a/teams/t/users/u"));
    assert!(shown("tenants/b/services/s/tiers/t"));
    assert!(!shown("tenants/a/teams/t/users/v"));
    assert!(shown("tenants/a/teams/t") && shown("tenants/b") && shown("system"));
}

/// Names of the server's metrics in a text, with the endings of samples taken off.
fn mentioned(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text
        .split(|c| !word(c))
        .filter(|word| word.starts_with("quota_"));
    let known = Metrics::names();
    let bare = |word: &str| {
        let endings = ["", "_total", "_bucket", "_sum", "_count"];
        let mut bare = endings
            .iter()
            .filter_map(|ending| word.strip_suffix(ending));
        let found = bare.find(|name| known.iter().any(|known| known == name));
        found.unwrap_or(word).to_owned()
    };
    words.map(bare).collect()
}

#[test]
fn what_is_deployed_knows_every_name() {
    let known: BTreeSet<String> = Metrics::names().into_iter().collect();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let rules = read(deploy("prometheus/rules.yml"));
    let dashboard = read(deploy("grafana/quota-authority.json"));
    for text in [
        &rules,
        &dashboard,
        &read(deploy("prometheus/rules_test.yml")),
    ] {
        let unknown: Vec<_> = mentioned(text).difference(&known).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new());
    }
    let both: BTreeSet<String> = mentioned(&format!("{rules} {dashboard}"));
    let missing: Vec<_> = known.difference(&both).collect();
    assert!(missing.is_empty(), "neither rule nor panel for {missing:?}");
    // What the dashboard takes from the rules is recorded there.
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for name in dashboard
        .split(|c| !word(c))
        .filter(|word| word.starts_with("quota:"))
    {
        assert!(rules.contains(&format!("record: {name}\n")), "{name}");
    }
    let operations = mentioned(&read(root().join("docs/OPERATIONS.md")));
    let missing: Vec<_> = known.difference(&operations).collect();
    assert!(
        missing.is_empty(),
        "docs/OPERATIONS.md does not name {missing:?}"
    );
}

#[test]
fn the_rules_hold() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ] {
        let Some(run) = tool("promtool", &arguments) else {
            return;
        };
        succeeds(run);
    }
}

/// Starts a tool of Prometheus in the directory of its files; none where it is not installed.
fn tool(name: &str, arguments: &[&str]) -> Option<Child> {
    let started = Command::new(name)
        .args(arguments)
        .current_dir(deploy("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match started {
        Ok(child) => Some(child),
        Err(error) => {
            eprintln!("skipped: there is no {name}: {error}");
            None
        }
    }
}

fn succeeds(run: Child) {
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{wrong}");
    assert_eq!(wrong, "");
}

/// A Prometheus of its own, with the configuration that is deployed, ended when it is dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn start(directory: &Path, target: &str) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let config = std::fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
        let config = config
            .replace("127.0.0.1:9464", target)
            .replace("15s", "1s");
        std::fs::write(directory.join("prometheus.yml"), config).unwrap();
        let rules = std::fs::read_to_string(deploy("prometheus/rules.yml")).unwrap();
        std::fs::write(directory.join("rules.yml"), rules.replace("15s", "1s")).unwrap();
        let started = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                directory.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Self {
                child,
                url: format!("http://{address}/api/v1"),
            }),
            Err(error) => {
                eprintln!("skipped: there is no prometheus: {error}");
                None
            }
        }
    }

    /// The data of an answer; none where there is no answer yet.
    fn get(&self, path: &str) -> Option<Value> {
        let address = self.url.trim_start_matches("http://");
        std::net::TcpStream::connect(address.split('/').next().unwrap()).ok()?;
        let page = ask(
            "GET",
            &format!("{}/{path}", self.url),
            "connection: close\r\n",
        );
        let (from, to) = (page.body.find('{')?, page.body.rfind('}')?);
        let answer: Value = serde_json::from_str(&page.body[from..=to]).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// What an expression has; none where it is none.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let encoded: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let data = self.get(&format!("query?query={encoded}"))?;
        data["result"].as_array().cloned()
    }

    /// The first value, once there is one.
    fn until(&self, expression: &str) -> f64 {
        for _ in 0..300 {
            let found = self.query(expression).unwrap_or_default();
            if let Some(number) = found.first().and_then(|sample| sample["value"][1].as_str()) {
                return number.parse().unwrap();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{expression} has no value; {:?}", self.get("targets"));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    fill(&server);
    let target = server.metrics.trim_start_matches("http://");
    let target = target.split('/').next().unwrap();
    let Some(prometheus) = Prometheus::start(directory.path(), target) else {
        return;
    };
    assert_eq!(prometheus.until(r#"up{job="quota"} == 1"#), 1.0);
    let account = r#"{entity_id="tenants/acme",level="tenants",resource_type="compute.cpu"}"#;
    assert_eq!(prometheus.until(&format!("quota_usage{account}")), 4000.0);
    assert_eq!(prometheus.until(&format!("quota_limit{account}")), 4000.0);
    let types = prometheus.get("metadata?metric=quota_rpc").unwrap();
    assert_eq!(types["quota_rpc"][0]["type"], "counter", "{types}");
    // The alert on the full account waits for its two minutes, and for nothing else.
    let alert = r#"ALERTS{alertname="QuotaAtLimit",entity_id="tenants/acme",alertstate="pending"}"#;
    assert_eq!(prometheus.until(alert), 1.0);
    for _ in 0..3 {
        fill(&server);
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert!(prometheus.until("quota:rpc_latency_seconds:p99_5m") > 0.0);

    let rules = prometheus.get("rules").unwrap();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
    let text = std::fs::read_to_string(deploy("grafana/quota-authority.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut all, mut shown) = (0, 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let mut filled = expression.replace("$__rate_interval", "1m");
            for variable in ["$instance", "$level", "$subject", "$resource"] {
                filled = filled.replace(variable, ".*");
            }
            let found = prometheus.query(&filled);
            let found = found.unwrap_or_else(|| panic!("{filled} is no expression"));
            all += 1;
            shown += usize::from(!found.is_empty());
        }
    }
    // Nothing was refused at the door, violated or traced here.
    assert!(
        all > 30 && shown > all - 6,
        "{shown} of {all} expressions have a value"
    );
}
