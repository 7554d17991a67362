//! What arrived behind a hole, kept until the hole is filled.
//!
//! Ingress shows segments in the order of their arrival. Behind a lost or late one, TCP keeps what comes in its
//! out-of-order queue, and shows it to nobody again when the hole is filled; so the frame parser, which needs every
//! header byte, keeps a copy. One buffer serves a connection while it has holes: a ring of [`WINDOW`] bytes indexed by
//! sequence number, and up to [`RANGES`] ranges that say which of them are there.
//!
//! The buffer also knows how long the stream waited, which is what head-of-line blocking cost the receiver: from the
//! first segment behind a hole until no hole is left.

use crate::abi::Direction;
use crate::tracker::{self, Clock, Payload};

/// Bytes behind the first hole that can be kept, a power of two.
pub const WINDOW: u32 = 32 << 10;
/// Bytes that are copied in one go, a power of two.
pub const CHUNK: u32 = 4 << 10;
/// Ranges between holes.
pub const RANGES: usize = 4;
/// Buffers in the table: connections that can have holes at the same time, a power of two.
pub const BUFFERS: usize = 128;

/// The buffers that a socket may claim, by its cookie: a few, so that two sockets rarely want the same.
#[inline(always)]
pub const fn choice(cookie: u64, attempt: u32) -> u32 {
    (cookie as u32).wrapping_mul(CHOICES).wrapping_add(attempt) & (BUFFERS as u32 - 1)
}

/// How many those are.
pub const CHOICES: u32 = 4;

/// Sequence numbers from `start` up to, not including, `end`; empty where they are equal.
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
    /// `bpf_ktime_get_ns` when it was last used, for taking it from an owner that is gone.
    pub used_ns: u64,
    /// Everything before this sequence number has arrived.
    pub edge: u32,
    /// Nothing before this sequence number is kept: it was parsed, or missed for good.
    pub unkept: u32,
    /// What has arrived beyond it: disjoint, not touching, in no order.
    pub ranges: [Range; RANGES],
    /// The ring. The slack lets the verifier see that a chunk fits wherever it begins.
    pub bytes: [u8; (WINDOW + CHUNK) as usize],
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
    /// It goes to the tracker, which loses its boundary: what is missing will not come, or it cannot be kept.
    GiveUp,
}

/// `a` lies before `b` in sequence space (RFC 9293 section 3.4).
#[inline(always)]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Reorder {
    /// A buffer without an owner.
    pub const FREE: Reorder = Reorder {
        owner: 0,
        used_ns: 0,
        edge: 0,
        unkept: 0,
        ranges: [Range { start: 0, end: 0 }; RANGES],
        bytes: [0; (WINDOW + CHUNK) as usize],
    };

    /// Starts over: all before `edge` has arrived and nothing beyond.
    #[inline(always)]
    pub fn begin(&mut self, edge: u32) {
        self.edge = edge;
        self.unkept = edge;
        self.ranges = [Range::default(); RANGES];
    }

    /// Takes note of a segment of `direction` from `start` to `end`, not empty. `rcv_nxt` is TCP's own edge: what lies
    /// before it and was not seen here will not come again.
    #[inline(always)]
    pub fn admit(&mut self, direction: &Direction, start: u32, end: u32, rcv_nxt: u32) -> Verdict {
        let parsed = direction.next_seq;
        let missed = before(parsed, rcv_nxt);
        if missed {
            // What is kept has a gap before it that nothing will fill.
            self.begin(rcv_nxt);
        } else if before(self.edge, rcv_nxt) {
            self.arrive(self.edge, rcv_nxt);
        }
        let noted = self.arrive(start, end);
        if !before(parsed, end) {
            Verdict::Known
        } else if !before(parsed, start) || tracker::can_bridge(direction, start.wrapping_sub(parsed)) {
            Verdict::Parse
        } else if missed || !noted || end.wrapping_sub(parsed) > WINDOW {
            Verdict::GiveUp
        } else {
            Verdict::Keep
        }
    }

    /// Notes that the bytes from `start` to `end` have arrived. Returns `false` where that would need another range.
    #[inline(always)]
    fn arrive(&mut self, start: u32, end: u32) -> bool {
        if before(self.edge, start) {
            return self.insert(Range { start, end });
        }
        if before(self.edge, end) {
            self.edge = end;
            for range in &mut self.ranges {
                if range.start == range.end || before(self.edge, range.start) {
                    continue;
                }
                if before(self.edge, range.end) {
                    self.edge = range.end;
                }
                *range = Range::default();
            }
        }
        true
    }

    /// One pass is enough: ranges do not touch each other, so none touches another through the new one only.
    #[inline(always)]
    fn insert(&mut self, mut new: Range) -> bool {
        let mut free = None;
        for (index, range) in self.ranges.iter_mut().enumerate() {
            if range.start != range.end {
                if before(new.end, range.start) || before(range.end, new.start) {
                    continue;
                }
                if before(range.start, new.start) {
                    new.start = range.start;
                }
                if before(new.end, range.end) {
                    new.end = range.end;
                }
                *range = Range::default();
            }
            free = Some(index);
        }
        match free {
            Some(index) => {
                self.ranges[index & (RANGES - 1)] = new;
                true
            }
            None => false,
        }
    }

    /// Whether no hole is left.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.ranges.iter().all(|range| range.start == range.end)
    }

    /// Bytes that have arrived without a hole from `parsed` on, where the frame parser stands. Behind them is a hole, as
    /// ranges do not touch.
    #[inline(always)]
    pub fn run(&self, parsed: u32) -> u32 {
        if before(parsed, self.unkept) {
            return 0;
        }
        if before(parsed, self.edge) {
            return self.edge.wrapping_sub(parsed);
        }
        for range in &self.ranges {
            if !before(parsed, range.start) && before(parsed, range.end) {
                return range.end.wrapping_sub(parsed);
            }
        }
        0
    }

    /// Where the next bytes of a segment go, of which `seq` is the next and `left` are left: index in the ring, and how
    /// many fit there in one go (1 to [`CHUNK`]).
    #[inline(always)]
    pub const fn place(seq: u32, left: u32) -> (usize, u32) {
        let at = seq & (WINDOW - 1);
        let to_end = WINDOW - at;
        let most = if to_end < CHUNK { to_end } else { CHUNK };
        (at as usize, if left < most { left } else { most })
    }
}

/// Kept bytes behind the tracker's interface.
pub struct Kept<'a, C> {
    bytes: &'a [u8; (WINDOW + CHUNK) as usize],
    seq: u32,
    clock: C,
}

impl<'a, C> Kept<'a, C> {
    /// The bytes of a buffer's ring from sequence number `seq` on.
    #[inline(always)]
    pub fn new(buffer: &'a Reorder, seq: u32, clock: C) -> Self {
        Self { bytes: &buffer.bytes, seq, clock }
    }
}

impl<C: Clock> Payload for Kept<'_, C> {
    // A call chain has 512 bytes of stack, and here is the longest; the next packet is a chance as good.
    const SEARCHED: bool = false;

    #[inline(always)]
    fn load(&self, offset: u32, to: &mut [u8; 16], _len: u32) -> bool {
        let start = self.seq.wrapping_add(offset);
        // All 16, wanted or not: what lies behind is another part of the ring, and 16 branches would have the verifier
        // walk 16 ways.
        for (index, byte) in to.iter_mut().enumerate() {
            *byte = self.bytes[(start.wrapping_add(index as u32) & (WINDOW - 1)) as usize];
        }
        true
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(edge: u32) -> Box<Reorder> {
        let mut buffer = Box::new(Reorder::FREE);
        buffer.begin(edge);
        buffer
    }

    #[test]
    fn ranges_merge_and_the_edge_moves_over_them() {
        let mut holes = buffer(100);
        assert!(holes.arrive(200, 300) && holes.arrive(400, 500) && holes.arrive(300, 350));
        assert_eq!((holes.run(200), holes.run(100), holes.run(400), holes.run(350)), (150, 0, 100, 0));
        assert!(holes.arrive(340, 410), "joins two ranges");
        assert_eq!(holes.run(200), 300);
        assert!(!holes.is_whole());
        assert!(holes.arrive(50, 220));
        assert_eq!((holes.edge, holes.is_whole(), holes.run(100)), (500, true, 400));
    }

    #[test]
    fn there_are_so_many_ranges_and_no_more() {
        let mut holes = buffer(0);
        for index in 0..RANGES as u32 {
            assert!(holes.arrive(100 * index + 10, 100 * index + 20));
        }
        assert!(!holes.arrive(1_000, 1_010));
        assert!(holes.arrive(20, 110), "touches two");
        assert!(holes.arrive(1_000, 1_010));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut holes = buffer(u32::MAX - 9);
        assert!(holes.arrive(5, 20) && holes.arrive(u32::MAX - 4, 2));
        assert_eq!((holes.run(u32::MAX - 4), holes.run(5)), (7, 15));
        assert!(holes.arrive(u32::MAX - 9, u32::MAX - 3) && holes.arrive(2, 5));
        assert_eq!((holes.edge, holes.is_whole()), (20, true));
    }
}
