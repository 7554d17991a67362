//! `headroom-agent run`: the event stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use agent::cli::{Exit, Failure, parse_duration, say};
use agent::daemon::{self, Output, Sample};
use agent::document::Body;
use agent::sink::Sink;
use anyhow::{Context as _, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

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
    /// Tell of one connection of so many, from its opening to its close: 1/10. Totals and ceilings are of all.
    #[arg(long, value_name = "1/N")]
    sample_connections: Option<Sample>,
    /// Most events about single connections a second; what is beyond is counted.
    #[arg(long, value_name = "PER_SECOND")]
    max_connection_events: Option<u32>,
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
    settings.sample_connections = arguments.sample_connections.or(settings.sample_connections);
    settings.max_connection_events = arguments.max_connection_events.or(settings.max_connection_events);
    check(&settings)?;

    let stop = Arc::new(AtomicBool::new(false));
    let reopen = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends the process at once: a reader that has stalled must not keep it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .context("installing a signal handler")?;
    }
    flag::register(SIGHUP, Arc::clone(&reopen)).context("installing a signal handler")?;
    // A file at its size limit (RLIMIT_FSIZE) is an error of write(2) then, and not the end.
    flag::register(SIGXFSZ, Arc::default()).context("installing a signal handler")?;

    let output = &settings.output;
    // Before anything attaches: an output that cannot be written is the cheaper thing to find out.
    let mut sink = Sink::open(output)
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot open output {output}: {error}")))?;
    let (running, events) = daemon::start(&settings).map_err(Failure::from)?;
    if verbose > 0 {
        say("attached");
    }
    let control = running.control();
    sink.attach(&control).with_context(|| format!("accepting readers of {output}"))?;
    let mut ended = false;
    loop {
        if stop.load(Ordering::Relaxed) {
            // The engine still says goodbye; what is in the queue is written before this loop ends.
            control.stop();
        }
        if reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        sink.pace();
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => {
                ended = matches!(event.body, Body::AgentStopped(_));
                sink.write(&event).with_context(|| format!("writing to output {output}"))?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                ensure!(ended, "the agent's engine ended without a word; its own message stands above");
                return Ok(());
            }
        }
    }
}
