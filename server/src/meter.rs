//! Follows WebSocket frames (RFC 6455 section 5.2) along a byte stream without keeping or changing a byte.
//!
//! It sits between the protocol engine and the socket and sees only bytes the kernel took or gave. So what it
//! counts was really sent or received, whatever the engine has queued, replaced or answered by itself.

/// Opcodes of RFC 6455 section 11.8; the numbers are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// 0x0: a later fragment of a message.
    Continuation,
    /// 0x1: a text message or its first fragment.
    Text,
    /// 0x2: a binary message or its first fragment.
    Binary,
    /// 0x8: closing handshake.
    Close,
    /// 0x9: a request for a pong.
    Ping,
    /// 0xA: the answer to a ping, or unsolicited.
    Pong,
    /// A number that no RFC gives a meaning.
    Reserved(u8),
}

impl Opcode {
    fn from_bits(bits: u8) -> Self {
        match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            other => Opcode::Reserved(other),
        }
    }

    /// Control frames are those with the high opcode bit (RFC 6455 section 5.5).
    pub fn is_control(self) -> bool {
        match self {
            Opcode::Close | Opcode::Ping | Opcode::Pong => true,
            Opcode::Continuation | Opcode::Text | Opcode::Binary => false,
            Opcode::Reserved(bits) => bits & 0x8 != 0,
        }
    }
}

/// A frame whose last byte has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenFrame {
    /// What kind of frame it is.
    pub opcode: Opcode,
    /// Payload length in bytes, header excluded.
    pub payload: u64,
}

/// Some of a frame's payload, as it is on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The frame's first byte: FIN, reserved bits, opcode.
    pub first: u8,
    /// The masking key; zeros where there is none.
    pub mask: [u8; 4],
    /// How much of the payload came before.
    pub offset: u64,
    /// The bytes, masked as they came.
    pub bytes: &'a [u8],
    /// Whether the payload ends here.
    pub ends: bool,
}

/// Position within one direction of a connection. Starts at the first byte after the HTTP upgrade.
#[derive(Debug, Default)]
pub struct FrameMeter {
    /// Payload length as far as the header has been read.
    length: u64,
    /// Payload bytes still to come once the header is complete.
    left: u64,
    /// Header bytes read, and needed: 2 until the second byte tells.
    have: u8,
    need: u8,
    first: u8,
    mask: [u8; 4],
    /// A fragmented message has begun and its FIN has not passed.
    in_message: bool,
}

impl FrameMeter {
    /// Advances over `bytes` and reports every frame that ends within them.
    pub fn advance(&mut self, bytes: &[u8], seen: impl FnMut(SeenFrame)) {
        self.advance_through(bytes, |_| {}, seen);
    }

    /// The same, and shows the payload on the way: of a frame without payload an empty piece.
    pub fn advance_through(
        &mut self,
        mut bytes: &[u8],
        mut shown: impl FnMut(Piece<'_>),
        mut seen: impl FnMut(SeenFrame),
    ) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let offset = self.length - self.left;
                self.left -= step as u64;
                shown(Piece {
                    first: self.first,
                    mask: self.mask,
                    offset,
                    bytes: &bytes[..step],
                    ends: self.left == 0,
                });
                bytes = &bytes[step..];
            } else {
                self.header_byte(bytes[0]);
                bytes = &bytes[1..];
                if self.have < self.need || self.have < 2 {
                    continue;
                }
                self.left = self.length;
                if self.left == 0 {
                    shown(Piece { first: self.first, mask: self.mask, offset: 0, bytes: &[], ends: true });
                }
            }
            if self.left == 0 {
                seen(self.finish());
            }
        }
    }

    /// Whether no frame is half way through. A frame of which not one byte passed does not count.
    pub fn at_frame_boundary(&self) -> bool {
        self.have == 0
    }

    /// Whether, besides, no fragmented message is waiting for its end.
    pub fn at_message_boundary(&self) -> bool {
        self.at_frame_boundary() && !self.in_message
    }

    fn header_byte(&mut self, byte: u8) {
        match self.have {
            0 => self.first = byte,
            1 => {
                let mask = if byte & 0x80 != 0 { 4 } else { 0 };
                let (extended, length) = match byte & 0x7F {
                    126 => (2, 0),
                    127 => (8, 0),
                    short => (0, u64::from(short)),
                };
                self.length = length;
                self.need = 2 + extended + mask;
                self.mask = [0; 4];
            }
            at if at < self.length_end() => self.length = self.length << 8 | u64::from(byte),
            at => {
                let at = usize::from(at - self.length_end());
                if let Some(key) = self.mask.get_mut(at) {
                    *key = byte;
                }
            }
        }
        self.have += 1;
    }

    /// Header offset at which the extended payload length ends. `need` is 2, 4 or 10, plus 4 with a mask.
    fn length_end(&self) -> u8 {
        match self.need {
            4 | 8 => 4,
            10 | 14 => 10,
            _ => 2,
        }
    }

    fn finish(&mut self) -> SeenFrame {
        let opcode = Opcode::from_bits(self.first & 0x0F);
        if !opcode.is_control() {
            self.in_message = self.first & 0x80 == 0;
        }
        self.have = 0;
        self.need = 0;
        SeenFrame { opcode, payload: self.length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(chunks: &[&[u8]]) -> (Vec<SeenFrame>, FrameMeter) {
        let mut meter = FrameMeter::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            meter.advance(chunk, |frame| seen.push(frame));
        }
        (seen, meter)
    }

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(mask | payload as u8),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([0xFF; 4]);
        }
        bytes.resize(bytes.len() + payload, 0x81);
        bytes
    }

    #[test]
    fn every_length_format_in_every_split() {
        let sizes = [0, 1, 4, 6, 8, 125, 126, 127, 300, 65535, 65536, 70000];
        for masked in [false, true] {
            let all: Vec<u8> = sizes.iter().flat_map(|size| frame(0x82, masked, *size)).collect();
            for chunk in [1, 2, 3, 7, 1000, all.len()] {
                let chunks: Vec<&[u8]> = all.chunks(chunk).collect();
                let (seen, meter) = frames(&chunks);
                let payloads: Vec<usize> = seen.iter().map(|frame| frame.payload as usize).collect();
                assert_eq!(payloads, sizes, "masked {masked}, chunk {chunk}");
                assert!(meter.at_message_boundary());
            }
        }
    }

    #[test]
    fn payload_is_shown_whole_and_in_order_with_its_key() {
        for masked in [false, true] {
            let bytes: Vec<u8> =
                [0, 3, 126, 70000].iter().flat_map(|size| frame(0x81, masked, *size)).collect();
            for chunk in [1, 5, 4096, bytes.len()] {
                let (mut meter, mut shown, mut ended) = (FrameMeter::default(), Vec::<u8>::new(), Vec::new());
                for chunk in bytes.chunks(chunk) {
                    let see = |piece: Piece<'_>| {
                        assert_eq!((piece.first, piece.mask), (0x81, [if masked { 0xFF } else { 0 }; 4]));
                        assert_eq!(piece.offset as usize, shown.len());
                        shown.extend(piece.bytes);
                        if piece.ends {
                            ended.push(std::mem::take(&mut shown).len());
                        }
                    };
                    meter.advance_through(chunk, see, |_| {});
                }
                assert_eq!(ended, [0, 3, 126, 70000], "masked {masked}, chunk {chunk}");
            }
        }
    }

    #[test]
    fn a_frame_counts_at_its_last_byte() {
        let bytes = frame(0x89, true, 5);
        let (seen, meter) = frames(&[&bytes[..bytes.len() - 1]]);
        assert_eq!(seen, []);
        assert!(!meter.at_frame_boundary());
        let (seen, _) = frames(&[&bytes]);
        assert_eq!(seen, [SeenFrame { opcode: Opcode::Ping, payload: 5 }]);
    }

    #[test]
    fn a_control_frame_inside_a_message_does_not_end_it() {
        let (_, meter) = frames(&[&frame(0x01, false, 3), &frame(0x89, false, 0)]);
        assert!(meter.at_frame_boundary() && !meter.at_message_boundary());
        let (_, meter) = frames(&[&frame(0x01, false, 3), &frame(0x89, false, 0), &frame(0x80, false, 0)]);
        assert!(meter.at_message_boundary());
    }
}
