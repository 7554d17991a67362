//! `cargo xtask fuzz`: the long run of the tests that `cargo xtask test` gives seconds.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use xtask::ebpf::workspace_root;

use super::{cargo, target_dir};
use crate::process::{Running, Stop};

/// Optimised: the run is as good as it is long.
const BUILD: &str = "build --quiet --locked --release --package agent-ebpf --example frames";

/// Fuzz targets, and whether there is a dictionary.
const TARGETS: &[(&str, bool)] = &[("tracker", false), ("handshake", true)];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Random frames to follow through the tracker [default: a billion, unless --seconds is given].
    #[arg(long)]
    frames: Option<u64>,
    /// How long to follow random frames, and then, where cargo-fuzz and a nightly toolchain are installed, how long to run
    /// each fuzz target.
    #[arg(long, conflicts_with = "frames")]
    seconds: Option<u64>,
    /// Repeat a run's frames: streams are the same, which thread takes which is not.
    #[arg(long)]
    seed: Option<u64>,
    /// Repeat one stream of that run.
    #[arg(long, requires = "seed")]
    stream: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    finish(&stop, &mut cargo(BUILD), "building the property run")?;
    let frames = match (arguments.seconds, arguments.stream) {
        (None, None) => Some(arguments.frames.unwrap_or(1_000_000_000)),
        _ => arguments.frames,
    };
    let mut command = Command::new(target_dir().join("release/examples/frames"));
    let options = [
        ("--frames", frames),
        ("--seconds", arguments.seconds),
        ("--seed", arguments.seed),
        ("--stream", arguments.stream),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            command.args([name, &value.to_string()]);
        }
    }
    finish(&stop, &mut command, "the property run")?;
    if let (Some(seconds), None) = (arguments.seconds, arguments.stream) {
        targets(&stop, seconds)?;
    }
    Ok(())
}

/// The libFuzzer targets, which find their way by coverage.
fn targets(stop: &Stop, seconds: u64) -> anyhow::Result<()> {
    let mut version = cargo_fuzz();
    let version = version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        println!(
            "the fuzz targets are left out: they need a nightly toolchain (rustup toolchain install nightly) and \
             cargo-fuzz (cargo install cargo-fuzz)"
        );
        return Ok(());
    }
    for (target, has_dictionary) in TARGETS {
        println!("\n==> fuzz target {target}, {seconds} s");
        // What is found goes there; the committed corpus is only read.
        let found = target_dir().join("fuzz").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
        let mut command = cargo_fuzz();
        command.args(["run", target]).arg(&found).arg(format!("fuzz/corpus/{target}"));
        // Quiet: its own words are thousands of lines.
        command.args(["--", "-timeout=20", "-verbosity=0", "-print_final_stats=1"]);
        command.arg(format!("-max_total_time={seconds}"));
        if *has_dictionary {
            command.arg(format!("-dict=fuzz/{target}.dict"));
        }
        finish(stop, &mut command, &format!("fuzz target {target}"))?;
    }
    Ok(())
}

fn cargo_fuzz() -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(workspace_root()).args(["run", "nightly", "cargo", "fuzz"]);
    command
}

fn finish(stop: &Stop, command: &mut Command, what: &str) -> anyhow::Result<()> {
    let status = Running::start(command)?.wait(stop)?;
    ensure!(status.success(), "{what} failed: {status}");
    Ok(())
}
