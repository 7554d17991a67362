//! A connection while something happens on it: a hand-written future that ends when the connection does, or when it has
//! been quiet for long enough to be parked.

use std::future::poll_fn;
use std::mem;
use std::net::TcpStream as IdleStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
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

use super::accept::{LINGER, linger};
use super::broadcast::Place;
use super::roster::Woken;
use super::table::{Beat, DRAIN, PARK, PING, Parked};
use super::upgrade::Path;
use super::wire::ping_payload;
use super::{Shared, Slot};
use crate::deflate::{Adapter, Failure, Kept};
use crate::link::Link;

/// The connection is idle and somebody else's now.
struct Parking;

/// Messages handled before other connections get their turn.
const BUDGET: u32 = 64;

pub(super) struct Session {
    /// Both are there until the connection ends or is handed on.
    link: Option<Link<TcpStream, ()>>,
    slot: Option<Slot>,
    shared: Arc<Shared>,
    beat: Arc<Beat>,
    descriptor: RawFd,
    path: Path,
    /// On `/broadcast`.
    place: Option<Place>,
    pings: u64,
    /// Pings since the peer last sent anything.
    unanswered: u32,
    /// Our Close is queued: nothing may follow it.
    closing: bool,
    /// The roster knows of it.
    listed: bool,
}

impl Session {
    /// Starts serving a new WebSocket.
    pub(super) fn start(link: Link<TcpStream, ()>, path: Path, slot: Slot) {
        let shared = slot.shared.clone();
        let descriptor = link.transport().as_raw_fd();
        let (beat, place) = shared.roster.join(descriptor, path);
        tokio::spawn(Self {
            link: Some(link),
            slot: Some(slot),
            shared,
            beat,
            descriptor,
            path,
            place,
            pings: 0,
            unanswered: 0,
            closing: false,
            listed: true,
        });
    }

    /// Goes on with one that was parked.
    pub(super) fn resume(shared: &Arc<Shared>, woken: Woken) {
        let Woken { parked, beat, history, tail, backlog } = woken;
        let Parked { pings, socket, unanswered, cursor, path, deflate, .. } = parked;
        let kept = deflate.map(|agreed| Kept { agreed, history });
        let descriptor = socket.as_raw_fd();
        let mut session = Self {
            link: None,
            slot: Some(Slot::resume(shared)),
            shared: shared.clone(),
            beat,
            descriptor,
            path,
            place: (path == Path::Broadcast).then(|| Place::at(cursor)),
            pings,
            unanswered: if tail.is_empty() { unanswered } else { 0 },
            closing: false,
            listed: true,
        };
        match TcpStream::from_std(IdleStream::from(socket)) {
            Ok(tcp) => {
                let mut link = restore(shared, tcp, tail, kept);
                if let Some(backlog) = backlog {
                    link.owe(backlog);
                }
                session.link = Some(link);
                tokio::spawn(session);
            }
            // The kernel has no memory for the registration; the descriptor is closed already.
            Err(error) => warn!(%error, "a parked connection is lost"),
        }
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
        if bits & PING != 0 && !self.closing {
            if self.unanswered >= self.shared.roster.missed_limit {
                self.shared.roster.totals.ping_timeouts.fetch_add(1, Ordering::Relaxed);
                return Poll::Ready(Err(self.fail(CloseCode::Error, "ping timeout")));
            }
            self.unanswered += 1;
            self.pings += 1;
            // Behind output that the peer does not take, a ping would only pile up. It counts as missed all the same.
            if link.poll_flush(cx)?.is_ready() {
                link.send(Message::Ping(ping_payload(self.shared.options.ping_payload, self.pings)))?;
            }
        }
        for _ in 0..BUDGET {
            let Some(link) = self.link.as_mut() else {
                return Poll::Ready(Err(Error::AlreadyClosed));
            };
            // Output first: from a peer that does not take its echo, nothing more is read.
            if link.poll_flush(cx)?.is_pending() {
                self.stir();
                return Poll::Pending;
            }
            if let Some(message) = self.mail() {
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
                    } else if bits & PARK != 0 && link.is_bare() && !self.closing {
                        return self.park(cx);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(message)) => {
                    stirred = true;
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

    /// The next message of the room.
    fn mail(&mut self) -> Option<Message> {
        let place = self.place.as_mut().filter(|_| !self.closing)?;
        self.shared.roster.next_message(self.descriptor, place)
    }

    /// Hands the connection to the parking lot, unless something has come up meanwhile.
    fn park(&mut self, cx: &Context<'_>) -> Poll<Result<Parking, Error>> {
        let Some(link) = self.link.take() else {
            return Poll::Ready(Err(Error::AlreadyClosed));
        };
        let (tcp, kept) = link.set_aside();
        let (deflate, history) = kept.map(|kept| (kept.agreed, kept.history)).unzip();
        let parked = Parked {
            pings: self.pings,
            socket: OwnedFd::from(tcp.into_std()?),
            joined: self.beat.joined,
            unanswered: self.unanswered,
            cursor: self.place.as_ref().map_or(0, |place| place.cursor),
            since: self.shared.roster.quiet.now() as u16,
            patience: self.beat.patience,
            path: self.path,
            deflate,
        };
        // Before the roster has it: from then on another task may count and close it.
        let slot = self.slot.take();
        self.report_lost();
        match self.shared.roster.park(&self.beat, parked, history.unwrap_or_default()) {
            Ok(()) => {
                self.listed = false;
                slot.into_iter().for_each(Slot::suspend);
                Poll::Ready(Ok(Parking))
            }
            Err((socket, history)) => {
                let tcp = TcpStream::from_std(IdleStream::from(socket))?;
                let kept = deflate.map(|agreed| Kept { agreed, history });
                self.link = Some(restore(&self.shared, tcp, Vec::new(), kept));
                self.slot = slot;
                self.stir();
                // Whatever came up, and the new registration, want to be looked at.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn received(&mut self, message: Message) -> Result<(), Error> {
        self.unanswered = 0;
        // The engine answers pings and the Close by itself; what arrives after our Close has nowhere to go.
        if self.closing || !(message.is_text() || message.is_binary()) {
            return Ok(());
        }
        match &mut self.place {
            Some(place) => self.shared.roster.publish(self.descriptor, place, message),
            None => self.send(message)?,
        }
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<(), Error> {
        self.link.as_mut().map_or(Err(Error::AlreadyClosed), |link| link.send(message))
    }

    /// Ends the connection by our decision: says why, and lets the peer read it.
    fn fail(&mut self, code: CloseCode, reason: &'static str) -> Error {
        debug!(%code, reason, "connection failed");
        if let (Some(mut link), slot) = (self.link.take(), self.slot.take()) {
            if let Err(error) = link.send(close(code, reason)) {
                return error;
            }
            self.unlist();
            tokio::spawn(async move {
                // The runtime may not know yet that a socket which just came back takes output.
                let flush = poll_fn(|cx| link.poll_flush(cx));
                if !matches!(timeout(LINGER, flush).await, Ok(Ok(()))) {
                    debug!("the peer did not take our Close");
                }
                linger(link.into_transport()).await;
                // The descriptor is in use until here.
                drop(slot);
            });
        }
        Error::ConnectionClosed
    }
}

impl Session {
    /// Tells the roster that the connection is no more. Before its descriptor is closed: it comes again at once.
    fn unlist(&mut self) {
        if mem::take(&mut self.listed) {
            self.shared.roster.leave(self.descriptor, &self.beat, self.place.as_ref());
        }
    }

    fn report_lost(&mut self) {
        let lost = self.place.as_mut().map_or(0, |place| mem::take(&mut place.lost));
        if lost > 0 {
            self.shared.roster.totals.relay_dropped.fetch_add(lost, Ordering::Relaxed);
            warn!(dropped = lost, "a slow consumer on /broadcast lost messages");
        }
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.advance(cx)) {
            Ok(Parking) => {}
            Err(error) => debug!(%error, "connection ended"),
        }
        Poll::Ready(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.unlist();
        self.report_lost();
    }
}

/// The link of a connection that was set aside, `tail` being what was read of it meanwhile.
fn restore(shared: &Shared, tcp: TcpStream, tail: Vec<u8>, kept: Option<Kept>) -> Link<TcpStream, ()> {
    let options = &shared.options;
    let adapter =
        kept.zip(options.deflate).map(|(kept, settings)| Adapter::new(Role::Server, kept, &settings));
    Link::compressed(tcp, Role::Server, options.max_message, tail, (), adapter)
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
        Error::Io(error) => match Failure::of(error)? {
            Failure::Corrupt => Some((CloseCode::Invalid, "corrupt compressed data")),
            Failure::Memory => Some((CloseCode::Error, "out of memory")),
        },
        _ => None,
    }
}
