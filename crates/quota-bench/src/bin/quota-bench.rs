//! `quota-bench`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    quota_bench::main()
}
