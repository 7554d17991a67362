//! Headroom's agent as a library: load → collect → model → events → sinks.

pub mod cli;
pub mod document;
pub mod report;
