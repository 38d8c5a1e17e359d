//! The real binaries: built once, started on port 0, killed and asked.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use quota_client::{Client, Options};
use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The top of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The path of a binary of this workspace, built if need be.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        // The same selection as the build of the tests, so that nothing is compiled again.
        let built = Command::new(env!("CARGO"))
            .args(["build", "--workspace", "--bins", "--quiet"])
            .current_dir(root())
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the binaries do not build");
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root().join("target"), PathBuf::from);
        target.join("debug")
    });
    directory.join(name)
}

/// A running server.
pub struct Server {
    child: Child,
    /// Its URL.
    pub endpoint: String,
    /// URL of its metrics; empty where it has none.
    pub metrics: String,
}

impl Server {
    /// Starts a server on a data directory and a free port, and waits until it listens.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// Starts a server with further arguments.
    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::listening(spawn(data_dir, arguments)).expect("the server starts")
    }

    /// Starts a server in a way of its own; none where it ends before it listens.
    pub fn launch(data_dir: &Path, launch: &Launch) -> Option<Self> {
        Self::listening(launch.command(data_dir).spawn().unwrap())
    }

    /// A server that was just started, once it listens.
    fn listening(mut child: Child) -> Option<Self> {
        let stdout = child.stdout.take().unwrap();
        let (mut line, mut metrics) = (String::new(), String::new());
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            assert_eq!(line, "");
            child.wait().unwrap();
            return None;
        };
        // Both lines are said at once, or there is only one.
        if !stdout.buffer().is_empty() {
            stdout.read_line(&mut metrics).unwrap();
        }
        let metrics = metrics.trim().strip_prefix("metrics on ");
        Some(Self {
            endpoint: format!("http://{address}"),
            metrics: metrics.unwrap_or_default().to_owned(),
            child,
        })
    }

    /// A client that does not try again.
    pub fn client(&self) -> Client {
        client(&self.endpoint)
    }

    /// Waits until it has ended by itself; says whether it did within ten seconds.
    pub async fn ends(&mut self) -> bool {
        for _ in 0..1000 {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Time that processors have worked for it, in ticks of usually 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let words = stat.rsplit(')').next().unwrap().split_whitespace();
        words
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum()
    }

    /// Memory that it has now, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        words[1].parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; answers the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program. The tests' own settings are none of its.
fn plain() -> Command {
    let mut command = Command::new(binary("quota-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUOTA_") {
            command.env_remove(name);
        }
    }
    command
}

fn server(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = plain();
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !arguments.contains(&"--metrics-listen") {
        command.env("QUOTA_METRICS_LISTEN", "127.0.0.1:0");
    }
    command.arg("--data-dir").arg(data_dir).args(arguments);
    command
}

/// Starts a server without waiting for it.
pub fn spawn(data_dir: &Path, arguments: &[&str]) -> Child {
    server(data_dir, arguments)
        .env("QUOTA_LOG_FILTER", "warn")
        .env("QUOTA_SEGMENT_BYTES", "1048576")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How a server is started where the usual way is not enough.
#[derive(Clone, Copy, Default)]
pub struct Launch<'a> {
    /// Settings, such as `("QUOTA_SEGMENT_BYTES", "65536")`.
    pub settings: &'a [(&'a str, &'a str)],
    /// A fault that strace puts into its system calls, such as `fdatasync:error=EIO:when=3`. Every thread
    /// counts for itself.
    pub inject: Option<&'a str>,
    /// How many files it may have open, at most.
    pub files: Option<u64>,
    /// File to which its stderr is appended.
    pub stderr: Option<&'a Path>,
}

impl Launch<'_> {
    fn command(&self, data_dir: &Path) -> Command {
        let plain = server(data_dir, &[]);
        let mut command = match (self.inject, self.files) {
            (None, None) => plain,
            (Some(inject), _) => {
                let call = inject.split(':').next().unwrap();
                // -D: the child is the server, and the tracer its relative.
                let mut traced = Command::new("strace");
                traced.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]);
                traced.arg(format!("trace={call}"));
                traced.args(["-e", &format!("inject={inject}")]);
                run_by(traced, &plain)
            }
            (None, Some(files)) => {
                let mut limited = Command::new("sh");
                let script = format!("ulimit -n {files} && exec \"$@\"");
                limited.args(["-c", &script, "sh"]);
                run_by(limited, &plain)
            }
        };
        let stderr = self.stderr.map_or_else(Stdio::null, |path| {
            let file = File::options().append(true).create(true).open(path);
            file.unwrap().into()
        });
        command
            .env("QUOTA_LOG_FILTER", "warn")
            .env("QUOTA_SEGMENT_BYTES", "1048576")
            .envs(self.settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(stderr);
        command
    }
}

/// The same command, run by another one.
fn run_by(mut runner: Command, plain: &Command) -> Command {
    runner.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => runner.env(name, value),
            None => runner.env_remove(name),
        };
    }
    runner
}

/// Whether system calls of a server can be made to fail here; says why not.
pub fn can_inject() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: strace is not installed or may not trace here");
    }
    can
}

/// Runs `quota-server store verify`, which must find the store whole.
pub fn verify_store(data_dir: &Path) {
    let (code, said) = verify(data_dir);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("whole: "), "{said}");
}

/// Runs `quota-server store verify`; its exit code and what it said.
pub fn verify(data_dir: &Path) -> (Option<i32>, String) {
    let mut command = plain();
    command
        .args(["store", "verify", "--data-dir"])
        .arg(data_dir);
    // A start settles the tail, which takes room.
    command.env("QUOTA_SEGMENT_BYTES", "65536");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Status of a service in the health service, asked for on a connection of its own; 1 is SERVING.
pub async fn health(endpoint: &str, service: &str) -> Result<i32, tonic::Status> {
    let channel = tonic::transport::Endpoint::from_shared(endpoint.to_owned()).unwrap();
    let mut health = HealthClient::new(channel.connect_lazy());
    let mut request = tonic::Request::new(HealthCheckRequest {
        service: service.into(),
    });
    request.set_timeout(Duration::from_millis(500));
    Ok(health.check(request).await?.into_inner().status)
}

/// Waits until a service has this health.
pub async fn until_health(endpoint: &str, service: &str, status: i32) {
    let mut last = None;
    for _ in 0..500 {
        last = Some(health(endpoint, service).await);
        if matches!(&last, Some(Ok(found)) if *found == status) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{service:?} is {last:?} and not {status}");
}

/// A number that a soak may enlarge: the value of an environment variable, or the usual one.
pub fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// How many files of a directory have this ending.
pub fn files_with(directory: &Path, ending: &str) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(ending)
        })
        .count()
}

/// Runs a server that should refuse to start; answers its exit code and what it said.
pub fn refused(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = server(data_dir, arguments)
        .env("QUOTA_LOG_FILTER", "error")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    if line.starts_with("listening") {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("the server starts");
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// A client that does not try again.
pub fn client(endpoint: &str) -> Client {
    Client::new(Options {
        endpoint: endpoint.to_owned(),
        retry_for: Duration::ZERO,
        ..Options::default()
    })
    .unwrap()
}

/// Runs `quotactl`.
pub fn quotactl(endpoint: &str, arguments: &[&str]) -> Output {
    Command::new(binary("quotactl"))
        .args(["--endpoint", endpoint])
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs `quotactl --output json`; answers the object and the exit code.
pub fn quotactl_json(endpoint: &str, arguments: &[&str]) -> (serde_json::Value, Option<i32>) {
    let output = quotactl(endpoint, &[&["--output", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
    (value, output.status.code())
}
