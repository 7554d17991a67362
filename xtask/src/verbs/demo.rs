//! `cargo xtask demo`: Headroom at work on a server and a crowd of clients that it brings along.

mod recorded;
mod watched;

use std::io::IsTerminal as _;
use std::process::Command;

use anyhow::ensure;

use super::crowd::{Server, Stage};
use crate::process::{Running, Stop, is_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Stop after this many seconds [default: on a terminal when you quit, otherwise 15].
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: Option<u64>,
    /// WebSocket connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    let stage = Stage::build(&stop, "demo", arguments.connections)?;
    if !is_root() {
        println!("attaching eBPF programs needs root: only the agent is started through sudo");
        let allowed = Running::start_in_foreground(Command::new("sudo").arg("-v"))
            .and_then(|mut sudo| sudo.wait(&stop))
            .is_ok_and(|status| status.success());
        stop.check()?;
        ensure!(allowed, "sudo is not there or refuses: run `cargo xtask demo` as root instead");
    }
    println!("loopback has no link speed: the bandwidth ceiling takes it for one of 1 Gbit/s");
    let server = Server::start(&stage, "1s")?;
    if std::io::stdout().is_terminal() {
        watched::run(&stage, &server, arguments.seconds)
    } else {
        recorded::run(&stage, &server, arguments.seconds.unwrap_or(15))
    }
}
