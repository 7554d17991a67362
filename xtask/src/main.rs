//! `cargo xtask`: build, demonstrate, test and measure Headroom.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod apt;
mod process;
mod setup;
mod skip;
mod tally;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, demonstrate, test and measure Headroom.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measure what Headroom costs.
    #[command(subcommand)]
    Bench(verbs::bench::Bench),
    /// Build the eBPF object and say what is in it.
    BuildEbpf(verbs::build_ebpf::Arguments),
    /// Hold headroom-server to Autobahn|Testsuite, and fail where it is not strict.
    Conformance(verbs::conformance::Arguments),
    /// Show Headroom at work: the reference server, a crowd of clients, and the dashboard (or, without a terminal, the
    /// agent's table and events).
    Demo(verbs::demo::Arguments),
    /// Follow a billion random frames through the tracker, look for frames in a billion bytes of each kind of payload, and run
    /// the fuzz targets where that is possible.
    Fuzz(verbs::fuzz::Arguments),
    /// Run every check and test there is, those that need root included, and count them.
    Test,
    /// Run the privileged tests on Debian's kernels in emulated machines.
    VmTest(verbs::vm_test::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Bench(bench) => verbs::bench::run(&bench).map(done),
        Verb::BuildEbpf(arguments) => verbs::build_ebpf::run(&arguments).map(done),
        Verb::Conformance(arguments) => verbs::conformance::run(&arguments),
        Verb::Demo(arguments) => verbs::demo::run(&arguments).map(done),
        Verb::Fuzz(arguments) => verbs::fuzz::run(&arguments).map(done),
        Verb::Test => verbs::test::run(),
        Verb::VmTest(arguments) => verbs::vm_test::run(&arguments).map(done),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn done(_: ()) -> ExitCode {
    ExitCode::SUCCESS
}
