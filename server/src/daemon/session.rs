//! A connection once it is a WebSocket: a hand-written future, because it is what an idle connection costs.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, error::ProtocolError};
use tracing::{debug, warn};

use super::accept::linger;
use super::broadcast::Member;
use super::roster::{Beat, DRAIN, PING};
use super::upgrade::Path;
use super::{Shared, Slot};
use crate::link::Link;

/// Messages handled before other connections get their turn.
const BUDGET: u32 = 64;

/// Largest control payload (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;

pub(super) struct Session {
    /// Both are there until the connection ends or is handed on.
    link: Option<Link<()>>,
    slot: Option<Slot>,
    shared: Arc<Shared>,
    beat: Arc<Beat>,
    /// On `/broadcast`.
    member: Option<Member>,
    pings: u64,
    /// Pings since the peer last sent anything.
    unanswered: u32,
    /// Our Close is queued: nothing may follow it.
    closing: bool,
}

impl Session {
    pub(super) fn new(link: Link<()>, path: Path, slot: Slot) -> Self {
        let shared = slot.0.clone();
        let beat = shared.roster.join();
        let member = (path == Path::Broadcast).then(|| shared.hub.join(beat.clone()));
        Self {
            link: Some(link),
            slot: Some(slot),
            shared,
            beat,
            member,
            pings: 0,
            unanswered: 0,
            closing: false,
        }
    }

    /// Runs until nothing more can be done now. The only way out is the end of the connection.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, Error>> {
        let bits = self.beat.pulse.take(cx);
        let Some(link) = self.link.as_mut() else {
            return Poll::Ready(Err(Error::AlreadyClosed));
        };
        if bits & DRAIN != 0 && !self.closing {
            self.closing = true;
            link.send(close(CloseCode::Away, "server is going away"))?;
        }
        if bits & PING != 0 && !self.closing {
            if self.unanswered >= self.shared.missed_limit {
                self.shared.totals.ping_timeouts.fetch_add(1, Ordering::Relaxed);
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
                return Poll::Pending;
            }
            if let Some(message) = self.member.as_ref().filter(|_| !self.closing).and_then(Member::next) {
                link.send(message)?;
                continue;
            }
            match link.poll_read(cx) {
                Poll::Pending => {
                    link.park();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(message)) => self.received(message)?,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(match blame(&error) {
                        Some((code, reason)) if !self.closing => self.fail(code, reason),
                        _ => error,
                    }));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn received(&mut self, message: Message) -> Result<(), Error> {
        self.unanswered = 0;
        // The engine answers pings and the Close by itself; what arrives after our Close has nowhere to go.
        if self.closing || !(message.is_text() || message.is_binary()) {
            return Ok(());
        }
        match (&self.member, self.link.as_mut()) {
            (Some(member), _) => self.shared.hub.publish(member, &message),
            (None, Some(link)) => link.send(message)?,
            (None, None) => {}
        }
        Ok(())
    }

    /// Ends the connection by our decision: says why, and lets the peer read it.
    fn fail(&mut self, code: CloseCode, reason: &'static str) -> Error {
        debug!(%code, reason, "connection failed");
        if let (Some(mut link), slot) = (self.link.take(), self.slot.take()) {
            if let Err(error) = link.send(close(code, reason)) {
                return error;
            }
            tokio::spawn(async move {
                linger(link.into_tcp()).await;
                // The descriptor is in use until here.
                drop(slot);
            });
        }
        Error::ConnectionClosed
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Err(error) = ready!(self.advance(cx));
        debug!(%error, "connection ended");
        Poll::Ready(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.beat.leave();
        if let Some(member) = &self.member {
            let dropped = self.shared.hub.leave(member);
            if dropped > 0 {
                self.shared.totals.relay_dropped.fetch_add(dropped, Ordering::Relaxed);
                warn!(dropped, "a slow consumer on /broadcast lost messages");
            }
        }
    }
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
        _ => None,
    }
}

fn ping_payload(size: usize, count: u64) -> Bytes {
    let mut payload = [0; MAX_CONTROL];
    let size = size.min(MAX_CONTROL);
    if size >= 8 {
        payload[..8].copy_from_slice(&count.to_be_bytes());
    }
    Bytes::copy_from_slice(&payload[..size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_carries_its_number_when_there_is_room() {
        assert_eq!(ping_payload(0, 7), Bytes::new());
        assert_eq!(ping_payload(7, 7), Bytes::from_static(&[0; 7]));
        assert_eq!(ping_payload(9, 0x0102)[..], [0, 0, 0, 0, 0, 0, 1, 2, 0]);
    }
}
