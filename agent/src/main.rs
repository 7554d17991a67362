//! `headroom-agent`: measures WebSocket connections in the kernel and says what they cost and how many more fit.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod commands;

use std::process::ExitCode;

use agent::cli;
use clap::{Parser, Subcommand};

/// Measures WebSocket connections in the kernel, prices them, and says which ceiling this host will hit first.
///
/// Exit codes: 0 success, 64 usage, 69 unavailable, 70 internal, 77 no permission, 78 configuration.
#[derive(Parser)]
#[command(name = "headroom-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Say on stderr what is being done, and have the kernel programs log; twice for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Write the event stream.
    Run(commands::run::Arguments),
    /// Describe everything once and exit.
    Snapshot(commands::snapshot::Arguments),
    /// Say what this host allows, and what is lost where it does not.
    Check(commands::check::Arguments),
    /// Say how many connections fit into numbers given by hand, with no host at all.
    Plan(Box<commands::plan::Arguments>),
}

fn main() -> ExitCode {
    let arguments: Arguments = match cli::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let verbose = arguments.verbose;
    cli::run("headroom-agent", || match arguments.command {
        Command::Run(arguments) => commands::run::run(&arguments, verbose),
        Command::Snapshot(arguments) => commands::snapshot::run(&arguments, verbose),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Plan(arguments) => commands::plan::run(&arguments),
    })
}
