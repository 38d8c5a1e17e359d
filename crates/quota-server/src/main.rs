//! `quota-server`: serves the quota authority from one data directory.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use mimalloc::MiMalloc;
use quota_server::clock::{Machine, ThisMachine};
use quota_server::config::{Config, MetricsListen};
use quota_server::connections;
use quota_server::engine::Engine;
use quota_server::server::{self, Limits};
use quota_server::store::{self, OpenError};
use quota_server::telemetry::logs::{self, LogFilter};
use quota_server::telemetry::traces::{TraceError, Traces};
use quota_server::telemetry::{Telemetry, exposition};
use quota_store::data_dir::DataDirError;
use quota_store::journal::{JournalError, Link, verify};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The configuration or the command line is wrong.
const EXIT_USAGE: u8 = 2;
/// The data directory is in use, foreign, newer or cannot be written.
const EXIT_DATA_DIR: u8 = 3;
/// The address cannot be listened on.
const EXIT_LISTEN: u8 = 4;
/// What is in the data directory is damaged.
const EXIT_DAMAGED: u8 = 5;
/// The wall clock is in doubt.
const EXIT_CLOCK: u8 = 6;

/// The quota authority: the one server to ask before anything limited is handed out.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(Serve),
    /// Work on a store that no server uses.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Read everything, settle the tail as a start would, and check the invariants.
    Verify(Serve),
}

#[derive(Args)]
struct Serve {
    /// TOML file with settings; --print-config shows all of them.
    #[arg(long, env = "QUOTA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the journal and the rows.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on for gRPC; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address to answer GET /metrics on; auto, or off.
    #[arg(long, value_name = "HOST:PORT")]
    metrics_listen: Option<String>,
    /// Allow listening beyond loopback although callers are not authenticated.
    #[arg(long)]
    insecure: bool,
    /// Start although the wall clock is in doubt, and go on from it.
    #[arg(long)]
    accept_clock: bool,
    /// Print what is in force, with comments, and exit.
    #[arg(long)]
    print_config: bool,
}

impl Serve {
    fn load(&self) -> Result<Config, quota_server::config::ConfigError> {
        let mut flags = Vec::new();
        if let Some(directory) = &self.data_dir {
            flags.push(("data_dir", directory.to_string_lossy().into_owned()));
        }
        if let Some(listen) = &self.listen {
            flags.push(("listen", listen.clone()));
        }
        if let Some(listen) = &self.metrics_listen {
            flags.push(("metrics_listen", listen.clone()));
        }
        if self.insecure {
            flags.push(("insecure", "true".to_owned()));
        }
        if self.accept_clock {
            flags.push(("accept_clock", "true".to_owned()));
        }
        Config::load(self.config.as_deref(), std::env::vars_os(), &flags)
    }
}

/// The allocator asks for huge pages, and a page of two megabytes is resident as a whole: an empty server took 65 MB
/// instead of 14. Where the system has no such switch, nothing is lost but memory.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn main() -> ExitCode {
    use_small_pages();
    let cli = Cli::parse();
    let (serve, verify) = match &cli.command {
        None => (&cli.serve, false),
        Some(Command::Serve(serve)) => (serve, false),
        Some(Command::Store {
            command: StoreCommand::Verify(serve),
        }) => (serve, true),
    };
    let config = match serve.load() {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("quota-server: the configuration is wrong:\n{problems}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if serve.print_config {
        return say(&config.print());
    }
    let log_filter = match logs::start(config.log_format, &config.log_filter) {
        Ok(log_filter) => log_filter,
        Err(why) => {
            eprintln!("quota-server: log_filter: {why}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if verify {
        return verify_store(&config);
    }
    // Calls are served on threads of their own; here is what goes on beside them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(config, log_filter)),
        Err(error) => {
            eprintln!("quota-server: no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config, log_filter: LogFilter) -> ExitCode {
    let (listener, scrapes) = match listen(&config).await {
        Ok(listeners) => listeners,
        Err(code) => return code,
    };
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        eprintln!("quota-server: cannot wait for signals");
        return ExitCode::FAILURE;
    };
    let machine = ThisMachine::new();
    let began_ns = machine.boot_ns();
    let opened = match store::open(&config) {
        Ok(opened) => opened,
        Err(error) => return refuse_store(&error),
    };
    let recovery_ns = machine.boot_ns().saturating_sub(began_ns);
    report(&opened.report, recovery_ns);
    let directory = opened.directory;
    let engine = match Engine::start(opened.parts, config.engine(), opened.clock) {
        Ok(engine) => Arc::new(engine),
        Err(error) => {
            let room = config.segment_bytes;
            eprintln!(
                "quota-server: the journal cannot be written: {error}; a segment takes {room} bytes (segment_bytes)"
            );
            return ExitCode::from(EXIT_DATA_DIR);
        }
    };
    engine.metrics().recovered_in(recovery_ns);
    let traces = match trace(&config, &engine) {
        Ok(traces) => traces,
        Err(error) => {
            eprintln!("quota-server: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let history = match store::start_history(&config, &directory, &engine) {
        Ok(history) => history,
        Err(error) => return refuse_store(&error),
    };
    announce(&config, &listener, scrapes.as_ref());
    if let Some(scrapes) = scrapes {
        engine.views().show(config.metrics_subjects.clone());
        tokio::spawn(exposition::serve(scrapes, engine.clone()));
    }
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("SIGINT: draining"),
        }
    };
    let limits = Limits {
        connections_max: connections::that_fit(config.connections_max),
        ..config.limits()
    };
    let telemetry = Telemetry {
        log_filter,
        traces: traces.clone(),
    };
    let served = server::serve(engine, history.clone(), listener, limits, telemetry, stop).await;
    history.finish();
    drop(directory);
    if let Some(traces) = traces {
        let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
    }
    match served {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "the server stopped");
            ExitCode::FAILURE
        }
    }
}

fn trace(config: &Config, engine: &Engine) -> Result<Option<Traces>, TraceError> {
    match config.otlp_endpoint.as_str() {
        "" => Ok(None),
        endpoint => Traces::start(endpoint, config.trace_sample_ratio, engine.metrics()).map(Some),
    }
}

/// The sockets for calls and for scrapes, the latter where it is wanted and, if nobody asked for it, can be had.
async fn listen(config: &Config) -> Result<(TcpListener, Option<TcpListener>), ExitCode> {
    let calls = bind(config, "listen", &config.listen).await?;
    let calls = calls.map_err(|(address, error)| cannot_listen("listen", address, &error))?;
    let (asked, text) = match &config.metrics_listen {
        MetricsListen::Off => return Ok((calls, None)),
        MetricsListen::Auto => (false, MetricsListen::USUAL),
        MetricsListen::Asked(text) => (true, text.as_str()),
    };
    match bind(config, "metrics_listen", text).await? {
        Ok(scrapes) => Ok((calls, Some(scrapes))),
        Err((address, error)) if asked => Err(cannot_listen("metrics_listen", address, &error)),
        Err((address, error)) => {
            warn!(%address, %error, "no metrics: the usual address is in use; set metrics_listen");
            Ok((calls, None))
        }
    }
}

async fn bind(
    config: &Config,
    key: &str,
    text: &str,
) -> Result<Result<TcpListener, (SocketAddr, io::Error)>, ExitCode> {
    let address = resolve(config, key, text).await?;
    let bound = TcpListener::bind(address).await;
    Ok(bound.map_err(|error| (address, error)))
}

fn cannot_listen(key: &str, address: SocketAddr, error: &io::Error) -> ExitCode {
    let flag = key.replace('_', "-");
    eprintln!(
        "quota-server: cannot listen on {address}: {error}; name another address with --{flag}"
    );
    ExitCode::from(EXIT_LISTEN)
}

/// Says where the server is, in one piece: whoever starts it may read one line and go.
fn announce(config: &Config, calls: &TcpListener, scrapes: Option<&TcpListener>) {
    let shown = |listener: &TcpListener| match listener.local_addr() {
        Ok(address) => address.to_string(),
        Err(error) => error.to_string(),
    };
    let bound = shown(calls);
    let mut text = format!("listening on {bound}\n");
    let metrics = scrapes.map(shown).unwrap_or_default();
    if scrapes.is_some() {
        text.push_str(&format!(
            "metrics on http://{metrics}{}\n",
            exposition::PATH
        ));
    }
    if say(&text) != ExitCode::SUCCESS {
        warn!("nobody reads stdout");
    }
    info!(%bound, metrics, data_dir = %config.data_dir.display(), "serving");
}

async fn resolve(config: &Config, key: &str, text: &str) -> Result<SocketAddr, ExitCode> {
    let resolved = tokio::net::lookup_host(text).await;
    let address = match resolved.map(|mut all| all.next()) {
        Ok(Some(address)) => address,
        Ok(None) | Err(_) => {
            eprintln!("quota-server: {key}: {text:?} is no HOST:PORT");
            return Err(ExitCode::from(EXIT_USAGE));
        }
    };
    if !server::is_loopback(&address) && !config.insecure {
        eprintln!(
            "quota-server: {key}: {address} is reached from other machines and callers are not authenticated; \
             listen on loopback, or set --insecure if the network keeps strangers out"
        );
        return Err(ExitCode::from(EXIT_USAGE));
    }
    Ok(address)
}

fn refuse_store(error: &OpenError) -> ExitCode {
    eprintln!("quota-server: {error}");
    let newer = matches!(
        error,
        OpenError::Recovery(quota_store::recovery::RecoveryError::Journal(
            quota_store::journal::JournalError::Newer { .. }
                | quota_store::journal::JournalError::Io { .. }
        ))
    );
    ExitCode::from(match error {
        OpenError::DataDir(DataDirError::Damaged { .. } | DataDirError::JournalGone { .. }) => {
            EXIT_DAMAGED
        }
        OpenError::Clock(_) => EXIT_CLOCK,
        OpenError::DataDir(_) | OpenError::Io(_) => EXIT_DATA_DIR,
        OpenError::Recovery(_) if newer => EXIT_DATA_DIR,
        OpenError::Recovery(_) => EXIT_DAMAGED,
    })
}

fn report(report: &store::Report, took_ns: i64) {
    if let Some(why) = &report.rebuilt {
        warn!(%why, "the rows were rebuilt");
    }
    info!(
        batches = report.batches,
        read = report.read,
        answers = report.answers,
        took_ms = took_ns / 1_000_000,
        "recovered"
    );
}

fn verify_store(config: &Config) -> ExitCode {
    // What is on disk is looked at; nothing is decided by a clock.
    let config = Config {
        accept_clock: true,
        ..config.clone()
    };
    match store::open_whole(&config) {
        Ok(opened) => {
            let sizes = opened.parts.ledger.sizes();
            let (subjects, allocations) = (sizes.subjects, sizes.allocations);
            let (holds, answers) = (sizes.holds, sizes.operations);
            let chain = match verify_chain(&opened) {
                Ok(chain) => chain,
                Err(error) => return refuse_store(&error.into()),
            };
            say(&format!(
                "whole: {chain}, {subjects} subjects, {allocations} allocations, {holds} holds, \
                 {answers} remembered answers; every invariant holds\n"
            ))
        }
        Err(error) => refuse_store(&error),
    }
}

/// Reads the whole journal once more, as a reader beside a server would, and says from where to where its chain
/// of hashes goes: the last hash stands for all of it.
fn verify_chain(opened: &store::Opened) -> Result<String, JournalError> {
    let reader = opened.parts.journal.reader();
    let found = verify(&*reader, reader.first_sequence(), None, u64::MAX)?;
    let shown = |link: Option<Link>| {
        link.map_or_else(String::new, |link| {
            let hash: String = link.hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} {hash}", link.sequence)
        })
    };
    let (batches, first, last) = (found.batches, shown(found.first), shown(found.last));
    Ok(format!(
        "{batches} batches in the journal ({first} to {last})"
    ))
}

fn say(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
