//! Every open connection, active or parked, behind one lock: who they are, when they are pinged, who is in the room. Of
//! an HTTP/2 connection it knows the [`Hub`], which knows the streams.
//!
//! The table is also the timer wheel: turn by turn, the connections whose descriptors leave one remainder are pinged, so
//! pings are spread over the interval and none needs a timer. The first comes half to one and a half intervals after the
//! connection opened.
//!
//! The lock is held for a bounded number of system calls on sockets, [`CHUNK`], and never while waiting.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tracing::warn;

use super::broadcast::{Place, Room};
use super::http2::Hub;
use super::member::Member;
use super::quiet::Quiet;
use super::table::{Beat, DRAIN, Entry, MAIL, PARK, PING, Parked, Table, index};
use super::upgrade::Path;
use super::wire::{Heartbeat, Outgoing, Written, control, ping_payload};
use super::{Options, Totals};
use crate::link::Backlog;

/// Finest division of the ping interval; more slots would only cost wake-ups.
const SLOTS: u32 = 256;
/// Shortest turn.
const MIN_TICK: Duration = Duration::from_millis(10);
/// Longer than any server runs, short enough for the clock's arithmetic.
const MAX_INTERVAL: Duration = Duration::from_secs(86_400 * 365);
/// Connections handled before others get the lock.
const CHUNK: usize = 32;
/// A parked member of the room that is further behind comes back: its own task keeps up better than one for all.
const MAX_BEHIND: usize = 4;

pub(super) struct Roster {
    /// Watches the parked sockets; itself watched by the runtime.
    pub(super) epoll: AsyncFd<OwnedFd>,
    pub(super) quiet: Quiet,
    /// There is something in the room's log for parked members.
    pub(super) relay: Notify,
    /// Time from one turn of the ping wheel to the next; `None` sends no pings.
    pub(super) tick: Option<Duration>,
    pub(super) totals: Totals,
    /// Times a connection was parked.
    pub(super) parkings: AtomicU64,
    slots: u32,
    pub(super) missed_limit: u32,
    ping_size: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    table: Table,
    /// HTTP/2 connections by their numbers.
    hubs: BTreeMap<u32, Arc<Hub>>,
    /// Number of the last of them.
    last_hub: u32,
    room: Room,
    /// What the peers of parked connections may still refer to in compressed messages.
    histories: BTreeMap<Member, Box<[u8]>>,
    /// Turns of the wheel so far; wraps.
    turns: u32,
    draining: bool,
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
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let interval = options.ping_interval.min(MAX_INTERVAL);
        let slots = (interval.as_nanos() / MIN_TICK.as_nanos()).clamp(1, u128::from(SLOTS)) as u32;
        Ok(Self {
            epoll: watched(epoll::create(CreateFlags::CLOEXEC)?)?,
            quiet: Quiet::new(options.idle_after),
            relay: Notify::new(),
            // A tick of zero would make an interval panic; nobody needs one either.
            tick: (!interval.is_zero()).then(|| (interval / slots).max(Duration::from_millis(1))),
            totals: Totals::default(),
            parkings: AtomicU64::new(0),
            slots,
            missed_limit: options.missed_limit(),
            ping_size: options.ping_payload,
            state: Mutex::default(),
        })
    }

    /// Adds a connection. If the server is already going away, it hears so at once.
    pub(super) fn join(&self, member: Member, path: Path) -> (Arc<Beat>, Option<Place>) {
        let mut state = self.lock();
        let beat = Arc::new(Beat::new(state.turns, 0));
        if state.draining {
            beat.pulse.raise(DRAIN);
        }
        if let Some(descriptor) = member.descriptor() {
            state.table.insert(descriptor, Entry::Active(beat.clone()));
        }
        let place = (path == Path::Broadcast).then(|| state.room.join(member));
        (beat, place)
    }

    /// Forgets an active connection. To be called before its descriptor is closed, or its place on an HTTP/2 connection
    /// is free; if that could not be, and somebody else has the descriptor by now, their entry stays.
    pub(super) fn leave(&self, member: Member, beat: &Arc<Beat>, place: Option<&Place>) {
        let mut state = self.lock();
        beat.leave();
        if let Some(descriptor) = member.descriptor() {
            let entry = state.table.get_mut(index(descriptor));
            if !matches!(entry, Some(Entry::Active(listed)) if Arc::ptr_eq(listed, beat)) {
                return;
            }
            state.table.vacate(descriptor);
        }
        if let Some(place) = place {
            state.room.leave(member, place);
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
        if state.wanted(beat, parked.idle.path, parked.idle.cursor) {
            return Err((parked.socket, history));
        }
        // Level-triggered: what arrived since the task last looked is reported at once.
        let data = EventData::new_u64(parked.descriptor() as u64);
        if let Err(error) = epoll::add(self.epoll.get_ref(), &parked.socket, data, EventFlags::IN) {
            warn!(%error, "cannot park a connection");
            return Err((parked.socket, history));
        }
        if !history.is_empty() {
            state.histories.insert(Member::socket(parked.socket.as_raw_fd()), history);
        }
        self.parkings.fetch_add(1, Ordering::Relaxed);
        beat.leave();
        state.table.insert(parked.socket.as_raw_fd(), Entry::Parked(parked));
        Ok(())
    }

    /// Handles what happened on a parked connection's socket: pings and pongs here, all else by waking it. `buffer` is
    /// scratch space.
    pub(super) fn attend(&self, event: &Event, buffer: &mut [u8]) -> Option<Woken> {
        let descriptor = usize::try_from(event.data.u64()).ok()?;
        let mut state = self.lock();
        // It may have been woken for another reason since the event was collected.
        let parked = state.table.parked_mut(descriptor)?;
        let flags = event.flags;
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            return self.wake(&mut state, descriptor, Wake::default());
        }
        let mut rest: &[u8] = match recv(&parked.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            // The end of the stream, for the engine to see again.
            Ok((_, 0)) => return self.wake(&mut state, descriptor, Wake::default()),
            Ok((_, count)) => &buffer[..count],
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => return self.wake(&mut state, descriptor, Wake::default()),
        };
        while let Some((heartbeat, size)) = control(rest) {
            rest = &rest[size..];
            parked.idle.unanswered = 0;
            let Heartbeat::Ping(payload) = heartbeat else { continue };
            if let Written::Partly(backlog) = Outgoing::pong(&payload).write(&parked.socket) {
                let wake = Wake { tail: rest.to_vec(), backlog: Some(backlog), ..Wake::default() };
                return self.wake(&mut state, descriptor, wake);
            }
        }
        if rest.is_empty() {
            return None;
        }
        self.wake(&mut state, descriptor, Wake { tail: rest.to_vec(), ..Wake::default() })
    }

    /// Begins a turn of the wheel: the first descriptor whose ping is due.
    pub(super) fn begin_turn(&self) -> usize {
        let mut state = self.lock();
        let first = state.turns % self.slots;
        state.turns = state.turns.wrapping_add(1);
        state.hubs.values().for_each(|hub| hub.turn(first, self.slots, state.turns));
        first as usize
    }

    /// Pings some connections from descriptor `from` on and says where to go on in this turn.
    pub(super) fn ping(&self, from: usize, woken: &mut Vec<Woken>) -> Option<usize> {
        let mut state = self.lock();
        let turns = state.turns;
        let stride = self.slots as usize;
        let mut descriptors = (from..state.table.len()).step_by(stride);
        for descriptor in descriptors.by_ref().take(CHUNK) {
            let joined = match state.table.get_mut(descriptor) {
                Some(Entry::Active(beat)) => beat.joined,
                Some(Entry::Parked(parked)) => parked.idle.joined,
                Some(Entry::Vacant) | None => continue,
            };
            if self.newcomer(joined, turns) {
                continue;
            }
            match state.table.get_mut(descriptor) {
                Some(Entry::Active(beat)) => beat.pulse.raise(PING),
                Some(Entry::Parked(parked)) => {
                    if let Some(wake) = self.ping_parked(parked) {
                        woken.extend(self.wake(&mut state, descriptor, wake));
                    }
                }
                Some(Entry::Vacant) | None => {}
            }
        }
        descriptors.next()
    }

    fn ping_parked(&self, parked: &mut Parked) -> Option<Wake> {
        if parked.idle.unanswered >= self.missed_limit {
            // Its task says why and ends it.
            return Some(Wake { bits: PING, ..Wake::default() });
        }
        parked.idle.unanswered += 1;
        parked.idle.pings += 1;
        let payload = ping_payload(self.ping_size, parked.idle.pings);
        match Outgoing::ping(&payload).write(&parked.socket) {
            Written::Whole => None,
            // The peer takes nothing: the ping counts as missed.
            Written::Partly(backlog) if backlog.untouched() => None,
            Written::Partly(backlog) => Some(Wake { backlog: Some(backlog), ..Wake::default() }),
            Written::Broken => Some(Wake::default()),
        }
    }

    /// Keeps `message` for the others in the room and lets them know.
    pub(super) fn publish(&self, from: Member, place: &mut Place, message: Message) {
        let mut state = self.lock();
        let State { table, hubs, room, .. } = &mut *state;
        room.publish(from, place, message);
        let (mut parked, mut told) = (false, 0);
        for member in room.members(Member::FIRST).filter(|member| *member != from) {
            let Some(descriptor) = member.descriptor() else {
                // Its streams are neighbours: once for all of them.
                let hub = hubs.get(&member.connection()).filter(|hub| hub.number != told);
                told = member.connection();
                hub.into_iter().for_each(|hub| hub.pulse.raise(MAIL));
                continue;
            };
            match table.get_mut(index(descriptor)) {
                Some(Entry::Active(beat)) => beat.pulse.raise(MAIL),
                Some(Entry::Parked(_)) => parked = true,
                Some(Entry::Vacant) | None => {}
            }
        }
        if parked {
            self.relay.notify_one();
        }
    }

    /// The next message for a member of the room that its own task or its HTTP/2 connection serves.
    pub(super) fn next_message(&self, member: Member, place: &mut Place) -> Option<Message> {
        self.lock().room.next(member, place)
    }

    /// Writes what is in the log to some parked members that are sockets, from `from` on, and says where to go on. Members
    /// that park meanwhile have got everything, so one pass in order of descriptors misses nobody.
    pub(super) fn relay(&self, from: Member, woken: &mut Vec<Woken>) -> Option<Member> {
        let mut state = self.lock();
        let members = state.room.members(from).take_while(|member| member.descriptor().is_some());
        let members: Vec<Member> = members.take(CHUNK).collect();
        for member in &members {
            let descriptor = member.descriptor().map_or(0, index);
            let State { table, room, .. } = &mut *state;
            let Some(parked) = table.parked_mut(descriptor) else { continue };
            if let Some(wake) = relay_to(room, *member, parked) {
                woken.extend(self.wake(&mut state, descriptor, wake));
            }
        }
        members.last().filter(|_| members.len() == CHUNK).map(|last| last.after())
    }

    /// Tells every connection, present and future, that the server is going away. Parked ones come back some at a time,
    /// until there are none.
    pub(super) fn drain(&self, from: usize, woken: &mut Vec<Woken>) -> Option<usize> {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.draining, true) {
            state.hubs.values().for_each(|hub| hub.pulse.raise(DRAIN));
        }
        let end = (from + CHUNK).min(state.table.len());
        for descriptor in from..end {
            match state.table.get_mut(descriptor) {
                Some(Entry::Active(beat)) => beat.pulse.raise(DRAIN),
                Some(Entry::Parked(_)) => {
                    let wake = Wake { bits: DRAIN, ..Wake::default() };
                    woken.extend(self.wake(&mut state, descriptor, wake));
                }
                Some(Entry::Vacant) | None => {}
            }
        }
        (end < state.table.len()).then_some(end)
    }

    pub(super) fn draining(&self) -> bool {
        self.lock().draining
    }

    fn wake(&self, state: &mut State, descriptor: usize, wake: Wake) -> Option<Woken> {
        let parked = state.table.parked_mut(descriptor)?;
        if let Err(error) = epoll::delete(self.epoll.get_ref(), &parked.socket) {
            // It was added when it was parked, and nobody else has the descriptor.
            warn!(%error, "a parked connection was not watched");
        }
        let patience = self.quiet.patience_after(parked.idle.since, parked.idle.patience);
        let beat = Arc::new(Beat::new(parked.idle.joined, patience));
        beat.pulse.raise(wake.bits);
        let parked = state.table.activate(descriptor, beat.clone())?;
        self.quiet.watch(&beat);
        let history = state.histories.remove(&Member::socket(parked.socket.as_raw_fd())).unwrap_or_default();
        Some(Woken { parked, beat, history, tail: wake.tail, backlog: wake.backlog })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it, and the lists are valid at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether something keeps a connection from being parked.
    fn wanted(&self, beat: &Beat, path: Path, cursor: u32) -> bool {
        let behind = path == Path::Broadcast && self.room.behind(cursor) > 0;
        self.draining || behind || beat.pulse.pending() & !PARK != 0
    }
}

/// Has the runtime watch `epoll`.
fn watched(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open, and the same, for as long as it lives, and it lives in the result.
    let watched = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
    Ok(watched?)
}

/// Writes what waits for a parked member; what it cannot take brings it back.
fn relay_to(room: &mut Room, member: Member, parked: &mut Parked) -> Option<Wake> {
    if room.behind(parked.idle.cursor) > MAX_BEHIND {
        return Some(Wake { bits: MAIL, ..Wake::default() });
    }
    let mut place = Place::at(parked.idle.cursor);
    while let Some(message) = room.next(member, &mut place) {
        parked.idle.cursor = place.cursor;
        match Outgoing::message(&message).map(|frame| frame.write(&parked.socket)) {
            Some(Written::Whole) | None => {}
            Some(Written::Partly(backlog)) => {
                return Some(Wake { bits: MAIL, backlog: Some(backlog), ..Wake::default() });
            }
            Some(Written::Broken) => return Some(Wake::default()),
        }
    }
    parked.idle.cursor = place.cursor;
    None
}

mod streams;
#[cfg(test)]
mod tests;
