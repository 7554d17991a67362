//! A connection while something happens on it: a hand-written future that ends when the connection does, or when it has
//! been quiet for long enough to be parked.

use std::future::poll_fn;
use std::mem;
use std::net::TcpStream as IdleStream;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};
use tracing::{debug, warn};

use super::accept::LINGER;
use super::broadcast::Place;
use super::carrier::{Carrier, Refused};
use super::census::Over;
use super::door::Door;
use super::member::Member;
use super::rooms::Service;
use super::roster::{Joined, Woken};
use super::table::{Beat, DRAIN, Idle, MAIL, PARK, PING, Parked, index};
use super::upgrade::Upgraded;
use super::wire::ping_payload;
use super::{Shared, Slot};
use crate::deflate::{Adapter, Agreed, Failure, Kept};
use crate::link::{Backlog, Link};

mod membership;

/// The connection is idle and somebody else's now.
struct Parking;

/// Messages handled before other connections get their turn.
const BUDGET: u32 = 64;
/// The same in bytes: what is a megabyte here may have been a kilobyte on the wire.
const BYTES: usize = 256 << 10;

pub(super) struct Session<C: Carrier> {
    /// Both are there until the connection ends or is handed on.
    link: Option<Link<C, ()>>,
    slot: Option<Slot>,
    shared: Arc<Shared>,
    beat: Arc<Beat>,
    door: Door,
    member: Member,
    service: Service,
    /// In a room.
    place: Option<Place>,
    pings: u32,
    /// Pings since the peer last sent anything.
    unanswered: u16,
    /// Our Close is queued: nothing may follow it.
    closing: bool,
    /// The roster knows of it.
    listed: bool,
}

/// An idle connection that comes back, whatever carried it meanwhile.
pub(super) struct Return {
    pub(super) idle: Idle,
    pub(super) beat: Arc<Beat>,
    /// What the peer's compressed messages may still refer to.
    pub(super) history: Box<[u8]>,
    /// Read already, not yet handled.
    pub(super) tail: Vec<u8>,
    /// To be written before anything else.
    pub(super) backlog: Option<Backlog>,
}

/// Goes on with a socket that was parked.
pub(super) fn resume(shared: &Arc<Shared>, woken: Woken) {
    let Woken { parked: Parked { socket, idle, .. }, beat, history, tail, backlog } = woken;
    let member = Member::socket(socket.as_raw_fd());
    let slot = Slot::resume(shared, Over::Http1, idle.door);
    match TcpStream::from_std(IdleStream::from(socket)) {
        Ok(tcp) => Session::resume(tcp, member, Return { idle, beat, history, tail, backlog }, slot),
        // The kernel has no memory for the registration; the descriptor is closed already.
        Err(error) => {
            warn!(name: "resume_failed", %error, "a parked connection is lost");
            let place = idle.service.room().map(|_| Place::at(idle.cursor));
            shared.roster.leave(member, &beat, idle.service, place.as_ref());
            shared.figures(idle.door).ended.add(1);
        }
    }
}

impl<C: Carrier> Session<C> {
    /// Starts serving a new WebSocket; how the rest of the server reaches it, and what it is for, is the answer.
    pub(super) fn start(carrier: C, upgraded: Upgraded, slot: Slot) -> Option<(Arc<Beat>, Service)> {
        let shared = slot.shared.clone();
        let Upgraded { seat, deflate, tail } = upgraded;
        let link = connect(&shared, carrier, tail, deflate.map(Kept::from));
        let (member, joined) = seat.occupy();
        let Joined { beat, service, place } = joined?;
        shared.figures(slot.door).opened.add(1);
        if C::PARKS {
            shared.roster.quiet.watch(&beat);
        }
        tokio::spawn(Self {
            door: slot.door,
            link: Some(link),
            slot: Some(slot),
            shared,
            beat: beat.clone(),
            member,
            service,
            place,
            pings: 0,
            unanswered: 0,
            closing: false,
            listed: true,
        });
        Some((beat, service))
    }

    /// Goes on with one that was parked.
    pub(super) fn resume(carrier: C, member: Member, back: Return, slot: Slot) {
        let shared = slot.shared.clone();
        let Return { idle, beat, history, tail, backlog } = back;
        let Idle { pings, unanswered, cursor, service, door, deflate, .. } = idle;
        let unanswered = if tail.is_empty() { unanswered } else { 0 };
        let mut link = connect(&shared, carrier, tail, keep(deflate, history));
        if let Some(backlog) = backlog {
            link.owe(backlog);
        }
        let place = service.room().map(|_| Place::at(cursor));
        tokio::spawn(Self {
            link: Some(link),
            slot: Some(slot),
            door,
            shared,
            beat,
            member,
            service,
            place,
            pings,
            unanswered,
            closing: false,
            listed: true,
        });
    }

    /// Runs until nothing more can be done now.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parking, Error>> {
        let bits = self.beat.pulse.take(cx);
        let Some(link) = self.link.as_mut() else {
            return Poll::Ready(Err(Error::AlreadyClosed));
        };
        // What stirs it is work done, not being woken.
        let mut stirred = bits & !PARK != 0;
        if bits & DRAIN != 0 && !self.closing {
            self.closing = true;
            link.send(close(CloseCode::Away, "server is going away"))?;
        }
        if bits & MAIL != 0 && self.too_slow() {
            return Poll::Ready(Err(self.send_away()));
        }
        let Some(link) = self.link.as_mut() else {
            return Poll::Ready(Err(Error::AlreadyClosed));
        };
        if bits & PING != 0 && !self.closing {
            let figures = self.shared.figures(self.door);
            if self.unanswered > 0 {
                figures.missed.add(1);
            }
            if self.unanswered >= self.shared.roster.missed_limit {
                figures.ping_timeouts.add(1);
                return Poll::Ready(Err(self.fail(CloseCode::Error, "ping timeout")));
            }
            self.unanswered += 1;
            self.pings = self.pings.wrapping_add(1);
            // Behind output that the peer does not take, a ping would only pile up. It counts as missed all the same.
            if link.poll_flush(cx)?.is_ready() {
                figures.pings.add(1);
                link.send(Message::Ping(ping_payload(self.shared.options.ping_payload, self.pings)))?;
            }
        }
        let (mut turns, mut bytes) = (0, 0);
        while turns < BUDGET && bytes <= BYTES {
            turns += 1;
            let Some(link) = self.link.as_mut() else {
                return Poll::Ready(Err(Error::AlreadyClosed));
            };
            // Output first: from a peer that does not take its echo, nothing more is read.
            if link.poll_flush(cx)?.is_pending() {
                self.stir();
                return Poll::Pending;
            }
            if let Some(message) = self.mail() {
                if self.too_slow() {
                    return Poll::Ready(Err(self.send_away()));
                }
                stirred = true;
                self.send(message)?;
                continue;
            }
            let Some(link) = self.link.as_mut() else {
                return Poll::Ready(Err(Error::AlreadyClosed));
            };
            match link.poll_read(cx) {
                Poll::Pending => {
                    link.park();
                    if stirred {
                        self.stir();
                    } else if C::PARKS && bits & PARK != 0 && link.is_bare() && !self.closing {
                        return self.park(cx);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(message)) => {
                    stirred = true;
                    bytes += message.len();
                    self.received(message)?;
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(match blame(&error) {
                        Some((code, reason)) if !self.closing => self.fail(code, reason),
                        _ => error,
                    }));
                }
            }
        }
        self.stir();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Notes that it is not idle.
    fn stir(&self) {
        self.beat.stirred.store(self.shared.roster.quiet.now(), Ordering::Relaxed);
    }

    /// Hands the connection to the parking lot, unless something has come up meanwhile.
    fn park(&mut self, cx: &Context<'_>) -> Poll<Result<Parking, Error>> {
        let Some(link) = self.link.take() else {
            return Poll::Ready(Err(Error::AlreadyClosed));
        };
        let (carrier, kept) = link.set_aside();
        let (deflate, history) = kept.map(|kept| (kept.agreed, kept.history)).unzip();
        let idle = Idle {
            pings: self.pings,
            joined: self.beat.joined,
            unanswered: self.unanswered,
            cursor: self.place.as_ref().map_or(0, |place| place.cursor),
            since: self.shared.roster.quiet.now() as u16,
            patience: self.beat.patience,
            door: self.door,
            service: self.service,
            deflate,
        };
        // Before anyone else has it: from then on another task may count and close it.
        let slot = self.slot.take();
        self.report_lost();
        match carrier.park(&self.shared, &self.beat, idle, history.unwrap_or_default()) {
            Ok(()) => {
                self.listed = false;
                slot.into_iter().for_each(Slot::suspend);
                Poll::Ready(Ok(Parking))
            }
            Err(Refused { carrier, history }) => {
                self.slot = slot;
                self.link = Some(connect(&self.shared, carrier?, Vec::new(), keep(deflate, history)));
                self.stir();
                // Whatever came up, and the new registration, want to be looked at.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn received(&mut self, message: Message) -> Result<(), Error> {
        let figures = self.shared.figures(self.door);
        if message.is_pong() {
            figures.pongs.add(1);
            if self.unanswered == 1
                && let Some(descriptor) = self.member.descriptor()
                && let Some(time) = self.shared.roster.wheel.since_ping(index(descriptor))
            {
                figures.round_trip(time);
            }
        }
        self.unanswered = 0;
        // The engine answers pings and the Close by itself; what arrives after our Close has nowhere to go.
        if self.closing || !(message.is_text() || message.is_binary()) {
            return Ok(());
        }
        figures.received.add(message.len());
        match &mut self.place {
            Some(place) => self.shared.roster.publish(self.member, self.service, place, message),
            None if self.service == Service::SINK => {}
            None => self.send(message)?,
        }
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<(), Error> {
        self.shared.figures(self.door).sent.add(message.len());
        self.link.as_mut().map_or(Err(Error::AlreadyClosed), |link| link.send(message))
    }

    /// Ends the connection by our decision: says why, and lets the peer read it.
    fn fail(&mut self, code: CloseCode, reason: &'static str) -> Error {
        debug!(%code, reason, "connection failed");
        // First: if the Close cannot be sent, the descriptor is closed at once, and comes again.
        self.unlist();
        if let (Some(mut link), slot) = (self.link.take(), self.slot.take()) {
            if let Err(error) = link.send(close(code, reason)) {
                return error;
            }
            tokio::spawn(async move {
                // The runtime may not know yet that a socket which just came back takes output.
                let flush = poll_fn(|cx| link.poll_flush(cx));
                if !matches!(timeout(LINGER, flush).await, Ok(Ok(()))) {
                    debug!("the peer did not take our Close");
                }
                link.into_transport().abandon().await;
                // The descriptor is in use until here.
                drop(slot);
            });
        }
        Error::ConnectionClosed
    }
}

impl<C: Carrier> Session<C> {
    /// After a complete closing handshake.
    fn end(&mut self) {
        self.unlist();
        if let (Some(link), Some(slot)) = (self.link.take(), self.slot.take()) {
            link.into_transport().end(slot);
        }
    }

    /// Tells the roster that the connection is no more. Before its descriptor is closed: it comes again at once.
    fn unlist(&mut self) {
        if mem::take(&mut self.listed) {
            self.shared.roster.leave(self.member, &self.beat, self.service, self.place.as_ref());
            self.shared.figures(self.door).ended.add(1);
        }
    }
}

impl<C: Carrier> Future for Session<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.advance(cx)) {
            Ok(Parking) => {}
            Err(error) => {
                debug!(%error, "connection ended");
                if matches!(error, Error::ConnectionClosed) {
                    self.end();
                }
            }
        }
        Poll::Ready(())
    }
}

impl<C: Carrier> Drop for Session<C> {
    fn drop(&mut self) {
        self.unlist();
        self.report_lost();
    }
}

/// The link of a new connection, or of one that was set aside; `tail` is what has been read of it.
fn connect<C: Carrier>(shared: &Shared, carrier: C, tail: Vec<u8>, kept: Option<Kept>) -> Link<C, ()> {
    let options = &shared.options;
    let adapter =
        kept.zip(options.deflate).map(|(kept, settings)| Adapter::new(Role::Server, kept, &settings));
    Link::compressed(carrier, Role::Server, options.max_message, tail, (), adapter)
}

fn keep(deflate: Option<Agreed>, history: Box<[u8]>) -> Option<Kept> {
    deflate.map(|agreed| Kept { agreed, history })
}

fn close(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

/// The close code for a peer's mistake (RFC 6455 section 7.4.1); `None` when the connection is gone anyway.
fn blame(error: &Error) -> Option<(CloseCode, &'static str)> {
    match error {
        Error::Capacity(_) => Some((CloseCode::Size, "message too big")),
        Error::Utf8(_) => Some((CloseCode::Invalid, "invalid UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some((CloseCode::Protocol, "protocol error")),
        Error::Io(error) => Some(Failure::of(error)?.blame()),
        _ => None,
    }
}
