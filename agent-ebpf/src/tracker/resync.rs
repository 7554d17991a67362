//! Finding a frame boundary again.
//!
//! A guess is a plausible header, and [`Evidence`](crate::evidence::Evidence) is gathered for it from the headers that follow
//! where each one says the next is. Packets mostly begin where a frame does, so their first byte is tried in every packet;
//! but a client that is behind sends full segments, cut anywhere, and so in one packet of [`EVERY`] of a masked direction the
//! first [`TRIES`] bytes are tried one after the other. Without masking keys nothing could come of that.
//!
//! Frames count from the one on that completes the proof; everything before it is unparsed.

use super::{FLAG_MASKED, FLAG_PLAIN, Payload, Tally, Tracker};
use crate::abi::{Direction, Parse};
use crate::evidence::Evidence;
use crate::frame::{self, Lead};
use crate::keepalive;

/// Longest payload a guess may claim. Noise that looks like a header with a 64-bit length would otherwise swallow the rest
/// of the connection as its payload.
pub(crate) const LONGEST_CANDIDATE: u64 = 16 << 20;

/// First bytes of a packet at which a frame is looked for ...
const TRIES: u16 = 128;
/// ... in one packet of so many, a power of two.
const EVERY: u64 = 4;

/// Headers looked at in one packet. Whoever sends what looks like ever more of them shall not have the host's time.
const MOST_HEADERS: u32 = 256;

/// Turns that a search takes at most: a header each, and a few to begin and to end.
pub(super) const TURNS: u32 = MOST_HEADERS + 4;

/// The search through one packet. Small, as it is on the stack of the packet programs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hunt {
    /// Where the present guess began.
    anchor: u32,
    /// Guesses left, this one included.
    tries: u16,
    /// Headers looked at.
    spent: u16,
}

/// Whether a complete header may be one, where nothing but itself says so.
#[inline(always)]
pub(crate) fn is_plausible(lead: Lead, header: &[u8; 16], masked: bool) -> bool {
    lead.is_valid(masked) && frame::is_minimal(header) && frame::payload_len(header) <= LONGEST_CANDIDATE
}

impl<P: Payload, T: Tally> Tracker<'_, P, T> {
    /// Begins to search at the present offset; everything before it is accounted for. Out of line, as it is rare.
    #[inline(never)]
    pub(super) fn start_hunt(&mut self) {
        let starts = self.offset == 0;
        if starts {
            let (begins, heard) = (self.direction.remaining == 0, self.other.next_seq);
            self.direction.evidence.packet(begins, heard, self.payload.now_ns());
        }
        // A guess from the packet before is one more, in front of this packet's first byte.
        let predicted = u16::from(self.direction.evidence.is_alive());
        if predicted == 0 {
            self.direction.evidence.restart(starts);
        }
        self.hunt.anchor = self.offset.wrapping_sub(predicted as u32);
        self.hunt.tries = self.guesses() + predicted;
    }

    /// Guesses that the present packet is worth.
    #[inline(always)]
    fn guesses(&self) -> u16 {
        let is_searched = self.direction.flags & FLAG_MASKED != 0;
        if is_searched && self.direction.counters.packets & (EVERY - 1) == 0 { TRIES } else { 1 }
    }

    /// Where in the packet the search began: a guess back for each that was given up.
    #[inline(always)]
    fn first(&self) -> u32 {
        self.hunt.anchor.wrapping_add(self.hunt.tries as u32).wrapping_sub(self.guesses() as u32)
    }

    /// A turn without a known boundary. Out of line: it is rare, and large.
    #[inline(never)]
    pub(super) fn unknown(&mut self) -> bool {
        if self.direction.parse == Parse::Encrypted as u8 {
            self.unparsed((self.len - self.offset) as u64);
            self.offset = self.len;
            return false;
        }
        if self.hunt.tries == 0 {
            self.start_hunt();
        }
        let available = (self.len - self.offset) as u64;
        let remaining = self.direction.remaining;
        if !P::SEARCHED || remaining >= available {
            return self.pass(available);
        }
        self.offset += remaining as u32;
        self.direction.remaining = 0;
        self.hunt.spent += 1;
        if self.hunt.spent > MOST_HEADERS as u16 {
            self.direction.evidence.restart(false);
            return self.end_hunt();
        }
        let Some(frame_len) = self.guess() else {
            return self.next_guess();
        };
        let available = (self.len - self.offset) as u64;
        if frame_len == available {
            self.direction.evidence.aligned();
        }
        if self.direction.evidence.is_proof(self.direction.flags & FLAG_MASKED != 0) {
            return self.found();
        }
        if frame_len < available {
            self.offset += frame_len as u32;
            return true;
        }
        // Beyond the packet a guess is followed only where it has something for it: that it began with the packet, or
        // that it is not the first.
        if self.hunt.anchor != self.first() && self.direction.evidence.is_lone() {
            return self.next_guess();
        }
        self.direction.remaining = frame_len - available;
        self.end_hunt()
    }

    /// The rest of the packet is payload of the frame that is guessed at, or cannot be searched.
    #[inline(always)]
    fn pass(&mut self, available: u64) -> bool {
        let remaining = self.direction.remaining;
        if remaining < available {
            self.direction.remaining = 0;
            self.direction.evidence.restart(false);
            return self.end_hunt();
        }
        self.direction.remaining = remaining - available;
        if !P::SEARCHED {
            // What is kept are several packets.
            self.direction.evidence.break_run();
        } else if remaining == available {
            self.direction.evidence.aligned();
            if self.direction.evidence.is_proof(self.direction.flags & FLAG_MASKED != 0) {
                self.offset = self.len;
                return self.found();
            }
        }
        self.end_hunt()
    }

    /// Length of the frame whose header is at the present offset, if it may be one.
    #[inline(always)]
    fn guess(&mut self) -> Option<u64> {
        let available = self.len - self.offset;
        let wanted = if available < frame::MAX_HEADER as u32 { available } else { frame::MAX_HEADER as u32 };
        // Into the state, where nothing is kept without a boundary: a call chain has 512 bytes of stack.
        let Direction { header, evidence, flags, next_seq, .. } = &mut *self.direction;
        if wanted < 2 || !self.payload.load(self.offset, header, wanted) {
            return None;
        }
        let lead = Lead::new(header[0], header[1]);
        let header_len = lead.header_len() as u32;
        let compressed = *flags & FLAG_PLAIN != 0 && lead.is_compressed();
        if wanted < header_len || compressed || !is_plausible(lead, header, *flags & FLAG_MASKED != 0) {
            return None;
        }
        let frame_len = header_len as u64 + frame::payload_len(header);
        // `begin` has moved the next sequence number behind this packet.
        let seq = next_seq.wrapping_sub(available);
        evidence.header(lead, header, seq, frame_len).then_some(frame_len)
    }

    /// The next turn finds a frame where this one stands.
    #[inline(always)]
    fn found(&mut self) -> bool {
        self.unparsed((self.offset - self.first()) as u64);
        self.direction.parse = Parse::Adopted as u8;
        self.direction.evidence = Evidence::default();
        keepalive::found(self.direction, self.other);
        self.offset < self.len
    }

    #[inline(always)]
    fn next_guess(&mut self) -> bool {
        self.direction.remaining = 0;
        self.hunt.tries = self.hunt.tries.saturating_sub(1);
        self.hunt.anchor = self.hunt.anchor.wrapping_add(1);
        self.offset = self.hunt.anchor;
        self.direction.evidence.restart(self.offset == 0);
        if self.hunt.tries == 0 || self.offset >= self.len {
            return self.end_hunt();
        }
        true
    }

    #[inline(always)]
    fn end_hunt(&mut self) -> bool {
        self.unparsed((self.len - self.first()) as u64);
        self.offset = self.len;
        false
    }
}
