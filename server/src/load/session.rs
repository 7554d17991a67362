//! One open connection of the load generator.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::client::{Opened, io_kind};
use super::totals::Totals;
use super::{Active, record};
use crate::link::Link;
use crate::pulse::Pulse;

/// Messages became due.
const SEND: u32 = 1;
/// The run is over: close.
const CLOSE: u32 = 2;

/// Messages handled before other connections get their turn.
const BUDGET: u32 = 64;

/// A relayed message may be larger than those we send.
const MIN_MAX_MESSAGE: usize = 16 << 20;

/// Length of the tag a message starts with: 8 hexadecimal digits of rank, 8 of number.
const TAG: usize = 16;

/// A connection as the schedule reaches it.
pub(super) struct Line {
    rank: u32,
    due: AtomicU32,
    pulse: Pulse,
}

impl Line {
    pub(super) fn new(rank: u32) -> Self {
        Self { rank, due: AtomicU32::new(0), pulse: Pulse::default() }
    }

    pub(super) fn one_more_due(&self) {
        self.due.fetch_add(1, Ordering::Release);
        self.pulse.raise(SEND);
    }

    pub(super) fn close(&self) {
        self.pulse.raise(CLOSE);
    }
}

pub(super) struct Session {
    link: Link<TcpStream, Arc<Totals>>,
    line: Arc<Line>,
    active: Active,
    /// Messages sent and data messages received.
    sent: u32,
    received: u32,
    closing: bool,
    close_sent: bool,
    /// The peer's Close came before ours was sent.
    peer_closed: bool,
    /// Writing failed; what the peer sent before may still be read.
    broken: bool,
}

impl Session {
    pub(super) fn new(opened: Opened, line: Arc<Line>, active: Active) -> Self {
        let max_message = active.0.options.message_size.max(MIN_MAX_MESSAGE);
        let observer = active.0.totals.clone();
        Self {
            link: Link::new(opened.tcp, Role::Client, max_message, opened.tail, observer),
            line,
            active,
            sent: 0,
            received: 0,
            closing: false,
            close_sent: false,
            peer_closed: false,
            broken: false,
        }
    }

    /// Runs until nothing more can be done now. The only way out is the end of the connection.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, Error>> {
        self.closing |= self.line.pulse.take(cx) & CLOSE != 0;
        for _ in 0..BUDGET {
            let flushed = self.write(cx);
            // Reading goes on while the peer does not take our output: it may be waiting for us to take its own.
            match self.link.poll_read(cx) {
                Poll::Ready(message) => self.received(&message?),
                Poll::Pending => {
                    if flushed {
                        self.link.park();
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what is due, as far as the socket takes it. Says whether nothing is left in the engine.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.broken {
            return false;
        }
        let outcome = self.try_write(cx);
        self.broken = outcome.is_err();
        outcome.unwrap_or(false)
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        // This also brings a queued pong out before the next ping could replace it.
        let mut flushed = is_ready(self.link.poll_flush(cx))?;
        if self.peer_closed {
            return Ok(flushed);
        }
        while flushed && !self.close_sent && self.sent < self.line.due.load(Ordering::Acquire) {
            let message = self.message();
            self.sent += 1;
            self.link.send(message)?;
            flushed = is_ready(self.link.poll_flush(cx))?;
        }
        if self.closing && !self.close_sent {
            self.close_sent = true;
            let unsent = self.line.due.load(Ordering::Acquire) - self.sent;
            if unsent > 0 {
                self.active.0.count_errors("messages_not_sent", u64::from(unsent));
            }
            let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            self.link.send(Message::Close(Some(frame)))?;
            flushed = is_ready(self.link.poll_flush(cx))?;
        }
        Ok(flushed)
    }

    fn message(&self) -> Message {
        let options = &self.active.0.options;
        let mut text = format!("{:08x}{:08x}", self.line.rank, self.sent).into_bytes();
        text.resize(options.message_size, b'.');
        let payload = Bytes::from(text);
        if options.binary {
            return Message::Binary(payload);
        }
        // Only ASCII went in, so this does not fail; were it to, the message goes out as binary.
        match Utf8Bytes::try_from(payload.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(payload),
        }
    }

    fn received(&mut self, message: &Message) {
        match message {
            Message::Text(text) => self.echoed(text.as_bytes()),
            Message::Binary(bytes) => self.echoed(bytes),
            Message::Close(_) => self.peer_closed |= !self.close_sent,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }

    /// Records the round trip if `payload` is one of our messages. One too short for the tag is taken to be the next
    /// in order, which it is when the server echoes and nothing else.
    fn echoed(&mut self, payload: &[u8]) {
        let number = if self.active.0.options.message_size < TAG {
            Some(self.received)
        } else {
            payload.get(..TAG).and_then(|tag| number_of(tag, self.line.rank))
        };
        self.received = self.received.wrapping_add(1);
        let Some(number) = number.filter(|number| *number < self.sent) else {
            return;
        };
        if let Some(schedule) = self.active.0.schedule.get() {
            let due = schedule.due(self.line.rank, number);
            record(&self.active.0.echo_times, Instant::now().saturating_duration_since(due));
        }
    }

    fn ended(&self, error: &Error) {
        let run = &self.active.0;
        let kind = match error {
            Error::ConnectionClosed => None,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Some("closed_without_close_frame")
            }
            Error::Io(error) => Some(io_kind(error)),
            _ => Some("protocol"),
        };
        if let Some(kind) = kind {
            run.count_error(kind);
        }
        if !self.close_sent && kind != Some("protocol") {
            run.closed_by_peer.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Err(error) = ready!(self.advance(cx));
        self.ended(&error);
        Poll::Ready(())
    }
}

fn is_ready(flush: Poll<Result<(), Error>>) -> Result<bool, Error> {
    match flush {
        Poll::Ready(outcome) => outcome.map(|()| true),
        Poll::Pending => Ok(false),
    }
}

/// The number in a tag of connection `rank`.
fn number_of(tag: &[u8], rank: u32) -> Option<u32> {
    let field = |bytes| u32::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
    let (of, number) = tag.split_at(TAG / 2);
    (field(of) == Some(rank)).then(|| field(number)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_recognised_only_on_its_own_connection() {
        assert_eq!(number_of(b"0000000a000000ff", 10), Some(255));
        assert_eq!(number_of(b"0000000b000000ff", 10), None);
        assert_eq!(number_of(b"xxxxxxxxxxxxxxxx", 10), None);
    }
}
