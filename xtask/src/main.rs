//! `cargo xtask`: build, demonstrate, test and measure Headroom.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

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
    /// Build the eBPF object and say what is in it.
    BuildEbpf(verbs::build_ebpf::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::BuildEbpf(arguments) => verbs::build_ebpf::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
