//! `cargo xtask fuzz`: the long run of the tests that `cargo xtask test` gives seconds.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use xtask::ebpf::workspace_root;

use super::{cargo, target_dir};
use crate::process::{Running, Stop};

/// Optimised: the run is as good as it is long.
const BUILD: &str =
    "build --quiet --locked --release --package agent-ebpf --example frames --example payloads";

/// Of each kind of payload.
const BYTES: u64 = 1_000_000_000;

/// Fuzz targets, and whether there is a dictionary.
const TARGETS: &[(&str, bool)] = &[("tracker", false), ("handshake", true)];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Random frames to follow through the tracker [default: a billion, unless --seconds or --bytes is given].
    #[arg(long)]
    frames: Option<u64>,
    /// Bytes of each kind of payload in which to look for frames that are none [default: a billion, unless --seconds or
    /// --frames is given].
    #[arg(long, conflicts_with_all = ["frames", "seconds"])]
    bytes: Option<u64>,
    /// How long to follow random frames, and then, where cargo-fuzz and a nightly toolchain are installed, how long to run
    /// each fuzz target.
    #[arg(long, conflicts_with = "frames")]
    seconds: Option<u64>,
    /// Repeat a run's frames: streams are the same, which thread takes which is not.
    #[arg(long)]
    seed: Option<u64>,
    /// Repeat one stream of that run.
    #[arg(long, requires = "seed", conflicts_with = "bytes")]
    stream: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    finish(&stop, &mut cargo(BUILD), "building the property runs")?;
    let is_plain = arguments.seconds.is_none() && arguments.stream.is_none();
    if arguments.bytes.is_none() {
        let frames = is_plain.then(|| arguments.frames.unwrap_or(1_000_000_000));
        let options = [
            ("--frames", frames.or(arguments.frames)),
            ("--seconds", arguments.seconds),
            ("--seed", arguments.seed),
            ("--stream", arguments.stream),
        ];
        example(&stop, "frames", &options)?;
    }
    if is_plain && arguments.frames.is_none() {
        let options = [("--bytes", Some(arguments.bytes.unwrap_or(BYTES))), ("--seed", arguments.seed)];
        example(&stop, "payloads", &options)?;
    }
    if let (Some(seconds), None) = (arguments.seconds, arguments.stream) {
        targets(&stop, seconds)?;
    }
    Ok(())
}

fn example(stop: &Stop, name: &str, options: &[(&str, Option<u64>)]) -> anyhow::Result<()> {
    let mut command = Command::new(target_dir().join("release/examples").join(name));
    for (name, value) in options {
        if let Some(value) = value {
            command.arg(name).arg(value.to_string());
        }
    }
    finish(stop, &mut command, &format!("the run of {name}"))
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
