//! The server: configuration, the engine over a ledger and a store, and the gRPC services in front of it.
//!
//! A request is parsed once, at the edge; the engine's one writer decides it and makes it durable; a Check
//! never enters the writer's queue.

pub mod api;
pub mod clock;
pub mod config;
pub mod connections;
pub mod engine;
pub mod feed;
pub mod history;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod workers;
