//! Every open connection, arranged as a timer wheel: one task turns it and raises each connection's ping once per
//! interval. Connections are dealt to the slots in turn, so pings are spread over the interval however connections
//! arrive, and none needs a timer. The first ping comes half to one and a half intervals after the connection opened.

use std::convert::Infallible;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::pulse::Pulse;

/// A ping is due.
pub(super) const PING: u32 = 1;
/// The server is going away.
pub(super) const DRAIN: u32 = 2;
/// A message to relay is waiting.
pub(super) const MAIL: u32 = 4;

/// Finest division of the interval; more slots would only cost wake-ups.
const SLOTS: u32 = 256;
/// Shortest turn.
const MIN_TICK: Duration = Duration::from_millis(10);
/// Longer than any server runs, short enough for the clock's arithmetic.
const MAX_INTERVAL: Duration = Duration::from_secs(86_400 * 365);
/// With pings off the wheel still turns, to forget connections that are gone.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// A connection as the rest of the server reaches it.
#[derive(Default)]
pub(super) struct Beat {
    pub(super) pulse: Pulse,
    gone: AtomicBool,
    /// [`Wheel::visits`] when it joined; wraps with it.
    joined: u32,
}

impl Beat {
    /// The connection has ended; the wheel forgets it when it comes by.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

pub(super) struct Roster {
    tick: Duration,
    pings: bool,
    wheel: Mutex<Wheel>,
}

struct Wheel {
    slots: Vec<Vec<Arc<Beat>>>,
    /// Slot that the next connection goes to.
    deal: usize,
    /// Slot that the next turn visits.
    hand: usize,
    /// Slots visited so far.
    visits: u32,
    draining: bool,
}

impl Roster {
    /// `interval` is the time of a full turn, zero for no pings.
    pub(super) fn new(interval: Duration) -> Self {
        let pings = !interval.is_zero();
        let turn = if pings { interval.min(MAX_INTERVAL) } else { SWEEP_INTERVAL };
        let slots = (turn.as_nanos() / MIN_TICK.as_nanos()).clamp(1, u128::from(SLOTS)) as u32;
        let slot_list = (0..slots).map(|_| Vec::new()).collect();
        Self {
            tick: turn / slots,
            pings,
            wheel: Mutex::new(Wheel { slots: slot_list, deal: 0, hand: 0, visits: 0, draining: false }),
        }
    }

    /// Adds a connection. If the server is already going away, it hears so at once.
    pub(super) fn join(&self) -> Arc<Beat> {
        let mut wheel = self.lock();
        let beat = Arc::new(Beat { joined: wheel.visits, ..Beat::default() });
        if wheel.draining {
            beat.pulse.raise(DRAIN);
        }
        let slot = wheel.deal;
        wheel.deal = (slot + 1) % wheel.slots.len();
        wheel.slots[slot].push(beat.clone());
        beat
    }

    /// Tells every connection, present and future, that the server is going away.
    pub(super) fn drain(&self) {
        let mut wheel = self.lock();
        wheel.draining = true;
        wheel.slots.iter().flatten().for_each(|beat| beat.pulse.raise(DRAIN));
    }

    pub(super) fn draining(&self) -> bool {
        self.lock().draining
    }

    /// Turns the wheel for ever.
    pub(super) async fn turn(&self) -> Infallible {
        // A tick of zero would make the interval panic; nobody needs one either.
        let mut ticks = tokio::time::interval(self.tick.max(Duration::from_millis(1)));
        // After a stall, pings that are late must not come in a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.visit();
        }
    }

    fn visit(&self) {
        let mut wheel = self.lock();
        let slot = wheel.hand;
        wheel.hand = (slot + 1) % wheel.slots.len();
        wheel.visits = wheel.visits.wrapping_add(1);
        let (visits, half_turn) = (wheel.visits, wheel.slots.len() as u32 / 2);
        let beats = &mut wheel.slots[slot];
        beats.retain(|beat| !beat.gone.load(Ordering::Acquire));
        if beats.capacity() > 4 * beats.len().max(4) {
            // A spike of connections must not be paid for for ever.
            let kept = mem::take(beats);
            beats.extend(kept);
        }
        if self.pings {
            // A connection that only just opened has nothing to prove yet: its turn comes with the next round.
            let due = beats.iter().filter(|beat| visits.wrapping_sub(beat.joined) > half_turn);
            due.for_each(|beat| beat.pulse.raise(PING));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wheel> {
        // No code panics while holding it, and the lists are valid at every point.
        self.wheel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_turn_pings_everyone_once_evenly_except_newcomers() {
        let roster = Roster::new(Duration::from_secs(1));
        let slots = roster.lock().slots.len();
        assert_eq!(slots, 100);
        let beats: Vec<_> = (0..slots * 3).map(|_| roster.join()).collect();
        let cx = Context::from_waker(Waker::noop());
        for visit in 0..slots * 2 {
            roster.visit();
            let due = beats.iter().filter(|beat| beat.pulse.take(&cx) == PING).count();
            assert_eq!(due, if visit < slots / 2 { 0 } else { 3 }, "visit {visit}");
        }
    }

    #[test]
    fn those_gone_are_forgotten_and_late_ones_hear_of_the_end() {
        let roster = Roster::new(Duration::ZERO);
        let beat = roster.join();
        beat.leave();
        let slots = roster.lock().slots.len();
        for _ in 0..slots {
            roster.visit();
        }
        assert_eq!(Arc::strong_count(&beat), 1);
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(beat.pulse.take(&cx), 0);
        roster.drain();
        assert_eq!(roster.join().pulse.take(&cx), DRAIN);
    }
}
