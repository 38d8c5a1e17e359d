//! Where and what a run was.

use std::path::Path;
use std::process::Command;

use procfs::Current;
use procfs::process::Process;
use serde::Serialize;

use crate::Failure;

#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) commit: String,
    pub(crate) command: String,
}

impl Machine {
    /// This one, with data in that directory.
    pub(crate) fn this(root: &Path, data: &Path, arguments: &str) -> Result<Self, Failure> {
        let cpus = procfs::CpuInfo::current()?;
        let memory = procfs::Meminfo::current()?.mem_total;
        let kernel = procfs::sys::kernel::Version::current()?;
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            processor: cpus.model_name(0).unwrap_or("unknown").to_owned(),
            cores: cpus.num_cores(),
            memory_gib: memory.div_ceil(1 << 30),
            kernel: format!("Linux {}.{}.{}", kernel.major, kernel.minor, kernel.patch),
            file_system: file_system(data)?,
            commit: commit(root),
            command: format!("cargo xtask bench {arguments}").trim().to_owned(),
        })
    }

    /// For the document.
    pub(crate) fn table(&self) -> String {
        format!(
            "| | |\n|---|---|\n| date | {} |\n| processor | {}, {} cores |\n| memory | {} GiB |\n| kernel | {} |\n\
             | file system of the data | {} |\n| commit | {} |\n| command | `{}` |\n",
            self.date,
            self.processor,
            self.cores,
            self.memory_gib,
            self.kernel,
            self.file_system,
            self.commit,
            self.command
        )
    }
}

/// The kind of the mount that a path is on: the one with the longest path above it.
fn file_system(path: &Path) -> Result<String, Failure> {
    let path = path.canonicalize()?;
    let mounts = Process::myself()?.mountinfo()?;
    let above = mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point));
    let nearest = above.max_by_key(|mount| mount.mount_point.as_os_str().len());
    Ok(nearest.map_or_else(|| "unknown".into(), |mount| mount.fs_type))
}

fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root)
            .output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let changed = match git(&["status", "--porcelain", "--untracked-files=no"]).as_str() {
        "" => "",
        _ => ", with changes",
    };
    match git(&["rev-parse", "--short=12", "HEAD"]).as_str() {
        "" => "unknown".into(),
        commit => format!("{commit}{changed}"),
    }
}
