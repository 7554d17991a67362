//! The frame tracker: follows one direction of a TCP stream, counts its WebSocket frames, and knows when it does not
//! know.
//!
//! Sans-IO: [`Tracker::begin`] is told of a packet and says which of its bytes are new; [`Tracker::step`] then eats at
//! least one of them per call until nothing is left, reading through a [`Payload`]. The caller owns the loop, because
//! in the kernel its first turns are inline and the rest go through `bpf_loop`.
//!
//! Sequence numbers decide what is new: bytes before `next_seq` are retransmissions and never count twice; a hole is
//! bridged where it lies inside a payload whose end is known, and anything else leaves the direction
//! [`Parse::Unsynced`] until [`resync`] finds a boundary again, which makes it [`Parse::Adopted`]. Holes that will be
//! filled are the [`reorder`](crate::reorder) buffer's business: what comes here is in order where that is possible.

use crate::abi::{Direction, Parse, Tally};
use crate::evidence::Evidence;
use crate::frame::{self, Lead};
use crate::keepalive;

mod control;
pub mod resync;

use resync::Hunt;

/// The current frame is a control frame: its payload counts as control bytes.
const FLAG_CONTROL: u8 = 1;
/// Frames in this direction must be masked.
const FLAG_MASKED: u8 = 2;
/// Some of the current control frame's payload was not seen.
const FLAG_HOLED: u8 = 4;
/// The current control frame is a ping.
const FLAG_PING: u8 = 8;
/// The current control frame is a pong.
const FLAG_PONG: u8 = 16;
/// No compression was negotiated, so that RSV1 speaks against a guess.
const FLAG_PLAIN: u8 = 32;
/// All that belongs to one frame.
const FLAGS_OF_FRAME: u8 = FLAG_CONTROL | FLAG_HOLED | FLAG_PING | FLAG_PONG;

/// Access to the current packet.
pub trait Payload {
    /// Whether it is worth a search where the boundary is lost in the middle of it.
    const SEARCHED: bool = true;

    /// Copies `len` (1–16) bytes at `offset` of the TCP payload to the front of `to`; `false` if they are not there. What
    /// stands in `to` behind them is of no meaning.
    fn load(&self, offset: u32, to: &mut [u8; 16], len: u32) -> bool;
    /// Monotonic time; asked for only where a ping or pong was seen.
    fn now_ns(&self) -> u64;
}

/// The time, for payloads that have to ask the kernel for it.
pub trait Clock: Copy {
    /// Monotonic nanoseconds.
    fn now_ns(self) -> u64;
}

/// Starts a direction right behind the handshake. `compressible` where compression was negotiated.
#[inline(always)]
pub fn begin(direction: &mut Direction, next_seq: u32, masked: bool, compressible: bool) {
    start(direction, next_seq, masked);
    if !compressible {
        direction.flags |= FLAG_PLAIN;
    }
}

/// The same where nothing is known of compression.
#[inline(always)]
pub fn start(direction: &mut Direction, next_seq: u32, masked: bool) {
    direction.next_seq = next_seq;
    direction.parse = Parse::Exact as u8;
    direction.flags = if masked { FLAG_MASKED } else { 0 };
}

/// Starts a direction of a connection older than the agent. `guess` says how many bytes behind `next_seq` the next frame may
/// begin, and what speaks for it: where that is no proof, the search goes on from there.
#[inline(always)]
pub fn adopt(direction: &mut Direction, next_seq: u32, masked: bool, guess: Option<(u32, &Evidence)>) {
    start(direction, next_seq, masked);
    direction.parse = Parse::Unsynced as u8;
    keepalive::lost(direction);
    if let Some((bytes, evidence)) = guess {
        direction.remaining = bytes as u64;
        if evidence.is_proof(masked) {
            direction.parse = Parse::Adopted as u8;
        } else {
            direction.evidence = *evidence;
        }
    }
}

/// Starts a direction in which nothing but bytes can be seen.
#[inline(always)]
pub fn encrypted(direction: &mut Direction, next_seq: u32) {
    direction.next_seq = next_seq;
    direction.parse = Parse::Encrypted as u8;
}

/// Leaves out the first `bytes` of a direction that was just started: they went by before, and nobody knows whether what follows
/// them begins a frame.
#[inline(always)]
pub fn skip(direction: &mut Direction, bytes: u32) {
    direction.counters.unparsed(bytes as u64);
    direction.next_seq = direction.next_seq.wrapping_add(bytes);
    direction.parse = Parse::Unsynced as u8;
}

/// Whether `bytes` that are missing at the tracker's position can be done without: they are payload whose end is known,
/// or the direction has no boundary to lose.
#[inline(always)]
pub fn can_bridge(direction: &Direction, bytes: u32) -> bool {
    direction.parse >= Parse::Unsynced as u8
        || (direction.held == 0 && bytes as u64 <= direction.remaining && direction.flags & FLAG_CONTROL == 0)
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
    hunt: Hunt,
}

impl<'a, P: Payload, T: Tally> Tracker<'a, P, T> {
    /// A tracker for one packet.
    #[inline(always)]
    pub fn new(direction: &'a mut Direction, other: &'a Direction, totals: &'a mut T, payload: P) -> Self {
        Self { direction, other, totals, payload, offset: 0, len: 0, hunt: Hunt::default() }
    }

    /// Turns that always suffice for what is left.
    #[inline(always)]
    pub fn turns(&self) -> u32 {
        (self.len - self.offset).saturating_add(resync::TURNS)
    }

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

    /// What [`Tracker::step`] does, for the one case that nearly every packet is: data frames whose headers are whole.
    /// Returns whether anything is left for `step` to do; what it cannot do it leaves as it is. It calls nothing that would
    /// need the tracker's address, so that all of it can live in registers.
    #[inline(always)]
    pub fn fast(&mut self) -> bool {
        let direction = &*self.direction;
        if direction.parse >= Parse::Unsynced as u8
            || direction.held != 0
            || direction.flags & FLAG_CONTROL != 0
        {
            return true;
        }
        if direction.remaining > 0 {
            self.eat_data();
            if self.offset >= self.len {
                return false;
            }
        }
        let before = self.offset;
        let mut header = [0u8; 16];
        if !self.take_header(&mut header) {
            return true;
        }
        let lead = Lead::new(header[0], header[1]);
        if lead.is_control() || !lead.is_valid(self.direction.flags & FLAG_MASKED != 0) {
            self.offset = before;
            return true;
        }
        self.direction.remaining = frame::payload_len(&header);
        self.count(lead);
        self.eat_data();
        self.offset < self.len
    }

    /// Eats the rest of the current payload (of a control frame, up to 16 bytes), then one header and what the packet
    /// holds of its payload. Returns whether bytes are left.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        if self.direction.parse >= Parse::Unsynced as u8 {
            return self.unknown();
        }
        if self.direction.remaining > 0 {
            self.eat_payload();
            if self.offset >= self.len {
                return false;
            }
            if self.direction.remaining > 0 {
                return true;
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
        self.count(lead);
        self.direction.flags &= !FLAGS_OF_FRAME;
        if lead.is_control() {
            self.control(lead, header);
        }
        self.eat_payload();
        self.offset < self.len
    }

    #[inline(always)]
    fn count(&mut self, lead: Lead) {
        let (slot, header_len) = (lead.slot(), lead.header_len() as u64);
        self.direction.counters.frame(slot, header_len);
        self.totals.frame(slot, header_len);
        // A control frame with RSV1 is not valid.
        if lead.is_compressed() {
            self.direction.counters.compressed();
            self.totals.compressed();
        }
    }

    /// Takes what the packet holds of the current payload.
    #[inline(always)]
    fn eat_payload(&mut self) {
        if self.direction.flags & FLAG_CONTROL != 0 {
            self.eat_control();
        } else {
            self.eat_data();
        }
    }

    /// The same of a data frame.
    #[inline(always)]
    fn eat_data(&mut self) {
        let available = (self.len - self.offset) as u64;
        let remaining = self.direction.remaining;
        let taken = if available < remaining { available } else { remaining };
        self.direction.remaining = remaining - taken;
        self.offset += taken as u32;
        self.direction.counters.payload(taken);
        self.totals.payload(taken);
    }

    #[inline(always)]
    fn payload_bytes(&mut self, bytes: u64) {
        if self.direction.parse == Parse::Unsynced as u8 {
            self.unparsed(bytes);
        } else if self.direction.flags & FLAG_CONTROL != 0 {
            self.direction.flags |= FLAG_HOLED;
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
        if self.direction.parse == Parse::Encrypted as u8 {
            self.unparsed(bytes);
        } else if self.direction.held == 0 && bytes <= self.direction.remaining {
            // All of it is payload of a frame whose end is known: nothing is lost but the sight of it.
            self.direction.remaining -= bytes;
            self.payload_bytes(bytes);
        } else {
            self.unparsed(bytes);
            self.lose_sync();
        }
    }

    /// The boundary is lost; the rest of this packet is a chance to find another.
    #[inline(never)]
    fn give_up(&mut self) -> bool {
        self.lose_sync();
        self.start_hunt();
        self.offset < self.len
    }

    #[inline(always)]
    fn lose_sync(&mut self) {
        let held = self.direction.held as u64;
        self.unparsed(held);
        self.direction.held = 0;
        self.direction.evidence = Evidence::default();
        self.direction.remaining = 0;
        self.direction.parse = Parse::Unsynced as u8;
        keepalive::lost(self.direction);
        self.direction.flags &= FLAG_MASKED | FLAG_PLAIN;
    }

    #[inline(always)]
    fn unparsed(&mut self, bytes: u64) {
        self.direction.counters.unparsed(bytes);
        self.totals.unparsed(bytes);
    }
}
