//! Black-box tests: what they share. The tests themselves are in `tests/`.

pub mod book;
pub mod grpc;
pub mod http2;
pub mod lives;
pub mod logs;
pub mod messages;
pub mod methods;
pub mod process;
pub mod schema;
pub mod scrape;
pub mod sim;
pub mod worlds;
