//! `cargo xtask bench`: measurements. They report and never judge: machines differ.

mod ceilings;
mod deflate;
mod figures;
mod idle;
pub(super) mod scale;
mod server;

use anyhow::ensure;

use super::cargo;
use crate::process::{Running, Stop};

#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Servers driven into their limits, and how well the agent had foretold where they fail.
    Ceilings(ceilings::Arguments),
    /// Memory and time of compression by window and memLevel, beside zlib's formulas.
    Deflate(deflate::Arguments),
    /// Nanoseconds per tracked and untracked packet, and the echo rate with and without the agent.
    Packet,
    /// The agent's share of a core and its memory beside many idle connections.
    Idle(idle::Arguments),
    /// A million WebSockets over TCP and two million over HTTP/2 on this machine, if it has what that takes.
    Scale(scale::Arguments),
    /// headroom-server beside what one would take instead: memory per idle connection, handshakes, echo.
    Server(server::Arguments),
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    match bench {
        Bench::Ceilings(arguments) => ceilings::run(&stop, arguments),
        Bench::Deflate(arguments) => deflate::run(&stop, arguments),
        Bench::Packet => packet(&stop),
        Bench::Idle(arguments) => idle::run(&stop, arguments),
        Bench::Scale(arguments) => scale::run(&stop, arguments),
        Bench::Server(arguments) => server::run(&stop, arguments),
    }
}

/// The measurement itself loads programs, so it lives with the agent.
fn packet(stop: &Stop) -> anyhow::Result<()> {
    let status = Running::start(&mut cargo("bench --locked --package agent --bench packet"))?.wait(stop)?;
    ensure!(status.success(), "the measurement failed: {status}");
    Ok(())
}
