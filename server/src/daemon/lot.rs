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
use tokio::time::{Interval, MissedTickBehavior};
use tracing::error;

use super::Shared;
use super::member::Member;
use super::roster::Woken;
use super::session;
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

/// Brings everyone back to hear that the server is going away.
pub(super) async fn drain(shared: &Arc<Shared>) {
    let mut from = Some(0);
    let mut woken = Vec::new();
    while let Some(descriptor) = from {
        from = shared.roster.drain(descriptor, &mut woken);
        resume(shared, &mut woken).await;
    }
}

/// What happens on their sockets.
async fn attend(shared: &Arc<Shared>) -> Infallible {
    let mut scratch = vec![0; SCRATCH];
    let mut woken = Vec::new();
    loop {
        let mut ready = match shared.roster.epoll.readable().await {
            Ok(ready) => ready,
            Err(error) => {
                // The runtime is shutting down.
                error!(%error, "parked connections are not served any more");
                std::future::pending().await
            }
        };
        while attend_some(shared, &mut scratch, &mut woken) {
            resume(shared, &mut woken).await;
        }
        ready.clear_ready();
    }
}

/// Whether there were any events.
fn attend_some(shared: &Shared, scratch: &mut [u8], woken: &mut Vec<Woken>) -> bool {
    let mut events = [const { MaybeUninit::uninit() }; EVENTS];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let events = match epoll::wait(shared.roster.epoll.get_ref(), &mut events, Some(&at_once)) {
        Ok((events, _)) => events,
        // A signal came: the next round gets the same events.
        Err(Errno::INTR) => return true,
        Err(error) => {
            error!(%error, "parked connections cannot be watched");
            return false;
        }
    };
    woken.extend(events.iter().filter_map(|event| shared.roster.attend(event, scratch)));
    !events.is_empty()
}

/// Pings, in turn.
async fn ping(shared: &Arc<Shared>) -> Infallible {
    let Some(tick) = shared.roster.tick else { return std::future::pending().await };
    let mut ticks = every(tick);
    let mut woken = Vec::new();
    loop {
        ticks.tick().await;
        let mut from = Some(shared.roster.begin_turn());
        while let Some(descriptor) = from {
            from = shared.roster.ping(descriptor, &mut woken);
            resume(shared, &mut woken).await;
        }
    }
}

/// Messages of the room.
async fn relay(shared: &Arc<Shared>) -> Infallible {
    let mut woken = Vec::new();
    loop {
        shared.roster.relay.notified().await;
        let mut from = Some(Member::FIRST);
        while let Some(member) = from {
            from = shared.roster.relay(member, &mut woken);
            resume(shared, &mut woken).await;
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

/// Starts tasks for `woken`, and lets others run.
async fn resume(shared: &Arc<Shared>, woken: &mut Vec<Woken>) {
    woken.drain(..).for_each(|woken| session::resume(shared, woken));
    tokio::task::yield_now().await;
}

/// Ticks that, late after a stall, do not come in a burst.
fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
