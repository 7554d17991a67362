//! Finding a frame boundary again.
//!
//! A guess is a plausible header, and every header where the one before said the next would be is evidence for it. Packets
//! mostly begin where a frame does, so their first byte is tried in every packet; but a sender that is behind sends full
//! segments, cut anywhere, and so in one packet of [`EVERY`] the first [`TRIES`] bytes are tried one after the other.
//!
//! Chance: random bytes pass for a header ([`Lead::is_valid`], shortest length form) once in about 85 times, and for one
//! whose frame ends with its packet once in 10,000. [`EVIDENCE`] is one point for the first and two for the second, so a
//! false boundary is found once in 3 × 10^11 tries, or in 2 × 10^9 packets that are searched.

use super::{FLAG_MASKED, FLAG_PLAIN, Payload, Tally, Tracker};
use crate::abi::{Direction, Parse};
use crate::frame::{self, Lead};

/// Evidence that proves a boundary.
pub const EVIDENCE: u8 = 6;

/// Longest payload a guess may claim. Noise that looks like a header with a 64-bit length would otherwise swallow the rest
/// of the connection as its payload.
pub(crate) const LONGEST_CANDIDATE: u64 = 16 << 20;

/// First bytes of a packet at which a frame is looked for ...
const TRIES: u32 = 128;
/// ... in one packet of so many, a power of two.
const EVERY: u64 = 4;

/// Turns a byte can take: as many headers as make a proof, and the one turn that ends it.
pub(super) const TURNS: u32 = EVIDENCE as u32 + 1;

/// The search through one packet. Small, as it is on the stack of the packet programs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hunt {
    /// Where the present guess began.
    anchor: u32,
    /// Guesses left, this one included.
    tries: u32,
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
        // A guess from the packet before is one more, in front of this packet's first byte.
        let predicted = u32::from(self.direction.evidence > 0);
        self.hunt = Hunt { anchor: self.offset.wrapping_sub(predicted), tries: self.guesses() + predicted };
    }

    /// Guesses that the present packet is worth.
    #[inline(always)]
    fn guesses(&self) -> u32 {
        if self.direction.counters.packets & (EVERY - 1) == 0 { TRIES } else { 1 }
    }

    /// Where in the packet the search began: a guess back for each that was given up.
    #[inline(always)]
    fn first(&self) -> u32 {
        self.hunt.anchor.wrapping_add(self.hunt.tries).wrapping_sub(self.guesses())
    }

    /// A turn without a known boundary. Out of line: it is rare, and large.
    #[inline(never)]
    pub(super) fn unknown(&mut self) -> bool {
        if self.direction.parse == Parse::Encrypted as u8 {
            self.unparsed((self.len - self.offset) as u64);
            self.offset = self.len;
            return false;
        }
        if !P::SEARCHED {
            return self.end_hunt();
        }
        let available = (self.len - self.offset) as u64;
        if self.direction.remaining >= available {
            self.direction.remaining -= available;
            return self.end_hunt();
        }
        self.offset += self.direction.remaining as u32;
        self.direction.remaining = 0;
        let Some(frame_len) = self.guess() else {
            return self.next_guess();
        };
        let available = (self.len - self.offset) as u64;
        self.direction.evidence += 1 + u8::from(frame_len == available);
        if self.direction.evidence >= EVIDENCE {
            return self.found();
        }
        if frame_len < available {
            self.offset += frame_len as u32;
            return true;
        }
        // Beyond the packet a guess is followed only where it has something for it: that it began with the packet, or
        // that it is not the first.
        let is_lone = self.hunt.anchor != self.first() && self.direction.evidence < 2;
        if is_lone {
            return self.next_guess();
        }
        self.direction.remaining = frame_len - available;
        self.end_hunt()
    }

    /// Length of the frame whose header is at the present offset, if it is one.
    #[inline(always)]
    fn guess(&mut self) -> Option<u64> {
        let available = self.len - self.offset;
        let wanted = if available < frame::MAX_HEADER as u32 { available } else { frame::MAX_HEADER as u32 };
        let mut header = [0u8; 16];
        if wanted < 2 || !self.payload.load(self.offset, &mut header, wanted) {
            return None;
        }
        let lead = Lead::new(header[0], header[1]);
        let (header_len, flags) = (lead.header_len() as u32, self.direction.flags);
        let masked = flags & FLAG_MASKED != 0;
        let compressed = flags & FLAG_PLAIN != 0 && lead.is_compressed();
        if wanted < header_len || compressed || !is_plausible(lead, &header, masked) {
            return None;
        }
        Some(header_len as u64 + frame::payload_len(&header))
    }

    /// The next turn finds a frame where this one stands.
    #[inline(always)]
    fn found(&mut self) -> bool {
        self.unparsed((self.offset - self.first()) as u64);
        self.direction.parse = Parse::Adopted as u8;
        self.direction.evidence = 0;
        true
    }

    #[inline(always)]
    fn next_guess(&mut self) -> bool {
        forget(self.direction);
        self.hunt.tries = self.hunt.tries.saturating_sub(1);
        self.hunt.anchor = self.hunt.anchor.wrapping_add(1);
        self.offset = self.hunt.anchor;
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

/// There is no guess.
#[inline(always)]
fn forget(direction: &mut Direction) {
    direction.evidence = 0;
    direction.remaining = 0;
}
