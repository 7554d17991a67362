//! A segment's way into chunks.

use super::{CHUNK, PLACES, SLACK, WINDOW, locate, place};

/// A segment on its way into chunks.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// Chunk of the parser's position.
    origin: u32,
    /// Start and end of the segment, counted from that chunk's first byte.
    start: u32,
    end: u32,
    /// Chunk that comes next, counted from there too.
    next: u32,
}

/// A part of a segment that goes into one chunk.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// The chunk's place in [`Reorder::places`].
    pub place: usize,
    /// Where in the chunk, less than [`CHUNK`] + [`SLACK`].
    pub at: u32,
    /// Where in the segment.
    pub from: u32,
    /// How many bytes; up to [`CHUNK`] + [`SLACK`].
    pub len: u32,
}

impl Keeping {
    /// The segment of `len` bytes at `seq`, beyond where the parser stands. `None` where it lies beyond the window.
    #[inline(always)]
    pub const fn new(parsed: u32, seq: u32, len: u32) -> Option<Self> {
        let (origin, at) = locate(parsed);
        let start = seq.wrapping_sub(parsed).wrapping_add(at);
        let end = start.wrapping_add(len);
        // One chunk less: what lies in the slack of the last is in a chunk that is not there.
        if start > WINDOW || len > WINDOW || end > WINDOW - CHUNK {
            return None;
        }
        Some(Self { origin, start, end, next: start.saturating_sub(SLACK) / CHUNK })
    }

    /// The next piece; `None` behind the last.
    #[inline(always)]
    pub const fn piece(&self) -> Option<Piece> {
        let first = self.next * CHUNK;
        if first >= self.end {
            return None;
        }
        let last = first + CHUNK + SLACK;
        let start = if self.start > first { self.start } else { first };
        let end = if self.end < last { self.end } else { last };
        Some(Piece {
            place: place(self.origin.wrapping_add(self.next)),
            at: start - first,
            from: start - self.start,
            len: end - start,
        })
    }

    /// The piece is in its chunk.
    #[inline(always)]
    pub const fn kept(&mut self) {
        // The mask shows the verifier that this number does not grow from turn to turn.
        self.next = (self.next + 1) & (2 * PLACES as u32 - 1);
    }

    /// Bytes of the segment that are in chunks, if the next piece is not.
    #[inline(always)]
    pub const fn taken(&self) -> u32 {
        let next = self.next * CHUNK;
        if next >= self.end { self.end - self.start } else { next.saturating_sub(self.start) }
    }
}
