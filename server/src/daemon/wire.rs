//! Frames to and from a parked connection's socket without an engine: whole control frames in, whole frames out.
//!
//! Only what needs no state passes here. Whatever else arrives is the engine's to judge.

use std::io::{Cursor, IoSlice};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::link::Backlog;

/// Largest control payload (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;

/// Longest header of a frame that is not masked.
const MAX_HEADER: usize = 10;

/// A control frame that needs no engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heartbeat {
    /// To be answered with this payload.
    Ping(Bytes),
    /// The answer to one of ours, or unsolicited.
    Pong,
}

/// The whole, legal ping or pong that `bytes` begin with, and its length on the wire. A client's frames are masked.
pub(super) fn control(bytes: &[u8]) -> Option<(Heartbeat, usize)> {
    let mut cursor = Cursor::new(bytes);
    let (header, payload) = FrameHeader::parse(&mut cursor).ok()??;
    let reserved = header.rsv1 || header.rsv2 || header.rsv3;
    let payload = usize::try_from(payload).ok().filter(|payload| *payload <= MAX_CONTROL)?;
    let (true, false, Some(mask)) = (header.is_final, reserved, header.mask) else {
        return None;
    };
    let start = usize::try_from(cursor.position()).ok()?;
    let masked = bytes.get(start..start + payload)?;
    let found = match header.opcode {
        OpCode::Control(Control::Ping) => {
            let plain = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            Heartbeat::Ping(plain.collect())
        }
        OpCode::Control(Control::Pong) => Heartbeat::Pong,
        OpCode::Control(_) | OpCode::Data(_) => return None,
    };
    Some((found, start + payload))
}

/// Whether `bytes` are one whole, legal Close and nothing else.
pub(super) fn is_close(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    let Ok(Some((header, payload))) = FrameHeader::parse(&mut cursor) else { return false };
    let close = header.is_final && header.mask.is_some() && header.opcode == OpCode::Control(Control::Close);
    close && payload <= MAX_CONTROL as u64 && cursor.position() + payload == bytes.len() as u64
}

/// The payload of ping number `count`: that number as far as there is room for it.
pub(super) fn ping_payload(size: usize, count: u32) -> Bytes {
    let mut payload = [0; MAX_CONTROL];
    let size = size.min(MAX_CONTROL);
    if size >= 8 {
        payload[..8].copy_from_slice(&u64::from(count).to_be_bytes());
    }
    Bytes::copy_from_slice(&payload[..size])
}

/// A server's frame, whole: FIN is set, nothing is masked.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    header: [u8; MAX_HEADER],
    header_size: usize,
    payload: &'a [u8],
}

/// How far a frame got.
#[derive(Debug)]
pub(super) enum Written {
    Whole,
    /// The kernel has no room; the frame and how much of it was taken.
    Partly(Backlog),
    Broken,
}

/// Close with 1001, and why.
const AWAY: &[u8] = b"\x03\xE9server is going away";

impl<'a> Outgoing<'a> {
    /// That the server is going away.
    pub(super) fn close_away() -> Outgoing<'static> {
        Outgoing::new(OpCode::Control(Control::Close), AWAY)
    }

    pub(super) fn ping(payload: &'a [u8]) -> Self {
        Self::new(OpCode::Control(Control::Ping), payload)
    }

    pub(super) fn pong(payload: &'a [u8]) -> Self {
        Self::new(OpCode::Control(Control::Pong), payload)
    }

    /// `None` unless it is a text or binary message.
    pub(super) fn message(message: &'a Message) -> Option<Self> {
        match message {
            Message::Text(text) => Some(Self::new(OpCode::Data(Data::Text), text.as_bytes())),
            Message::Binary(bytes) => Some(Self::new(OpCode::Data(Data::Binary), bytes)),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
        }
    }

    fn new(opcode: OpCode, payload: &'a [u8]) -> Self {
        let frame = FrameHeader { is_final: true, opcode, mask: None, ..FrameHeader::default() };
        let mut header = Cursor::new([0; MAX_HEADER]);
        // There is room for the longest.
        let _ = frame.format(payload.len() as u64, &mut header);
        let header_size = header.position() as usize;
        Self { header: header.into_inner(), header_size, payload }
    }

    /// Its bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        [&self.header[..self.header_size], self.payload].concat()
    }

    /// Writes it without waiting.
    pub(super) fn write(&self, socket: impl AsFd) -> Written {
        let header = &self.header[..self.header_size];
        let parts = [IoSlice::new(header), IoSlice::new(self.payload)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return Written::Broken,
        };
        if sent == header.len() + self.payload.len() {
            return Written::Whole;
        }
        Written::Partly(Backlog::new(self.to_vec(), sent))
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;

    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first, 0x80 | payload.len() as u8];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[test]
    fn a_ping_carries_its_number_when_there_is_room() {
        assert_eq!(ping_payload(0, 7), Bytes::new());
        assert_eq!(ping_payload(7, 7), Bytes::from_static(&[0; 7]));
        assert_eq!(ping_payload(9, 0x0102)[..], [0, 0, 0, 0, 0, 0, 1, 2, 0]);
    }

    #[test]
    fn whole_pings_and_pongs_are_taken_at_their_length() {
        for size in [0, 7, 8, 125] {
            let payload: Vec<u8> = (0..size).collect();
            let mut bytes = masked(0x8A, &payload);
            let whole = bytes.len();
            bytes.extend(masked(0x81, b"text"));
            assert_eq!(control(&bytes), Some((Heartbeat::Pong, whole)));
            assert_eq!(control(&masked(0x89, &payload)), Some((Heartbeat::Ping(payload.into()), whole)));
            (0..whole).for_each(|cut| assert_eq!(control(&bytes[..cut]), None, "{size} cut at {cut}"));
        }
    }

    #[test]
    fn a_close_is_one_only_when_it_is_whole_and_alone() {
        for payload in [&b""[..], b"\x03\xE8", b"\x03\xE8bye"] {
            let close = masked(0x88, payload);
            assert!(is_close(&close));
            (0..close.len()).for_each(|cut| assert!(!is_close(&close[..cut]), "{cut}"));
            assert!(!is_close(&[&close[..], &[0]].concat()));
        }
        assert!(!is_close(&masked(0x89, b"")) && !is_close(&masked(0x08, b"")) && !is_close(&[0x88, 0]));
    }

    #[test]
    fn everything_else_is_left_to_the_engine() {
        // Not final, reserved bits, other opcodes.
        for first in [0x0A, 0x09, 0xCA, 0xAA, 0x9A, 0x88, 0x8B, 0x81, 0x82, 0x80] {
            assert_eq!(control(&masked(first, b"")), None, "{first:x}");
        }
        let unmasked = [0x8A, 0];
        assert_eq!(control(&unmasked), None);
        let long = [&[0x8A, 0xFE, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat();
        assert_eq!(control(&long), None);
    }

    #[test]
    fn frames_are_those_of_the_engine() {
        for size in [0, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(size);
            let message = Message::text(text.clone());
            let frame = Outgoing::message(&message).unwrap();
            let mut expected = Vec::new();
            Frame::message(text, OpCode::Data(Data::Text), true).format(&mut expected).unwrap();
            assert_eq!(frame.to_vec(), expected);
        }
        assert_eq!(AWAY[..2], 1001_u16.to_be_bytes());
        assert_eq!(Outgoing::close_away().header[..2], [0x88, AWAY.len() as u8]);
        assert_eq!(Outgoing::ping(b"ab").header[..2], [0x89, 2]);
        assert_eq!(Outgoing::pong(b"").header[..2], [0x8A, 0]);
    }
}
