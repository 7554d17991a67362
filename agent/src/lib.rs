//! Headroom's agent as a library.
//!
//! Data flows one way: kernel programs → records ([`kernel`]) → readings and sums ([`model`]) → documents
//! ([`document`]) → sinks. [`daemon`] drives the flow; [`host`] is the rest of the operating system. Without the
//! `kernel` feature only what needs no kernel is left: documents, model, reports, command-line conventions.

pub mod cli;
#[cfg(feature = "kernel")]
pub mod daemon;
pub mod document;
#[cfg(feature = "kernel")]
pub mod host;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod model;
pub mod report;
#[cfg(feature = "kernel")]
pub mod sink;
pub mod terminal;
