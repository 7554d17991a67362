//! Finds text that is not UTF-8 while its frame is still coming.
//!
//! tungstenite judges a text frame when it is complete. A peer whose first bytes are already wrong could have the rest of
//! a large frame read and kept for nothing; RFC 6455 section 8.1 lets the connection be failed at once.

use crate::meter::Piece;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;

/// Bytes unmasked at a time.
const BLOCK: usize = 1024;

/// One direction's text, message after message.
#[derive(Debug, Default)]
pub struct TextWatch {
    state: State,
    /// The beginning of a character whose end is still to come.
    begun: [u8; 3],
    length: u8,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between messages, or in one that is no text.
    #[default]
    Other,
    Text,
    Invalid,
}

impl TextWatch {
    /// Looks at the next piece of payload.
    pub fn watch(&mut self, piece: Piece<'_>) {
        let opcode = piece.first & OPCODE;
        // Control frames come between a message's fragments and change nothing; what is invalid stays so.
        if opcode & 0x8 != 0 || self.state == State::Invalid {
            return;
        }
        let whole = piece.offset == 0 && piece.ends && piece.first & FIN != 0;
        if opcode != 0 && piece.offset == 0 {
            // With a reserved bit set it is not text yet, but what an extension made of it. And a message that is here
            // all at once is the engine's.
            let text = opcode == 1 && piece.first & RESERVED == 0 && !whole;
            self.state = if text { State::Text } else { State::Other };
            self.length = 0;
        }
        if self.state == State::Text && !self.extend(piece) {
            self.state = State::Invalid;
        }
    }

    /// Whether no continuation can make valid text of what has come.
    pub fn is_invalid(&self) -> bool {
        self.state == State::Invalid
    }

    fn extend(&mut self, piece: Piece<'_>) -> bool {
        let mut block = [0; 3 + BLOCK];
        let mut key = piece.mask;
        key.rotate_left((piece.offset % 4) as usize);
        // A block is a multiple of the key long, so each begins with the same byte of it.
        for bytes in piece.bytes.chunks(BLOCK) {
            let begun = usize::from(self.length);
            block[..begun].copy_from_slice(&self.begun[..begun]);
            let end = begun + bytes.len();
            for ((to, from), key) in block[begun..end].iter_mut().zip(bytes).zip(key.iter().cycle()) {
                *to = from ^ key;
            }
            let rest = match std::str::from_utf8(&block[..end]) {
                Ok(_) => &[],
                Err(error) if error.error_len().is_none() => &block[error.valid_up_to()..end],
                Err(_) => return false,
            };
            // A character of which all but its last byte are there has three at most.
            self.begun[..rest.len()].copy_from_slice(rest);
            self.length = rest.len() as u8;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::FrameMeter;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A masked frame with a 16-bit length.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 126];
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(KEY);
        bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// After how many of the bytes it was found invalid, read `chunk` at a time.
    fn invalid_at(bytes: &[u8], chunk: usize) -> Option<usize> {
        let (mut meter, mut watch) = (FrameMeter::default(), TextWatch::default());
        for (index, piece) in bytes.chunks(chunk).enumerate() {
            meter.advance_through(piece, |piece| watch.watch(piece), |_| {});
            if watch.is_invalid() {
                return Some(index * chunk + piece.len());
            }
        }
        None
    }

    #[test]
    fn valid_text_stays_valid_however_it_is_cut() {
        let text = "κόσμε 🦀 ".repeat(700);
        let whole = frame(0x81, text.as_bytes());
        let (head, tail) = text.as_bytes().split_at(2001);
        let fragments = [frame(0x01, head), frame(0x89, &[0xFF; 9]), frame(0x80, tail)].concat();
        for chunk in [1, 2, 3, 7, 1000, 1024, 1027, 100_000] {
            assert_eq!(invalid_at(&whole, chunk), None, "{chunk}");
            assert_eq!(invalid_at(&fragments, chunk), None, "{chunk}");
        }
    }

    #[test]
    fn the_first_byte_that_cannot_be_text_is_found() {
        // U+110000, which is beyond Unicode: the second byte says so.
        let payload = [b"valid \xCE\xBA".as_slice(), b"\xF4\x90\x80\x80", &[b'x'; 3000]].concat();
        let bytes = frame(0x81, &payload);
        assert_eq!(invalid_at(&bytes, 1), Some(8 + 8 + 2));
        // Far behind the first block, with the key in each of its four positions.
        for at in 2500..2504 {
            let payload = [&vec![b'x'; at], b"\xFF".as_slice(), &[b'x'; 500]].concat();
            assert_eq!(invalid_at(&frame(0x81, &payload), 1), Some(8 + at + 1));
        }
    }

    #[test]
    fn a_character_cut_by_a_fragment_is_judged_with_both_its_halves() {
        let valid = [frame(0x01, b"\xE1\xBD"), frame(0x80, b"\xB9 and more")].concat();
        assert_eq!(invalid_at(&valid, 1), None);
        let invalid = [frame(0x01, b"\xE1\xBD"), frame(0x80, b" and more")].concat();
        assert_eq!(invalid_at(&invalid, 1), Some(8 + 2 + 8 + 1));
    }

    #[test]
    fn what_is_not_text_is_left_alone() {
        let bytes = [frame(0x82, &[0xFF; 50]), frame(0x02, &[0xFF; 50]), frame(0x80, &[0xFF; 50])].concat();
        assert_eq!(invalid_at(&bytes, 1), None);
        // Compressed, and with nothing in the frame that says so.
        assert_eq!(invalid_at(&frame(0xC1, &[0xFF; 50]), 1), None);
        let empty = [frame(0x81, b"text"), frame(0x41, b""), frame(0x80, &[0xFF; 50])].concat();
        assert_eq!(invalid_at(&empty, 1), None);
        // After text, binary.
        let bytes = [frame(0x81, b"text"), frame(0x82, &[0xFF; 50])].concat();
        assert_eq!(invalid_at(&bytes, 1), None);
    }
}
