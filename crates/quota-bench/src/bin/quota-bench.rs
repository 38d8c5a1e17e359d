//! `quota-bench`: see the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The server's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    quota_bench::main()
}
