//! `headroom-load`: opens WebSocket connections by the million and counts every frame exactly.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use agent::cli::{self, Exit, Failure};
use anyhow::Context;
use server::limits::{self, Descriptors};
use server::load::flags::Arguments;
use server::load::target::{Target, TargetError};
use server::load::tls::Tls;
use server::load::{self};
use server::memory;
use server::signals::Stop;

/// Descriptors besides the connections: standard streams, epoll, signal and event descriptors, and some air.
const OTHER_DESCRIPTORS: u64 = 24;

fn main() -> ExitCode {
    // Before there are threads.
    memory::keep_together();
    match cli::parse::<Arguments>() {
        Ok(arguments) => cli::run("headroom-load", || run(&arguments)),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let targets = arguments.targets().map_err(|error| {
        let exit = match error {
            TargetError::Resolve { .. } => Exit::Unavailable,
            _ => Exit::Usage,
        };
        Failure::new(exit, error.to_string())
    })?;
    let options = arguments.options(std::io::stderr().is_terminal()).map_err(usage)?;
    let tls = trust(arguments, &targets)?;
    make_room(options.descriptors())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(async {
        let stop = Stop::new().context("install signal handlers")?;
        anyhow::Ok(load::run(options, targets, tls, stop).await?)
    })?;
    // Connections whose peer never answered our Close are still open; they end with the process.
    runtime.shutdown_background();
    let mut stdout = std::io::stdout().lock();
    if arguments.json() {
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(stdout, "{report}")?;
    }
    stdout.flush()?;
    if report.connections.opened == 0 && report.connections.failed + report.connections.refused > 0 {
        let urls = report.urls.join(", ");
        return Err(Failure::new(Exit::Unavailable, format!("no connection to {urls} was opened")).into());
    }
    Ok(())
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// TLS, if any of the targets wants it.
fn trust(arguments: &Arguments, targets: &[Target]) -> anyhow::Result<Option<Tls>> {
    if !targets.iter().any(|target| target.tls) {
        return Ok(None);
    }
    let trust = arguments.trust(targets).map_err(usage)?;
    let tls = Tls::new(trust, arguments.http2());
    Ok(Some(tls.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?))
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
