//! Frame counts of the whole process, added to at the moment a frame crosses a socket, so that nothing is lost with a
//! connection that is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::report::Traffic;
use crate::link::Observer;
use crate::meter::{Opcode, SeenFrame};

/// Both directions, from the client's point of view.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) sent: Counts,
    pub(super) received: Counts,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    frames: AtomicU64,
    text: AtomicU64,
    binary: AtomicU64,
    continuation: AtomicU64,
    ping: AtomicU64,
    pong: AtomicU64,
    close: AtomicU64,
    payload_bytes: AtomicU64,
    control_bytes: AtomicU64,
}

impl Counts {
    fn add(&self, frame: SeenFrame) {
        let by_opcode = match frame.opcode {
            Opcode::Text => Some(&self.text),
            Opcode::Binary => Some(&self.binary),
            Opcode::Continuation => Some(&self.continuation),
            Opcode::Ping => Some(&self.ping),
            Opcode::Pong => Some(&self.pong),
            Opcode::Close => Some(&self.close),
            // Only in the sum of frames; the engine ends the connection over it.
            Opcode::Reserved(_) => None,
        };
        if let Some(counter) = by_opcode {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let bytes = if frame.opcode.is_control() { &self.control_bytes } else { &self.payload_bytes };
        bytes.fetch_add(frame.payload, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Traffic {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            frames: value(&self.frames),
            text: value(&self.text),
            binary: value(&self.binary),
            continuation: value(&self.continuation),
            ping: value(&self.ping),
            pong: value(&self.pong),
            close: value(&self.close),
            payload_bytes: value(&self.payload_bytes),
            control_bytes: value(&self.control_bytes),
        }
    }
}

impl Observer for Arc<Totals> {
    fn sent(&self, frame: SeenFrame) {
        self.sent.add(frame);
    }

    fn received(&self, frame: SeenFrame) {
        self.received.add(frame);
    }
}
