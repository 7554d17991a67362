//! `headroom-agent run`: the event stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use agent::cli::{Exit, Failure, parse_duration};
use agent::daemon::{self, Output};
use agent::sink::Sink;
use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Scope, check};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// Where events go: stdout, file:PATH or unix:PATH.
    #[arg(long, value_name = "OUTPUT")]
    output: Option<Output>,
    /// Time between ticks.
    #[arg(long, value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Stop by itself after this long.
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Report each connection that a visit found changed, too.
    #[arg(long)]
    updates: bool,
}

pub(crate) fn run(arguments: &Arguments, verbose: u8) -> anyhow::Result<()> {
    let mut settings = arguments.scope.settings(verbose)?;
    if let Some(output) = &arguments.output {
        settings.output.clone_from(output);
    }
    if let Some(interval) = arguments.interval {
        settings.interval = interval;
    }
    settings.duration = arguments.duration.or(settings.duration);
    settings.updates |= arguments.updates;
    check(&settings)?;

    let stop = Arc::new(AtomicBool::new(false));
    let reopen = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("installing a signal handler")?;
    }
    signal_hook::flag::register(SIGHUP, Arc::clone(&reopen)).context("installing a signal handler")?;

    let (running, events) = daemon::start(&settings).map_err(Failure::from)?;
    if verbose > 0 {
        eprintln!("attached");
    }
    let control = running.control();
    let mut sink = Sink::open(&settings.output, running.control()).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot open output {:?}: {error}", settings.output))
    })?;
    loop {
        if stop.load(Ordering::Relaxed) {
            // The engine still says goodbye; what is in the queue is written before this loop ends.
            control.stop();
        }
        if reopen.swap(false, Ordering::Relaxed) {
            sink.reopen().context("reopening the output")?;
        }
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => sink.write(&event)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
