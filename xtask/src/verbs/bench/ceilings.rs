//! `cargo xtask bench ceilings`: servers driven into their limits, against what the agent had said on the way.
//!
//! The experiments need what the privileged tests have (foreign servers, namespaces, a running agent), so they live there.

use std::process::Command;

use anyhow::ensure;

use crate::process::{Running, Stop};
use crate::setup;
use crate::verbs::{target_dir, vm_test};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only experiments whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Runs of each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=20))]
    repeat: u8,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    if let Err(error) = setup::install(stop) {
        println!("{error:#}");
    }
    let mut command = Command::new(vm_test::build(stop)?);
    command.args(["--ceilings", &arguments.only, &arguments.repeat.to_string()]);
    command.env("HEADROOM_BIN_DIR", target_dir().join(vm_test::PROFILE_DIR));
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "not every experiment came to its end: {status}");
    Ok(())
}
