//! The parking lot: a few tasks serve all idle connections.
//!
//! A connection that has been quiet for a while, between two messages and with nothing to write, gives up its task, its
//! registration with the runtime and its engine. What stays is a descriptor in an epoll set of our own and 32 bytes in
//! the [`super::table`]. Whatever arrives for it other than a ping or a pong brings it back: the socket goes to a new
//! task, with the bytes that were read to find out.
//!
//! Nothing is lost or reordered across that. A connection is parked only where nothing is half way; a socket has one
//! reader at any time, its task or the one here; bytes read here go to the new engine before it reads the socket; a frame
//! begun here is finished before anything else is written; and what the server itself has for a connection is either a bit
//! on its beat, checked under the lock that parks it, or a place in the room's log, which goes with it.

use std::convert::Infallible;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::error;

use super::census::Over;
use super::member::Member;
use super::roster::{CHUNK, Departure, Turns};
use super::{Shared, Slot, farewell, session};
use crate::{deflate, memory};

/// Events collected at once.
const EVENTS: usize = 256;
/// Read from a parked socket at once; what is longer the engine reads.
const SCRATCH: usize = 4096;

/// Parkings that leave memory worth giving back at once when no more follow.
const MANY: u64 = 512;
/// How often that is looked at, and after how many looks memory is given back for fewer, or while there is no pause.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 15;

/// Connections a second that are sent Close, unless the drain's time is too short for that.
const DRAIN_RATE: u32 = 10_000;

/// Serves parked connections for ever.
pub(super) async fn serve(shared: &Arc<Shared>) -> Infallible {
    tokio::select! {
        never = attend(shared) => never,
        never = ping(shared) => never,
        never = relay(shared) => never,
        never = watch(shared) => never,
        never = tidy(shared) => never,
    }
}

/// Sends everybody Close, spread over some time: answers come at the rate of the questions.
pub(super) async fn drain(shared: &Arc<Shared>) {
    shared.roster.begin_drain();
    let period = drain_period(shared.roster.extent(), shared.options.drain_timeout);
    let mut departures = Vec::new();
    let mut from = Some(0);
    let mut next = Instant::now();
    while let Some(descriptor) = from {
        from = shared.roster.drain(descriptor, &mut departures);
        resume(shared, &mut departures).await;
        next += period;
        tokio::time::sleep_until(next).await;
    }
}

/// Time for each chunk of a table of that length: at [`DRAIN_RATE`], or so that all have half of the time to answer.
fn drain_period(extent: usize, timeout: Duration) -> Duration {
    let chunks = u32::try_from(extent.div_ceil(CHUNK)).unwrap_or(u32::MAX).max(1);
    (Duration::from_secs(1) * CHUNK as u32 / DRAIN_RATE).min(timeout / 2 / chunks)
}

/// What happens on their sockets.
async fn attend(shared: &Arc<Shared>) -> Infallible {
    let mut scratch = vec![0; SCRATCH];
    let mut departures = Vec::new();
    loop {
        let mut ready = match shared.roster.epoll.readable().await {
            Ok(ready) => ready,
            Err(error) => {
                // The runtime is shutting down.
                error!(name: "lot_failed", %error, "parked connections are not served any more");
                std::future::pending().await
            }
        };
        while attend_some(shared, &mut scratch, &mut departures) {
            resume(shared, &mut departures).await;
        }
        ready.clear_ready();
    }
}

/// Whether there were any events.
fn attend_some(shared: &Shared, scratch: &mut [u8], departures: &mut Vec<Departure>) -> bool {
    let mut events = [const { MaybeUninit::uninit() }; EVENTS];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let events = match epoll::wait(shared.roster.epoll.get_ref(), &mut events, Some(&at_once)) {
        Ok((events, _)) => events,
        // A signal came: the next round gets the same events.
        Err(Errno::INTR) => return true,
        Err(error) => {
            error!(name: "lot_failed", %error, "parked connections cannot be watched");
            return false;
        }
    };
    departures.extend(events.iter().filter_map(|event| shared.roster.attend(event, scratch)));
    !events.is_empty()
}

/// Pings, in turn.
async fn ping(shared: &Arc<Shared>) -> Infallible {
    let Some(tick) = shared.roster.wheel.tick else { return std::future::pending().await };
    let mut turns = Turns::new(tick, std::time::Instant::now());
    let mut departures = Vec::new();
    loop {
        tokio::time::sleep_until(turns.next().into()).await;
        turns.advance(std::time::Instant::now());
        let mut from = Some(shared.roster.begin_turn());
        while let Some(descriptor) = from {
            from = shared.roster.ping(descriptor, &mut departures);
            resume(shared, &mut departures).await;
        }
    }
}

/// Messages of rooms.
async fn relay(shared: &Arc<Shared>) -> Infallible {
    let mut departures = Vec::new();
    loop {
        shared.roster.relay.notified().await;
        while let Some(room) = shared.roster.next_mail() {
            let mut from = Some(Member::FIRST);
            while let Some(member) = from {
                from = shared.roster.relay(room, member, &mut departures);
                resume(shared, &mut departures).await;
            }
        }
    }
}

/// Who has been quiet for long enough to come here.
async fn watch(shared: &Arc<Shared>) -> Infallible {
    let mut ticks = every(shared.roster.quiet.tick);
    loop {
        ticks.tick().await;
        shared.roster.quiet.turn();
    }
}

/// Gives back what many connections needed while they were active.
async fn tidy(shared: &Arc<Shared>) -> Infallible {
    let mut ticks = every(LOOK);
    let (mut seen, mut tidied, mut looks, mut until_contexts) = (0, 0, 0, LOOKS);
    loop {
        ticks.tick().await;
        until_contexts -= 1;
        let mut freed = false;
        if until_contexts == 0 {
            until_contexts = LOOKS;
            freed = deflate::tidy();
        }
        let parkings = shared.roster.parkings.load(Ordering::Relaxed);
        let calm = parkings - seen < MANY / 8;
        seen = parkings;
        looks += 1;
        let left = parkings - tidied;
        if freed || left >= MANY && calm || left > 0 && looks >= LOOKS {
            (tidied, looks) = (parkings, 0);
            // It walks all free memory: not on a thread that serves.
            let _ = tokio::task::spawn_blocking(memory::give_back).await;
        }
    }
}

/// Sees to those that leave the lot, and lets others run.
async fn resume(shared: &Arc<Shared>, departures: &mut Vec<Departure>) {
    for departure in departures.drain(..) {
        match departure {
            Departure::Back(woken) => session::resume(shared, woken),
            Departure::Farewell(farewell) => {
                let slot = Slot::resume(shared, Over::Http1, farewell.door);
                tokio::spawn(farewell::wait(farewell, slot));
            }
            Departure::Ended(door) => drop(Slot::resume(shared, Over::Http1, door)),
        }
    }
    tokio::task::yield_now().await;
}

/// Ticks that, late after a stall, do not come in a burst.
fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_spread_and_leaves_half_of_its_time_for_answers() {
        let seconds = Duration::from_secs;
        for (extent, timeout, expected) in [
            (0, seconds(5), 0.0032),
            (100, seconds(5), 4.0 * 0.0032),
            (15_000, seconds(5), 1.5),
            (1_000_000, seconds(5), 2.5),
            (1_000_000, seconds(600), 100.0),
            (1_000, Duration::ZERO, 0.0),
        ] {
            let chunks = usize::div_ceil(extent, CHUNK).max(1) as f64;
            let takes = drain_period(extent, timeout).as_secs_f64() * chunks;
            assert!((takes - expected).abs() < 0.01, "{extent} take {takes} s");
        }
    }
}
