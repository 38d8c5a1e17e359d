//! `quota-bench-counted`: either service under an allocator that counts. A program of its own, so that nothing
//! else pays for the counting.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    quota_bench::counted_main(|| {
        let stats = ALLOCATOR.stats();
        let bytes = stats.bytes_allocated;
        (stats.allocations.saturating_add(stats.reallocations), bytes)
    })
}
