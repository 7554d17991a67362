//! What arrived behind a hole, kept until the hole is filled.
//!
//! Ingress shows segments in the order of their arrival. Behind a lost or late one, TCP keeps what comes in its
//! out-of-order queue, and shows it to nobody again when the hole is filled; so the frame parser, which needs every
//! header byte, keeps a copy. A [`Reorder`] serves a connection while it has holes: it says which ranges have arrived,
//! and in which chunks of a pool that all connections share their bytes are.
//!
//! A chunk holds the [`CHUNK`] bytes from a multiple of [`CHUNK`] on, and the first [`SLACK`] bytes of the next chunk once
//! more, so that a header is never read from two chunks. What is missed for good and what found no room are the same to
//! the parser: it goes on behind it ([`Reorder::resume`]), and loses its boundary only where that was no payload.
//!
//! The time from the first segment behind a hole until no hole is left is what head-of-line blocking cost the receiver.

use crate::abi::Direction;
use crate::tracker;

mod keeping;

pub use keeping::{Keeping, Piece};

/// Bytes behind the frame parser that can be kept of one connection, a power of two. Linux offers windows of up to
/// `tcp_rmem`'s maximum, 6 MiB unless configured.
pub const WINDOW: u32 = 8 << 20;
/// Bytes in a chunk, a power of two.
pub const CHUNK: u32 = 4 << 10;
/// First bytes of the next chunk that a chunk has too: as many as the parser reads in one go.
pub const SLACK: u32 = 16;
/// Chunks of a window.
pub const PLACES: usize = (WINDOW / CHUNK) as usize;
/// Ranges between holes, a power of two.
pub const RANGES: usize = 128;
/// Connections that can have holes at the same time, a power of two.
pub const BUFFERS: usize = 512;

/// The buffers that a socket may claim, by its cookie.
#[inline(always)]
pub const fn choice(cookie: u64, attempt: u32) -> u32 {
    (cookie as u32).wrapping_mul(APART).wrapping_add(attempt) & (BUFFERS as u32 - 1)
}

/// How many those are.
pub const CHOICES: u32 = 32;

/// The first of them may also hold packets that are parked: they found their direction in use on another CPU. The owner of
/// such a buffer is the cookie with this bit.
pub const PARKED: u64 = 1 << 63;

/// How many they are.
pub const PARKING: u32 = 8;

/// How far apart the first choices of successive sockets are.
const APART: u32 = 8;

/// Sequence numbers from `start` up to, not including, `end`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    start: u32,
    end: u32,
}

/// A connection's holes and what came behind them.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reorder {
    /// Cookie of the socket it serves; 0 while it is free.
    pub owner: u64,
    /// `bpf_ktime_get_ns` when the edge last moved.
    pub moved_ns: u64,
    /// 1 while it is read or written: by its owner, or by somebody who takes it away.
    pub busy: u32,
    /// Everything before this sequence number has arrived. What of it the parser has not seen is kept.
    pub edge: u32,
    /// Chunk that `places` begins with: the sequence number of its first byte, divided by [`CHUNK`].
    pub low: u32,
    /// Chunks held.
    pub held: u32,
    /// Of a parked packet: behind its last byte, the first being at the edge.
    pub end: u32,
    /// The same: what it is on the wire.
    pub packets: u32,
    /// The same.
    pub packet_bytes: u32,
    /// Ranges in use.
    count: u32,
    /// Always 0. Loops begin with it: the verifier, which takes memory in a map for unknown, would follow one that begins
    /// with a number turn by turn.
    zero: u32,
    /// Keeps the size a multiple of 8 without padding.
    reserved: u32,
    /// What has arrived beyond the edge: disjoint, not touching, in no order.
    ranges: [Range; RANGES],
    /// Chunks by their sequence number, plus 1; 0 for none. All are 0 where `held` is.
    pub places: [u16; PLACES],
}

/// What becomes of a segment that arrives while there are holes, or makes one.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the tracker, which skips what it knows and bridges what it can.
    Parse,
    /// It is kept for when the hole before it is filled.
    Keep,
    /// Nothing in it is new to the tracker.
    Known,
}

/// `a` lies before `b` in sequence space (RFC 9293 section 3.4).
#[inline(always)]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[inline(always)]
const fn earlier(a: u32, b: u32) -> u32 {
    if before(a, b) { a } else { b }
}

/// What becomes of a segment from `start` to `end`, not empty.
#[inline(always)]
pub fn verdict(direction: &Direction, start: u32, end: u32) -> Verdict {
    let parsed = direction.next_seq;
    if !before(parsed, end) {
        Verdict::Known
    } else if !before(parsed, start) || tracker::can_bridge(direction, start.wrapping_sub(parsed)) {
        Verdict::Parse
    } else {
        Verdict::Keep
    }
}

/// Where the parser goes on without a buffer, if there is anything missing that will not come again: TCP has all before
/// `rcv_nxt` and the segment at hand begins at `start`.
#[inline(always)]
pub const fn missed(parsed: u32, start: u32, rcv_nxt: u32) -> Option<u32> {
    let to = earlier(start, rcv_nxt);
    if before(parsed, to) { Some(to) } else { None }
}

/// The place of a chunk in [`Reorder::places`].
#[inline(always)]
pub const fn place(chunk: u32) -> usize {
    chunk as usize & (PLACES - 1)
}

/// Where a byte is: its chunk, and where in that.
#[inline(always)]
pub const fn locate(seq: u32) -> (u32, u32) {
    (seq / CHUNK, seq & (CHUNK - 1))
}

impl Reorder {
    /// A buffer without an owner.
    pub const FREE: Reorder = Reorder {
        owner: 0,
        moved_ns: 0,
        busy: 0,
        edge: 0,
        low: 0,
        held: 0,
        end: 0,
        packets: 0,
        packet_bytes: 0,
        count: 0,
        zero: 0,
        reserved: 0,
        ranges: [Range { start: 0, end: 0 }; RANGES],
        places: [0; PLACES],
    };

    /// Starts over with nothing kept: all before `edge`, where the parser stands, has arrived and nothing beyond.
    #[inline(always)]
    pub fn begin(&mut self, edge: u32, now_ns: u64) {
        self.edge = edge;
        self.low = edge / CHUNK;
        self.count = 0;
        self.moved_ns = now_ns;
    }

    /// Whether no hole is left.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.count == 0
    }

    /// Bytes that have arrived without a hole from where the frame parser stands.
    #[inline(always)]
    pub fn run(&self, parsed: u32) -> u32 {
        if before(parsed, self.edge) { self.edge.wrapping_sub(parsed) } else { 0 }
    }

    /// TCP has all before `rcv_nxt`, seen here or not. What the parser is still to see counts by what is kept of it.
    #[inline(always)]
    pub fn advance(&self, parsed: u32, rcv_nxt: u32) -> Range {
        Range { start: self.edge, end: earlier(parsed, rcv_nxt) }
    }

    /// Forgets the chunk that lies furthest back, if the parser is past it; `Some` of what stood in its place. `None`
    /// where nothing is to be forgotten.
    #[inline(always)]
    pub fn shed(&mut self, parsed: u32) -> Option<u16> {
        if self.low == parsed / CHUNK {
            return None;
        }
        if self.held == 0 {
            self.low = parsed / CHUNK;
            return None;
        }
        Some(self.take())
    }

    /// The same wherever the parser is.
    #[inline(always)]
    pub fn spill(&mut self) -> Option<u16> {
        if self.held == 0 { None } else { Some(self.take()) }
    }

    #[inline(always)]
    fn take(&mut self) -> u16 {
        let place = place(self.low);
        let chunk = self.places[place];
        self.places[place] = 0;
        self.low = self.low.wrapping_add(1) & (u32::MAX / CHUNK);
        if chunk != 0 {
            self.held = self.held.wrapping_sub(1);
        }
        chunk
    }
}

/// A range on its way into the ranges of a buffer: [`Arrival::step`] until it returns `false`, at most [`RANGES`] times and
/// once more, then [`Arrival::end`].
///
/// Ranges do not touch each other, so none touches another through the new one only, and one pass is enough.
pub struct Arrival<'a> {
    buffer: &'a mut Reorder,
    new: Range,
    at: u32,
}

impl<'a> Arrival<'a> {
    /// The bytes of `range` have arrived.
    #[inline(always)]
    pub fn new(buffer: &'a mut Reorder, range: Range) -> Self {
        let at = buffer.zero;
        Self { buffer, new: range, at }
    }

    /// Whether there is anything to do.
    #[inline(always)]
    pub fn begin(&mut self) -> bool {
        if before(self.new.start, self.buffer.edge) {
            self.new.start = self.buffer.edge;
        }
        before(self.new.start, self.new.end)
    }

    /// Merges the next range, if it touches the new one.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let buffer = &mut *self.buffer;
        if self.at >= buffer.count {
            return false;
        }
        let at = self.at as usize & (RANGES - 1);
        let range = buffer.ranges[at];
        if before(self.new.end, range.start) || before(range.end, self.new.start) {
            self.at += 1;
            return true;
        }
        if before(range.start, self.new.start) {
            self.new.start = range.start;
        }
        if before(self.new.end, range.end) {
            self.new.end = range.end;
        }
        buffer.count -= 1;
        buffer.ranges[at] = buffer.ranges[buffer.count as usize & (RANGES - 1)];
        true
    }

    /// Moves the edge, or adds what is now one range. Returns `false` where that would be one too many.
    #[inline(always)]
    pub fn end(&mut self, now_ns: u64) -> bool {
        let buffer = &mut *self.buffer;
        if !before(buffer.edge, self.new.start) {
            buffer.edge = self.new.end;
            buffer.moved_ns = now_ns;
            return true;
        }
        let count = buffer.count;
        if count >= RANGES as u32 {
            return false;
        }
        buffer.ranges[count as usize & (RANGES - 1)] = self.new;
        buffer.count = count + 1;
        true
    }
}

impl Range {
    /// From `start` up to `end`.
    #[inline(always)]
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }
}

/// Looks for where the parser can go on: [`Resume::step`] until it returns `false`, at most [`RANGES`] times and once more,
/// then [`Resume::end`].
pub struct Resume<'a> {
    buffer: &'a Reorder,
    parsed: u32,
    to: u32,
    at: u32,
}

impl<'a> Resume<'a> {
    /// What lies between `parsed`, where the parser stands, and `to` will not come, other than what is kept.
    #[inline(always)]
    pub fn new(buffer: &'a Reorder, parsed: u32, to: u32) -> Self {
        Self { buffer, parsed, to, at: buffer.zero }
    }

    /// Looks at the next range.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        if self.at >= self.buffer.count {
            return false;
        }
        let range = self.buffer.ranges[self.at as usize & (RANGES - 1)];
        self.at += 1;
        // One that the parser is in the middle of says that there is nothing missing before it.
        if before(self.parsed, range.end) && before(range.start, self.to) {
            self.to = if before(range.start, self.parsed) { self.parsed } else { range.start };
        }
        true
    }

    /// Where the parser goes on.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.to
    }
}

#[cfg(test)]
mod tests;
