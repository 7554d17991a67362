//! Adding to counters, alone or beside others.

use core::sync::atomic::{AtomicU64, Ordering};

use super::counters::{Counters, DirectionTotals, FRAME_SLOTS, RTT_BUCKETS, rtt_bucket};

/// Sums that grow with what a direction carries.
pub trait Tally {
    /// A frame with its complete header.
    fn frame(&mut self, slot: usize, header_bytes: u64);
    /// A data frame with RSV1.
    fn compressed(&mut self);
    /// Payload bytes of a data frame.
    fn payload(&mut self, bytes: u64);
    /// Payload bytes of a control frame.
    fn control(&mut self, bytes: u64);
    /// Bytes of unknown meaning.
    fn unparsed(&mut self, bytes: u64);
    /// Packets on the wire and their bytes.
    fn wire(&mut self, packets: u64, bytes: u64);
    /// A pong in this direction answered a ping that left so long ago.
    fn round_trip(&mut self, nanoseconds: u64);
}

/// For counters that nobody else writes meanwhile.
impl Tally for Counters {
    #[inline(always)]
    fn frame(&mut self, slot: usize, header_bytes: u64) {
        self.frames[slot & (FRAME_SLOTS - 1)] += 1;
        self.header_bytes += header_bytes;
    }

    #[inline(always)]
    fn compressed(&mut self) {
        self.compressed_frames += 1;
    }

    #[inline(always)]
    fn payload(&mut self, bytes: u64) {
        self.payload_bytes += bytes;
    }

    #[inline(always)]
    fn control(&mut self, bytes: u64) {
        self.control_bytes += bytes;
    }

    #[inline(always)]
    fn unparsed(&mut self, bytes: u64) {
        self.unparsed_bytes += bytes;
    }

    #[inline(always)]
    fn wire(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.packet_bytes += bytes;
    }

    /// A connection keeps its last round trip instead.
    #[inline(always)]
    fn round_trip(&mut self, _nanoseconds: u64) {}
}

impl Tally for DirectionTotals {
    #[inline(always)]
    fn frame(&mut self, slot: usize, header_bytes: u64) {
        self.counters.frame(slot, header_bytes);
    }

    #[inline(always)]
    fn compressed(&mut self) {
        self.counters.compressed();
    }

    #[inline(always)]
    fn payload(&mut self, bytes: u64) {
        self.counters.payload(bytes);
    }

    #[inline(always)]
    fn control(&mut self, bytes: u64) {
        self.counters.control(bytes);
    }

    #[inline(always)]
    fn unparsed(&mut self, bytes: u64) {
        self.counters.unparsed(bytes);
    }

    #[inline(always)]
    fn wire(&mut self, packets: u64, bytes: u64) {
        self.counters.wire(packets, bytes);
    }

    #[inline(always)]
    fn round_trip(&mut self, nanoseconds: u64) {
        self.rtt[rtt_bucket(nanoseconds)] += 1;
    }
}

/// [`DirectionTotals`] that may be added to from an interrupt in the middle of an addition: the sums by listener on
/// egress, where a program in process context is interrupted by one that sends for another socket on the same CPU.
#[repr(C)]
#[derive(Debug, Default)]
pub struct SharedTotals {
    frames: [AtomicU64; FRAME_SLOTS],
    payload_bytes: AtomicU64,
    control_bytes: AtomicU64,
    header_bytes: AtomicU64,
    unparsed_bytes: AtomicU64,
    compressed_frames: AtomicU64,
    packets: AtomicU64,
    packet_bytes: AtomicU64,
    rtt: [AtomicU64; RTT_BUCKETS],
}

// The two are views of the same memory.
const _: () = assert!(size_of::<SharedTotals>() == size_of::<DirectionTotals>());

/// Adds without asking for the sum, which is one instruction.
#[inline(always)]
fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Tally for SharedTotals {
    #[inline(always)]
    fn frame(&mut self, slot: usize, header_bytes: u64) {
        add(&self.frames[slot & (FRAME_SLOTS - 1)], 1);
        add(&self.header_bytes, header_bytes);
    }

    #[inline(always)]
    fn compressed(&mut self) {
        add(&self.compressed_frames, 1);
    }

    #[inline(always)]
    fn payload(&mut self, bytes: u64) {
        add(&self.payload_bytes, bytes);
    }

    #[inline(always)]
    fn control(&mut self, bytes: u64) {
        add(&self.control_bytes, bytes);
    }

    #[inline(always)]
    fn unparsed(&mut self, bytes: u64) {
        add(&self.unparsed_bytes, bytes);
    }

    #[inline(always)]
    fn wire(&mut self, packets: u64, bytes: u64) {
        add(&self.packets, packets);
        add(&self.packet_bytes, bytes);
    }

    #[inline(always)]
    fn round_trip(&mut self, nanoseconds: u64) {
        add(&self.rtt[rtt_bucket(nanoseconds)], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_views_count_alike_and_lie_alike() {
        fn fill(tally: &mut impl Tally) {
            tally.frame(5, 1);
            tally.compressed();
            tally.payload(2);
            tally.control(3);
            tally.unparsed(4);
            tally.wire(5, 6);
            tally.round_trip(70_000);
        }
        let (mut plain, mut shared) = (DirectionTotals::default(), SharedTotals::default());
        fill(&mut plain);
        fill(&mut shared);
        // The numbers in the order of the fields, without their names.
        let numbers = |text: String| -> Vec<u64> {
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
        };
        assert_eq!(numbers(format!("{plain:?}")), numbers(format!("{shared:?}")));
        assert_eq!(plain.rtt.iter().sum::<u64>(), 1);
    }
}
