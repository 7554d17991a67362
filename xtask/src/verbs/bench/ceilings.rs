//! Servers driven into their limits: where they failed, against what the agent had said on the way there.
//!
//! The experiments live with the privileged tests, whose servers, clients and namespaces they need; two small ones are tests
//! themselves.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::process::{Running, Stop, is_root};
use crate::setup;
use crate::verbs::{cargo, executable, target_dir};

const BUILD: &str =
    "build --release --workspace --bins --test privileged --locked --message-format=json-render-diagnostics";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run the experiments whose name contains this, such as "memory" or "Node" [default: all of them]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// How often each is run; the table shows medians, the JSON all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: u32,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(is_root(), "needs root: it attaches the agent, limits servers and makes network namespaces");
    // What is missing makes those experiments fail that need it, and no others.
    if let Err(error) = setup::install(stop) {
        stop.check()?;
        println!("{error:#}");
    }
    println!("building the release binaries (the first time takes some minutes)");
    let mut build = Running::start(cargo(BUILD).stdout(Stdio::piped()))?;
    let lines = std::io::read_to_string(build.child.stdout.take().context("no stdout")?)?;
    let status = build.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    let experiments = lines.lines().find_map(|line| executable(line, "privileged"));
    let mut command = Command::new(experiments.context("the experiments were not built")?);
    command.args(["--ceilings", &arguments.only, &arguments.repeat.to_string()]);
    command.env("HEADROOM_BIN_DIR", target_dir().join("release"));
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "not every experiment came to its end");
    Ok(())
}
