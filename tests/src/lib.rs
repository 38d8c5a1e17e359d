//! Black-box tests: what they share. The tests themselves are in `tests/`.

pub mod grpc;
pub mod process;
pub mod sim;
pub mod worlds;
