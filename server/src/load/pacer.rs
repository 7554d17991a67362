//! The open-loop schedule: when each message is due does not depend on how the server keeps up, and latency is measured
//! from then, so a stall shows in every message it delayed (no coordinated omission).
//!
//! A thread with a fine-grained sleep does the pacing: tokio's timers are a millisecond coarse, which on loopback would
//! be the measurement.

use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Run;
use super::session::Line;

/// Longest sleep, so that an end is noticed.
const MAX_SLEEP: Duration = Duration::from_millis(20);

/// When messages are due: connection `rank` of `lines` sends number `n` at `start + interval * (n + rank / lines)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    /// Seconds between two messages on one connection.
    interval: f64,
    lines: u32,
}

impl Schedule {
    pub(super) fn due(&self, rank: u32, number: u32) -> Instant {
        self.at(u64::from(number) * u64::from(self.lines) + u64::from(rank))
    }

    /// When the `index`th message of all is due.
    fn at(&self, index: u64) -> Instant {
        self.start + Duration::from_secs_f64(self.interval * index as f64 / f64::from(self.lines))
    }
}

/// The pacing thread.
pub(super) struct Pacer {
    ended: Arc<AtomicBool>,
}

impl Pacer {
    /// Makes nothing due any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Starts pacing the connections open now, for the run's duration from `start`. Without a message rate it does nothing.
pub(super) fn start(run: &Arc<Run>, start: Instant) -> io::Result<Pacer> {
    let ended = Arc::new(AtomicBool::new(false));
    let lines = run.lines.lock().unwrap_or_else(PoisonError::into_inner).open.clone();
    if run.options.message_rate > 0.0 && !lines.is_empty() {
        let schedule =
            Schedule { start, interval: 1.0 / run.options.message_rate, lines: lines.len() as u32 };
        // Set once per run, here.
        let schedule = *run.schedule.get_or_init(|| schedule);
        // A duration beyond the clock's range has no end.
        let (end, ended) = (start.checked_add(run.options.duration), ended.clone());
        thread::Builder::new().name("pacer".into()).spawn(move || pace(&schedule, &lines, end, &ended))?;
    }
    Ok(Pacer { ended })
}

fn pace(schedule: &Schedule, lines: &[Arc<Line>], end: Option<Instant>, ended: &AtomicBool) {
    let mut index = 0_u64;
    loop {
        let due = schedule.at(index);
        if end.is_some_and(|end| due >= end) || ended.load(Ordering::Acquire) {
            return;
        }
        let now = Instant::now();
        if due > now {
            thread::sleep((due - now).min(MAX_SLEEP));
            continue;
        }
        lines[(index % lines.len() as u64) as usize].one_more_due();
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_within_the_interval() {
        let start = Instant::now();
        let schedule = Schedule { start, interval: 1.0, lines: 4 };
        let offset = |rank, number| (schedule.due(rank, number) - start).as_millis();
        assert_eq!(
            [offset(0, 0), offset(1, 0), offset(3, 0), offset(0, 1), offset(2, 7)],
            [0, 250, 750, 1000, 7500]
        );
    }
}
