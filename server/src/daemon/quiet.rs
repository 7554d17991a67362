//! When an active connection has been quiet for long enough to be parked.
//!
//! No connection has a timer. A clock ticks twice per quiet period; a connection notes the tick when something happens
//! on it, and is looked at only when its period would be over. Parking and coming back cost some system calls and a task, so a
//! connection that came back soon after it was parked must be quiet for twice as long the next time, up to
//! [`Patience::Sixteen`] periods: one that talks regularly is not parked between its messages.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::table::{Beat, PARK};

/// Ticks in a quiet period.
const PERIOD: u32 = 2;
/// More buckets than the longest wait has ticks, so that a bucket holds one tick's connections only.
const BUCKETS: usize = 64;
const _: () = assert!(Patience::Sixteen.ticks() + 2 < BUCKETS as u32);

/// For how many quiet periods a connection must be quiet before it is parked: with a period of 100 ms, 1.6 s at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Patience {
    #[default]
    One,
    Two,
    Four,
    Eight,
    Sixteen,
}

impl Patience {
    const fn ticks(self) -> u32 {
        PERIOD << self as u8
    }

    fn doubled(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::Four,
            Self::Four => Self::Eight,
            Self::Eight | Self::Sixteen => Self::Sixteen,
        }
    }
}

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
        buckets[bucket(now.wrapping_add(beat.patience.ticks()).wrapping_add(1))].push(beat.clone());
    }

    /// One tick: tells those that were quiet for their period.
    pub(super) fn turn(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let due = mem::take(&mut buckets[bucket(now)]);
        for beat in due.into_iter().filter(|beat| !beat.gone()) {
            let wait = beat.patience.ticks();
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
    pub(super) fn patience_after(&self, since: u16, patience: Patience) -> Patience {
        let parked = (self.now() as u16).wrapping_sub(since);
        if u32::from(parked) <= Patience::Sixteen.ticks() { patience.doubled() } else { Patience::One }
    }
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
        assert_eq!(parks_at(Beat::new(0, Patience::Four), &[8]), 17);
    }

    #[test]
    fn patience_grows_with_short_rests_and_goes_with_a_long_one() {
        let quiet = Quiet::new(Duration::from_millis(100));
        let mut patience = Patience::One;
        let longest = Patience::Sixteen;
        for expected in [Patience::Two, Patience::Four, Patience::Eight, longest, longest] {
            patience = quiet.patience_after(quiet.now() as u16, patience);
            assert_eq!(patience, expected);
        }
        let since = quiet.now() as u16;
        for _ in 0..=longest.ticks() {
            quiet.turn();
        }
        assert_eq!(quiet.patience_after(since, patience), Patience::One);
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
