//! The open-loop schedule: when each message is due does not depend on how the server keeps up, and latency is measured
//! from then, so a stall shows in every message it delayed (no coordinated omission).
//!
//! A thread with a fine-grained sleep does the pacing: tokio's timers are a millisecond coarse, which on loopback would
//! be the measurement.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;

use super::mailbox::Task;
use super::run::Run;

/// Longest sleep, so that an end is noticed.
const MAX_SLEEP: Duration = Duration::from_millis(20);

/// When messages arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrival {
    /// At equal intervals, the connections taking turns.
    Constant,
    /// Independently of each other: exponential gaps, connections at random.
    Poisson,
}

/// The messages of all connections, in the order in which they are due.
struct Schedule {
    arrival: Arrival,
    /// Seconds between two messages, on average.
    gap: f64,
    connections: usize,
    rng: Rng,
    index: u64,
    /// Seconds from the start.
    at: f64,
}

impl Schedule {
    /// `rate` is a connection's, in messages per second.
    fn new(arrival: Arrival, rate: f64, connections: usize, seed: u64) -> Self {
        let gap = 1.0 / (rate * connections as f64);
        let mut schedule = Self { arrival, gap, connections, rng: Rng::with_seed(seed), index: 0, at: 0.0 };
        if arrival == Arrival::Poisson {
            schedule.at = schedule.exponential();
        }
        schedule
    }

    /// When the next message is due, in seconds from the start, and whose it is.
    fn next(&mut self) -> (f64, usize) {
        let at = self.at;
        self.index += 1;
        let whose = match self.arrival {
            Arrival::Constant => {
                // Not by adding up, which would drift.
                self.at = self.gap * self.index as f64;
                ((self.index - 1) % self.connections as u64) as usize
            }
            Arrival::Poisson => {
                self.at += self.exponential();
                self.rng.usize(..self.connections)
            }
        };
        (at, whose)
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.rng.f64()).ln() * self.gap
    }
}

/// The pacing thread.
pub(super) struct Pacer {
    cut: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Returns when nothing is due any more: everything that was due has been ordered, however late, unless the schedule
    /// is `cut` short.
    pub(super) async fn end(self, cut: bool) {
        self.cut.store(cut, Ordering::Release);
        if let Some(thread) = self.thread {
            // It ends soon, and does not panic.
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}

/// Starts pacing the connections open now, for the run's duration from `start`. Without a message rate it does nothing;
/// in a closed loop each connection sends at once, and goes on by itself.
pub(super) fn start(run: &Arc<Run>, start: Instant) -> io::Result<Pacer> {
    let cut = Arc::new(AtomicBool::new(false));
    let mut thread = None;
    let ranks = run.open_ranks();
    let options = &run.options;
    if options.closed_loop {
        let due = run.since(start);
        ranks.iter().for_each(|rank| run.order(*rank, Task::Send(due)));
    } else if options.message_rate > 0.0 && !ranks.is_empty() {
        let schedule = Schedule::new(options.arrival, options.message_rate, ranks.len(), options.seed);
        let (run, cut) = (run.clone(), cut.clone());
        let builder = thread::Builder::new().name("pacer".into());
        thread = Some(builder.spawn(move || pace(schedule, &run, &ranks, start, &cut))?);
    }
    Ok(Pacer { cut, thread })
}

fn pace(mut schedule: Schedule, run: &Run, ranks: &[u32], start: Instant, cut: &AtomicBool) {
    let end = run.options.duration.as_secs_f64();
    let mut next = schedule.next();
    while next.0 < end && !cut.load(Ordering::Acquire) {
        let due = start + Duration::from_secs_f64(next.0);
        let now = Instant::now();
        if due > now {
            thread::sleep((due - now).min(MAX_SLEEP));
            continue;
        }
        run.order(ranks[next.1], Task::Send(run.since(due)));
        next = schedule.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_within_the_interval() {
        let mut schedule = Schedule::new(Arrival::Constant, 1.0, 4, 0);
        let due: Vec<_> = (0..31).map(|_| schedule.next()).collect();
        assert_eq!([due[0], due[1], due[3], due[4]], [(0.0, 0), (0.25, 1), (0.75, 3), (1.0, 0)]);
        assert_eq!(due[30], (7.5, 2));
    }

    #[test]
    fn poisson_gaps_have_mean_and_spread_of_their_kind_and_depend_on_the_seed() {
        let gaps = |seed| {
            let mut schedule = Schedule::new(Arrival::Poisson, 10.0, 10, seed);
            let due: Vec<f64> = (0..20_000).map(|_| schedule.next().0).collect();
            due.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<f64>>()
        };
        let seen = gaps(1);
        let mean = seen.iter().sum::<f64>() / seen.len() as f64;
        let variance = seen.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / seen.len() as f64;
        assert!((mean - 0.01).abs() < 0.0005, "{mean}");
        // An exponential distribution's deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
        assert!(seen == gaps(1) && seen != gaps(2));
    }

    #[test]
    fn poisson_chooses_every_connection_about_as_often() {
        let mut schedule = Schedule::new(Arrival::Poisson, 1.0, 10, 3);
        let mut times = [0; 10];
        (0..10_000).for_each(|_| times[schedule.next().1] += 1);
        assert!(times.iter().all(|times| (850..1150).contains(times)), "{times:?}");
    }
}
