//! What the server tells of itself: metrics, logs and traces. Nothing here is asked before a decision, and
//! what costs more than a few nanoseconds happens when somebody looks: gauges are read at the scrape, and a
//! span exists only for a call that was chosen to have one.

pub mod calls;
pub mod exposition;
pub mod logs;
pub mod metrics;
pub mod subjects;
pub mod traces;

/// What a server is watched by, beside its metrics, which are the engine's. The default is neither.
#[derive(Clone, Default)]
pub struct Telemetry {
    /// Which log lines are written.
    pub log_filter: logs::LogFilter,
    /// Where spans go.
    pub traces: Option<traces::Traces>,
}
