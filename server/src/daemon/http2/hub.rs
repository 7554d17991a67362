//! How sessions, wakers and the rest of the server reach the task of an HTTP/2 connection.

use std::mem;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use super::parked::Resting;
use super::unsent::Unsent;
use crate::pulse::Pulse;

/// A session is over or idle. Beside the bits of [`super::super::table`].
pub(super) const RETURNED: u32 = 16;
/// Something has arrived on a parked stream.
pub(super) const ARRIVED: u32 = 32;
/// The connection's window may have to be another.
pub(super) const WINDOW: u32 = 64;
/// The first of [`GROUPS`] bits: that group's pings are due.
const GROUP: u32 = 1 << 16;
/// Parts of a round in which a connection's streams are pinged. Finer ones would save nobody a burst: the pings of a part
/// leave in one packet.
const GROUPS: u32 = 16;

/// Read without a pause, it makes the connection's window grow.
const BULK: usize = 16 * super::CONNECTION_WINDOW as usize;
/// Largest factor, which makes the window 1 MiB.
const MAX_GROWTH: u32 = 16;

/// Streams that share a bell. One each would be an allocation made while the stream's buffers still are, and hold the page that
/// they leave; to look at some streams in vain costs less than a microsecond.
pub(super) const NEIGHBOURS: usize = 8;

/// One HTTP/2 connection.
#[derive(Debug)]
pub(in super::super) struct Hub {
    pub(in super::super) pulse: Pulse,
    pub(in super::super) number: u32,
    pub(super) unsent: Arc<Unsent>,
    /// Turns of the ping wheel so far, when the last pings became due.
    now: AtomicU32,
    /// Groups in a round, as of then.
    groups: AtomicU32,
    /// Sessions that the peer gives no window.
    stalled: AtomicU32,
    /// Bytes that sessions have read since the connection was last quiet.
    read: AtomicUsize,
    returned: Mutex<Vec<(u32, Option<Resting>)>>,
    arrived: Mutex<Vec<u32>>,
}

impl Hub {
    /// Largest number.
    pub(in super::super) const MAX: u32 = u32::MAX >> 1;

    pub(in super::super) fn new(number: u32) -> Self {
        Self {
            pulse: Pulse::default(),
            number,
            unsent: Arc::default(),
            now: AtomicU32::new(0),
            groups: AtomicU32::new(1),
            stalled: AtomicU32::new(0),
            read: AtomicUsize::new(0),
            returned: Mutex::default(),
            arrived: Mutex::default(),
        }
    }

    /// Turn `slot` of `slots` of a round of the ping wheel; `now` counts turns. At most every sixteenth turn is this
    /// connection's.
    pub(in super::super) fn turn(&self, slot: u32, slots: u32, now: u32) {
        let groups = slots.min(GROUPS);
        let stride = slots / groups;
        let group = slot / stride;
        if slot % stride == self.number % stride && group < groups {
            self.now.store(now, Ordering::Relaxed);
            self.groups.store(groups, Ordering::Relaxed);
            self.pulse.raise(GROUP << group);
        }
    }

    /// Of the streams at places below `count` those whose pings `bits` say are due, and the turn at which they became so.
    pub(super) fn due(&self, bits: u32, count: u32) -> (impl Iterator<Item = u32> + use<>, u32) {
        let groups = self.groups.load(Ordering::Relaxed);
        // The first streams of all connections are not in the same group.
        let shift = self.number / GROUPS;
        let due = (0..count).filter(move |place| bits & (GROUP << ((place + shift % GROUPS) % groups)) != 0);
        (due.take(if bits / GROUP == 0 { 0 } else { usize::MAX }), self.now.load(Ordering::Relaxed))
    }

    /// The session of the stream at `place` is over, or has left `resting`.
    pub(super) fn give_back(&self, place: u32, resting: Option<Resting>) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push((place, resting));
        self.pulse.raise(RETURNED);
    }

    /// What was given back since the last call.
    pub(super) fn take_returned(&self) -> Vec<(u32, Option<Resting>)> {
        mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// First places of the [`NEIGHBOURS`] on whose streams something has arrived since the last call.
    pub(super) fn take_arrived(&self) -> Vec<u32> {
        mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What h2 is to wake when something arrives on a parked stream at `first` or one of the [`NEIGHBOURS`] from there on.
    pub(super) fn bell(self: &Arc<Self>, first: u32) -> Waker {
        Waker::from(Arc::new(Bell { hub: self.clone(), first }))
    }

    /// One more session or one less is stalled.
    pub(super) fn stall(&self, stalled: bool) {
        match stalled {
            true => self.stalled.fetch_add(1, Ordering::Relaxed),
            false => self.stalled.fetch_sub(1, Ordering::Relaxed),
        };
        self.pulse.raise(WINDOW);
    }

    pub(super) fn stalled(&self) -> u32 {
        self.stalled.load(Ordering::Relaxed)
    }

    /// A session has read `count` bytes.
    pub(super) fn count_read(&self, count: usize) {
        let before = self.read.fetch_add(count, Ordering::Relaxed);
        if before / BULK != (before + count) / BULK {
            self.pulse.raise(WINDOW);
        }
    }

    /// How many times as large as usual the connection's window should be for as much as is being read.
    pub(super) fn growth(&self) -> u32 {
        // A power of two at most.
        let bulks = (self.read.load(Ordering::Relaxed) / BULK).min(MAX_GROWTH as usize - 1) as u32;
        (bulks + 1).next_power_of_two()
    }

    /// The connection is quiet.
    pub(super) fn settle(&self) {
        self.read.store(0, Ordering::Relaxed);
    }
}

/// Says that something has arrived on one of some streams.
struct Bell {
    hub: Arc<Hub>,
    first: u32,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.hub.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(self.first);
        self.hub.pulse.raise(ARRIVED);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    /// How often each of 100 streams is due in a round of `slots`, and in how many turns any is.
    fn round(number: u32, slots: u32) -> (Vec<u32>, usize) {
        let hub = Hub::new(number);
        let cx = Context::from_waker(Waker::noop());
        let (mut times, mut busy) = (vec![0; 100], 0);
        for slot in 0..slots {
            hub.turn(slot, slots, slot + 1);
            let (due, _) = hub.due(hub.pulse.take(&cx), 100);
            let due: Vec<u32> = due.collect();
            busy += usize::from(!due.is_empty());
            due.iter().for_each(|place| times[*place as usize] += 1);
        }
        (times, busy)
    }

    #[test]
    fn every_stream_is_due_once_a_round_and_not_all_at_once() {
        for slots in [1, 2, 10, 15, 16, 17, 31, 100, 255, 256] {
            for number in [1, 2, 15, 16, 17, 1_000] {
                let (times, busy) = round(number, slots);
                assert!(times.iter().all(|times| *times == 1), "{slots} slots, number {number}: {times:?}");
                assert_eq!(busy as u32, slots.min(GROUPS), "{slots} slots, number {number}");
            }
        }
    }

    #[test]
    fn first_streams_of_many_connections_are_spread_too() {
        let turns_of_first = |number| {
            let hub = Hub::new(number);
            let cx = Context::from_waker(Waker::noop());
            (0..256).find(|slot| {
                hub.turn(*slot, 256, 0);
                hub.due(hub.pulse.take(&cx), 1).0.next().is_some()
            })
        };
        let mut turns: Vec<_> = (1..=256).map(|number| turns_of_first(number).unwrap()).collect();
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), 256);
    }
}
