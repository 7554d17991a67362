//! What a payload begins with, as far as WebSocket handshakes are concerned.

use crate::abi::REQUEST_BYTES;
use crate::handshake::{self, Beginning};

/// What a payload begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A 101, or a piece of its status line that may become one.
    Upgrade,
    /// Another HTTP/1.x response, with this status (0 where it is not a number).
    Response(u32),
    /// A GET request, which an upgrade's is (RFC 6455 section 4.1), or a piece that may become one.
    Get,
    /// Another HTTP request.
    Request,
    /// A TLS ServerHello (RFC 8446 section 4.1.3).
    ServerHello,
    /// Nothing of that.
    Else,
}

impl Opening {
    /// It is of HTTP/1.x.
    #[inline(always)]
    pub const fn is_http(self) -> bool {
        matches!(self, Opening::Upgrade | Opening::Response(_) | Opening::Get | Opening::Request)
    }
}

const fn word(text: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*text)
}

const GET: u32 = word(b"GET ");
const TLS_HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;

/// Classifies the first `len` bytes of a payload (12 at most, the rest zero).
#[inline(always)]
pub const fn opening(start: &[u8; 16], len: u32) -> Opening {
    match handshake::beginning(start, len) {
        Beginning::Upgrade => return Opening::Upgrade,
        Beginning::Response => return Opening::Response(status(start)),
        Beginning::Else => {}
    }
    let first = u32::from_be_bytes([start[0], start[1], start[2], start[3]]);
    if len < 4 {
        let bits = 32 - 8 * len;
        return if first >> bits == GET >> bits { Opening::Get } else { Opening::Else };
    }
    if first == GET {
        return Opening::Get;
    }
    if start[0] == TLS_HANDSHAKE && start[1] == 3 && start[5] == SERVER_HELLO {
        return Opening::ServerHello;
    }
    if first == word(b"POST")
        || first == word(b"HEAD")
        || first == word(b"PUT ")
        || first == word(b"OPTI")
        || first == word(b"DELE")
        || first == word(b"PATC")
    {
        return Opening::Request;
    }
    Opening::Else
}

/// The three digits behind `HTTP/1.x `.
#[inline(always)]
const fn status(start: &[u8; 16]) -> u32 {
    let (hundreds, tens, ones) =
        (start[9].wrapping_sub(b'0'), start[10].wrapping_sub(b'0'), start[11].wrapping_sub(b'0'));
    if hundreds > 9 || tens > 9 || ones > 9 {
        return 0;
    }
    hundreds as u32 * 100 + tens as u32 * 10 + ones as u32
}

/// Looks for `Sec-WebSocket-Key` or `Upgrade: websocket`, which a request for a WebSocket must have (RFC 6455 section 4.1),
/// a stretch of the head at a time.
#[derive(Debug, Default)]
pub struct KeySearch {
    before: u64,
    last: u64,
}

/// Bytes looked at in one go.
pub const STRETCH: usize = 64;

impl KeySearch {
    /// Looks at the `number`-th stretch of the first `len` bytes of a head; returns whether the name ends there.
    #[inline(always)]
    pub fn step(&mut self, head: &[u8; 2 * REQUEST_BYTES], len: u32, number: u32) -> bool {
        let name = (u64::from_be_bytes(*b"ec-webso"), u64::from_be_bytes(*b"cket-key"));
        // Browsers have this one before their cookies.
        let field = (u64::from_be_bytes(*b"grade: w"), u64::from_be_bytes(*b"ebsocket"));
        for at in 0..STRETCH {
            let at = (number as usize * STRETCH + at) & (REQUEST_BYTES - 1);
            if at as u32 >= len {
                return false;
            }
            self.before = self.before << 8 | self.last >> 56;
            // Lower case; what else this bit changes is in no name.
            self.last = self.last << 8 | (head[at] | 0x20) as u64;
            let seen = (self.before, self.last);
            if seen == name || seen == field {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &[u8]) -> Opening {
        let mut start = [0; 16];
        let len = text.len().min(12);
        start[..len].copy_from_slice(&text[..len]);
        opening(&start, len as u32)
    }

    #[test]
    fn openings_are_told_apart() {
        assert_eq!(open(b"HTTP/1.1 101 Switching"), Opening::Upgrade);
        assert_eq!(open(b"HTTP/1.1 403 Forbidden"), Opening::Response(403));
        assert_eq!(open(b"HTTP/1.0 2x0 Odd"), Opening::Response(0));
        assert_eq!(open(b"GET /chat HTTP/1.1"), Opening::Get);
        assert_eq!(open(b"POST / HTTP/1.1"), Opening::Request);
        assert_eq!(open(&[22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]), Opening::ServerHello);
        assert_eq!(open(&[22, 3, 1, 0, 122, 1, 0, 0, 118, 3, 3]), Opening::Else, "a ClientHello");
        assert_eq!(open(b"PRI * HTTP/2.0"), Opening::Else);
        assert_eq!((open(b"G"), open(b"GET"), open(b"GEN")), (Opening::Get, Opening::Get, Opening::Else));
    }

    #[test]
    fn an_upgrade_is_asked_for_by_its_key() {
        let asks = |text: &str| {
            let mut head = [0; 2 * REQUEST_BYTES];
            head[..text.len()].copy_from_slice(text.as_bytes());
            let mut search = KeySearch::default();
            (0..(REQUEST_BYTES / STRETCH) as u32).any(|number| search.step(&head, text.len() as u32, number))
        };
        assert!(asks("GET / HTTP/1.1\r\nHost: a\r\nSEC-WebSocket-Key: dGhl\r\n"));
        assert!(asks("GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n"));
        assert!(!asks("GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"));
        assert!(!asks("GET / HTTP/1.1\r\nSec-WebSocket-Ke"));
    }
}
