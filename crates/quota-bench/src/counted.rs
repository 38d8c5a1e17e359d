//! Serves either service in the process that counts allocations. Each line on stdin is answered with the counts
//! so far.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use quota_server::config::Config;
use quota_server::engine::Engine;
use quota_server::telemetry::Telemetry;
use quota_server::{server, store};
use tokio::net::TcpListener;

use crate::{Failure, echo};

/// Serve under a counting allocator. Only for `quota-bench`.
#[derive(Parser)]
enum Served {
    /// The empty service.
    Echo,
    /// The authority.
    Serve {
        /// Directory of the journal and the rows.
        data_dir: PathBuf,
    },
}

/// The program. `count` says how many allocations there were, and of how many bytes.
pub fn counted_main(count: fn() -> (usize, usize)) -> ExitCode {
    let served = Served::parse();
    std::thread::spawn(move || answer(count));
    let result = runtime().and_then(|runtime| {
        runtime.block_on(async {
            match served {
                Served::Echo => echo::serve().await,
                Served::Serve { data_dir } => serve(data_dir).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quota-bench-counted: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime of the load, and of what goes on beside a server's threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    Ok(runtime)
}

fn answer(count: fn() -> (usize, usize)) {
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (allocations, bytes) = count();
        if say(&format!("{allocations} {bytes}\n")).is_err() {
            return;
        }
    }
}

/// Writes to stdout at once.
pub(crate) fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

async fn serve(data_dir: PathBuf) -> Result<(), Failure> {
    let config = Config {
        data_dir,
        ..Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let opened = store::open(&config)?;
    let engine = Arc::new(Engine::start(opened.parts, config.engine(), opened.clock)?);
    let directory = opened.directory;
    let history = store::start_history(&config, &directory, &engine)?;
    say(&format!("listening on {}\n", listener.local_addr()?))?;
    let never = std::future::pending();
    let telemetry = Telemetry::default();
    server::serve(engine, history, listener, config.limits(), telemetry, never).await?;
    Ok(())
}
