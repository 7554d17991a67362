//! The frame tracker: follows one direction of a TCP stream, counts its WebSocket frames, and knows when it does not
//! know.
//!
//! Sans-IO: [`Tracker::begin`] is told of a packet and says which of its bytes are new; [`Tracker::step`] then eats at
//! least one of them per call until nothing is left, reading through a [`Payload`]. The caller owns the loop, because
//! in the kernel its first turns are inline and the rest go through `bpf_loop`.
//!
//! Sequence numbers decide what is new: bytes before `next_seq` are retransmissions and never count twice; a hole is
//! bridged where it lies inside a payload whose end is known, and anything else leaves the direction
//! [`Parse::Unsynced`] until [`EVIDENCE`] consecutive frames fit, which makes it [`Parse::Adopted`].

use crate::abi::{Direction, Parse, Tally};
use crate::frame::{self, Lead};

/// The current frame is a control frame: its payload counts as control bytes.
const FLAG_CONTROL: u8 = 1;
/// Frames in this direction must be masked.
const FLAG_MASKED: u8 = 2;

/// Consecutive plausible frames that prove a boundary. A random byte pair passes [`Lead::is_valid`] once in about 85
/// times; three in a row, each where the one before said, is a chance of 1.6 in a million per packet.
pub const EVIDENCE: u8 = 3;

/// Longest payload a candidate for a boundary may claim. Noise that looks like a header with a 64-bit length would
/// otherwise swallow the rest of the connection as its payload.
const LONGEST_CANDIDATE: u64 = 16 << 20;

/// Access to the current packet.
pub trait Payload {
    /// Copies `len` (1–16) bytes at `offset` of the TCP payload to the front of `to`; `false` if they are not there.
    fn load(&self, offset: u32, to: &mut [u8; 16], len: u32) -> bool;
    /// Monotonic time; asked for only where a ping or pong was seen.
    fn now_ns(&self) -> u64;
}

/// Starts a direction right behind the handshake.
#[inline(always)]
pub fn start(direction: &mut Direction, next_seq: u32, masked: bool) {
    direction.next_seq = next_seq;
    direction.parse = Parse::Exact as u8;
    direction.flags = if masked { FLAG_MASKED } else { 0 };
}

/// One packet on its way through one direction.
pub struct Tracker<'a, P, T> {
    /// The direction this packet belongs to.
    pub direction: &'a mut Direction,
    /// The other direction, for matching pongs to pings. Only read: the other hook may be writing it on another CPU.
    pub other: &'a Direction,
    /// The listener's totals for the same direction.
    pub totals: &'a mut T,
    /// The packet.
    pub payload: P,
    /// Next byte of the payload to look at.
    pub offset: u32,
    /// Length of the payload.
    pub len: u32,
}

impl<P: Payload, T: Tally> Tracker<'_, P, T> {
    /// Positions the tracker for `len` payload bytes at TCP sequence number `seq`. Returns whether any byte is new.
    #[inline(always)]
    pub fn begin(&mut self, seq: u32, len: u32) -> bool {
        let seen = self.direction.next_seq.wrapping_sub(seq) as i32;
        self.len = len;
        self.offset = 0;
        if seen > 0 {
            if seen as u32 >= len {
                return false;
            }
            self.offset = seen as u32;
        } else if seen < 0 {
            self.gap(seen.unsigned_abs());
        }
        self.direction.next_seq = seq.wrapping_add(len);
        self.offset < len
    }

    /// Eats the rest of the current payload, then one header and what the packet holds of its payload. Returns whether
    /// bytes are left. Every call advances, so as many calls as there are bytes always suffice.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        if self.direction.remaining > 0 {
            self.eat_payload();
            if self.offset >= self.len {
                return false;
            }
        }
        let mut header = [0u8; 16];
        let whole = self.direction.held == 0 && self.take_header(&mut header);
        if !whole && !self.take_byte(&mut header) {
            return self.offset < self.len;
        }
        self.frame(&header)
    }

    /// Takes a header that lies in this packet whole, as nearly all do.
    #[inline(always)]
    fn take_header(&mut self, header: &mut [u8; 16]) -> bool {
        let available = self.len - self.offset;
        let wanted = if available < frame::MAX_HEADER as u32 { available } else { frame::MAX_HEADER as u32 };
        if !self.payload.load(self.offset, header, wanted) || wanted < 2 {
            return false;
        }
        let header_len = Lead::new(header[0], header[1]).header_len() as u32;
        if wanted < header_len {
            return false;
        }
        self.offset += header_len;
        true
    }

    /// Takes one byte of a header that is split over packets; returns whether that completes it.
    #[inline(always)]
    fn take_byte(&mut self, header: &mut [u8; 16]) -> bool {
        if !self.payload.load(self.offset, header, 1) {
            self.give_up();
            return false;
        }
        // The longest header has 14 bytes; the mask only shows the verifier that the index is in bounds.
        let held = self.direction.held & 15;
        self.direction.header[held as usize] = header[0];
        self.direction.held = held + 1;
        self.offset += 1;
        let lead = Lead::new(self.direction.header[0], self.direction.header[1]);
        if held == 0 || (held as usize) + 1 < lead.header_len() {
            return false;
        }
        *header = self.direction.header;
        self.direction.held = 0;
        true
    }

    /// Accounts a complete header; `offset` is behind it.
    #[inline(always)]
    fn frame(&mut self, header: &[u8; 16]) -> bool {
        let lead = Lead::new(header[0], header[1]);
        let header_len = lead.header_len() as u64;
        if !lead.is_valid(self.direction.flags & FLAG_MASKED != 0) {
            self.unparsed(header_len);
            return self.give_up();
        }
        self.direction.remaining = frame::payload_len(header);
        if self.direction.parse == Parse::Unsynced as u8 {
            if !frame::is_minimal(header) || self.direction.remaining > LONGEST_CANDIDATE {
                self.unparsed(header_len);
                return self.give_up();
            }
            if !self.proven() {
                self.unparsed(header_len);
                self.eat_payload();
                return self.offset < self.len;
            }
        }
        let slot = lead.slot();
        self.direction.counters.frame(slot, header_len);
        self.totals.frame(slot, header_len);
        if lead.is_control() {
            self.direction.flags |= FLAG_CONTROL;
            self.control(lead, header);
        } else {
            self.direction.flags &= !FLAG_CONTROL;
            if lead.is_compressed() {
                self.direction.counters.compressed();
                self.totals.compressed();
            }
        }
        self.eat_payload();
        self.offset < self.len
    }

    /// Pings, pongs and closes carry meaning beyond their count.
    #[inline(always)]
    fn control(&mut self, lead: Lead, header: &[u8; 16]) {
        match lead.opcode() {
            frame::PING => {
                let now = self.payload.now_ns();
                let last = self.direction.last_ping_ns;
                if last != 0 {
                    self.direction.ping_interval_ns = now.wrapping_sub(last);
                    if self.other.answered_ns != last {
                        self.direction.pings_missed += 1;
                    }
                }
                self.direction.last_ping_ns = now;
            }
            frame::PONG => {
                let ping = self.other.last_ping_ns;
                if ping != self.direction.answered_ns {
                    self.direction.answered_ns = ping;
                    self.direction.rtt_ns = self.payload.now_ns().wrapping_sub(ping);
                }
            }
            _ => self.close(lead, header),
        }
    }

    /// Section 5.5.1: a close frame's body, if there is one, begins with a two-byte status code.
    #[inline(always)]
    fn close(&mut self, lead: Lead, header: &[u8; 16]) {
        let mut body = [0u8; 16];
        if self.direction.remaining < 2 || !self.payload.load(self.offset, &mut body, 2) {
            return;
        }
        // A valid control frame has the short length form, so the masking key is right behind the first two bytes.
        let key = if lead.is_masked() { [header[2], header[3]] } else { [0, 0] };
        self.direction.close_code = u16::from_be_bytes([body[0] ^ key[0], body[1] ^ key[1]]);
    }

    /// Without known boundaries a plausible header is evidence first and a frame only once there is enough of it.
    #[inline(always)]
    fn proven(&mut self) -> bool {
        self.direction.evidence += 1;
        if self.direction.evidence < EVIDENCE {
            return false;
        }
        self.direction.evidence = 0;
        self.direction.parse = Parse::Adopted as u8;
        true
    }

    /// Takes what the packet holds of the current payload.
    #[inline(always)]
    fn eat_payload(&mut self) {
        let available = (self.len - self.offset) as u64;
        let remaining = self.direction.remaining;
        let taken = if available < remaining { available } else { remaining };
        self.direction.remaining = remaining - taken;
        self.offset += taken as u32;
        self.payload_bytes(taken);
    }

    #[inline(always)]
    fn payload_bytes(&mut self, bytes: u64) {
        if self.direction.parse == Parse::Unsynced as u8 {
            self.unparsed(bytes);
        } else if self.direction.flags & FLAG_CONTROL != 0 {
            self.direction.counters.control(bytes);
            self.totals.control(bytes);
        } else {
            self.direction.counters.payload(bytes);
            self.totals.payload(bytes);
        }
    }

    /// `bytes` of the stream never passed here.
    #[inline(always)]
    fn gap(&mut self, bytes: u32) {
        let bytes = bytes as u64;
        if self.direction.held == 0 && bytes <= self.direction.remaining {
            // All of it is payload of a frame whose end is known: nothing is lost but the sight of it.
            self.direction.remaining -= bytes;
            self.payload_bytes(bytes);
        } else {
            self.unparsed(bytes);
            self.lose_sync();
        }
    }

    /// The boundary is lost: the rest of this packet goes unparsed, the next packet is a new chance.
    #[inline(always)]
    fn give_up(&mut self) -> bool {
        let left = (self.len - self.offset) as u64;
        self.unparsed(left);
        self.offset = self.len;
        self.lose_sync();
        false
    }

    #[inline(always)]
    fn lose_sync(&mut self) {
        let held = self.direction.held as u64;
        self.unparsed(held);
        self.direction.held = 0;
        self.direction.evidence = 0;
        self.direction.remaining = 0;
        self.direction.parse = Parse::Unsynced as u8;
        self.direction.flags &= FLAG_MASKED;
    }

    #[inline(always)]
    fn unparsed(&mut self, bytes: u64) {
        self.direction.counters.unparsed(bytes);
        self.totals.unparsed(bytes);
    }
}
