//! The task of an HTTP/2 connection.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::Bytes;
use tracing::debug;

use super::super::accept::LINGER;
use super::super::census::Over;
use super::super::member::Member;
use super::super::rooms::Service;
use super::super::seat::Seat;
use super::super::session::{Return, Session};
use super::super::table::{Beat, DRAIN, MAIL, PING};
use super::super::upgrade::{Refusal, Upgraded};
use super::super::{Shared, Slot};
use super::errands::Errands;
use super::hub::{ARRIVED, Hub, NEIGHBOURS, RETURNED, WINDOW};
use super::incoming;
use super::inlet::{Inlet, Valve};
use super::parked::{Next, Resting};
use super::stream::Stream;
use super::{CONNECTION_WINDOW, STREAM_WINDOW};

/// Parked streams looked after before the connection reads and writes: what they send waits in h2's list until then, and that
/// never shrinks.
const CHUNK: usize = 16;
/// Rounds before other tasks get their turn.
const BUDGET: u32 = 32;
/// Growth of the list of streams.
const GROWTH: usize = 8;

/// A place for a stream.
enum Entry {
    Vacant,
    Active(Arc<Beat>, Service),
    Parked(Resting),
}

/// What a place costs; growth should be deliberate.
const _: () = assert!(size_of::<Entry>() <= 64);

pub(super) struct Driver<S> {
    connection: Connection<Inlet<S>, Bytes>,
    valve: Valve,
    hub: Arc<Hub>,
    shared: Arc<Shared>,
    /// By their places.
    streams: Vec<Entry>,
    /// What tells of arrivals, for each [`NEIGHBOURS`] of them.
    bells: Vec<Waker>,
    /// Places that are not vacant.
    occupied: usize,
    /// Of those, idle ones.
    parked: usize,
    /// The connection's window, in bytes.
    window: u32,
    /// Parked streams to look after, and why: bits of [`super::super::table`] and of [`super::hub`].
    work: Errands,
    over: Over,
    /// The peer has been told to open no more streams.
    going: bool,
    /// Runs while there is no WebSocket, and while the peer is to see that we are going.
    timer: Option<Pin<Box<Sleep>>>,
    slot: Slot,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(
        connection: Connection<Inlet<S>, Bytes>,
        valve: Valve,
        over: Over,
        deadline: Instant,
        slot: Slot,
    ) -> Self {
        let shared = slot.shared.clone();
        let hub = shared.roster.enter();
        Self {
            connection,
            valve,
            hub,
            shared,
            streams: Vec::new(),
            bells: Vec::new(),
            occupied: 0,
            parked: 0,
            window: CONNECTION_WINDOW,
            work: Errands::default(),
            over,
            going: false,
            timer: Some(Box::pin(sleep_until(deadline))),
            slot,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        for _ in 0..BUDGET {
            let bits = self.hub.pulse.take(cx);
            self.hear(bits);
            for _ in 0..CHUNK {
                let Some((place, bits)) = self.work.next() else { break };
                self.look_after(place, bits.into());
            }
            let outcome = self.connection.poll_accept(cx);
            self.hub.unsent.wake();
            match outcome {
                Poll::Ready(Some(Ok((request, respond)))) => self.take(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if self.valve.open() => {}
                Poll::Pending if self.work.is_empty() => return self.watch_time(cx),
                Poll::Pending => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Notes what there is to do.
    fn hear(&mut self, bits: u32) {
        if bits & RETURNED != 0 {
            self.hub.take_returned().into_iter().for_each(|(place, resting)| self.put(place, resting));
        }
        if bits & ARRIVED != 0 {
            let mut firsts = self.hub.take_arrived();
            firsts.sort_unstable();
            firsts.dedup();
            let places = firsts.into_iter().flat_map(|first| first..first + NEIGHBOURS as u32);
            places.for_each(|place| self.charge(place, ARRIVED));
        }
        if self.occupied == self.parked {
            self.hub.settle();
        }
        if bits & (WINDOW | RETURNED) != 0 {
            self.size_window();
        }
        if bits & DRAIN != 0 && !mem::replace(&mut self.going, true) {
            self.connection.graceful_shutdown();
            // A longer time may have been running.
            self.timer = None;
        }
        let count = self.streams.len() as u32;
        let (due, now) = self.hub.due(bits, count);
        for place in due {
            let joined = match &self.streams[place as usize] {
                Entry::Active(beat, _) => beat.joined,
                Entry::Parked(resting) => resting.idle.joined,
                Entry::Vacant => continue,
            };
            if !self.shared.roster.newcomer(joined, now) {
                self.tell(place, PING);
            }
        }
        for bit in [DRAIN, MAIL].into_iter().filter(|bit| bits & bit != 0) {
            (0..count).for_each(|place| self.tell(place, bit));
        }
    }

    /// Has the window fit what sessions read, and what they cannot read for want of window in the other direction.
    fn size_window(&mut self) {
        let held = STREAM_WINDOW.saturating_mul(self.hub.stalled());
        // h2 takes no more than 2^31 - 1.
        let window = (CONNECTION_WINDOW * self.hub.growth()).saturating_add(held).min(u32::MAX >> 1);
        if mem::replace(&mut self.window, window) != window {
            self.connection.set_target_window_size(window);
        }
    }

    /// Passes `bit` on, at once to a session and in its turn to a parked stream.
    fn tell(&mut self, place: u32, bit: u32) {
        match &self.streams[place as usize] {
            Entry::Active(_, service) if bit == MAIL && service.room().is_none() => {}
            Entry::Active(beat, _) => beat.pulse.raise(bit),
            Entry::Parked(resting) if bit == MAIL && resting.idle.service.room().is_none() => {}
            Entry::Parked(_) => self.charge(place, bit),
            Entry::Vacant => {}
        }
    }

    /// Has a parked stream looked after for the reason `bit`.
    fn charge(&mut self, place: u32, bit: u32) {
        if let Some(Entry::Parked(_)) = self.streams.get(place as usize) {
            // The pulse's bits that mean anything to a stream are the lowest.
            self.work.add(place, bit as u8);
        }
    }

    /// A place comes back from its session, vacant or with an idle stream.
    fn put(&mut self, place: u32, resting: Option<Resting>) {
        let Some(resting) = resting else { return self.vacate(place) };
        self.streams[place as usize] = Entry::Parked(resting);
        self.parked += 1;
        // Nobody has waited for it since the session did. A message of the room since then has raised MAIL.
        self.charge(place, ARRIVED);
    }

    fn vacate(&mut self, place: u32) {
        self.streams[place as usize] = Entry::Vacant;
        self.occupied -= 1;
        while matches!(self.streams.last(), Some(Entry::Vacant)) {
            self.streams.pop();
        }
        if self.streams.capacity() > self.streams.len() + 8 * GROWTH {
            self.streams.shrink_to(self.streams.len() + GROWTH);
        }
    }

    /// The first vacant place.
    fn find_place(&mut self) -> usize {
        if self.occupied < self.streams.len()
            && let Some(place) = self.streams.iter().position(|entry| matches!(entry, Entry::Vacant))
        {
            return place;
        }
        if self.streams.len() == self.bells.len() * NEIGHBOURS {
            self.bells.push(self.hub.bell(self.streams.len() as u32));
        }
        if self.streams.len() == self.streams.capacity() {
            self.streams.reserve_exact(GROWTH.max(self.streams.len() / 8));
        }
        self.streams.push(Entry::Vacant);
        self.streams.len() - 1
    }

    /// Does for a parked stream what `reasons` say.
    fn look_after(&mut self, place: u32, reasons: u32) {
        let Some(Entry::Parked(resting)) = self.streams.get_mut(place as usize) else { return };
        let (roster, options, unsent) = (&self.shared.roster, &self.shared.options, &self.hub.unsent);
        let member = Member::stream(self.hub.number, place);
        let mut next = Next::Stay;
        if reasons & DRAIN != 0 {
            next = Next::wake(DRAIN);
        }
        if matches!(next, Next::Stay) && reasons & ARRIVED != 0 {
            next = resting.attend(roster, unsent, &self.bells[place as usize / NEIGHBOURS]);
        }
        if matches!(next, Next::Stay) && reasons & MAIL != 0 {
            next = resting.relay(roster, unsent, member);
        }
        if matches!(next, Next::Stay) && reasons & PING != 0 {
            next = resting.ping(roster, unsent, options.ping_payload);
        }
        match next {
            Next::Stay => {}
            Next::Gone => {
                let idle = resting.idle;
                roster.forget(member, &idle);
                drop(Slot::resume(&self.shared, self.over, idle.door));
                self.parked -= 1;
                self.vacate(place);
            }
            Next::Wake { bits, tail, backlog } => {
                let idle = resting.idle;
                roster.figures[idle.door.listener()].unparked.add(1);
                let patience = roster.quiet.patience_after(idle.since, idle.patience);
                let beat = Arc::new(Beat::new(idle.joined, patience));
                // What has not been done for it here, it does itself.
                beat.pulse.raise(bits | reasons & (MAIL | PING));
                roster.quiet.watch(&beat);
                let active = Entry::Active(beat.clone(), idle.service);
                let entry = mem::replace(&mut self.streams[place as usize], active);
                let Entry::Parked(Resting { send, recv, .. }) = entry else { return };
                self.parked -= 1;
                let stream = Stream::new(send, recv, self.hub.clone(), place);
                let history = roster.history(member, &idle);
                let back = Return { idle, beat, history, tail, backlog };
                Session::resume(stream, member, back, Slot::resume(&self.shared, self.over, idle.door));
            }
        }
    }

    fn take(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.timer = None;
        if *request.method() != Method::CONNECT {
            return incoming::answer(&request, &self.shared, respond);
        }
        let full = self.going || self.shared.roster.draining();
        let figures = self.shared.figures(self.slot.door);
        let judged = incoming::judge(&request, &self.shared.options, full);
        let grant = match judged {
            Ok(grant) => grant,
            Err(refusal) => {
                figures.fail(refusal.why);
                return incoming::refuse(refusal, respond);
            }
        };
        let mut slot = match self.slot.beside() {
            Ok(slot) => slot,
            Err(full) => {
                figures.refuse(full.into());
                return incoming::refuse(full.into(), respond);
            }
        };
        let index = self.find_place();
        // There are never more than h2 allows, which counts in u32.
        let place = index as u32;
        let (member, deflate) = (Member::stream(self.hub.number, place), grant.deflate);
        let Some(seat) = Seat::take(&self.shared, member, grant.route.clone()) else {
            self.shared.figures(self.slot.door).fail(Refusal::NO_ROOM.why);
            return incoming::refuse(Refusal::NO_ROOM, respond);
        };
        let Some(send) = incoming::accept(grant, respond) else { return };
        slot.serve(self.over);
        let stream = Stream::new(send, request.into_body(), self.hub.clone(), place);
        let upgraded = Upgraded { seat, deflate, tail: Vec::new() };
        if let Some((beat, service)) = Session::start(stream, upgraded, slot) {
            self.streams[index] = Entry::Active(beat, service);
            self.occupied += 1;
        }
    }

    /// Ends a connection without WebSockets on which nothing has been asked for some time, in two steps. Answers may still be
    /// under way then: of a peer that gives them no window, or is no more, nothing else would tell.
    fn watch_time(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if self.occupied > 0 {
            self.timer = None;
            return Poll::Pending;
        }
        let after = |time: Duration| Box::pin(sleep_until(Instant::now() + time));
        loop {
            let idle = if self.going { LINGER } else { self.shared.options.http2_idle_timeout };
            let timer = self.timer.get_or_insert_with(|| after(idle));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if mem::replace(&mut self.going, true) {
                debug!("an HTTP/2 connection without WebSockets does not end");
                return Poll::Ready(Ok(()));
            }
            self.connection.graceful_shutdown();
            cx.waker().wake_by_ref();
            self.timer = None;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = std::task::ready!(self.advance(cx));
        if let Err(error) = outcome {
            debug!(%error, "HTTP/2 connection ended");
        }
        Poll::Ready(())
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.shared.roster.exit(&self.hub);
        // What has come back since it was last polled is parked too.
        for (place, resting) in self.hub.take_returned() {
            self.streams[place as usize] = resting.map_or(Entry::Vacant, Entry::Parked);
        }
        for (place, entry) in self.streams.drain(..).enumerate() {
            if let Entry::Parked(resting) = entry {
                let member = Member::stream(self.hub.number, place as u32);
                self.shared.roster.forget(member, &resting.idle);
                drop(Slot::resume(&self.shared, self.over, resting.idle.door));
            }
        }
    }
}
