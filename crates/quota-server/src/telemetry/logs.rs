//! Log lines, and the filter that says which of them are written. The filter can be changed while the server
//! runs; the format cannot. A line says what happened and to which call, never what a call's metadata holds.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::LogFormat;

/// Target of the line that says who changed the filter: no filter leaves it out.
pub const CHANGES: &str = "quota_server::log_filter";

/// Longest filter, in bytes: every new place that logs is compared with all of it.
pub const FILTER_BYTES_MAX: usize = 1024;

/// The filter in force. Without [`start`] there are no lines to filter: whoever embeds the server writes them.
#[derive(Clone, Default)]
pub struct LogFilter {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    text: String,
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

impl LogFilter {
    /// Replaces the filter; answers the one before.
    pub fn set(&self, text: &str) -> Result<String, String> {
        let filter = read(text)?;
        let mut shared = self.shared.lock();
        if let Some(handle) = &shared.handle {
            handle.reload(filter).map_err(|error| error.to_string())?;
        }
        Ok(std::mem::replace(&mut shared.text, text.to_owned()))
    }
}

/// Reads a filter such as `info` or `quota_server=debug,info`.
pub fn read(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("is empty; such as `info` or `quota_server=debug,info`".into());
    }
    if text.len() > FILTER_BYTES_MAX {
        let bytes = text.len();
        return Err(format!("has {bytes} bytes; at most {FILTER_BYTES_MAX}"));
    }
    if let Some(at) = text.chars().position(|one| one.is_control()) {
        return Err(format!("has a control character at {at}"));
    }
    let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    let changes = format!("{CHANGES}=warn").parse();
    Ok(filter.add_directive(changes.map_err(|error| format!("{error}"))?))
}

/// Writes the lines of this process to stderr from now on.
pub fn start(format: LogFormat, text: &str) -> Result<LogFilter, String> {
    let (filter, handle) = reload::Layer::new(read(text)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().map_err(|error| error.to_string())?;
    let shared = Shared {
        text: text.to_owned(),
        handle: Some(handle),
    };
    Ok(LogFilter {
        shared: Arc::new(Mutex::new(shared)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let filter = LogFilter::default();
        assert_eq!(filter.set("info"), Ok(String::new()));
        assert_eq!(filter.set("quota_server=debug,warn"), Ok("info".into()));
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        for bad in [
            "",
            "  ",
            "info\r\nfake",
            "info,=",
            "quota_server=loud",
            &long,
        ] {
            assert!(filter.set(bad).is_err(), "{bad}");
        }
        assert_eq!(filter.set("info"), Ok("quota_server=debug,warn".into()));
    }
}
