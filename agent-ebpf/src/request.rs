//! Does a request ask for a WebSocket, and where does its head end?
//!
//! A host's plain GET requests must cost little, so a head is searched by the word first ([`may_ask`]); only where that finds
//! something is it read byte by byte ([`HeadSearch`]).

use crate::abi::{REQUEST_BYTES, REQUEST_WORDS};

/// Bytes looked at in one go.
pub const STRETCH: usize = 64;
/// The same in words.
const STRETCH_WORDS: usize = STRETCH / 8;

/// What ends a head, as [`HeadSearch`] and a request's `tail` have it: the last byte lowest.
pub const EMPTY_LINE: u32 = u32::from_be_bytes(*b"\r\n\r\n");

/// Whether a stretch of words may hold a piece of "websocket", in upper or lower case.
///
/// The nine letters span at least one aligned group of four, wherever they begin: the group is one of these.
#[inline(always)]
pub fn may_ask(words: &[u64; STRETCH_WORDS]) -> bool {
    const PIECES: [u32; 4] = [
        u32::from_le_bytes(*b"webs"),
        u32::from_le_bytes(*b"ebso"),
        u32::from_le_bytes(*b"bsoc"),
        u32::from_le_bytes(*b"sock"),
    ];
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let mut found = 0;
    for word in words {
        let lower = *word | LOWER;
        for half in [lower & 0xffff_ffff, lower >> 32] {
            for piece in PIECES {
                found |= is_zero(half ^ piece as u64);
            }
        }
    }
    found != 0
}

/// 1 for 0, and 0 for anything else below 2^32. No comparison: each would be a branch, of which the verifier follows both ways.
#[inline(always)]
const fn is_zero(value: u64) -> u64 {
    value.wrapping_sub(1) >> 63
}

/// 1 where `a` is below `b`, likewise; both are below 2^63.
#[inline(always)]
const fn is_below(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) >> 63
}

/// Words of one stretch of a kept head.
#[inline(always)]
pub fn stretch(head: &[u64; REQUEST_WORDS], number: u32) -> [u64; STRETCH_WORDS] {
    let mut words = [0; STRETCH_WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        // The mask shows the verifier the bound.
        *word = head[(number as usize * STRETCH_WORDS + index) & (REQUEST_WORDS - 1)];
    }
    words
}

/// Looks for `Sec-WebSocket-Key` or `Upgrade: websocket`, which a request for a WebSocket must have (RFC 6455 section 4.1),
/// and for the empty line behind the fields, a stretch of the head at a time.
#[derive(Debug, Default)]
pub struct HeadSearch {
    before: u64,
    last: u64,
    raw: u64,
    /// 1 where one of the fields was found.
    asks: u64,
    /// Bytes up to the end of the first empty line; 0 where none was found.
    end: u64,
}

impl HeadSearch {
    /// Looks at the `number`-th stretch of the first `len` bytes of a head; returns whether to go on.
    #[inline(always)]
    pub fn step(&mut self, head: &[u64; REQUEST_WORDS], len: u32, number: u32) -> bool {
        let mut at = number as u64 * STRETCH as u64;
        for word in stretch(head, number) {
            let mut word = word;
            for _ in 0..8 {
                self.push(word as u8, at, len as u64);
                word >>= 8;
                at += 1;
            }
        }
        at < len as u64
    }

    /// Whether one of the fields was found.
    #[inline(always)]
    pub const fn asks(&self) -> bool {
        self.asks != 0
    }

    /// Bytes up to the end of the empty line; 0 where none was found.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.end as u32
    }

    #[inline(always)]
    fn push(&mut self, byte: u8, at: u64, len: u64) {
        const KEY: (u64, u64) = (u64::from_be_bytes(*b"ec-webso"), u64::from_be_bytes(*b"cket-key"));
        // Browsers have this one before their cookies.
        const UPGRADE: (u64, u64) = (u64::from_be_bytes(*b"grade: w"), u64::from_be_bytes(*b"ebsocket"));
        self.before = self.before << 8 | self.last >> 56;
        // Lower case; what else this bit changes is in no name.
        self.last = self.last << 8 | (byte | 0x20) as u64;
        self.raw = (self.raw << 8 | byte as u64) & 0xffff_ffff;
        let is_within = is_below(at, len);
        for name in [KEY, UPGRADE] {
            let differs = (self.before ^ name.0) | (self.last ^ name.1);
            self.asks |= is_zero((differs | differs >> 32) & 0xffff_ffff) & is_within;
        }
        // A PROXY header, version 2, begins with an empty line.
        let ends = is_zero(self.raw ^ EMPTY_LINE as u64) & is_within & is_below(3, at);
        self.end += (at + 1) * (ends & is_zero(self.end));
    }
}

/// Longest request head that is read to its end.
pub const LONGEST: u32 = 64 << 10;

/// Stretches of the longest kept head.
pub const STRETCHES: u32 = (REQUEST_BYTES / STRETCH) as u32;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8]) -> [u64; REQUEST_WORDS] {
        let mut words = [0; REQUEST_WORDS];
        for (at, byte) in text.iter().enumerate() {
            words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        words
    }

    /// What both searches say: whether a piece was found by the word, whether a field by the byte, and the head's end.
    fn search(text: &[u8]) -> (bool, bool, u32) {
        let head = words(text);
        let may = (0..STRETCHES).any(|number| may_ask(&stretch(&head, number)));
        let mut search = HeadSearch::default();
        let _ = (0..STRETCHES).all(|number| search.step(&head, text.len() as u32, number));
        (may, search.asks(), search.end())
    }

    #[test]
    fn an_upgrade_is_asked_for_by_its_key_or_its_protocol() {
        let key = b"GET / HTTP/1.1\r\nHost: a\r\nSEC-WebSocket-Key: dGhl\r\n\r\n";
        assert_eq!(search(key), (true, true, key.len() as u32));
        assert_eq!(search(b"GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n"), (true, true, 0));
        let plain = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        assert_eq!(search(plain), (false, false, plain.len() as u32));
        assert!(!search(b"GET /socket.io HTTP/1.1\r\nSec-WebSocket-Ke").1);
    }

    #[test]
    fn a_field_is_found_at_every_offset() {
        for offset in 0..200 {
            let head = format!("GET /{} HTTP/1.1\r\nSec-WebSocket-Key: a\r\n\r\nframes", "x".repeat(offset));
            assert_eq!(search(head.as_bytes()), (true, true, head.len() as u32 - 6), "{offset}");
        }
    }

    #[test]
    fn a_proxys_header_does_not_end_the_head() {
        let head =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0cabcdefghijklGET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(search(head), (true, true, head.len() as u32));
    }
}
