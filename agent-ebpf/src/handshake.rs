//! Recognising a WebSocket upgrade in an HTTP/1.1 response head (RFC 6455 section 4.2.2), one byte at a time.
//!
//! The scanner keeps no text. It hashes the word at hand and looks at the hash where the word ends, so that it needs
//! neither a buffer nor a loop of its own: in the kernel `bpf_loop` drives it.

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

/// The hash of nothing. Zero, because a scanner begins as zeroed memory.
const EMPTY: u64 = 0;

/// A word's hash with one more byte. Another word has the same hash once in 2^64.
#[inline(always)]
const fn with(word: u64, byte: u8) -> u64 {
    word.wrapping_add(byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const fn hash(text: &str) -> u64 {
    let (text, mut word, mut at) = (text.as_bytes(), EMPTY, 0);
    while at < text.len() {
        word = with(word, text[at]);
        at += 1;
    }
    word
}

const UPGRADE: u64 = hash("upgrade");
const WEBSOCKET: u64 = hash("websocket");
const EXTENSIONS: u64 = hash("sec-websocket-extensions");
const DEFLATE: u64 = hash("permessage-deflate");
const SERVER_NO_CONTEXT: u64 = hash("server_no_context_takeover");
const CLIENT_NO_CONTEXT: u64 = hash("client_no_context_takeover");
const SERVER_BITS: u64 = hash("server_max_window_bits");
const CLIENT_BITS: u64 = hash("client_max_window_bits");

/// What the word at hand is.
mod place {
    /// In the status line, where a scanner begins.
    pub(super) const NONE: u8 = 0;
    /// A field's name.
    pub(super) const NAME: u8 = 1;
    /// A field that does not matter.
    pub(super) const IGNORED: u8 = 2;
    /// An element of the `Upgrade` field. From here on blanks around a word do not belong to it.
    pub(super) const PROTOCOL: u8 = 3;
    /// An element of the `Sec-WebSocket-Extensions` field, and what may follow it (RFC 6455 section 9.1).
    pub(super) const EXTENSION: u8 = 4;
    pub(super) const PARAMETER: u8 = 5;
    pub(super) const VALUE: u8 = 6;
}

/// The head is not a 101 response.
const FLAG_OTHER: u8 = 1;
/// The empty line was seen.
const FLAG_ENDED: u8 = 2;
/// An `Upgrade` field names WebSocket.
const FLAG_UPGRADE: u8 = 4;
/// The parameters are permessage-deflate's.
const FLAG_DEFLATE: u8 = 8;
/// The value is `server_max_window_bits`'.
const FLAG_SERVER_BITS: u8 = 16;
/// The value is `client_max_window_bits`'.
const FLAG_CLIENT_BITS: u8 = 32;
/// Blanks followed the word: it is over, or has blanks inside.
const FLAG_BLANK: u8 = 64;

/// Scans a response head.
///
/// Lines may end in a line feed alone, names are compared without case, fields may come more than once, and a list
/// counts by its elements. A field that is folded over lines (RFC 9112 section 5.2 forbids it) is not followed.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanner {
    /// Hash of the word so far, lower case.
    word: u64,
    /// Bytes taken.
    taken: u16,
    deflate: u16,
    /// The value so far, where it is a window's bits.
    number: u16,
    flags: u8,
    /// One of [`place`].
    place: u8,
    /// 1 where the head comes in on ingress (this host is the client), for the packet programs.
    pub inbound: u8,
    reserved: [u8; 15],
}

impl Scanner {
    /// Takes the next byte; returns whether the head goes on.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> bool {
        let taken = self.taken as usize;
        // A digit behind the status makes it another one.
        if (taken < STATUS_LINE.len() && byte != STATUS_LINE[taken & 15])
            || (taken == STATUS_LINE.len() && byte > b' ')
        {
            self.flags |= FLAG_OTHER;
        }
        self.taken += 1;
        // What the word behind this byte is, where the byte ends a word.
        let next = match (byte, self.place) {
            (b'\n', _) => place::NAME,
            (b':', place::NAME) => place::IGNORED,
            (b',', place::PROTOCOL) => place::PROTOCOL,
            (b',', place::EXTENSION..) => place::EXTENSION,
            (b';', place::EXTENSION..) => place::PARAMETER,
            (b'=', place::PARAMETER) => place::VALUE,
            (b' ' | b'\t', place::PROTOCOL..) => {
                if self.word != EMPTY {
                    self.flags |= FLAG_BLANK;
                }
                place::NONE
            }
            // Carriage returns stand before line feeds and nowhere else; a quoted value is the same value.
            (b'\r', _) | (b'"' | b'\\', place::VALUE) => place::NONE,
            _ => {
                self.add(byte);
                place::NONE
            }
        };
        // In one place, as all of this is inline.
        if next != place::NONE {
            self.end_word(next);
        }
        !self.failed() && !self.ended()
    }

    /// One more byte of a word.
    #[inline(always)]
    fn add(&mut self, byte: u8) {
        let lower = if byte.is_ascii_uppercase() { byte | 0x20 } else { byte };
        let mut word = self.word;
        if self.flags & FLAG_BLANK != 0 {
            self.flags &= !FLAG_BLANK;
            word = with(word, b' ');
        }
        self.word = with(word, lower);
        // Three digits are too many already.
        if self.number < 100 {
            self.number = if byte.is_ascii_digit() { self.number * 10 + (byte - b'0') as u16 } else { 100 };
        }
    }

    /// The word at hand is whole; `next` follows.
    #[inline(always)]
    fn end_word(&mut self, mut next: u8) {
        let word = self.word;
        match self.place {
            place::NAME => {
                if next == place::NAME {
                    // The line ends: an empty one, or no field at all.
                    if word == EMPTY {
                        self.flags |= FLAG_ENDED;
                    }
                } else if word == UPGRADE {
                    next = place::PROTOCOL;
                } else if word == EXTENSIONS {
                    next = place::EXTENSION;
                }
            }
            place::PROTOCOL if word == WEBSOCKET => self.flags |= FLAG_UPGRADE,
            place::EXTENSION if word == DEFLATE => {
                self.flags |= FLAG_DEFLATE;
                self.deflate |= Deflate::NEGOTIATED;
            }
            place::PARAMETER if self.flags & FLAG_DEFLATE != 0 => self.parameter(),
            place::VALUE => self.value(),
            _ => {}
        }
        // Another element or field: its parameters are its own.
        if next <= place::EXTENSION {
            self.flags &= !FLAG_DEFLATE;
        }
        if next != place::VALUE {
            self.flags &= !(FLAG_SERVER_BITS | FLAG_CLIENT_BITS);
        }
        self.flags &= !FLAG_BLANK;
        self.place = next;
        self.word = EMPTY;
        self.number = 0;
    }

    #[inline(always)]
    fn parameter(&mut self) {
        match self.word {
            SERVER_NO_CONTEXT => self.deflate |= Deflate::SERVER_NO_CONTEXT,
            CLIENT_NO_CONTEXT => self.deflate |= Deflate::CLIENT_NO_CONTEXT,
            SERVER_BITS => self.flags |= FLAG_SERVER_BITS,
            CLIENT_BITS => self.flags |= FLAG_CLIENT_BITS,
            _ => {}
        }
    }

    /// 8 to 15 are the only values allowed (RFC 7692 section 7.1.2).
    #[inline(always)]
    fn value(&mut self) {
        if self.number >= 8 && self.number <= 15 {
            if self.flags & FLAG_SERVER_BITS != 0 {
                self.deflate |= self.number;
            } else if self.flags & FLAG_CLIENT_BITS != 0 {
                self.deflate |= self.number << 4;
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
        self.flags & (FLAG_ENDED | FLAG_UPGRADE | FLAG_OTHER) == FLAG_ENDED | FLAG_UPGRADE
    }

    /// What permessage-deflate negotiated.
    pub const fn deflate(&self) -> Deflate {
        Deflate(if self.deflate & Deflate::NEGOTIATED != 0 { self.deflate } else { 0 })
    }
}

#[cfg(test)]
mod tests;
