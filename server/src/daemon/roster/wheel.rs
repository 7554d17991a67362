//! Pings. The table is the timer wheel: turn by turn, the connections whose descriptors leave one remainder are pinged, so
//! pings are spread over the interval and none needs a timer. The first comes half to one and a half intervals after the
//! connection opened.
//!
//! When a turn began is noted for each remainder. So the time a pong took is known without a connection's keeping a time:
//! since its turn began, which is too much by what that turn needed to get to it.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{CHUNK, Departure, Roster, Wake};
use crate::daemon::table::{Entry, PING, Parked, Stage};
use crate::daemon::wire::{Outgoing, Written, ping_payload};

/// Finest division of the ping interval; more slots would only cost wake-ups.
const SLOTS: u32 = 256;
/// Shortest turn.
const MIN_TICK: Duration = Duration::from_millis(10);
/// Longer than any server runs, short enough for the clock's arithmetic.
const MAX_INTERVAL: Duration = Duration::from_secs(86_400 * 365);

/// Turns that may be late and are made up for at once.
const LATE: u32 = 8;

/// When turns are due. One that is late delays no other, or the interval would be longer than asked for by what the timer is
/// late each time; after a longer stall the rest of the round is late as a whole instead of being a burst.
pub(crate) struct Turns {
    next: Instant,
    tick: Duration,
}

impl Turns {
    pub(crate) fn new(tick: Duration, now: Instant) -> Self {
        Self { next: now + tick, tick }
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// It has come, at `now`.
    pub(crate) fn advance(&mut self, now: Instant) {
        if now.saturating_duration_since(self.next) > self.tick * LATE {
            self.next = now;
        }
        self.next += self.tick;
    }
}

pub(crate) struct Wheel {
    /// Time from one turn to the next; `None` sends no pings.
    pub(crate) tick: Option<Duration>,
    pub(super) slots: u32,
    /// So far; wraps.
    turns: AtomicU32,
    started: Instant,
    /// When the last turn of each slot began, in nanoseconds since the start; 0 is never.
    begun: Vec<AtomicU64>,
    /// The slot whose turn has not ended; `SLOTS` is none.
    turning: AtomicU32,
    /// The descriptor at which that turn goes on.
    reached: AtomicUsize,
}

impl Wheel {
    pub(super) fn new(interval: Duration) -> Self {
        let interval = interval.min(MAX_INTERVAL);
        let slots = (interval.as_nanos() / MIN_TICK.as_nanos()).clamp(1, u128::from(SLOTS)) as u32;
        Self {
            // A tick of zero would make an interval panic; nobody needs one either.
            tick: (!interval.is_zero()).then(|| (interval / slots).max(Duration::from_millis(1))),
            slots,
            turns: AtomicU32::new(0),
            started: Instant::now(),
            begun: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            turning: AtomicU32::new(SLOTS),
            reached: AtomicUsize::new(0),
        }
    }

    pub(super) fn turns(&self) -> u32 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Begins a turn: its slot.
    fn begin_turn(&self) -> usize {
        let slot = self.turns.fetch_add(1, Ordering::Relaxed) % self.slots;
        self.reached.store(0, Ordering::Relaxed);
        self.turning.store(slot, Ordering::Relaxed);
        self.begun[slot as usize].store(self.now(), Ordering::Relaxed);
        slot as usize
    }

    /// The turn goes on at `next`, or ends.
    fn reach(&self, next: Option<usize>) {
        match next {
            Some(next) => self.reached.store(next, Ordering::Relaxed),
            None => self.turning.store(SLOTS, Ordering::Relaxed),
        }
    }

    /// Time since the turn began in which the connection with that descriptor was pinged last. `None` when that cannot be
    /// said: its next turn has begun and has not come to it.
    pub(crate) fn since_ping(&self, descriptor: usize) -> Option<Duration> {
        let slot = descriptor % self.slots as usize;
        let begun = self.begun[slot].load(Ordering::Relaxed);
        let turning = self.turning.load(Ordering::Relaxed) as usize == slot;
        if begun == 0 || turning && descriptor >= self.reached.load(Ordering::Relaxed) {
            return None;
        }
        Some(Duration::from_nanos(self.now().saturating_sub(begun)))
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos().try_into().unwrap_or(u64::MAX)
    }
}

impl Roster {
    /// Begins a turn of the wheel: the first descriptor whose ping is due.
    pub(crate) fn begin_turn(&self) -> usize {
        let state = self.lock();
        let first = self.wheel.begin_turn();
        let (slots, turns) = (self.wheel.slots, self.wheel.turns());
        state.hubs.values().for_each(|hub| hub.turn(first as u32, slots, turns));
        first
    }

    /// Pings some connections from descriptor `from` on and says where to go on in this turn.
    pub(crate) fn ping(&self, from: usize, departures: &mut Vec<Departure>) -> Option<usize> {
        let mut state = self.lock();
        let turns = self.wheel.turns();
        let stride = self.wheel.slots as usize;
        let mut descriptors = (from..state.table.len()).step_by(stride);
        for descriptor in descriptors.by_ref().take(CHUNK) {
            let due = |joined| !self.newcomer(joined, turns);
            match state.table.get_mut(descriptor) {
                Some(Entry::Active(beat)) if due(beat.joined) => beat.pulse.raise(PING),
                Some(Entry::Parked(parked)) if due(parked.idle.joined) && parked.stage == Stage::Open => {
                    if let Some(wake) = self.ping_parked(parked) {
                        departures.extend(self.wake(&mut state, descriptor, wake));
                    }
                }
                Some(Entry::Active(_) | Entry::Parked(_) | Entry::Vacant) | None => {}
            }
        }
        let next = descriptors.next();
        self.wheel.reach(next);
        next
    }

    fn ping_parked(&self, parked: &mut Parked) -> Option<Wake> {
        if parked.idle.unanswered >= self.missed_limit {
            // Its task says why and ends it.
            return Some(Wake { bits: PING, ..Wake::default() });
        }
        let figures = &self.figures[parked.idle.door.listener()];
        if parked.idle.unanswered > 0 {
            figures.missed.add(1);
        }
        parked.idle.unanswered += 1;
        parked.idle.pings = parked.idle.pings.wrapping_add(1);
        let payload = ping_payload(self.ping_size, parked.idle.pings);
        match Outgoing::ping(&payload).write(&parked.socket) {
            Written::Whole => {
                figures.pings.add(1);
                None
            }
            // The peer takes nothing: the ping counts as missed.
            Written::Partly(backlog) if backlog.untouched() => None,
            Written::Partly(backlog) => {
                figures.pings.add(1);
                Some(Wake { backlog: Some(backlog), ..Wake::default() })
            }
            Written::Broken => Some(Wake::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_turn_delays_no_other_and_a_stall_is_no_burst() {
        let tick = Duration::from_millis(10);
        let start = Instant::now();
        let mut turns = Turns::new(tick, start);
        for number in 1..=1_000 {
            assert_eq!(turns.next(), start + tick * number);
            turns.advance(turns.next() + Duration::from_millis(u64::from(number) % 7));
        }
        let stalled = turns.next() + tick * LATE * 3;
        turns.advance(stalled);
        assert_eq!(turns.next(), stalled + tick);
    }
}
