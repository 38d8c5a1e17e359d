//! What the server tells of itself: metrics, logs and traces. Nothing here is asked before a decision, and
//! what costs more than a few nanoseconds happens when somebody looks: gauges are read at the scrape, and a
//! span exists only for a call that was chosen to have one.

pub mod calls;
pub mod exposition;
pub mod metrics;
pub mod subjects;
