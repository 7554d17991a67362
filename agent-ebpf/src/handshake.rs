//! Recognising a WebSocket upgrade in an HTTP/1.1 response head (RFC 6455 section 4.2.2), one byte at a time.
//!
//! The scanner keeps the last 24 bytes, folded to lower case, in three words and compares them with what it looks for,
//! so that it needs neither a buffer nor a loop of its own: in the kernel `bpf_loop` drives it.

/// What a response that may be an upgrade begins with.
pub const STATUS_LINE: [u8; 12] = *b"HTTP/1.1 101";

/// [`STATUS_LINE`] as the words that a comparison takes.
const STATUS_WORDS: (u64, u32) = {
    let s = STATUS_LINE;
    (
        u64::from_be_bytes([s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]]),
        u32::from_be_bytes([s[8], s[9], s[10], s[11]]),
    )
};

/// How the first `len` bytes of a payload (12 at most, the rest zero) relate to [`STATUS_LINE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// They are its beginning, or all of it: this may be an upgrade.
    Upgrade,
    /// They begin another HTTP/1.x response.
    Response,
    /// Neither.
    Else,
}

/// Compares the beginning of a payload with what an upgrade begins with.
#[inline(always)]
pub const fn beginning(start: &[u8; 16], len: u32) -> Beginning {
    let first =
        u64::from_be_bytes([start[0], start[1], start[2], start[3], start[4], start[5], start[6], start[7]]);
    let second = u32::from_be_bytes([start[8], start[9], start[10], start[11]]);
    if first == STATUS_WORDS.0 && second == STATUS_WORDS.1 {
        return Beginning::Upgrade;
    }
    if len < 12 {
        // A head that comes in small pieces: what there is of it must agree.
        let (bits, word) = if len < 8 { (64 - 8 * len, first) } else { (0, first) };
        let agrees = word >> bits == STATUS_WORDS.0 >> bits
            && (len <= 8 || second >> (96 - 8 * len) == STATUS_WORDS.1 >> (96 - 8 * len));
        return if agrees { Beginning::Upgrade } else { Beginning::Else };
    }
    // "HTTP/1." decides; a response of another version or status keeps the connection an HTTP one.
    if first >> 8 == STATUS_WORDS.0 >> 8 { Beginning::Response } else { Beginning::Else }
}

/// Longest response head that is scanned. Heads beyond it are counted as unparsed handshakes.
pub const MAX_HEAD: u16 = 8192;

/// The outcome of permessage-deflate's negotiation (RFC 7692 section 7.1) in 16 bits: bit 15 negotiated, bit 14
/// `server_no_context_takeover`, bit 13 `client_no_context_takeover`, bits 4–7 `client_max_window_bits`, bits 0–3
/// `server_max_window_bits`, 0 where the response does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deflate(pub u16);

impl Deflate {
    const NEGOTIATED: u16 = 1 << 15;
    const SERVER_NO_CONTEXT: u16 = 1 << 14;
    const CLIENT_NO_CONTEXT: u16 = 1 << 13;

    /// Whether messages may be compressed at all.
    pub const fn negotiated(self) -> bool {
        self.0 & Self::NEGOTIATED != 0
    }

    /// The server forgets its window after each message.
    pub const fn server_no_context_takeover(self) -> bool {
        self.0 & Self::SERVER_NO_CONTEXT != 0
    }

    /// The client forgets its window after each message.
    pub const fn client_no_context_takeover(self) -> bool {
        self.0 & Self::CLIENT_NO_CONTEXT != 0
    }

    /// Base-two logarithm of the server's window, 15 unless the response says less.
    pub const fn server_max_window_bits(self) -> u8 {
        Self::bits(self.0 & 15)
    }

    /// Base-two logarithm of the client's window, likewise.
    pub const fn client_max_window_bits(self) -> u8 {
        Self::bits(self.0 >> 4 & 15)
    }

    const fn bits(stored: u16) -> u8 {
        if stored == 0 { 15 } else { stored as u8 }
    }
}

/// Eight bytes as the scanner's registers hold them.
const fn word(text: &[u8; 8]) -> u64 {
    u64::from_be_bytes(*text)
}

/// The head's last bytes are an empty line: the next byte is the connection's first frame.
const END: u32 = u32::from_be_bytes(*b"\r\n\r\n");

/// The byte is inside the `Upgrade` header's value.
const FLAG_IN_UPGRADE: u8 = 1;
/// That value names WebSocket.
const FLAG_UPGRADE: u8 = 2;
/// The head is not a 101 response.
const FLAG_OTHER: u8 = 32;
/// The empty line was seen.
const FLAG_ENDED: u8 = 4;
/// The digits being read are `server_max_window_bits`'.
const FLAG_SERVER_BITS: u8 = 8;
/// The digits being read are `client_max_window_bits`'.
const FLAG_CLIENT_BITS: u8 = 16;

/// Scans a response head.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanner {
    /// The last 8 bytes, lower case, the newest in the low byte; then the 8 before, and the 8 before those.
    last: u64,
    before: u64,
    earlier: u64,
    /// Bytes taken.
    taken: u16,
    deflate: u16,
    bits: u16,
    flags: u8,
    /// 1 where the head comes in on ingress (this host is the client), for the packet programs.
    pub inbound: u8,
}

impl Scanner {
    /// Takes the next byte; returns whether the head goes on.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> bool {
        let lower = if byte.is_ascii_uppercase() { byte | 0x20 } else { byte };
        self.earlier = self.earlier << 8 | self.before >> 56;
        self.before = self.before << 8 | self.last >> 56;
        self.last = self.last << 8 | lower as u64;

        if (self.taken as usize) < STATUS_LINE.len() && byte != STATUS_LINE[self.taken as usize & 15] {
            self.flags |= FLAG_OTHER;
        }
        self.taken += 1;
        if byte == b'\n' {
            self.flags &= !FLAG_IN_UPGRADE;
            if self.last as u32 == END {
                self.flags |= FLAG_ENDED;
            }
        }
        if self.last == word(b"upgrade:") && self.before as u8 == b'\n' {
            self.flags |= FLAG_IN_UPGRADE;
        }
        if self.last == word(b"ebsocket") && self.before as u8 == b'w' && self.flags & FLAG_IN_UPGRADE != 0 {
            self.flags |= FLAG_UPGRADE;
        }
        self.parameters(byte);
        !self.failed() && !self.ended()
    }

    #[inline(always)]
    fn parameters(&mut self, byte: u8) {
        if self.flags & (FLAG_SERVER_BITS | FLAG_CLIENT_BITS) != 0 {
            if byte.is_ascii_digit() {
                self.bits = (self.bits * 10 + (byte - b'0') as u16) & 0xff;
            } else if byte != b'"' || self.bits != 0 {
                let shift = if self.flags & FLAG_CLIENT_BITS != 0 { 4 } else { 0 };
                // 8 to 15 are the only values allowed (RFC 7692 section 7.1.2).
                self.deflate |= (self.bits & 15) << shift;
                self.flags &= !(FLAG_SERVER_BITS | FLAG_CLIENT_BITS);
            }
        }
        if self.last == word(b"-deflate") && self.before == word(b"rmessage") {
            self.deflate |= Deflate::NEGOTIATED;
        }
        if self.last == word(b"takeover") && self.before == word(b"context_") {
            if self.earlier == word(b"rver_no_") {
                self.deflate |= Deflate::SERVER_NO_CONTEXT;
            } else if self.earlier == word(b"ient_no_") {
                self.deflate |= Deflate::CLIENT_NO_CONTEXT;
            }
        }
        if self.last == word(b"ow_bits=") && self.before == word(b"max_wind") {
            self.bits = 0;
            let side = self.earlier & (u64::MAX >> 8);
            if side == word(b"\0server_") {
                self.flags |= FLAG_SERVER_BITS;
            } else if side == word(b"\0client_") {
                self.flags |= FLAG_CLIENT_BITS;
            }
        }
    }

    /// Bytes taken so far.
    pub const fn taken(&self) -> u16 {
        self.taken
    }

    /// Whether the head has ended, as an upgrade or not.
    #[inline(always)]
    pub const fn ended(&self) -> bool {
        self.flags & FLAG_ENDED != 0
    }

    /// Whether this is no 101 response, or longer than any that is scanned.
    #[inline(always)]
    pub const fn failed(&self) -> bool {
        self.flags & FLAG_OTHER != 0 || self.taken >= MAX_HEAD
    }

    /// Whether the head is complete and upgrades to WebSocket.
    pub const fn is_upgrade(&self) -> bool {
        self.flags & (FLAG_ENDED | FLAG_UPGRADE) == FLAG_ENDED | FLAG_UPGRADE
    }

    /// What permessage-deflate negotiated.
    pub const fn deflate(&self) -> Deflate {
        Deflate(if self.deflate & Deflate::NEGOTIATED != 0 { self.deflate } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &str) -> (Scanner, usize) {
        let mut scanner = Scanner::default();
        let taken = head.bytes().take_while(|byte| scanner.push(*byte)).count() + 1;
        (scanner, taken)
    }

    #[test]
    fn an_upgrade_ends_where_its_frames_begin() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n";
        let (scanner, taken) = scan(&format!("{head}\u{1}ab"));
        assert!(scanner.is_upgrade());
        assert_eq!(taken, head.len());
        assert!(!scanner.deflate().negotiated());
    }

    #[test]
    fn beginnings_are_told_apart_at_every_length() {
        let begin = |text: &[u8]| {
            let mut start = [0; 16];
            start[..text.len()].copy_from_slice(text);
            beginning(&start, text.len() as u32)
        };
        for len in 1..=STATUS_LINE.len() {
            assert_eq!(begin(&STATUS_LINE[..len]), Beginning::Upgrade, "{len} bytes");
            let mut wrong = STATUS_LINE;
            wrong[len - 1] ^= 1;
            assert_ne!(begin(&wrong[..len]), Beginning::Upgrade, "{len} bytes, the last one wrong");
        }
        assert_eq!(begin(b"HTTP/1.1 200"), Beginning::Response);
        assert_eq!(begin(b"HTTP/1.0 101"), Beginning::Response);
        assert_eq!(begin(b"GET /chat HT"), Beginning::Else);
    }

    #[test]
    fn a_head_of_another_status_fails_at_the_status() {
        let (scanner, taken) = scan("HTTP/1.1 200 OK\r\nUpgrade: websocket\r\n\r\n");
        assert!(scanner.failed() && !scanner.is_upgrade());
        assert_eq!(taken, "HTTP/1.1 2".len());
    }

    #[test]
    fn other_upgrades_are_not_websocket() {
        let (h2c, _) = scan("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nX-Note: websocket\r\n\r\n");
        assert!(!h2c.is_upgrade());
        let (inside, _) = scan("HTTP/1.1 101 x\r\nX-Upgrade: websocket\r\n\r\n");
        assert!(!inside.is_upgrade(), "the name must be the whole field name");
        let (cut, _) = scan("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n");
        assert!(!cut.is_upgrade(), "the head has not ended");
    }

    #[test]
    fn deflate_parameters() {
        let (scanner, _) = scan(
            "HTTP/1.1 101 x\r\nupgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate; \
             server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=\"9\"\r\n\r\n",
        );
        let deflate = scanner.deflate();
        assert!(deflate.negotiated() && deflate.server_no_context_takeover());
        assert!(!deflate.client_no_context_takeover());
        assert_eq!((deflate.server_max_window_bits(), deflate.client_max_window_bits()), (12, 9));
        let (plain, _) = scan(
            "HTTP/1.1 101 x\r\nupgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate; \
             client_no_context_takeover\r\n\r\n",
        );
        assert!(plain.deflate().client_no_context_takeover());
        assert_eq!(plain.deflate().server_max_window_bits(), 15);
    }
}
