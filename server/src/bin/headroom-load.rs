//! `headroom-load`: opens WebSocket connections by the thousand and counts every frame exactly.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use agent::cli::{self, Exit, Failure, parse_duration, parse_size};
use anyhow::Context;
use clap::Parser;
use server::limits::{self, Descriptors};
use server::load::target::{Target, TargetError};
use server::load::{self, Options};
use server::signals::Stop;

/// Descriptors besides the connections: standard streams, epoll, signal and event descriptors, and some air.
const OTHER_DESCRIPTORS: u64 = 16;

/// WebSocket load generator for this host: opens connections, sends on a fixed schedule, measures, counts exactly.
///
/// SIGINT or SIGTERM ends any phase early; the result is still printed.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Server to load, such as ws://127.0.0.1:8080/echo
    #[arg(long)]
    url: String,
    /// Connections to open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Connections opened per second
    #[arg(long, value_name = "R", default_value = "2000", value_parser = parse_positive)]
    rate: f64,
    /// How long to send, from the moment all connections are open
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Then keep the connections this long, answering pings only
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    linger: Duration,
    /// Messages per second on each connection; 0 leaves them idle
    #[arg(long, value_name = "R", default_value = "0", value_parser = parse_not_negative)]
    message_rate: f64,
    /// Payload of a message; from 16B on each is matched with its own echo, below that by order
    #[arg(long, value_name = "SIZE", default_value = "128B", value_parser = parse_message_size)]
    message_size: usize,
    /// Send binary messages instead of text
    #[arg(long)]
    binary: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Permit a server that is not on this host's loopback
    #[arg(long)]
    allow_remote: bool,
}

fn main() -> ExitCode {
    match cli::parse::<Arguments>() {
        Ok(arguments) => cli::run("headroom-load", || run(arguments)),
        Err(code) => code,
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let target = Target::resolve(&arguments.url, arguments.allow_remote).map_err(|error| {
        let exit = match error {
            TargetError::Resolve { .. } => Exit::Unavailable,
            _ => Exit::Usage,
        };
        Failure::new(exit, error.to_string())
    })?;
    make_room(arguments.connections)?;
    let options = Options {
        connections: arguments.connections,
        rate: arguments.rate,
        duration: arguments.duration,
        linger: arguments.linger,
        message_rate: arguments.message_rate,
        message_size: arguments.message_size,
        binary: arguments.binary,
        progress: std::io::stderr().is_terminal(),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(async {
        let stop = Stop::new().context("install signal handlers")?;
        anyhow::Ok(load::run(options, target, stop).await?)
    })?;
    // Connections whose peer never answered our Close are still open; they end with the process.
    runtime.shutdown_background();
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(stdout, "{report}")?;
    }
    stdout.flush()?;
    if report.connections.opened == 0 && report.connections.failed + report.connections.refused > 0 {
        return Err(
            Failure::new(Exit::Unavailable, format!("no connection to {} was opened", report.url)).into()
        );
    }
    Ok(())
}

/// Raises the descriptor limit and checks that all connections fit.
fn make_room(connections: u32) -> anyhow::Result<()> {
    let limit = limits::raise().unwrap_or_else(|_| Descriptors::current());
    let number = |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |limit| limit.to_string());
    let needed = u64::from(connections) + OTHER_DESCRIPTORS;
    if !limit.fit(needed).context("count open descriptors")? {
        let hard = number(limit.now);
        return Err(Failure::new(
            Exit::Unavailable,
            format!(
                "{connections} connections do not fit into the hard limit of {hard} descriptors (ulimit -Hn)"
            ),
        )
        .into());
    }
    if limit.raised() {
        let (before, now) = (number(limit.before), number(limit.now));
        writeln!(std::io::stderr(), "headroom-load: descriptor limit raised from {before} to {now}")?;
    }
    Ok(())
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match parse_not_negative(text)? {
        0.0 => Err("must be more than 0".into()),
        rate => Ok(rate),
    }
}

fn parse_not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    // Outside this range the schedule's arithmetic would overflow or mean nothing.
    if number == 0.0 || (1e-3..=1e9).contains(&number) {
        Ok(number)
    } else {
        Err("must be 0 or from 0.001 to 1e9".into())
    }
}

fn parse_message_size(text: &str) -> Result<usize, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    usize::try_from(size).map_err(|_| format!("{text:?} is too large"))
}
