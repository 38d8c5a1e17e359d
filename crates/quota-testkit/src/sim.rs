//! The simulator's parts that know nothing of a server: what happens in a simulated life, as text that can be
//! read, cut and run again; who makes it up; how a failing one is cut short; what all of them covered.

pub mod coverage;
pub mod generator;
pub mod shrink;
pub mod steps;
