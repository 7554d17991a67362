//! What the receiving end of one direction has seen of its stream.

use std::ops::Range;

use super::segment::Segment;

/// Bytes of a stream kept for the next segment to repeat.
const KEPT: usize = 64;
/// Room before it for a segment that begins earlier, such as a probe.
const FIRST: u64 = 1 << 32;

/// Positions do not wrap where sequence numbers do; the first byte that was seen is at [`FIRST`].
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// Sequence number that position `edge` has.
    edge_seq: u32,
    /// Everything before has arrived.
    edge: u64,
    begun: bool,
    /// How often its sequence numbers have begun anew.
    pub(crate) wraps: u64,
    /// What arrived beyond, in order and apart from each other.
    beyond: Vec<Range<u64>>,
    /// The last bytes that were sent, and the position behind them.
    recent: (u64, Vec<u8>),
}

/// How far a stream is from being in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disorder {
    pub(crate) holes: usize,
    /// From the first hole to the last byte that arrived.
    pub(crate) bytes: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            edge_seq: 0,
            edge: FIRST,
            begun: false,
            wraps: 0,
            beyond: Vec::new(),
            recent: (FIRST, Vec::new()),
        }
    }
}

impl Stream {
    /// Notes what a sender sends, new or again.
    pub(crate) fn sent(&mut self, segment: &Segment, payload: &[u8]) {
        if !self.begun {
            (self.begun, self.edge_seq) = (true, segment.seq);
        }
        let end = self.position(segment.seq) + payload.len() as u64;
        if end > self.recent.0 {
            self.recent = (end, payload[payload.len().saturating_sub(KEPT)..].to_vec());
        }
    }

    /// What the stream has right before `segment`, as far as it is known; empty where it is not.
    pub(crate) fn before(&self, segment: &Segment) -> &[u8] {
        let (end, bytes) = &self.recent;
        if self.begun && self.position(segment.seq) == *end { bytes } else { &[] }
    }

    /// Notes an arrival and says how the stream looks now.
    pub(crate) fn arrived(&mut self, segment: &Segment) -> Disorder {
        let start = self.position(segment.seq);
        let new = start.max(self.edge)..start + segment.len() as u64;
        if !new.is_empty() {
            self.beyond.push(new);
            self.beyond.sort_by_key(|range| range.start);
            let mut merged: Vec<Range<u64>> = Vec::new();
            for range in self.beyond.drain(..) {
                match merged.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => merged.push(range),
                }
            }
            self.beyond = merged;
            if self.beyond[0].start == self.edge {
                let first = self.beyond.remove(0);
                let (next, wrapped) = self.edge_seq.overflowing_add((first.end - self.edge) as u32);
                self.edge_seq = next;
                self.wraps += u64::from(wrapped);
                self.edge = first.end;
            }
        }
        let last = self.beyond.last().map_or(self.edge, |range| range.end);
        Disorder { holes: self.beyond.len(), bytes: last - self.edge }
    }

    /// Position of a sequence number, which is never half the number space away.
    fn position(&self, seq: u32) -> u64 {
        let ahead = seq.wrapping_sub(self.edge_seq) as i32;
        self.edge.saturating_add_signed(i64::from(ahead))
    }
}
