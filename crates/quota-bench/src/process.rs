//! A server as a process: how it is started, and what the system says it has used.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use procfs::process::Process;

use crate::Failure;

/// The setting that says where metrics are answered.
pub(crate) const METRICS: &str = "QUOTA_METRICS_LISTEN";

/// How often, and how far apart, a program that is not ours is tried until it listens.
const OTHER_TRIES: usize = 100;
const OTHER_PAUSE: Duration = Duration::from_millis(50);

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The empty service.
    Echo,
    /// The authority.
    Authority,
    /// The empty service, its allocations counted.
    CountedEcho,
    /// The authority, its allocations counted.
    CountedAuthority,
}

/// A running server; dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    /// Where it answers calls.
    pub(crate) address: SocketAddr,
    /// Where it answers scrapes.
    pub(crate) metrics: Option<SocketAddr>,
}

/// What a server has used since it was started.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Time of processors, in seconds.
    pub(crate) cpu_s: f64,
    /// Bytes that went towards the disk.
    pub(crate) written_bytes: f64,
}

impl Usage {
    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// Memory of a server, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: f64,
    /// The most that was resident.
    pub(crate) peak: f64,
}

impl Server {
    /// Starts a server in a directory of its own and waits until it listens.
    pub(crate) fn start(
        program: Program,
        directory: &Path,
        settings: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let mut command = Self::command(program, directory)?;
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUOTA_") {
                command.env_remove(name);
            }
        }
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        let log = directory.join("log");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().ok_or("a server has no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            child.wait()?;
            let log = std::fs::read_to_string(log).unwrap_or_default();
            return Err(format!("a server did not start: {log}").into());
        };
        let mut metrics = None;
        let scraped = settings
            .iter()
            .all(|(name, value)| *name != METRICS || value != "off");
        if program == Program::Authority && scraped {
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            let url = line.trim().strip_prefix("metrics on http://");
            let host = url.and_then(|url| url.strip_suffix("/metrics"));
            metrics = Some(host.ok_or("the server does not say its metrics")?.parse()?);
        }
        Ok(Self {
            address: address.parse()?,
            metrics,
            child,
            stdin,
            stdout: Some(stdout),
        })
    }

    /// Starts a program that is not ours, which listens on that address, and waits until it does.
    pub(crate) fn start_other(mut command: Command, address: SocketAddr) -> Result<Self, Failure> {
        let null = Stdio::null;
        let child = command.stdout(null()).stderr(null()).spawn()?;
        let server = Self {
            child,
            stdin: None,
            stdout: None,
            address,
            metrics: None,
        };
        for _ in 0..OTHER_TRIES {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(OTHER_PAUSE);
        }
        Err(format!("{:?} does not listen", command.get_program()).into())
    }

    fn command(program: Program, directory: &Path) -> Result<Command, Failure> {
        let data_dir = directory.join("data");
        let mut command = match program {
            Program::Authority => Command::new(beside("quota-server")?),
            Program::Echo => Command::new(beside("quota-bench")?),
            Program::CountedEcho | Program::CountedAuthority => {
                Command::new(beside("quota-bench-counted")?)
            }
        };
        match program {
            Program::Echo | Program::CountedEcho => command.arg("echo"),
            Program::CountedAuthority => command.arg("serve").arg(data_dir),
            Program::Authority => command
                .args(["--listen", "127.0.0.1:0", "--data-dir"])
                .arg(data_dir)
                .env(METRICS, "127.0.0.1:0"),
        };
        Ok(command)
    }

    /// What it has used until now.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let process = self.process()?;
        let stat = process.stat()?;
        let ticks = stat.utime + stat.stime;
        Ok(Usage {
            cpu_s: ticks as f64 / procfs::ticks_per_second() as f64,
            written_bytes: process.io()?.write_bytes as f64,
        })
    }

    /// What it has in memory.
    pub(crate) fn memory(&self) -> Result<Memory, Failure> {
        let status = self.process()?.status()?;
        let bytes = |kib: Option<u64>| kib.map(|kib| kib as f64 * 1024.0);
        Ok(Memory {
            resident: bytes(status.vmrss).ok_or("a server has no VmRSS")?,
            peak: bytes(status.vmhwm).ok_or("a server has no VmHWM")?,
        })
    }

    /// Allocations so far, and their bytes, of a server that counts them.
    pub(crate) fn allocations(&mut self) -> Result<(f64, f64), Failure> {
        let stdin = self.stdin.as_mut().ok_or("a server has no stdin")?;
        stdin.write_all(b"\n")?;
        let stdout = self.stdout.as_mut().ok_or("a server has no stdout")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let (count, bytes) = line.trim().split_once(' ').ok_or("nothing is counted")?;
        Ok((count.parse()?, bytes.parse()?))
    }

    fn process(&self) -> Result<Process, Failure> {
        Ok(Process::new(i32::try_from(self.child.id())?)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in the directory of this one.
fn beside(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{} is missing: run `cargo xtask bench`, or build it with `cargo build --release -p quota-server -p quota-bench`",
            path.display()
        )
        .into()),
    }
}
