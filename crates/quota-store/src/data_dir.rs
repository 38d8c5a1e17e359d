//! The data directory: whose it is, and that only one server uses it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const IDENTITY: &str = "STORE";
const LOCK: &str = "LOCK";
const JOURNAL: &str = "journal";
const ROWS: &str = "rows";
const BASES: &str = "bases";
const PARTS: [&str; 3] = [JOURNAL, ROWS, BASES];
const MAGIC: &str = "quota-store";
const VERSION: u32 = 1;
const IDENTITY_BYTES_MAX: u64 = 4096;

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    store_id: [u8; 16],
    _lock: File,
}

/// Why a data directory cannot be used. Each is a message for the operator.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server has it.
    #[error(
        "{path} is in use by another server; stop that one or name another directory with --data-dir"
    )]
    InUse {
        /// The directory.
        path: String,
    },
    /// It is something else's.
    #[error(
        "{path} is not empty and is no data directory of quota-server; name an empty or new one with --data-dir"
    )]
    Foreign {
        /// The directory.
        path: String,
    },
    /// A newer version wrote it.
    #[error(
        "{path} has the format {found}; this program reads up to {VERSION}: use the newer program that wrote it"
    )]
    Newer {
        /// The directory.
        path: String,
        /// The version found.
        found: u32,
    },
    /// It is damaged.
    #[error("{path}/{IDENTITY} is damaged; restore it from a copy of the directory")]
    Damaged {
        /// The directory.
        path: String,
    },
    /// It says that it is a store and has no journal.
    #[error(
        "{path} is a data directory without its `journal`; restore it from a copy of the directory"
    )]
    JournalGone {
        /// The directory.
        path: String,
    },
    /// There is no store to look at.
    #[error("{path} is no data directory of quota-server")]
    Missing {
        /// The directory.
        path: String,
    },
    /// It cannot be written.
    #[error("{path} cannot be used: {error}; it must be a directory that this user may write")]
    Io {
        /// The directory.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

impl DataDir {
    /// Takes the directory, made where it is missing. `new_id` names the store if it is new.
    pub fn take(path: &Path, new_id: [u8; 16]) -> Result<Self, DataDirError> {
        let shown = || path.display().to_string();
        let io = |error| DataDirError::Io {
            path: shown(),
            error,
        };
        fs::create_dir_all(path).map_err(io)?;
        let known = path.join(IDENTITY).exists();
        if !known && !is_fresh(path).map_err(io)? {
            return Err(DataDirError::Foreign { path: shown() });
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::InUse { path: shown() });
            }
            Err(error) => return Err(io(error.into())),
        }
        if !path.join(IDENTITY).exists() {
            // Who it is comes last: a directory that says it has all that belongs to it.
            for part in PARTS {
                fs::create_dir_all(path.join(part)).map_err(io)?;
            }
            sync_directory(&path.canonicalize().map_err(io)?).map_err(io)?;
            write_identity(path, new_id).map_err(io)?;
        }
        let store_id = read_identity(path)?;
        if !path.join(JOURNAL).is_dir() {
            return Err(DataDirError::JournalGone { path: shown() });
        }
        Ok(Self {
            path: path.to_owned(),
            store_id,
            _lock: lock,
        })
    }

    /// Takes a directory that is one already.
    pub fn take_existing(path: &Path) -> Result<Self, DataDirError> {
        if !path.join(IDENTITY).exists() {
            return Err(DataDirError::Missing {
                path: path.display().to_string(),
            });
        }
        Self::take(path, [0; 16])
    }

    /// What the store is called.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Where the rows are.
    pub fn rows(&self) -> PathBuf {
        self.path.join(ROWS)
    }

    /// Where the history of usage is.
    pub fn history(&self) -> PathBuf {
        self.path.join("history")
    }

    /// Where the bases are.
    pub fn bases(&self) -> PathBuf {
        self.path.join(BASES)
    }
}

/// Makes the entries of a directory, and its own entry in its parent, durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Empty, or left by a first start that was killed before it had written who it is.
fn is_fresh(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let part = PARTS.iter().any(|part| name == *part);
        let empty = || fs::read_dir(path.join(&name)).is_ok_and(|mut all| all.next().is_none());
        if name != "lost+found" && name != LOCK && name != "STORE.tmp" && !(part && empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_identity(path: &Path, id: [u8; 16]) -> io::Result<()> {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.join("STORE.tmp");
    let mut file = File::create(&unfinished)?;
    writeln!(file, "{MAGIC} {VERSION} {hex}")?;
    file.sync_all()?;
    fs::rename(&unfinished, path.join(IDENTITY))?;
    File::open(path)?.sync_all()
}

fn read_identity(path: &Path) -> Result<[u8; 16], DataDirError> {
    let shown = path.display().to_string();
    let mut text = String::new();
    let read = File::open(path.join(IDENTITY))
        .and_then(|file| file.take(IDENTITY_BYTES_MAX).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(DataDirError::Damaged { path: shown });
        }
        Err(error) => return Err(DataDirError::Io { path: shown, error }),
        Ok(_) => {}
    }
    let mut words = text.split_whitespace();
    let damaged = || DataDirError::Damaged {
        path: shown.clone(),
    };
    if words.next() != Some(MAGIC) {
        return Err(damaged());
    }
    match words.next().and_then(|version| version.parse().ok()) {
        Some(VERSION) => {}
        Some(found) if found > VERSION => return Err(DataDirError::Newer { path: shown, found }),
        _ => return Err(damaged()),
    }
    let hex = words.next().filter(|hex| {
        let digits = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.len() == 32 && digits
    });
    let number = hex.and_then(|hex| u128::from_str_radix(hex, 16).ok());
    number.map(u128::to_be_bytes).ok_or_else(damaged)
}
