//! Load on one server: closed loop (so many calls in flight, each followed by the next) or open loop (calls at
//! fixed instants, whether or not earlier ones are answered).

mod caller;
mod closed;
mod open;
mod recorder;
mod size;
mod work;

use std::time::Duration;

use hdrhistogram::Histogram;
use tonic::transport::{Channel, Endpoint};

use crate::Failure;
use crate::process::{Server, Usage};

pub(crate) use size::demand_alike;
pub(crate) use work::{Call, Expect, Names, RESOURCE, Work};

/// Connections; calls are spread over them.
const CONNECTIONS: usize = 8;
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A server with connections to it.
pub(crate) struct Target {
    pub(crate) server: Server,
    channels: Vec<Channel>,
}

impl Target {
    pub(crate) async fn connect(server: Server) -> Result<Self, Failure> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{}", server.address))?;
            channels.push(endpoint.tcp_nodelay(true).connect().await?);
        }
        Ok(Self { server, channels })
    }
}

/// How the calls follow each other.
#[derive(Clone)]
pub(crate) enum Pace {
    /// So many in flight.
    Closed(usize),
    /// So many a second.
    Open(f64),
}

/// What to do in a round.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) pace: Pace,
    /// Not measured.
    pub(crate) warm: Duration,
    /// Measured, after that.
    pub(crate) length: Duration,
}

/// A measured round.
pub(crate) struct Sample {
    /// Latencies of what asks or charges, in nanoseconds.
    pub(crate) charges: Histogram<u64>,
    /// Latencies of what gives back.
    pub(crate) releases: Histogram<u64>,
    /// Decisions: calls, or steps of batches.
    pub(crate) operations: u64,
    /// How late the calls began, in nanoseconds; empty for a closed loop.
    pub(crate) late: Histogram<u64>,
    pub(crate) length_s: f64,
    /// What the server used.
    pub(crate) usage: Usage,
}

impl Sample {
    /// Decisions a second.
    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.length_s
    }

    /// Microseconds of processors per decision.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.usage.cpu_s * 1e6 / self.operations as f64
    }

    /// Bytes written per decision.
    pub(crate) fn written(&self) -> f64 {
        self.usage.written_bytes / self.operations as f64
    }

    /// A quantile of the charges, in microseconds.
    pub(crate) fn charge_us(&self, quantile: f64) -> f64 {
        micros(&self.charges, quantile)
    }

    /// The longest wait for any answer, in milliseconds.
    pub(crate) fn longest_ms(&self) -> f64 {
        self.charges.max().max(self.releases.max()) as f64 / 1e6
    }
}

/// A quantile in microseconds.
pub(crate) fn micros(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1e3
}

/// Puts a load on a server.
pub(crate) async fn run(target: &Target, load: &Load) -> Result<Sample, Failure> {
    match load.pace {
        Pace::Closed(in_flight) => closed::run(target, load, in_flight).await,
        Pace::Open(rate) => open::run(target, load, rate).await,
    }
}
