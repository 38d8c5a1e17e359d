//! Configuration: one TOML file, `QUOTA_` environment variables over it, flags over both. Unknown keys are
//! errors, all problems are reported at once, and what is in force can be printed with its comments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota_core::Bounds;
use quota_core::ledger::AutoCreate;
use quota_core::operation::MemoryBounds;
use quota_core::quota::Target;

use crate::api::WatchLimits;
use crate::clock::ClockOptions;
use crate::engine::EngineOptions;
use crate::history::series::Keep;
use crate::server::Limits;
use crate::telemetry::logs;
use crate::telemetry::subjects::Selection;

/// Most names and patterns of subjects with metrics of their own: each is compared with every new subject.
const SELECTION_MAX: usize = 100;

/// Shortest time that a step of the history is kept.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A value that can be read from and shown as text.
trait Setting: Sized {
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr;)*) => {
        /// Everything that can be set. Static for the process.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Config {
            /// The keys.
            pub const KEYS: &[&str] = &[$(stringify!($name),)*];

            fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $(stringify!($name) => self.$name = Setting::read(text)?,)*
                    _ => return Err("is not a setting; --print-config lists all".into()),
                }
                Ok(())
            }

            /// The file that sets what is in force, with comments.
            pub fn print(&self) -> String {
                let mut text = String::new();
                $(
                    $(text.push_str(concat!("#", $doc, "\n"));)+
                    let value = self.$name.show();
                    text.push_str(&format!("{} = {value}\n\n", stringify!($name)));
                )*
                text
            }
        }
    };
}

settings! {
    /// Directory of the journal and the rows. Made where it is missing.
    data_dir: PathBuf = PathBuf::from("./quota-data");
    /// Address to listen on for gRPC, HOST:PORT. Port 0 takes a free one.
    listen: String = "127.0.0.1:50051".into();
    /// Where GET /metrics is answered: auto, off or HOST:PORT. Port 0 takes a free one. auto is 127.0.0.1:9464, and a
    /// warning where that is in use; an address that was asked for and is in use is an error.
    metrics_listen: MetricsListen = MetricsListen::Auto;
    /// Subjects with metrics of their own, beside system, those of one pair and those of two: names and patterns,
    /// separated by commas.
    metrics_subjects: Selection = Selection::default();
    /// Allow listening beyond loopback although callers are not authenticated.
    insecure: bool = false;
    /// Which subjects come into being with their first charge: all, below-top or none.
    auto_create: AutoCreate = AutoCreate::All;
    /// Most subjects.
    subjects_max: usize = 20_000_000;
    /// How long the outcome of an operation is remembered for retries.
    operations_horizon: Duration = Duration::from_secs(3600);
    /// Most outcomes remembered per first pair of the subject's name.
    operations_outcomes_max: usize = 65_536;
    /// Most refusals remembered per first pair, apart from the outcomes.
    operations_refusals_max: usize = 16_384;
    /// Bytes of remembered outcomes in all.
    operations_bytes_max: usize = 512 << 20;
    /// Most commands that wait for the writer; beyond it they are refused.
    queue_max: usize = 16_384;
    /// Most commands that are decided and flushed together.
    group_max: usize = 1024;
    /// A flush that takes longer makes writes unavailable.
    commit_stall_max: Duration = Duration::from_secs(5);
    /// A wall clock that is off by more is not followed.
    clock_step_max: Duration = Duration::from_secs(10);
    /// A wall clock that says that the machine was off for longer needs --accept-clock.
    downtime_max: Duration = Duration::from_secs(30 * 24 * 3600);
    /// Start although the wall clock is in doubt, and go on from it. For one start: not for the file.
    accept_clock: bool = false;
    /// Bytes of one journal segment.
    segment_bytes: u64 = 64 << 20;
    /// How long what happened is kept in the journal for audit, as far as journal_bytes_max has room for it.
    audit_retention: Duration = Duration::from_secs(30 * 24 * 3600);
    /// Bytes of journal beyond which the oldest is dropped: first what is kept for audit, then outcomes.
    journal_bytes_max: u64 = 8 << 30;
    /// Bytes of changed rows that may wait to be written; beyond it commands wait.
    apply_lag_max: usize = 64 << 20;
    /// Bytes of journal between two bases; twice the size of the last base where that is more.
    base_bytes: u64 = 256 << 20;
    /// Largest request, in bytes.
    message_bytes_max: usize = 1 << 20;
    /// Largest metadata of a request, in bytes.
    metadata_bytes_max: u32 = 16 << 10;
    /// Most calls under way on one connection.
    streams_max: u32 = 1024;
    /// Most connections; further ones are closed at once.
    connections_max: usize = 10_000;
    /// Most watchers of events.
    watchers_max: usize = 256;
    /// A watcher that takes nothing for longer is cut off.
    watch_stall_max: Duration = Duration::from_secs(30);
    /// How long the history of usage is kept in steps of five minutes.
    history_5min_keep: Duration = Duration::from_secs(30 * 24 * 3600);
    /// How long the history of usage is kept in steps of an hour.
    history_hour_keep: Duration = Duration::from_secs(365 * 24 * 3600);
    /// How long the history of usage is kept in steps of a day (UTC).
    history_day_keep: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
    /// How long a shutdown waits for calls under way.
    drain_timeout: Duration = Duration::from_secs(10);
    /// Where spans are sent in OTLP over gRPC, such as `http://127.0.0.1:4317`. Empty: nowhere, and there are none.
    otlp_endpoint: String = String::new();
    /// Share of calls that get a span, 0 to 1. A call that brings a trace of its own is chosen by its caller.
    trace_sample_ratio: f64 = 0.01;
    /// Which log lines are written, such as `info` or `quota_server=debug,info`.
    log_filter: String = "info".into();
    /// How log lines are written: text or json.
    log_format: LogFormat = LogFormat::Text;
}

/// Where metrics are answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricsListen {
    /// On the usual address, where it is free.
    Auto,
    /// Nowhere.
    Off,
    /// There, or the server does not start.
    Asked(String),
}

impl MetricsListen {
    /// The usual address.
    pub const USUAL: &str = "127.0.0.1:9464";
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the file, then the environment over it, then flags over both.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut wrong = Vec::new();
        if let Some(path) = file {
            config.load_file(path, &mut wrong);
        }
        for (name, text) in environment {
            let name = name.to_string_lossy();
            let Some(key) = name.strip_prefix("QUOTA_").map(str::to_lowercase) else {
                continue;
            };
            // The command-line client's own.
            if matches!(key.as_str(), "endpoint" | "config" | "output") {
                continue;
            }
            // What Kubernetes injects for a Service called `quota-server`.
            if key.starts_with("server_port") || key.starts_with("server_service_") {
                continue;
            }
            match text.to_str() {
                Some(text) => config.try_set(&name, &key, text, &mut wrong),
                None => wrong.push(format!("{name}: is not UTF-8")),
            }
        }
        for (key, text) in flags {
            let name = format!("--{}", key.replace('_', "-"));
            config.try_set(&name, key, text, &mut wrong);
        }
        config.check(&mut wrong);
        match wrong.is_empty() {
            true => Ok(config),
            false => Err(ConfigError(wrong)),
        }
    }

    fn load_file(&mut self, path: &Path, wrong: &mut Vec<String>) {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return wrong.push(format!("{shown}: {error}")),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return wrong.push(format!("{shown}: {error}")),
        };
        for (key, value) in table {
            let name = format!("{shown}: {key}");
            match value {
                toml::Value::String(text) => self.try_set(&name, &key, &text, wrong),
                toml::Value::Integer(number) => {
                    self.try_set(&name, &key, &number.to_string(), wrong);
                }
                toml::Value::Float(number) => {
                    self.try_set(&name, &key, &number.to_string(), wrong);
                }
                toml::Value::Boolean(flag) => self.try_set(&name, &key, &flag.to_string(), wrong),
                other => wrong.push(format!(
                    "{name}: a {} is no value of a setting",
                    other.type_str()
                )),
            }
        }
    }

    fn try_set(&mut self, name: &str, key: &str, text: &str, wrong: &mut Vec<String>) {
        if let Err(why) = self.set(key, text) {
            wrong.push(format!("{name}: {why}"));
        }
    }

    fn check(&self, wrong: &mut Vec<String>) {
        let most = quota_store::journal::SEGMENT_BYTES_MAX;
        if self.segment_bytes > most {
            let bytes = self.segment_bytes;
            wrong.push(format!("segment_bytes: is {bytes}; at most {most}"));
        }
        let mut at_least = |name: &str, value: u64, least: u64| {
            if value < least {
                wrong.push(format!("{name}: is {value}; at least {least}"));
            }
        };
        let moments = [
            ("commit_stall_max", self.commit_stall_max),
            ("operations_horizon", self.operations_horizon),
            ("clock_step_max", self.clock_step_max),
            ("downtime_max", self.downtime_max),
            ("watch_stall_max", self.watch_stall_max),
        ];
        for (name, value) in moments {
            at_least(
                name,
                u64::try_from(value.as_millis()).unwrap_or(u64::MAX),
                1,
            );
        }
        // The peak of the last day is read from them.
        let steps = [
            ("history_5min_keep", self.history_5min_keep),
            ("history_hour_keep", self.history_hour_keep),
            ("history_day_keep", self.history_day_keep),
        ];
        for (name, value) in steps {
            if value < DAY {
                let value = humantime::format_duration(value);
                wrong.push(format!("{name}: is {value}; at least 1day"));
            }
        }
        let mut at_least = |name: &str, value: u64, least: u64| {
            if value < least {
                wrong.push(format!("{name}: is {value}; at least {least}"));
            }
        };
        at_least("queue_max", self.queue_max as u64, 1);
        at_least("group_max", self.group_max as u64, 1);
        at_least("apply_lag_max", self.apply_lag_max as u64, 1 << 20);
        at_least("subjects_max", self.subjects_max as u64, 1);
        at_least("segment_bytes", self.segment_bytes, 1 << 16);
        at_least("message_bytes_max", self.message_bytes_max as u64, 1 << 12);
        at_least(
            "metadata_bytes_max",
            self.metadata_bytes_max.into(),
            1 << 10,
        );
        at_least("streams_max", self.streams_max.into(), 1);
        at_least(
            "operations_outcomes_max",
            self.operations_outcomes_max as u64,
            1,
        );
        at_least(
            "operations_refusals_max",
            self.operations_refusals_max as u64,
            1,
        );
        if let Err(error) = logs::read(&self.log_filter) {
            wrong.push(format!("log_filter: {error}"));
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            let ratio = self.trace_sample_ratio;
            wrong.push(format!("trace_sample_ratio: is {ratio}; 0 to 1"));
        }
        if !self.otlp_endpoint.is_empty() && !is_http(&self.otlp_endpoint) {
            let endpoint = &self.otlp_endpoint;
            wrong.push(format!(
                "otlp_endpoint: {endpoint:?} is no URL such as http://127.0.0.1:4317; TLS is not spoken yet"
            ));
        }
        if !has_port(&self.listen) {
            let listen = &self.listen;
            wrong.push(format!("listen: {listen:?} is no HOST:PORT"));
        }
    }

    /// The ledger's bounds.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            auto_create: self.auto_create,
            subjects_max: self.subjects_max,
            memory: MemoryBounds {
                horizon: self.operations_horizon,
                outcomes_max: self.operations_outcomes_max,
                refusals_max: self.operations_refusals_max,
                bytes_max: self.operations_bytes_max,
            },
        }
    }

    /// The engine's options.
    pub fn engine(&self) -> EngineOptions {
        EngineOptions {
            queue_max: self.queue_max,
            group_max: self.group_max,
            commit_stall_max: self.commit_stall_max,
            journal_bytes_max: self.journal_bytes_max,
            audit_retention: self.audit_retention,
            bounds: self.bounds(),
        }
    }
}

impl Config {
    /// Bounds of what callers may send.
    pub fn limits(&self) -> Limits {
        Limits {
            message_bytes_max: self.message_bytes_max,
            metadata_bytes_max: self.metadata_bytes_max,
            streams_max: self.streams_max,
            connections_max: self.connections_max,
            drain_timeout: self.drain_timeout,
            watch: WatchLimits {
                watchers_max: self.watchers_max,
                stall_max: self.watch_stall_max,
            },
        }
    }

    /// How long the history is kept.
    pub fn history(&self) -> Keep {
        Keep {
            five_minutes: self.history_5min_keep,
            hours: self.history_hour_keep,
            days: self.history_day_keep,
        }
    }

    /// How the clock follows.
    pub fn clock(&self) -> ClockOptions {
        ClockOptions {
            step_max: self.clock_step_max,
            downtime_max: self.downtime_max,
            accept: self.accept_clock,
        }
    }
}

fn is_http(endpoint: &str) -> bool {
    let read: Result<http::Uri, _> = endpoint.parse();
    read.is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
}

fn has_port(listen: &str) -> bool {
    let parts = listen.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(text: &str) -> Result<Self, String> {
                let bare = text.replace('_', "");
                bare.parse().map_err(|_| format!("{text:?} is not a whole number in range"))
            }
            fn show(&self) -> String {
                // TOML has no larger number; a text is read as well.
                match i64::try_from(*self) {
                    Ok(number) => number.to_string(),
                    Err(_) => format!("\"{self}\""),
                }
            }
        }
    )*};
}
numbers!(usize, u32, u64);

impl Setting for f64 {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("{text:?} is not a number"))
    }
    fn show(&self) -> String {
        // With a point, as TOML wants it.
        format!("{self:?}")
    }
}

impl Setting for bool {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("{text:?} is not true or false"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
}

impl Setting for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("is empty; the path of a directory".into()),
            text => Ok(text.into()),
        }
    }
    fn show(&self) -> String {
        toml::Value::from(self.to_string_lossy().into_owned()).to_string()
    }
}

impl Setting for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is no duration such as `10s` or `1h`: {why}");
        // One part at a time: at the end of what a duration can be, humantime panics when it adds them.
        let (mut length, mut rest) = (Duration::ZERO, text);
        loop {
            let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
            let next = rest[unit..].find(|c: char| c.is_ascii_digit());
            let (part, after) = rest.split_at(next.map_or(rest.len(), |next| unit + next));
            let part =
                humantime::parse_duration(part).map_err(|error| wrong(&error.to_string()))?;
            length = length
                .checked_add(part)
                .ok_or_else(|| wrong("it is too long"))?;
            if after.is_empty() {
                return Ok(length);
            }
            rest = after;
        }
    }
    fn show(&self) -> String {
        format!("\"{}\"", humantime::format_duration(*self))
    }
}

impl Setting for AutoCreate {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "all" => Self::All,
            "below-top" => Self::BelowTop,
            "none" => Self::None,
            _ => return Err(format!("{text:?} is not all, below-top or none")),
        })
    }
    fn show(&self) -> String {
        match self {
            Self::All => "\"all\"".into(),
            Self::BelowTop => "\"below-top\"".into(),
            Self::None => "\"none\"".into(),
        }
    }
}

impl Setting for MetricsListen {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            text if has_port(text) => Self::Asked(text.to_owned()),
            _ => return Err(format!("{text:?} is not auto, off or HOST:PORT")),
        })
    }
    fn show(&self) -> String {
        match self {
            Self::Auto => "\"auto\"".into(),
            Self::Off => "\"off\"".into(),
            Self::Asked(address) => address.show(),
        }
    }
}

impl Setting for Selection {
    fn read(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim);
        let read = names
            .filter(|name| !name.is_empty())
            .map(|name| Target::parse(name).map_err(|error| format!("{name:?} {error}")));
        let read = read.collect::<Result<Vec<_>, _>>()?;
        match read.len() {
            0..=SELECTION_MAX => Ok(Self(read)),
            many => Err(format!("has {many} names; at most {SELECTION_MAX}")),
        }
    }
    fn show(&self) -> String {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        names.join(",").show()
    }
}

impl Setting for LogFormat {
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return Err(format!("{text:?} is not text or json")),
        })
    }
    fn show(&self) -> String {
        match self {
            Self::Text => "\"text\"".into(),
            Self::Json => "\"json\"".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_over_environment_over_file_and_all_problems_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("quota.toml");
        std::fs::write(&file, "listen = 'f:1'\ngroup_max = 7\nqueue_max = 9\n").unwrap();
        let environment = [
            ("QUOTA_GROUP_MAX", "8"),
            ("QUOTA_QUEUE_MAX", "8"),
            ("PATH", "x"),
        ]
        .map(|(name, text)| (name.into(), text.into()));
        let flags = [("queue_max", "10".to_owned())];
        let config = Config::load(Some(&file), environment.into_iter(), &flags).unwrap();
        assert_eq!(config.listen, "f:1");
        assert_eq!((config.group_max, config.queue_max), (8, 10));

        std::fs::write(&file, "lisen = 'x'\ngroup_max = 'many'\nlist = [1]\n").unwrap();
        let bad = [
            ("QUOTA_NOPE".into(), "1".into()),
            ("QUOTA_LISTEN".into(), "x".into()),
        ];
        let error = Config::load(Some(&file), bad.into_iter(), &[]).unwrap_err();
        assert_eq!(error.0.len(), 5, "{error}");
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("quota.toml");
        let config = Config {
            auto_create: AutoCreate::BelowTop,
            drain_timeout: Duration::from_millis(1500),
            metrics_listen: MetricsListen::Asked("127.0.0.1:0".into()),
            metrics_subjects: Selection::read("users/ann, tenants/*/teams/*").unwrap(),
            ..Config::default()
        };
        std::fs::write(&file, config.print()).unwrap();
        let read = Config::load(Some(&file), std::iter::empty(), &[]).unwrap();
        assert_eq!(read, config);
    }
}
