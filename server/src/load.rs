//! The load generator: opens connections, keeps them, sends on an open-loop schedule, and counts every frame exactly.
//!
//! Exactness comes from [`crate::meter`]: a frame counts when the kernel took or gave its last byte, never when the
//! protocol engine queued it. So pongs and Close replies that tungstenite sends by itself are counted too, and a
//! frame that a full socket buffer swallowed half of is not.

mod client;
mod pacer;
mod progress;
pub mod report;
mod session;
pub mod target;
mod totals;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::{Notify, Semaphore};

use crate::signals::Stop;
use pacer::Schedule;
use report::{Connections, Report};
use session::{Line, Session};
use target::Target;
use totals::Totals;

/// Upgrades under way at once; more would only queue in the server's backlog and fall out of it.
const IN_FLIGHT: u32 = 512;

/// How long the closing handshakes may take, all together.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// Payload of a message in bytes.
    pub message_size: usize,
    /// Binary messages instead of text.
    pub binary: bool,
    /// Paint progress on standard error.
    pub progress: bool,
}

/// What the connections share.
struct Run {
    options: Options,
    target: Target,
    totals: Arc<Totals>,
    opened: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    closed_by_peer: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    /// Nanoseconds.
    connect_times: Mutex<Histogram<u64>>,
    echo_times: Mutex<Histogram<u64>>,
    lines: Mutex<Lines>,
    /// Upgrades under way and open connections.
    active: AtomicUsize,
    /// Notified when `active` falls to zero.
    idle: Notify,
    schedule: OnceLock<Schedule>,
}

#[derive(Default)]
struct Lines {
    open: Vec<Arc<Line>>,
    closing: bool,
}

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The histograms cannot be made.
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// No thread can be had.
    #[error("cannot start the pacing thread: {0}")]
    Pacer(#[from] std::io::Error),
}

/// Runs the load and reports. A signal on `stop` ends whatever phase it is in; the report is of what was done.
///
/// # Errors
/// Only before the first connection or for want of a thread; failures of connections are in the report.
pub async fn run(options: Options, target: Target, mut stop: Stop) -> Result<Report, LoadError> {
    let run = Arc::new(Run {
        totals: Arc::default(),
        opened: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        closed_by_peer: AtomicU64::new(0),
        errors: Mutex::default(),
        connect_times: Mutex::new(histogram()?),
        echo_times: Mutex::new(histogram()?),
        lines: Mutex::default(),
        active: AtomicUsize::new(0),
        idle: Notify::new(),
        schedule: OnceLock::new(),
        options,
        target,
    });
    let progress = run.options.progress.then(|| tokio::spawn(progress::paint(run.clone())));

    let mut stopped = tokio::select! {
        () = open_all(&run) => false,
        _ = stop.requested() => true,
    };
    let began = Instant::now();
    if !stopped {
        let pacer = pacer::start(&run, began)?;
        stopped = !wait(run.options.duration, &mut stop).await;
        pacer.end();
    }
    let duration = if stopped { began.elapsed() } else { run.options.duration };
    if !stopped {
        wait(run.options.linger, &mut stop).await;
    }
    close_all(&run, &mut stop).await;
    if let Some(task) = progress {
        task.abort();
        progress::clear();
    }
    Ok(run.report(duration))
}

/// Whether `time` passed without a signal.
async fn wait(time: Duration, stop: &mut Stop) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        _ = stop.requested() => false,
    }
}

/// Starts connections at the rate asked for and returns when each has opened or failed.
async fn open_all(run: &Arc<Run>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    let start = tokio::time::Instant::now();
    for index in 0..run.options.connections {
        tokio::time::sleep_until(start + Duration::from_secs_f64(f64::from(index) / run.options.rate)).await;
        // The semaphore is never closed.
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            return;
        };
        let active = Active::new(run);
        tokio::spawn(async move {
            open_one(index, active).await;
            drop(permit);
        });
    }
    // All permits back: nothing is under way.
    let _ = in_flight.acquire_many(IN_FLIGHT).await;
}

async fn open_one(index: u32, active: Active) {
    let run = active.0.clone();
    let started = Instant::now();
    match client::open(&run.target, index).await {
        Ok(opened) => {
            let elapsed = started.elapsed();
            run.opened.fetch_add(1, Ordering::Relaxed);
            record(&run.connect_times, elapsed);
            let line = run.join();
            // Not awaited here: this task's future is larger than the session's and ends now.
            tokio::spawn(Session::new(opened, line, active));
        }
        Err(error) => {
            let counter = if error.is_refusal() { &run.refused } else { &run.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            run.count_error(&error.kind());
        }
    }
}

/// Asks every connection for its closing handshake and waits a bounded time: a stopped peer answers nothing.
async fn close_all(run: &Arc<Run>, stop: &mut Stop) {
    {
        let mut lines = run.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.closing = true;
        lines.open.iter().for_each(|line| line.close());
    }
    let all_gone = async {
        while run.active.load(Ordering::Acquire) > 0 {
            run.idle.notified().await;
        }
    };
    tokio::select! {
        () = all_gone => {}
        () = tokio::time::sleep(CLOSE_TIMEOUT) => {}
        _ = stop.requested() => {}
    }
    for _ in 0..run.active.load(Ordering::Acquire) {
        run.count_error("close_timeout");
    }
}

impl Run {
    /// A place in the schedule for a new connection.
    fn join(&self) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Arc::new(Line::new(lines.open.len() as u32));
        if lines.closing {
            line.close();
        }
        lines.open.push(line.clone());
        line
    }

    fn count_error(&self, kind: &str) {
        self.count_errors(kind, 1);
    }

    fn count_errors(&self, kind: &str, count: u64) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(kind.to_owned()).or_default() += count;
    }

    fn report(&self, duration: Duration) -> Report {
        let echo_missing = if self.options.message_rate == 0.0 {
            "no message was sent: the message rate is 0"
        } else {
            "no message came back"
        };
        let mut report = Report::new(
            self.target.url.clone(),
            Connections {
                requested: u64::from(self.options.connections),
                opened: self.opened.load(Ordering::Relaxed),
                failed: self.failed.load(Ordering::Relaxed),
                refused: self.refused.load(Ordering::Relaxed),
                closed_by_peer: self.closed_by_peer.load(Ordering::Relaxed),
            },
            duration,
        );
        report.sent = self.totals.sent.snapshot();
        report.received = self.totals.received.snapshot();
        report.connect(&self.connect_times.lock().unwrap_or_else(PoisonError::into_inner));
        report.echo(&self.echo_times.lock().unwrap_or_else(PoisonError::into_inner), echo_missing);
        report.errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report
    }
}

/// One upgrade or connection among [`Run::active`].
struct Active(Arc<Run>);

impl Active {
    fn new(run: &Arc<Run>) -> Self {
        run.active.fetch_add(1, Ordering::AcqRel);
        Self(run.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// Nanoseconds up to an hour, to three significant digits.
fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
}

fn record(histogram: &Mutex<Histogram<u64>>, time: Duration) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanoseconds);
}
