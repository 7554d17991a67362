//! Every open connection, active or parked, behind one lock: who they are, when they are pinged, who is in which room.
//! Of an HTTP/2 connection it knows the [`Hub`], which knows the streams.
//!
//! The lock is held for a bounded number of system calls on sockets, a few for each of [`CHUNK`] connections, and never
//! while waiting. Telling a room that there is a message goes through its members under it, without a system call.

mod attend;
mod drain;
mod mail;
mod streams;
mod wheel;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tracing::warn;

use super::Options;
use super::broadcast::{Bounds, Place, Room};
use super::door::Door;
use super::figures::Figures;
use super::http2::Hub;
use super::member::Member;
use super::policy::Route;
use super::quiet::{Patience, Quiet};
use super::rooms::{Rooms, Service};
use super::table::{Beat, DRAIN, Entry, Idle, PARK, Parked, Table, index};
use crate::link::Backlog;
pub(crate) use wheel::Turns;
use wheel::Wheel;

/// Connections handled before others get the lock.
pub(super) const CHUNK: usize = 32;

pub(super) struct Roster {
    /// Watches the parked sockets; itself watched by the runtime.
    pub(super) epoll: AsyncFd<OwnedFd>,
    pub(super) quiet: Quiet,
    /// A room has something for parked members.
    pub(super) relay: Notify,
    pub(super) wheel: Wheel,
    /// By listener.
    pub(super) figures: Arc<[Figures]>,
    /// Times a connection was parked.
    pub(super) parkings: AtomicU64,
    pub(super) missed_limit: u16,
    ping_size: usize,
    state: Mutex<State>,
}

struct State {
    table: Table,
    /// HTTP/2 connections by their numbers.
    hubs: BTreeMap<u32, Arc<Hub>>,
    /// Number of the last of them.
    last_hub: u32,
    rooms: Rooms,
    /// Rooms in which parked members are to be written to.
    mail: Vec<usize>,
    /// What the peers of parked connections may still refer to in compressed messages.
    histories: BTreeMap<Member, Box<[u8]>>,
    draining: bool,
}

/// What joining gives a connection.
pub(super) struct Joined {
    pub(super) beat: Arc<Beat>,
    pub(super) service: Service,
    /// In a room.
    pub(super) place: Option<Place>,
}

/// What becomes of a connection that leaves the lot.
pub(super) enum Departure {
    /// It goes on in a task.
    Back(Woken),
    /// All that is left to do is to wait for its Close.
    Farewell(Farewell),
    /// It has ended and its socket is closed.
    Ended(Door),
}

/// A connection that leaves the lot: what there was of it, and what goes on.
pub(super) struct Woken {
    pub(super) parked: Parked,
    pub(super) beat: Arc<Beat>,
    /// As it was parked with.
    pub(super) history: Box<[u8]>,
    /// Read already, not yet handled.
    pub(super) tail: Vec<u8>,
    /// To be written before anything else.
    pub(super) backlog: Option<Backlog>,
}

/// A connection that has our Close, or part of it.
pub(super) struct Farewell {
    pub(super) socket: OwnedFd,
    pub(super) door: Door,
    /// Read already, from the start of a frame.
    pub(super) tail: Vec<u8>,
    /// The rest of our Close.
    pub(super) backlog: Option<Backlog>,
}

/// Why a connection comes back.
#[derive(Default)]
struct Wake {
    bits: u32,
    tail: Vec<u8>,
    backlog: Option<Backlog>,
}

impl Roster {
    /// # Errors
    /// Those of epoll_create(2).
    pub(super) fn new(options: &Options, figures: Arc<[Figures]>) -> io::Result<Self> {
        let bounds = Bounds { messages: options.room_messages, bytes: options.room_bytes };
        Ok(Self {
            epoll: watched(epoll::create(CreateFlags::CLOEXEC)?)?,
            quiet: Quiet::new(options.idle_after),
            relay: Notify::new(),
            wheel: Wheel::new(options.ping_interval),
            figures,
            parkings: AtomicU64::new(0),
            missed_limit: options.missed_limit().try_into().unwrap_or(u16::MAX),
            ping_size: options.ping_payload,
            state: Mutex::new(State {
                table: Table::default(),
                hubs: BTreeMap::new(),
                last_hub: 0,
                rooms: Rooms::new(options.max_rooms, bounds),
                mail: Vec::new(),
                histories: BTreeMap::new(),
                draining: false,
            }),
        })
    }

    /// Adds a connection; `None` where there are too many rooms for it. If the server is already going away, it hears so at
    /// once.
    pub(super) fn join(&self, member: Member, route: Route) -> Option<Joined> {
        let beat = Arc::new(Beat::new(self.wheel.turns(), Patience::One));
        let mut state = self.lock();
        let (service, place) = state.rooms.join(member, route)?;
        if state.draining {
            beat.pulse.raise(DRAIN);
        }
        if let Some(descriptor) = member.descriptor() {
            state.table.insert(descriptor, Entry::Active(beat.clone()));
        }
        Some(Joined { beat, service, place })
    }

    /// Forgets an active connection. To be called before its descriptor is closed, or its place on an HTTP/2 connection
    /// is free; if that could not be, and somebody else has the descriptor by now, their entry stays.
    pub(super) fn leave(&self, member: Member, beat: &Arc<Beat>, service: Service, place: Option<&Place>) {
        let mut state = self.lock();
        beat.leave();
        if let Some(descriptor) = member.descriptor() {
            let entry = state.table.get_mut(index(descriptor));
            if !matches!(entry, Some(Entry::Active(listed)) if Arc::ptr_eq(listed, beat)) {
                return;
            }
            state.table.vacate(descriptor);
        }
        if let (Some(room), Some(place)) = (service.room(), place) {
            state.rooms.leave(room, member, place);
        }
    }

    /// Takes over an idle connection from its task, with the `history` of its compression.
    ///
    /// # Errors
    /// Gives both back when something is waiting for it, or the server is going away, or the kernel refuses.
    pub(super) fn park(
        &self,
        beat: &Beat,
        parked: Parked,
        history: Box<[u8]>,
    ) -> Result<(), (OwnedFd, Box<[u8]>)> {
        let mut state = self.lock();
        if state.wanted(beat, &parked.idle) {
            return Err((parked.socket, history));
        }
        // Level-triggered: what arrived since the task last looked is reported at once.
        let data = EventData::new_u64(parked.descriptor() as u64);
        if let Err(error) = epoll::add(self.epoll.get_ref(), &parked.socket, data, EventFlags::IN) {
            warn!(name: "park_failed", %error, "cannot park a connection");
            return Err((parked.socket, history));
        }
        if !history.is_empty() {
            state.histories.insert(Member::socket(parked.socket.as_raw_fd()), history);
        }
        self.parkings.fetch_add(1, Ordering::Relaxed);
        self.figures[parked.idle.door.listener()].parked.add(1);
        beat.leave();
        state.table.insert(parked.socket.as_raw_fd(), Entry::Parked(parked));
        Ok(())
    }

    /// How many rooms there are.
    pub(super) fn rooms(&self) -> usize {
        self.lock().rooms.len()
    }

    pub(super) fn draining(&self) -> bool {
        self.lock().draining
    }

    fn wake(&self, state: &mut State, descriptor: usize, wake: Wake) -> Option<Departure> {
        self.unwatch(state, descriptor);
        let parked = state.table.parked_mut(descriptor)?;
        let patience = self.quiet.patience_after(parked.idle.since, parked.idle.patience);
        let beat = Arc::new(Beat::new(parked.idle.joined, patience));
        beat.pulse.raise(wake.bits);
        let parked = state.table.activate(descriptor, beat.clone())?;
        self.quiet.watch(&beat);
        self.figures[parked.idle.door.listener()].unparked.add(1);
        let history = state.histories.remove(&Member::socket(parked.socket.as_raw_fd())).unwrap_or_default();
        Some(Departure::Back(Woken { parked, beat, history, tail: wake.tail, backlog: wake.backlog }))
    }

    /// Takes a parked connection's socket out of the epoll set.
    fn unwatch(&self, state: &mut State, descriptor: usize) {
        let Some(parked) = state.table.parked_mut(descriptor) else { return };
        if let Err(error) = epoll::delete(self.epoll.get_ref(), &parked.socket) {
            // It was added when it was parked, and nobody else has the descriptor.
            warn!(name: "unwatch_failed", %error, "a parked connection was not watched");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it, and the lists are valid at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether something keeps a connection from being parked.
    fn wanted(&self, beat: &Beat, idle: &Idle) -> bool {
        let behind = self.rooms.behind(idle.service, idle.cursor) > 0;
        self.draining || behind || beat.pulse.pending() & !PARK != 0
    }

    /// The room that a service is, if it is one.
    fn room(&mut self, service: Service) -> Option<&mut Room> {
        self.rooms.get(service.room()?)
    }
}

/// Has the runtime watch `epoll`.
fn watched(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open, and the same, for as long as it lives, and it lives in the result.
    let watched = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
    Ok(watched?)
}

#[cfg(test)]
mod tests;
