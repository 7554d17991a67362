//! What compression costs by setting, measured beside zlib's formulas.
//!
//! The measurement needs the server's library, so it lives with it.

use std::process::Command;

use anyhow::ensure;

use crate::process::{Running, Stop};
use crate::verbs::{cargo, target_dir};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Connections to headroom-server at each setting; at the largest, each takes it 300 KiB
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    connections: u32,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    println!("building the release binaries (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --package server --bins --example deflate");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    let release = target_dir().join("release");
    let mut command = Command::new(release.join("examples/deflate"));
    command.arg(release.join("headroom-server")).arg(arguments.connections.to_string());
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the measurement failed: {status}");
    Ok(())
}
