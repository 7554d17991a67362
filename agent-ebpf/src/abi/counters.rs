//! Counters: what one direction of one connection, or of all connections of a listener, has carried.

/// Slots in [`Counters::frames`].
pub const FRAME_SLOTS: usize = 8;

/// The slots of opcodes 0 to 15, a nibble each, opcode 0 in the lowest.
const SLOTS: u64 = 0x7777_7654_3333_3210;

/// The slot of an opcode in [`Counters::frames`]: continuation 0, text 1, binary 2, close 4, ping 5, pong 6. Slots 3
/// and 7 belong to reserved opcodes (RFC 6455 section 5.2) and stay 0: those frames are never counted.
///
/// A look-up that ends in a mask, because verifiers before 6.10's take the result of `|` for unbounded unless one side
/// is a constant, and the compiler drops a mask behind it that changes nothing.
#[inline(always)]
pub const fn frame_slot(opcode: u8) -> usize {
    (SLOTS >> ((opcode & 15) * 4) & 7) as usize
}

/// What one direction carried. `payload + control + header + unparsed` is every byte of the TCP stream behind the 101.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Frames by opcode, see [`frame_slot`]. A frame counts once its header is complete.
    pub frames: [u64; FRAME_SLOTS],
    /// Payload bytes of data frames (text, binary, continuation), headers not included.
    pub payload_bytes: u64,
    /// Payload bytes of control frames (close, ping, pong), headers not included.
    pub control_bytes: u64,
    /// Frame header bytes, masking keys included.
    pub header_bytes: u64,
    /// Bytes that passed while the tracker did not know where frames begin.
    pub unparsed_bytes: u64,
    /// Data frames with RSV1 set: compressed by permessage-deflate (RFC 7692 section 6).
    pub compressed_frames: u64,
    /// IP packets as the wire would see them (a GSO packet counts as its segments), retransmissions and pure ACKs
    /// included.
    pub packets: u64,
    /// Bytes of those packets from the IP header on; link-layer framing is not included.
    pub packet_bytes: u64,
}

/// What identifies a group of connections that share totals: where a server accepts them or a client sends them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port of a server's connections, remote port of a client's.
    pub port: u16,
    /// [`Role`](super::Role) as a number.
    pub role: u16,
}

/// Buckets of a histogram of round trips, see [`rtt_bound_ns`].
pub const RTT_BUCKETS: usize = 32;

/// The bucket of a round trip: one for each power of two of 1.024 µs, in an order of its own.
///
/// The logarithm is a perfect hash of the value with all bits below the highest set (de Bruijn's sequence). Its order
/// does not matter, and it ends in a shift, which shows the verifier the bound; LLVM drops a mask it knows to be idle.
#[inline(always)]
pub(super) const fn rtt_bucket(nanoseconds: u64) -> usize {
    let units = nanoseconds >> 10;
    let mut bits = if units < u32::MAX as u64 { units as u32 } else { u32::MAX };
    bits |= bits >> 1;
    bits |= bits >> 2;
    bits |= bits >> 4;
    bits |= bits >> 8;
    bits |= bits >> 16;
    (bits.wrapping_mul(0x07c4_acdd) >> 27) as usize
}

/// A bucket holds round trips below this that fit into no other bucket with a smaller bound; `None` has no bound.
pub const fn rtt_bound_ns(bucket: usize) -> Option<u64> {
    let mut power = 1;
    while power < 32 {
        if rtt_bucket((1024 << power) - 1) == bucket {
            return Some(1024 << power);
        }
        power += 1;
    }
    None
}

/// What one direction of all of a listener's connections carried.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionTotals {
    /// Frames, bytes, packets.
    pub counters: Counters,
    /// Pongs of this direction by the time since the ping they answered left, see [`rtt_bound_ns`].
    pub rtt: [u64; RTT_BUCKETS],
}

/// Sums over all connections of a listener since the agent attached, closed ones included.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenerTotals {
    /// From the peers to this host's socket.
    pub received: DirectionTotals,
    /// From this host's socket to the peers.
    pub sent: DirectionTotals,
    /// What was sent while `sent` was being added to on the same CPU; belongs to `sent`, and is added to atomically.
    pub nested: DirectionTotals,
    /// Upgrades seen.
    pub opened: u64,
    /// Connections older than the agent that were recognised by their frames.
    pub adopted: u64,
    /// Sockets of this listener that were destroyed.
    pub closed: u64,
    /// Segments this host sent again (`tcp_retransmit_skb`).
    pub retransmitted: u64,
    /// Times a receive path waited for a lost or late segment.
    pub stalls: u64,
    /// How long those waits were together.
    pub stalled_ns: u64,
    /// 1 while this CPU adds to `sent`.
    pub busy: u64,
}

impl Counters {
    /// Adds another count to this one.
    pub fn add(&mut self, other: &Counters) {
        for (slot, count) in self.frames.iter_mut().zip(other.frames) {
            *slot += count;
        }
        self.payload_bytes += other.payload_bytes;
        self.control_bytes += other.control_bytes;
        self.header_bytes += other.header_bytes;
        self.unparsed_bytes += other.unparsed_bytes;
        self.compressed_frames += other.compressed_frames;
        self.packets += other.packets;
        self.packet_bytes += other.packet_bytes;
    }
}

impl DirectionTotals {
    /// Adds another part to this one.
    pub fn add(&mut self, other: &DirectionTotals) {
        self.counters.add(&other.counters);
        for (bucket, count) in self.rtt.iter_mut().zip(other.rtt) {
            *bucket += count;
        }
    }
}

impl ListenerTotals {
    /// Adds another CPU's part to this one; what was set apart as nested becomes part of `sent`.
    pub fn add(&mut self, other: &ListenerTotals) {
        self.received.add(&other.received);
        self.sent.add(&other.sent);
        self.sent.add(&other.nested);
        self.opened += other.opened;
        self.adopted += other.adopted;
        self.closed += other.closed;
        self.retransmitted += other.retransmitted;
        self.stalls += other.stalls;
        self.stalled_ns += other.stalled_ns;
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        (self.opened + self.adopted).saturating_sub(self.closed)
    }
}

/// Indices into the `STATS` map: things that went by unreported, so that no loss is silent.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stat {
    /// Life-cycle events the ring buffer had no room for.
    EventsLost = 0,
    /// Connections whose listener found no slot; their totals are in slot 0.
    ListenersFull = 1,
    /// Upgrades that could not be tracked because socket storage was refused.
    StorageRefused = 2,
    /// 101 responses whose headers were not understood within the scan limit.
    HandshakesUnparsed = 3,
    /// Packets that found their direction in use on another CPU, and no place to be parked.
    Contended = 4,
    /// Segments behind a hole that were not kept, or not all of them: there was no room.
    ReorderFull = 5,
    /// Segments out of order that TCP is going to refuse.
    Refused = 6,
    /// Refused upgrades of more kinds (listener and status) than are kept.
    RefusalsUnknown = 7,
    /// Upgrades whose heads found no place until their answer: what they say is not known.
    HeadsLost = 8,
    /// Answers that say 101 to no request that was seen to ask for it: they make no connection.
    UnaskedUpgrades = 9,
    /// Connections with a hole whose kept bytes made room for others.
    ReorderSpilled = 10,
    /// Holes that TCP has filled with what was not seen here.
    Missed = 11,
}

impl Stat {
    /// Number of statistics.
    pub const COUNT: usize = 12;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_defined_opcode_has_a_slot_of_its_own() {
        let slots: std::collections::BTreeSet<_> =
            [0u8, 1, 2, 8, 9, 10].map(frame_slot).into_iter().collect();
        assert_eq!(slots.into_iter().collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6]);
        assert!((0..=255u8).all(|opcode| frame_slot(opcode) < FRAME_SLOTS));
    }

    #[test]
    fn every_bucket_has_a_bound_of_its_own_and_keeps_it() {
        let mut bounds: Vec<u64> =
            (0..RTT_BUCKETS).map(|bucket| rtt_bound_ns(bucket).unwrap_or(u64::MAX)).collect();
        bounds.sort_unstable();
        bounds.dedup();
        assert_eq!(bounds.len(), RTT_BUCKETS);
        for nanoseconds in [0, 1023, 1024, 2047, 2048, 1_000_000, 50_000_000, 1 << 32, 1 << 41, 1 << 50] {
            let bound = rtt_bound_ns(rtt_bucket(nanoseconds)).unwrap_or(u64::MAX);
            let smallest = bounds.iter().find(|bound| nanoseconds < **bound);
            assert_eq!(smallest, Some(&bound), "{nanoseconds}");
        }
    }
}
