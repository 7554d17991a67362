//! An idle stream, and what can be done with it without a session.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use h2::{RecvStream, SendStream};
use tokio_tungstenite::tungstenite::Bytes;

use super::super::broadcast::Place;
use super::super::member::Member;
use super::super::roster::Roster;
use super::super::table::{Idle, MAIL, PING};
use super::super::wire::{Heartbeat, Outgoing, Written, control, ping_payload};
use super::unsent::Unsent;
use crate::link::Backlog;

/// An idle stream: all there is of it beside h2's own state.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) send: SendStream<Bytes>,
    pub(super) recv: RecvStream,
    pub(super) idle: Idle,
}

/// What an idle stream costs here; growth should be deliberate.
const _: () = assert!(size_of::<Option<Resting>>() <= 64);

/// What becomes of a parked stream.
#[derive(Debug)]
pub(super) enum Next {
    Stay,
    /// It comes back, for the reasons that the bits say.
    Wake {
        bits: u32,
        tail: Vec<u8>,
        backlog: Option<Backlog>,
    },
    /// The peer has reset it.
    Gone,
}

impl Next {
    pub(super) fn wake(bits: u32) -> Self {
        Self::Wake { bits, tail: Vec::new(), backlog: None }
    }
}

impl Resting {
    /// Handles what has arrived: pings and pongs here, all else by waking it. When more arrives, `bell` rings.
    pub(super) fn attend(&mut self, roster: &Roster, unsent: &Arc<Unsent>, bell: &Waker) -> Next {
        let mut cx = Context::from_waker(bell);
        loop {
            let data = match self.recv.poll_data(&mut cx) {
                Poll::Pending => return Next::Stay,
                Poll::Ready(Some(Ok(data))) => data,
                Poll::Ready(Some(Err(_))) => return Next::Gone,
                // The end of the stream, for the session to see again.
                Poll::Ready(None) => return Next::wake(0),
            };
            if self.recv.flow_control().release_capacity(data.len()).is_err() {
                return Next::Gone;
            }
            let mut rest: &[u8] = &data;
            while let Some((heartbeat, size)) = control(rest) {
                rest = &rest[size..];
                if heartbeat == Heartbeat::Pong {
                    roster.figures[self.idle.door.listener()].pongs.add(1);
                }
                self.idle.unanswered = 0;
                let Heartbeat::Ping(payload) = heartbeat else { continue };
                match self.put(&Outgoing::pong(&payload), unsent) {
                    Written::Whole => {}
                    Written::Partly(backlog) => {
                        return Next::Wake { bits: 0, tail: rest.to_vec(), backlog: Some(backlog) };
                    }
                    Written::Broken => return Next::Gone,
                }
            }
            if !rest.is_empty() {
                return Next::Wake { bits: 0, tail: rest.to_vec(), backlog: None };
            }
        }
    }

    /// Sends a ping of `size` bytes, or has the session say that too many were missed.
    pub(super) fn ping(&mut self, roster: &Roster, unsent: &Arc<Unsent>, size: usize) -> Next {
        if self.idle.unanswered >= roster.missed_limit {
            return Next::wake(PING);
        }
        let figures = &roster.figures[self.idle.door.listener()];
        if self.idle.unanswered > 0 {
            figures.missed.add(1);
        }
        self.idle.unanswered += 1;
        self.idle.pings = self.idle.pings.wrapping_add(1);
        match self.put(&Outgoing::ping(&ping_payload(size, self.idle.pings)), unsent) {
            // Where the peer gives no window or does not read, the ping counts as missed.
            Written::Whole => {
                figures.pings.add(1);
                Next::Stay
            }
            Written::Partly(_) => Next::Stay,
            Written::Broken => Next::Gone,
        }
    }

    /// Writes what waits for it in the room.
    pub(super) fn relay(&mut self, roster: &Roster, unsent: &Arc<Unsent>, member: Member) -> Next {
        if roster.far_behind(&self.idle) {
            return Next::wake(MAIL);
        }
        let mut place = Place::at(self.idle.cursor);
        loop {
            let message = roster.next_message(member, self.idle.service, &mut place);
            self.idle.cursor = place.cursor;
            let Some(message) = message else { return Next::Stay };
            roster.figures[self.idle.door.listener()].sent.add(message.len());
            match Outgoing::message(&message).map(|frame| self.put(&frame, unsent)) {
                Some(Written::Whole) | None => {}
                Some(Written::Partly(backlog)) => {
                    return Next::Wake { bits: MAIL, tail: Vec::new(), backlog: Some(backlog) };
                }
                Some(Written::Broken) => return Next::Gone,
            }
        }
    }

    /// Sends the whole frame, or nothing of it.
    fn put(&mut self, frame: &Outgoing<'_>, unsent: &Arc<Unsent>) -> Written {
        let bytes = frame.to_vec();
        if !unsent.has_room() {
            return Written::Partly(Backlog::new(bytes, 0));
        }
        self.send.reserve_capacity(bytes.len());
        if self.send.capacity() < bytes.len() {
            // What it has been given of the connection's window, others can use.
            self.send.reserve_capacity(0);
            return Written::Partly(Backlog::new(bytes, 0));
        }
        match self.send.send_data(unsent.frame(bytes), false) {
            Ok(()) => Written::Whole,
            Err(_) => Written::Broken,
        }
    }
}
