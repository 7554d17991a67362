//! Connections that go: a few at a time to come back, all at once to come back, or all in good order at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::mailbox::{Order, Task};
use super::opening::open_all;
use super::report::{Percentiles, Storm};
use super::run::{Run, Shape, count, lock};

/// Closing handshakes under way at once: a burst of thousands would queue behind each other, and the last would look
/// late.
const CLOSING: usize = 512;
/// When no connection has ended for so long, the rest is asked at once, and then given up.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How long dropped connections may take to be gone: nobody is asked.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// How long connections on their way back are waited for.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);
const SETTLE_LOOK: Duration = Duration::from_millis(10);

/// The share of connections that go abruptly is chosen among all by this.
const ABORT: u64 = 2;

/// Closes connections at random and has them opened again, `rate` a second, for ever. Counts in `ordered`.
pub(super) async fn churn(run: &Run, rate: f64, ordered: &AtomicU64) {
    let mut rng = Rng::with_seed(run.options.seed);
    let period = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut done = 0.0;
    let mut ranks = Vec::new();
    loop {
        ticks.tick().await;
        while done < began.elapsed().as_secs_f64() * rate {
            done += 1.0;
            // In rounds: otherwise some would be chosen while they are still on their way back.
            if ranks.is_empty() {
                ranks = run.open_ranks();
                rng.shuffle(&mut ranks);
            }
            if let Some(rank) = ranks.pop() {
                count(ordered);
                run.order(rank, Task::Recycle { abort: rng.f64() < run.options.abort });
            }
        }
    }
}

/// Waits until all that were `ordered` to come back have, or have failed.
pub(super) async fn settle(run: &Run, ordered: u64) {
    let began = Instant::now();
    let done = || run.fates.recycled.load(Ordering::Relaxed) + run.not_recycled.load(Ordering::Relaxed);
    while (done() < ordered || !run.is_settled()) && began.elapsed() < SETTLE_PATIENCE {
        tokio::time::sleep(SETTLE_LOOK).await;
    }
}

/// Drops every connection at once and opens as many as fast as the server takes them.
pub(super) async fn storm(run: &Arc<Run>) -> Storm {
    let ranks = run.open_ranks();
    let opened = run.fates.opened.load(Ordering::Relaxed);
    // Set once per run, here.
    let began = *run.storm_began.get_or_init(Instant::now);
    match run.shape {
        Shape::Dealt { .. } => ranks.iter().for_each(|rank| run.order(*rank, Task::Abort)),
        Shape::Packed { .. } => {
            // The connections come back as new ones, with mailboxes of their own.
            let severed = std::mem::take(&mut *lock(&run.mailboxes));
            severed.iter().for_each(|mailbox| mailbox.order(Order { slot: 0, task: Task::Sever }));
        }
    }
    let gone = async {
        while run.alive.load(Ordering::Acquire) > 0 {
            run.fewer.notified().await;
        }
    };
    let _ = timeout(DROP_PATIENCE, gone).await;
    open_all(run, &ranks, None).await;
    let times = run.storm_times.lock();
    Storm {
        dropped: ranks.len() as u64,
        returned: run.fates.opened.load(Ordering::Relaxed) - opened,
        seconds: (!times.is_empty()).then(|| began.elapsed().as_secs_f64()),
        return_seconds: Percentiles::of(&times),
    }
}

/// Ends every connection: the share that is to be aborted with a reset, all others with a closing handshake, so many at
/// a time. A peer that does not answer cannot hold it up for long.
pub(super) async fn close_all(run: &Arc<Run>) {
    run.begin_closing();
    let mut progress = Progress { left: usize::MAX, since: Instant::now() };
    let ranks = run.open_ranks();
    let before = run.alive.load(Ordering::Acquire);
    let mut spread = true;
    for (asked, rank) in ranks.iter().enumerate() {
        while spread && asked >= before.saturating_sub(run.alive.load(Ordering::Acquire)) + CLOSING {
            spread = progress.wait(run).await;
        }
        let abort = run.chosen(*rank, run.options.abort, ABORT);
        run.order(*rank, if abort { Task::Abort } else { Task::Close });
    }
    progress.since = Instant::now();
    while run.alive.load(Ordering::Acquire) > 0 && progress.wait(run).await {}
}

struct Progress {
    left: usize,
    since: Instant,
}

impl Progress {
    /// Waits until there are fewer connections; false when that has not been for too long.
    async fn wait(&mut self, run: &Run) -> bool {
        let _ = timeout(CLOSE_PATIENCE / 10, run.fewer.notified()).await;
        let left = run.alive.load(Ordering::Acquire);
        if left < self.left {
            *self = Self { left, since: Instant::now() };
        }
        self.since.elapsed() < CLOSE_PATIENCE
    }
}
