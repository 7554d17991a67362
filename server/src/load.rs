//! The load generator: opens connections, keeps them, sends on an open-loop schedule, and counts every frame exactly.
//!
//! Exactness comes from [`crate::meter`]: a frame counts when the kernel took or gave its last byte (over TLS and HTTP/2:
//! when their layer did), never when the protocol engine queued it. So pongs and Close replies that tungstenite sends by
//! itself are counted too, and a frame that a full socket buffer swallowed half of is not.
//!
//! Connections are served in bundles ([`bundle`]), and an idle one costs next to nothing: no task, no engine.

mod bits;
mod bundle;
mod carrier;
mod client;
mod compression;
pub mod flags;
mod http2;
mod mailbox;
mod message;
mod opening;
mod pacer;
mod probe;
mod progress;
pub mod report;
mod run;
mod session;
pub mod target;
pub mod tls;
mod totals;
mod turnover;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::deflate::Settings;
use crate::memory;
use crate::signals::Stop;
pub use message::{Payload, Sizes};
pub use pacer::Arrival;
use probe::Kind;
use report::{Probe, Report, Storm};
use run::Run;
use target::Target;
use tls::Tls;

/// What to do to the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections to open.
    pub connections: u32,
    /// Connections opened per second.
    pub rate: f64,
    /// How long messages are sent, from the moment the last connection is open.
    pub duration: Duration,
    /// How long the connections then stay, answering pings and nothing else.
    pub linger: Duration,
    /// Messages per second on each connection; 0 leaves them idle.
    pub message_rate: f64,
    /// When they are due.
    pub arrival: Arrival,
    /// On each connection the next message is sent when the last has come back; the rate has no meaning.
    pub closed_loop: bool,
    /// Sizes of payloads.
    pub sizes: Sizes,
    /// What they consist of.
    pub payload: Payload,
    /// Binary messages instead of text.
    pub binary: bool,
    /// What chance decides depends on this alone.
    pub seed: u64,
    /// Share of connections that read slowly, 0 to 1.
    pub slow_readers: f64,
    /// What they read, in bytes per second each.
    pub read_rate: f64,
    /// Share of connections that end with a reset, 0 to 1.
    pub abort: f64,
    /// Connections per second that end and come back while messages are sent; 0 for none.
    pub churn: f64,
    /// After the messages, all connections are dropped at once and come back.
    pub storm: bool,
    /// Before the end every connection sends a ping, and the answers are waited for.
    pub ping_all: bool,
    /// The same with a message.
    pub message_all: bool,
    /// WebSockets on each HTTP/2 connection; `None` is HTTP/1.1.
    pub streams_per_connection: Option<u32>,
    /// Number of the first block of source addresses on loopback: other processes take others.
    pub first_source: u32,
    /// Offer compression.
    pub deflate: Option<Settings>,
    /// Paint progress on standard error.
    pub progress: bool,
    /// Say on standard error when the connections have been opened.
    pub announce: bool,
}

impl Options {
    /// TCP connections that will be open at once.
    pub fn descriptors(&self) -> u32 {
        self.streams_per_connection.map_or(self.connections, |streams| self.connections.div_ceil(streams))
    }
}

/// Why a run cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The histograms cannot be made.
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// No thread can be had.
    #[error("cannot start the pacing thread: {0}")]
    Pacer(#[source] io::Error),
    /// No epoll set can be had.
    #[error("cannot make an epoll set: {0}")]
    Epoll(#[source] io::Error),
}

/// What the phases after the opening found.
#[derive(Default)]
struct Found {
    duration: Duration,
    storm: Option<Storm>,
    ping_all: Option<Probe>,
    message_all: Option<Probe>,
}

/// Runs the load and reports. `targets` are used in turn and not empty. A signal on `stop` ends the phase it comes in, and
/// everything that only waits; the probes and the closing that follow end with the next. The report is of what was done.
///
/// # Errors
/// Only for want of memory, a thread or a descriptor of its own; failures of connections are in the report.
pub async fn run(
    options: Options,
    targets: Vec<Target>,
    tls: Option<Tls>,
    mut stop: Stop,
) -> Result<Report, LoadError> {
    let run = Run::new(options, targets, tls)?;
    opening::prepare(&run)?;
    let progress = run.options.progress.then(|| tokio::spawn(progress::paint(run.clone())));
    let found = phases(&run, &mut stop).await?;
    tokio::select! {
        () = turnover::close_all(&run) => {}
        _ = stop.requested() => {}
    }
    run.count_errors("close_timeout", run.alive.load(Ordering::Acquire) as u64);
    if let Some(task) = progress {
        task.abort();
        progress::clear();
    }
    Ok(report(&run, found))
}

/// Everything between the start and the closing.
async fn phases(run: &Arc<Run>, stop: &mut Stop) -> Result<Found, LoadError> {
    let options = &run.options;
    let mut found = Found::default();
    let ranks: Vec<u32> = (0..options.connections).collect();
    let mut going = tokio::select! {
        () = opening::open_all(run, &ranks, Some(options.rate)) => true,
        _ = stop.requested() => false,
    };
    drop(ranks);
    tidy().await;
    if options.announce {
        let opened = run.fates.opened.load(Ordering::Relaxed);
        // Whoever does not listen any more does not need it.
        let _ =
            writeln!(io::stderr(), "headroom-load: {opened} of {} connections opened", options.connections);
    }
    let began = Instant::now();
    if going {
        (going, found.duration) = send(run, began, stop).await?;
    }
    if going && options.storm {
        tokio::select! {
            storm = turnover::storm(run) => found.storm = Some(storm),
            _ = stop.requested() => going = false,
        }
    }
    if going {
        tidy().await;
        wait(options.linger, stop).await;
    }
    if options.ping_all {
        found.ping_all = Some(probe::probe(run, Kind::Ping, stop).await?);
    }
    if options.message_all {
        found.message_all = Some(probe::probe(run, Kind::Message, stop).await?);
    }
    Ok(found)
}

/// Sends for the run's duration. Whether no signal came.
async fn send(run: &Arc<Run>, began: Instant, stop: &mut Stop) -> Result<(bool, Duration), LoadError> {
    run.sending.store(true, Ordering::Release);
    let pacer = pacer::start(run, began).map_err(LoadError::Pacer)?;
    let recycled = AtomicU64::new(0);
    let churn = async {
        match run.options.churn {
            0.0 => std::future::pending().await,
            rate => turnover::churn(run, rate, &recycled).await,
        }
    };
    let going = tokio::select! {
        going = wait(run.options.duration, stop) => going,
        () = churn => false,
    };
    pacer.end(!going).await;
    run.sending.store(false, Ordering::Release);
    // Not what was asked for: a busy machine's timers are late, and all that time counts.
    let elapsed = began.elapsed();
    turnover::settle(run, recycled.load(Ordering::Relaxed)).await;
    Ok((going, elapsed))
}

/// Gives back what was needed for a while, so that what idle connections cost can be seen.
async fn tidy() {
    // It walks all free memory: not on a thread that serves.
    let _ = tokio::task::spawn_blocking(memory::give_back).await;
}

/// Whether `time` passed without a signal.
async fn wait(time: Duration, stop: &mut Stop) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        _ = stop.requested() => false,
    }
}

fn report(run: &Run, found: Found) -> Report {
    let options = &run.options;
    let unsent = options.message_rate == 0.0 && !options.closed_loop && !options.message_all;
    let no_echo = if unsent { "no message was sent: the message rate is 0" } else { "no message came back" };
    let urls = run.targets.iter().map(|target| target.url.clone()).collect();
    let mut report = Report::new(urls, run.fates.report(), found.duration);
    if options.streams_per_connection.is_some() {
        report.http2_connections = Some(run.fates.http2_connections.load(Ordering::Relaxed));
    }
    report.sent = run.totals.sent.snapshot();
    report.received = run.totals.received.snapshot();
    report.connect(&run.connect_times.lock());
    report.handshake(&run.handshake_times.lock());
    report.echo(&run.echo_times.lock(), no_echo);
    let seconds = found.duration.as_secs_f64();
    let echoes = run.echoes.load(Ordering::Relaxed);
    report.echoes_per_second = (echoes > 0 && seconds > 0.0).then(|| echoes as f64 / seconds);
    report.storm = found.storm;
    report.ping_all = found.ping_all;
    report.message_all = found.message_all;
    report.errors = run.errors();
    report
}
