//! RFC 6455 section 5.2: the frame header.

use crate::abi::frame_slot;

/// Longest header: 2 bytes, 64-bit length, masking key.
pub const MAX_HEADER: usize = 14;

/// Opcode of a continuation frame.
pub const CONTINUATION: u8 = 0;
/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 2;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a ping frame.
pub const PING: u8 = 9;
/// Opcode of a pong frame.
pub const PONG: u8 = 10;

/// Bit n is set where opcode n is defined.
const DEFINED_OPCODES: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 9 | 1 << 10;

/// The two bytes every header starts with, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    first: u8,
    second: u8,
}

impl Lead {
    /// `first` and `second` are the header's first two bytes.
    #[inline(always)]
    pub const fn new(first: u8, second: u8) -> Self {
        Self { first, second }
    }

    /// The opcode, defined or not.
    #[inline(always)]
    pub const fn opcode(self) -> u8 {
        self.first & 0x0f
    }

    /// Slot in `Counters::frames`.
    #[inline(always)]
    pub const fn slot(self) -> usize {
        frame_slot(self.first & 0x0f)
    }

    /// Close, ping and pong (section 5.5).
    #[inline(always)]
    pub const fn is_control(self) -> bool {
        self.first & 0x08 != 0
    }

    /// FIN: the last frame of its message.
    #[inline(always)]
    pub const fn is_final(self) -> bool {
        self.first & 0x80 != 0
    }

    /// RSV1: the message is compressed (RFC 7692 section 6).
    #[inline(always)]
    pub const fn is_compressed(self) -> bool {
        self.first & 0x40 != 0
    }

    /// The payload is masked, as every client-to-server frame must be (section 5.1).
    #[inline(always)]
    pub const fn is_masked(self) -> bool {
        self.second & 0x80 != 0
    }

    /// Bytes of the whole header: 2, 4 or 10, and 4 more for a masking key.
    #[inline(always)]
    pub const fn header_len(self) -> usize {
        let length = match self.second & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        // A multiplication keeps this free of a branch.
        length + (self.second >> 7) as usize * 4
    }

    /// Whether a conforming peer in the expected role may send this: a defined opcode, RSV2 and RSV3 clear, RSV1 on
    /// the first frame of a message only, the mask as the role demands, control frames whole and at most 125 bytes.
    #[inline(always)]
    pub const fn is_valid(self, masked: bool) -> bool {
        if DEFINED_OPCODES >> self.opcode() & 1 == 0 || self.first & 0x30 != 0 || self.is_masked() != masked {
            return false;
        }
        if self.is_control() {
            self.first & 0xc0 == 0x80 && self.second & 0x7f <= 125
        } else {
            self.opcode() != CONTINUATION || !self.is_compressed()
        }
    }
}

/// Payload length of a complete header. The 64-bit form's top bit must be 0 (section 5.2) and is ignored here.
#[inline(always)]
pub const fn payload_len(header: &[u8; 16]) -> u64 {
    match header[1] & 0x7f {
        126 => (header[2] as u64) << 8 | header[3] as u64,
        127 => {
            let length = u64::from_be_bytes([
                header[2], header[3], header[4], header[5], header[6], header[7], header[8], header[9],
            ]);
            length & (u64::MAX >> 1)
        }
        length => length as u64,
    }
}

/// Whether a complete header uses the shortest form for its length (section 5.2). Endpoints disagree about enforcing
/// this, so it is evidence while looking for a frame boundary and no reason to doubt a boundary that is known.
#[inline(always)]
pub const fn is_minimal(header: &[u8; 16]) -> bool {
    let length = payload_len(header);
    match header[1] & 0x7f {
        126 => length > 125,
        127 => length > 0xffff && header[2] & 0x80 == 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lengths() {
        let lengths = [(0x00, 2), (0x7d, 2), (0x7e, 4), (0x7f, 10), (0x80, 6), (0xfe, 8), (0xff, 14)];
        for (second, expected) in lengths {
            assert_eq!(Lead::new(0x82, second).header_len(), expected, "second byte {second:#x}");
        }
    }

    #[test]
    fn what_no_peer_may_send_is_invalid() {
        assert!(Lead::new(0x81, 0x85).is_valid(true));
        assert!(Lead::new(0xc1, 0x05).is_valid(false), "RSV1 opens a compressed message");
        assert!(!Lead::new(0x81, 0x05).is_valid(true), "clients mask");
        assert!(!Lead::new(0x83, 0x80).is_valid(true), "opcode 3 is reserved");
        assert!(!Lead::new(0xa1, 0x80).is_valid(true), "RSV2 is reserved");
        assert!(!Lead::new(0x09, 0x80).is_valid(true), "control frames are not fragmented");
        assert!(!Lead::new(0x89, 0xfe).is_valid(true), "control frames carry at most 125 bytes");
        assert!(!Lead::new(0xc0, 0x80).is_valid(true), "RSV1 stands on a message's first frame only");
    }

    #[test]
    fn only_the_shortest_length_form_is_minimal() {
        let mut header = [0u8; 16];
        header[1] = 126;
        header[3] = 125;
        assert_eq!((payload_len(&header), is_minimal(&header)), (125, false));
        header[3] = 126;
        assert_eq!((payload_len(&header), is_minimal(&header)), (126, true));
        header[1] = 127;
        header[2..10].copy_from_slice(&65_535u64.to_be_bytes());
        assert_eq!((payload_len(&header), is_minimal(&header)), (65_535, false));
        header[2..10].copy_from_slice(&65_536u64.to_be_bytes());
        assert_eq!((payload_len(&header), is_minimal(&header)), (65_536, true));
    }
}
