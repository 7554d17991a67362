//! One open connection while something happens on it. It is polled by its [`super::bundle::Bundle`]; between
//! conversations only its carrier is left of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use fastrand::Rng;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::carrier::Carrier;
use super::client::io_kind;
use super::message::due_of;
use super::probe::{Kind, ping_due, ping_payload};
use super::run::{Run, count};
use super::totals::Totals;
use crate::deflate::{Adapter, Agreed};
use crate::link::Link;

/// Messages handled before other connections get their turn.
const BUDGET: u32 = 64;

/// A relayed message may be larger than those we send.
const MIN_MAX_MESSAGE: usize = 16 << 20;

/// How a session goes on.
pub(super) enum Step {
    /// When its carrier is ready again, or on an order.
    Wait,
    /// At once, after others.
    Again,
    /// Nothing is half way and nothing expected: the carrier is all there is.
    Idle,
    /// Not at all.
    Ended,
}

pub(super) struct Session {
    link: Link<Carrier, Arc<Totals>>,
    run: Arc<Run>,
    rank: u32,
    /// What was negotiated is in the link.
    compressed: bool,
    /// When messages not yet sent were due.
    waiting: VecDeque<u64>,
    /// When those sent were due, if they are too short to say so themselves.
    sent: VecDeque<u64>,
    /// When a ping was due.
    ping: Option<u64>,
    closing: bool,
    close_sent: bool,
    /// The peer's Close came before ours was sent.
    peer_closed: bool,
    /// Writing failed; what the peer sent before may still be read.
    broken: bool,
    /// To be opened again when it has ended.
    pub(super) recycle: bool,
}

impl Session {
    pub(super) fn new(
        carrier: Carrier,
        rank: u32,
        tail: Vec<u8>,
        agreed: Option<Agreed>,
        run: &Arc<Run>,
    ) -> Self {
        let adapter = agreed
            .zip(run.options.deflate)
            .map(|(agreed, settings)| Adapter::new(Role::Client, agreed.into(), &settings));
        let max_message = run.options.sizes.largest().max(MIN_MAX_MESSAGE);
        Self {
            link: Link::compressed(carrier, Role::Client, max_message, tail, run.totals.clone(), adapter),
            run: run.clone(),
            compressed: agreed.is_some(),
            rank,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            ping: None,
            closing: false,
            close_sent: false,
            peer_closed: false,
            broken: false,
            recycle: false,
        }
    }

    /// A message was due at `due`.
    pub(super) fn send(&mut self, due: u64) {
        self.waiting.push_back(due);
    }

    pub(super) fn ping(&mut self, due: u64) {
        self.ping = Some(due);
    }

    /// Ends with a closing handshake.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.link.transport_mut().hurry();
    }

    pub(super) fn carrier_mut(&mut self) -> &mut Carrier {
        self.link.transport_mut()
    }

    pub(super) fn into_carrier(self) -> Carrier {
        self.link.into_transport()
    }

    /// Runs until nothing more can be done now.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>, rng: &mut Rng) -> Step {
        for _ in 0..BUDGET {
            let flushed = self.write(cx, rng);
            // Reading goes on while the peer does not take our output: it may be waiting for us to take its own.
            match self.link.poll_read(cx) {
                Poll::Ready(Ok(message)) => self.received(&message),
                Poll::Ready(Err(error)) => {
                    self.ended(&error);
                    return Step::Ended;
                }
                Poll::Pending if flushed => {
                    self.link.park();
                    return if self.is_idle() { Step::Idle } else { Step::Wait };
                }
                Poll::Pending => return Step::Wait,
            }
        }
        Step::Again
    }

    /// Whether it may be forgotten but for its carrier. While messages are sent it will soon be needed again; a slow
    /// reader may have something left to read; and of a compressed connection what was negotiated must be kept.
    fn is_idle(&self) -> bool {
        self.link.is_bare()
            && self.waiting.is_empty()
            && self.sent.is_empty()
            && !self.closing
            && !self.recycle
            && !self.compressed
            && !matches!(self.link.transport(), Carrier::Slow(_))
            && !self.run.sending.load(Ordering::Relaxed)
    }

    /// Sends what is due, as far as the carrier takes it. Says whether nothing is left in the engine.
    fn write(&mut self, cx: &mut Context<'_>, rng: &mut Rng) -> bool {
        if self.broken {
            return false;
        }
        let outcome = self.try_write(cx, rng);
        self.broken = outcome.is_err();
        outcome.unwrap_or(false)
    }

    fn try_write(&mut self, cx: &mut Context<'_>, rng: &mut Rng) -> Result<bool, Error> {
        // This also brings a queued pong out before the next ping could replace it.
        let mut flushed = is_ready(self.link.poll_flush(cx))?;
        if self.peer_closed || self.close_sent {
            return Ok(flushed);
        }
        while flushed {
            let Some(due) = self.waiting.pop_front() else { break };
            if !self.run.options.sizes.tagged() {
                self.sent.push_back(due);
            }
            self.link.send(self.run.maker.message(self.rank, due, rng))?;
            flushed = is_ready(self.link.poll_flush(cx))?;
        }
        if let Some(due) = self.ping.take_if(|_| flushed) {
            self.link.send(Message::Ping(Bytes::copy_from_slice(&ping_payload(self.rank, due))))?;
            flushed = is_ready(self.link.poll_flush(cx))?;
        }
        if self.closing {
            self.close_sent = true;
            self.run.count_errors("messages_not_sent", self.waiting.len() as u64);
            self.waiting.clear();
            let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            self.link.send(Message::Close(Some(frame)))?;
            flushed = is_ready(self.link.poll_flush(cx))?;
        }
        Ok(flushed)
    }

    fn received(&mut self, message: &Message) {
        match message {
            Message::Text(text) => self.echoed(text.as_bytes()),
            Message::Binary(bytes) => self.echoed(bytes),
            Message::Close(_) => self.peer_closed |= !self.close_sent,
            Message::Pong(payload) => {
                if let Some(due) = ping_due(payload, self.rank) {
                    self.run.answered(Kind::Ping, self.rank, due);
                }
            }
            Message::Ping(_) | Message::Frame(_) => {}
        }
    }

    /// Records the round trip if `payload` is one of our messages. One too short for the tag is taken to be the next
    /// in order, which it is when the server echoes and nothing else.
    fn echoed(&mut self, payload: &[u8]) {
        let run = &self.run;
        let tagged = run.options.sizes.tagged();
        let due = if tagged { due_of(payload, self.rank) } else { self.sent.pop_front() };
        let now = run.now();
        // A tag from the future is not ours.
        let Some(due) = due.filter(|due| *due <= now) else { return };
        run.echo_times.record(Duration::from_nanos(now - due));
        run.answered(Kind::Message, self.rank, due);
        if run.sending.load(Ordering::Relaxed) {
            count(&run.echoes);
            if run.options.closed_loop {
                self.waiting.push_back(now);
            }
        }
    }

    fn ended(&self, error: &Error) {
        let kind = match error {
            Error::ConnectionClosed => None,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Some("closed_without_close_frame")
            }
            Error::Io(error) => Some(io_kind(error)),
            _ => Some("protocol"),
        };
        if let Some(kind) = kind {
            self.run.count_error(kind);
        }
        if !self.close_sent {
            self.run.count_errors("messages_not_sent", self.waiting.len() as u64);
            if kind != Some("protocol") {
                count(&self.run.fates.closed_by_peer);
            }
        }
    }
}

fn is_ready(flush: Poll<Result<(), Error>>) -> Result<bool, Error> {
    match flush {
        Poll::Ready(outcome) => outcome.map(|()| true),
        Poll::Pending => Ok(false),
    }
}
