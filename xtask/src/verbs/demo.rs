//! `cargo xtask demo`: Headroom at work on a server and a crowd of clients that it brings along.

mod crowd;
mod recorded;
mod watched;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{cargo, target_dir};
use crate::process::{Running, Stop, is_root};
use crowd::Server;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Stop after this many seconds [default: on a terminal when you quit, otherwise 15].
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: Option<u64>,
    /// WebSocket connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

/// What both forms of the demonstration share.
struct Stage<'a> {
    stop: &'a Stop,
    connections: u32,
    /// Where outputs and logs go.
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    build(&stop)?;
    let folder = target_dir().join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    if !is_root() {
        println!("attaching eBPF programs needs root: only the agent is started through sudo");
        let allowed = Running::start_in_foreground(Command::new("sudo").arg("-v"))
            .and_then(|mut sudo| sudo.wait(&stop))
            .is_ok_and(|status| status.success());
        stop.check()?;
        ensure!(allowed, "sudo is not there or refuses: run `cargo xtask demo` as root instead");
    }
    let stage = Stage { stop: &stop, connections: arguments.connections, folder };
    let server = Server::start(&stage)?;
    if std::io::stdout().is_terminal() {
        watched::run(&stage, &server, arguments.seconds)
    } else {
        recorded::run(&stage, &server, arguments.seconds.unwrap_or(15))
    }
}

fn build(stop: &Stop) -> anyhow::Result<()> {
    println!("building the release binaries (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --bins --package agent --package server --package tui");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    Ok(())
}

/// One of the binaries just built.
fn binary(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

/// One of them with the privilege to attach, which `run` made sure of.
fn privileged(name: &str) -> Command {
    if is_root() {
        return Command::new(binary(name));
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(binary(name));
    command
}
