//! What a payload begins with, as far as WebSocket handshakes are concerned.

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
    /// What a proxy puts before its client's request: a PROXY protocol header, version 1 or 2.
    Proxy,
    /// A TLS ClientHello (RFC 8446 section 4.1.2).
    ClientHello,
    /// A TLS ServerHello (RFC 8446 section 4.1.3).
    ServerHello,
    /// Nothing of that.
    Else,
}

const fn word(text: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*text)
}

const GET: u32 = word(b"GET ");
const TLS_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// The twelve bytes that version 2 of the PROXY protocol begins with (its section 2.2).
const PROXY_V2_FIRST: u32 = word(b"\r\n\r\n");
const PROXY_V2_REST: u64 = u64::from_be_bytes(*b"\0\r\nQUIT\n");

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
    if start[0] == TLS_HANDSHAKE && start[1] == 3 {
        if start[5] == SERVER_HELLO {
            return Opening::ServerHello;
        }
        if start[5] == CLIENT_HELLO {
            return Opening::ClientHello;
        }
    }
    let rest = u64::from_be_bytes([
        start[4], start[5], start[6], start[7], start[8], start[9], start[10], start[11],
    ]);
    let is_v1 = first == word(b"PROX") && start[4] == b'Y' && start[5] == b' ';
    if is_v1 || (first == PROXY_V2_FIRST && rest == PROXY_V2_REST) {
        return Opening::Proxy;
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
        assert_eq!(open(&[22, 3, 1, 0, 122, 1, 0, 0, 118, 3, 3]), Opening::ClientHello);
        assert_eq!(open(b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n"), Opening::Proxy);
        assert_eq!(open(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"), Opening::Proxy);
        assert_eq!(open(b"PRI * HTTP/2.0"), Opening::Else);
        assert_eq!((open(b"G"), open(b"GET"), open(b"GEN")), (Opening::Get, Opening::Get, Opening::Else));
    }
}
