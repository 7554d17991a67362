//! The agent in this process.

use std::sync::mpsc::Receiver;

use agent::cli::{Exit, Failure};
use agent::document::Envelope;

use crate::Options;

/// Starts the agent in this process, watching what the options say.
pub fn local(options: &Options) -> anyhow::Result<Receiver<Envelope>> {
    // What the agent will take: nothing else of the options concerns it.
    let _ = (&options.ports, options.interval);
    let message = "this build holds no agent: name a running one with --agent SOCKET, or a recording with --replay FILE";
    Err(Failure::new(Exit::Unavailable, message).into())
}
