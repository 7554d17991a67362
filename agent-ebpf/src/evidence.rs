//! What speaks for a guess at where frames begin, while nothing but the bytes can say so.
//!
//! A header that stands where the one before it said is no evidence by itself. Payload has structure: a constant payload
//! repeats every 4 bytes under its masking key, records repeat at their length, text has few different bytes, and a tunnel
//! carries frames inside frames. One header that happens to be plausible there is followed by any number of others. So
//! only what such a structure does not explain counts:
//!
//! - **Packets.** A run of at most [`RUN`] frames that begins with a packet and ends with one. Bulk data is cut by segment
//!   sizes, not by frames. Packets of one size may fit to structure as well, so a run counts only if its first frame is of
//!   another length than those of the runs before, or, with double weight, if the other side spoke before it, or a silence
//!   was before it: then this is a conversation and no bulk. A run for which none of that speaks takes a point away, and one
//!   that does not end with a packet takes all.
//! - **Masking keys.** A client that is behind sends full segments, of which none ends with a frame. There [`HEADERS`]
//!   headers in a row do, if their lengths vary ([`LENGTHS`]) and their masking keys do in each of the upper four bits of each
//!   byte: payload under one key keeps some of them where it is text, and repeats lengths where it is records.
//!
//! docs/accounting.md has what that makes of a false boundary's chance.

use crate::frame::{self, Lead};

/// Points that prove a boundary: three runs in a conversation.
pub const PROOF: u8 = 5;
/// Most frames of a run.
const RUN: u8 = 4;
/// Masked headers in a row that prove a boundary, if they differ enough.
const HEADERS: u8 = 16;
/// So many different lengths are enough.
const LENGTHS: u8 = 6;
/// A silence, in units of 1,024 ns: longer than any that a sender with something to send makes by itself.
const SILENCE: u32 = 1_000;

/// No run is under way.
const NO_RUN: u8 = 0;
/// One is, amid packets that follow each other.
const RUN_AMID: u8 = 1;
/// One is that follows a silence or the other side's words.
const RUN_ALONE: u8 = 2;

const BETWEEN_MESSAGES: u8 = 1;
const IN_MESSAGE: u8 = 2;

/// The evidence for one guess.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Where the other direction stood when a packet last began with a frame.
    heard: u32,
    /// When the last packet came, in units of 1,024 ns.
    since: u32,
    /// The upper halves of the first masking key's bytes, each at the place of its sequence number modulo 4.
    key: u16,
    /// Bits in which another key differed from it.
    varied: u16,
    /// Hashes of the last different frame lengths.
    lengths: [u8; LENGTHS as usize - 1],
    /// How many there were.
    variety: u8,
    /// Hashes of the lengths that runs began with.
    runs: [u8; PROOF as usize - 1],
    /// The present run's.
    begins: u8,
    /// [`NO_RUN`], [`RUN_AMID`] or [`RUN_ALONE`].
    run: u8,
    /// Frames in it.
    frames: u8,
    /// Whether a message in fragments is under way: 0 not known, 1 no, 2 yes.
    message: u8,
    /// What was found for the guess.
    points: u8,
    /// Headers in a row.
    headers: u8,
}

impl Evidence {
    /// A packet comes. `begins`: the guess is that a frame begins with it. `heard` is where the other direction stands.
    #[inline(always)]
    pub fn packet(&mut self, begins: bool, heard: u32, now_ns: u64) {
        let now = (now_ns >> 10) as u32;
        let is_alone = now.wrapping_sub(self.since) >= SILENCE || heard != self.heard;
        self.since = now;
        if begins {
            self.heard = heard;
            self.frames = 0;
            // Nothing is known of what was before the first.
            self.run = if is_alone && self.points > 0 { RUN_ALONE } else { RUN_AMID };
        }
    }

    /// Starts over with another guess; `begins`: at a packet's first byte.
    #[inline(always)]
    pub fn restart(&mut self, begins: bool) {
        let (heard, since) = (self.heard, self.since);
        *self = Self { heard, since, run: u8::from(begins), ..Self::default() };
    }

    /// Whether there is a guess.
    #[inline(always)]
    pub const fn is_alive(&self) -> bool {
        self.headers > 0
    }

    /// Whether one header is all there is.
    #[inline(always)]
    pub const fn is_lone(&self) -> bool {
        self.headers < 2
    }

    /// What runs of frames have shown.
    #[inline(always)]
    pub const fn points(&self) -> u8 {
        self.points
    }

    /// Whether the guess is proved.
    #[inline(always)]
    pub const fn is_proof(&self, masked: bool) -> bool {
        let by_keys = self.headers >= HEADERS && self.variety >= LENGTHS && self.varied == u16::MAX;
        self.points >= PROOF || (masked && by_keys)
    }

    /// Takes note of a plausible header at sequence number `seq` that begins a frame of `frame_len` bytes; returns whether
    /// it may stand there (RFC 6455 sections 5.4 and 5.5.1): only a message that is under way is continued, it is before the
    /// next one begins, and nothing follows a close.
    #[inline(always)]
    pub fn header(&mut self, lead: Lead, header: &[u8; 16], seq: u32, frame_len: u64) -> bool {
        let is_continuation = lead.opcode() == frame::CONTINUATION;
        let wrong = if is_continuation { BETWEEN_MESSAGES } else { IN_MESSAGE };
        if lead.opcode() == frame::CLOSE || (!lead.is_control() && self.message == wrong) {
            return false;
        }
        // Zeroes read as continuations, as does any short record behind its length in 2 or 4 bytes.
        let is_worthless = is_continuation && self.message == 0;
        if is_worthless {
            self.run = NO_RUN;
        }
        if !lead.is_control() {
            if lead.is_final() {
                self.message = BETWEEN_MESSAGES;
            } else if !is_worthless {
                self.message = IN_MESSAGE;
            }
        }
        let hash = hash(frame_len);
        if lead.is_masked() {
            self.note_key(header, lead.header_len() as u32, seq);
        }
        if remember(&mut self.lengths, hash) {
            self.variety = self.variety.saturating_add(1);
        }
        self.headers = self.headers.saturating_add(1);
        self.frames = self.frames.saturating_add(1);
        if self.frames == 1 {
            self.begins = hash;
        }
        if self.frames > RUN {
            self.break_run();
        }
        true
    }

    /// A frame ends with a packet.
    #[inline(always)]
    pub fn aligned(&mut self) {
        let is_new = self.run != NO_RUN && remember(&mut self.runs, self.begins);
        self.points = match (self.run, is_new) {
            (NO_RUN, _) => self.points,
            (RUN_ALONE, _) => self.points.saturating_add(2),
            (_, true) => self.points.saturating_add(1),
            (_, false) if self.points > 1 => self.points - 1,
            _ => self.points,
        };
        self.run = NO_RUN;
    }

    /// Where packets end is not known, or frames do not end with them.
    #[inline(always)]
    pub fn break_run(&mut self) {
        self.run = NO_RUN;
        self.points = 0;
    }

    /// The key stands at the end of the header.
    #[inline(always)]
    fn note_key(&mut self, header: &[u8; 16], header_len: u32, seq: u32) {
        let at = header_len.wrapping_sub(4);
        let key = match at {
            2 => u32::from_le_bytes([header[2], header[3], header[4], header[5]]),
            4 => u32::from_le_bytes([header[4], header[5], header[6], header[7]]),
            _ => u32::from_le_bytes([header[10], header[11], header[12], header[13]]),
        };
        let key = key.rotate_left((seq.wrapping_add(at) & 3) * 8);
        let pairs = (key >> 4 & 0x000f_000f) | (key >> 8 & 0x00f0_00f0);
        let upper = (pairs | pairs >> 8) as u16;
        if self.headers == 0 {
            self.key = upper;
        }
        self.varied |= upper ^ self.key;
    }
}

/// Puts `hash` in front of the others unless it is there; returns whether it was not.
#[inline(always)]
fn remember<const N: usize>(hashes: &mut [u8; N], hash: u8) -> bool {
    for known in hashes.iter() {
        if *known == hash {
            return false;
        }
    }
    for at in (1..N).rev() {
        hashes[at] = hashes[at - 1];
    }
    hashes[0] = hash;
    true
}

/// Never 0. That two lengths have one hash costs evidence and invents none.
#[inline(always)]
const fn hash(len: u64) -> u8 {
    (len.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1
}
