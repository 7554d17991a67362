//! What happens on the sockets of parked connections.

use std::os::fd::AsRawFd;

use rustix::event::epoll::{Event, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{Departure, Farewell, Roster, State, Wake};
use crate::daemon::broadcast::Place;
use crate::daemon::member::Member;
use crate::daemon::table::{Parked, Stage};
use crate::daemon::wire::{Heartbeat, Outgoing, Written, control, is_close};

/// Pings answered at once. A peer that sends more of them is served by a task of its own, not under the lock.
const PONGS: usize = 8;

impl Roster {
    /// Handles what happened on a parked connection's socket: pings and pongs here, all else by waking it. `buffer` is
    /// scratch space.
    pub(crate) fn attend(&self, event: &Event, buffer: &mut [u8]) -> Option<Departure> {
        let descriptor = usize::try_from(event.data.u64()).ok()?;
        let mut state = self.lock();
        // It may have been woken for another reason since the event was collected.
        let parked = state.table.parked_mut(descriptor)?;
        let closing = parked.stage == Stage::Closing;
        let flags = event.flags;
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let received = if broken {
            Ok(0)
        } else {
            recv(&parked.socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(_, count)| count)
        };
        let mut rest: &[u8] = match received {
            Err(Errno::AGAIN | Errno::INTR) => return None,
            // The end, which the engine will see again.
            Ok(0) | Err(_) if closing => return self.end(&mut state, descriptor),
            Ok(0) | Err(_) => return self.wake(&mut state, descriptor, Wake::default()),
            Ok(count) => &buffer[..count],
        };
        let mut pongs = 0;
        while let Some((heartbeat, size)) = control(rest).filter(|_| pongs < PONGS) {
            rest = &rest[size..];
            if heartbeat == Heartbeat::Pong {
                self.pong(parked, descriptor);
            }
            parked.idle.unanswered = 0;
            let Heartbeat::Ping(payload) = heartbeat else { continue };
            // Nothing follows a Close.
            if closing {
                continue;
            }
            pongs += 1;
            if let Written::Partly(backlog) = Outgoing::pong(&payload).write(&parked.socket) {
                let wake = Wake { tail: rest.to_vec(), backlog: Some(backlog), ..Wake::default() };
                return self.wake(&mut state, descriptor, wake);
            }
        }
        if rest.is_empty() {
            None
        } else if !closing {
            self.wake(&mut state, descriptor, Wake { tail: rest.to_vec(), ..Wake::default() })
        } else if is_close(rest) {
            self.end(&mut state, descriptor)
        } else {
            let (tail, parked) = (rest.to_vec(), self.remove(&mut state, descriptor)?);
            Some(Departure::Farewell(Farewell {
                socket: parked.socket,
                door: parked.idle.door,
                tail,
                backlog: None,
            }))
        }
    }

    fn pong(&self, parked: &Parked, descriptor: usize) {
        let figures = &self.figures[parked.idle.door.listener()];
        figures.pongs.add(1);
        if parked.idle.unanswered == 1 {
            self.wheel.since_ping(descriptor).into_iter().for_each(|time| figures.round_trip(time));
        }
    }

    /// Closes a connection whose closing handshake is over, or broken.
    fn end(&self, state: &mut State, descriptor: usize) -> Option<Departure> {
        let parked = self.remove(state, descriptor)?;
        Some(Departure::Ended(parked.idle.door))
    }

    /// Takes a connection out of the table for good. The epoll set forgets its socket when it is closed; a task that goes
    /// on with it must take it out before.
    pub(super) fn remove(&self, state: &mut State, descriptor: usize) -> Option<Parked> {
        self.unwatch(state, descriptor);
        let parked = state.table.take(descriptor)?;
        state.histories.remove(&Member::socket(parked.socket.as_raw_fd()));
        if let Some(room) = parked.idle.service.room() {
            let member = Member::socket(parked.socket.as_raw_fd());
            state.rooms.leave(room, member, &Place::at(parked.idle.cursor));
        }
        let figures = &self.figures[parked.idle.door.listener()];
        figures.unparked.add(1);
        figures.ended.add(1);
        Some(parked)
    }
}
