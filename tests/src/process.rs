//! The real binaries: built once, started on port 0, killed and asked.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use quota_client::{Client, Options};
use rustix::process::{Pid, Signal, kill_process};

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
}

impl Server {
    /// Starts a server on a data directory and a free port, and waits until it listens.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// Starts a server with further arguments.
    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut child = spawn(data_dir, arguments);
        let stdout = child.stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("the server said {line:?}"));
        Self {
            endpoint: format!("http://{address}"),
            child,
        }
    }

    /// A client that does not try again.
    pub fn client(&self) -> Client {
        client(&self.endpoint)
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

fn server(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("quota-server"));
    // The tests' own settings are none of the server's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUOTA_") {
            command.env_remove(name);
        }
    }
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
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

/// Runs a server that should refuse to start; answers its exit code and what it said.
pub fn refused(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server(data_dir, arguments)
        .env("QUOTA_LOG_FILTER", "error")
        .output()
        .unwrap();
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
