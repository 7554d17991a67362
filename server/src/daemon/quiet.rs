//! When an active connection has been quiet for long enough to be parked.
//!
//! No connection has a timer. A clock ticks twice per quiet period; a connection notes the tick when something happens
//! on it, and is looked at only when its period would be over. Parking and coming back cost some system calls and a task, so a
//! connection that came back soon after it was parked must be quiet for twice as long the next time, up to
//! 2^[`MAX_PATIENCE`] periods: one that talks regularly is not parked between its messages.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::table::{Beat, PARK};

/// Doublings of the quiet period at most: 1.6 s where the period is 100 ms.
const MAX_PATIENCE: u8 = 4;
/// Ticks in a quiet period.
const PERIOD: u32 = 2;
/// More buckets than the longest wait has ticks, so that a bucket holds one tick's connections only.
const BUCKETS: usize = 64;
const _: () = assert!((PERIOD << MAX_PATIENCE) + 2 < BUCKETS as u32);

/// The clock, and the connections by the tick at which they are looked at.
pub(super) struct Quiet {
    /// Time from one tick to the next.
    pub(super) tick: Duration,
    now: AtomicU32,
    buckets: Mutex<Vec<Vec<Arc<Beat>>>>,
}

impl Quiet {
    /// `period` is how long a connection is quiet before it is parked.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            tick: (period / PERIOD).max(Duration::from_millis(1)),
            now: AtomicU32::new(0),
            buckets: Mutex::new((0..BUCKETS).map(|_| Vec::new()).collect()),
        }
    }

    /// Ticks so far; wraps.
    pub(super) fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// From now on `beat` is watched until it is gone.
    pub(super) fn watch(&self, beat: &Arc<Beat>) {
        let now = self.now();
        beat.stirred.store(now, Ordering::Relaxed);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // Half a tick is over on average, so the period would come out short without one more.
        buckets[bucket(now.wrapping_add(wait(beat.patience)).wrapping_add(1))].push(beat.clone());
    }

    /// One tick: tells those that were quiet for their period.
    pub(super) fn turn(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let due = mem::take(&mut buckets[bucket(now)]);
        for beat in due.into_iter().filter(|beat| !beat.gone()) {
            let wait = wait(beat.patience);
            let quiet = now.wrapping_sub(beat.stirred.load(Ordering::Relaxed));
            let left = if quiet > wait {
                beat.pulse.raise(PARK);
                // It may find that it cannot.
                wait
            } else {
                wait - quiet
            };
            buckets[bucket(now.wrapping_add(left).wrapping_add(1))].push(beat);
        }
    }

    /// The patience of a connection that wakes now and was parked at `since` with `patience`.
    pub(super) fn patience_after(&self, since: u16, patience: u8) -> u8 {
        let parked = (self.now() as u16).wrapping_sub(since);
        if u32::from(parked) <= wait(MAX_PATIENCE) { (patience + 1).min(MAX_PATIENCE) } else { 0 }
    }
}

/// Ticks to be quiet for.
fn wait(patience: u8) -> u32 {
    PERIOD << patience.min(MAX_PATIENCE)
}

fn bucket(tick: u32) -> usize {
    tick as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    /// The tick at which `beat` hears that it may park, `stir`red at those ticks.
    fn parks_at(beat: Beat, stir: &[u32]) -> u32 {
        let quiet = Quiet::new(Duration::from_millis(100));
        let beat = Arc::new(beat);
        quiet.watch(&beat);
        let cx = Context::from_waker(Waker::noop());
        loop {
            quiet.turn();
            if beat.pulse.take(&cx) & PARK != 0 {
                return quiet.now();
            }
            if stir.contains(&quiet.now()) {
                beat.stirred.store(quiet.now(), Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn a_connection_parks_a_period_after_it_last_stirred() {
        assert_eq!(parks_at(Beat::default(), &[]), 3);
        assert_eq!(parks_at(Beat::default(), &[1, 2, 4, 6, 7]), 10);
        assert_eq!(parks_at(Beat::new(0, 2), &[8]), 17);
    }

    #[test]
    fn patience_grows_with_short_rests_and_goes_with_a_long_one() {
        let quiet = Quiet::new(Duration::from_millis(100));
        let mut patience = 0;
        for expected in [1, 2, 3, 4, 4] {
            patience = quiet.patience_after(quiet.now() as u16, patience);
            assert_eq!(patience, expected);
        }
        let since = quiet.now() as u16;
        for _ in 0..=wait(MAX_PATIENCE) {
            quiet.turn();
        }
        assert_eq!(quiet.patience_after(since, patience), 0);
    }

    #[test]
    fn those_gone_are_let_go() {
        let quiet = Quiet::new(Duration::from_millis(100));
        let beat = Arc::new(Beat::default());
        quiet.watch(&beat);
        beat.leave();
        (0..BUCKETS).for_each(|_| quiet.turn());
        assert_eq!(Arc::strong_count(&beat), 1);
    }
}
