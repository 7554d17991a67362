//! One packet's way through the tracker.

use core::ffi::c_void;

use agent_ebpf::abi::{Direction, Tally};
use agent_ebpf::tracker::{Clock, Payload, Tracker};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_loop;

use super::segment::{Bytes, Segment};

/// Counts a packet as the wire sees it.
#[inline(always)]
pub(super) fn wire(
    skb: *mut __sk_buff,
    direction: &mut Direction,
    totals: &mut impl Tally,
    segment: &Segment,
) {
    let (packets, bytes) = on_the_wire(skb, segment);
    direction.counters.wire(packets, bytes);
    totals.wire(packets, bytes);
}

/// Packets and bytes that a packet is on the wire.
#[inline(always)]
pub(super) fn on_the_wire(skb: *mut __sk_buff, segment: &Segment) -> (u64, u64) {
    // SAFETY: the program's context.
    let (segments, len) = unsafe { ((*skb).gso_segs, (*skb).len) };
    let packets = if segments == 0 { 1 } else { u64::from(segments) };
    // Each segment of a GSO packet gets headers of its own on the wire.
    let header = segment.offset - segment.surplus;
    (packets, u64::from(len - segment.surplus) + (packets - 1) * u64::from(header))
}

/// Follows a packet's payload as far as that is quick, which is to its end for most packets: they carry one data frame. Returns
/// where the rest begins, if there is any, for [`rest`]. On hosts that guard returns against speculation every call costs ten
/// nanoseconds.
#[inline(always)]
pub(super) fn parse<C: Clock + Default, T: Tally>(
    skb: *mut __sk_buff,
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
    segment: &Segment,
) -> Option<u32> {
    let payload = Bytes::<C>::of(skb, segment);
    let mut tracker = Tracker::new(direction, other, totals, payload);
    (tracker.begin(segment.seq, segment.len) && tracker.fast()).then_some(tracker.offset)
}

/// Finds out what of a packet is new; returns where it begins, for [`rest`].
#[inline(always)]
pub(super) fn begin<C: Clock + Default, T: Tally>(
    skb: *mut __sk_buff,
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
    segment: &Segment,
) -> Option<u32> {
    let mut tracker = Tracker::new(direction, other, totals, Bytes::<C>::of(skb, segment));
    tracker.begin(segment.seq, segment.len).then_some(tracker.offset)
}

/// What is left of a packet's payload: where it lies in the packet, and from where to where it is to be followed.
#[derive(Clone, Copy)]
pub(super) struct Rest {
    base: u32,
    offset: u32,
    len: u32,
}

impl Rest {
    #[inline(always)]
    pub(super) fn new(segment: &Segment, offset: u32) -> Self {
        Self { base: segment.offset, offset, len: segment.len }
    }

    /// As numbers, which a global function takes.
    #[inline(always)]
    pub(super) fn pack(self) -> (u32, u64) {
        (self.base, u64::from(self.offset) << 32 | u64::from(self.len))
    }

    #[inline(always)]
    pub(super) fn unpack(base: u32, rest: u64) -> Self {
        Self { base, offset: (rest >> 32) as u32, len: rest as u32 }
    }
}

/// Follows what is left, by as many turns as it takes.
#[inline(always)]
pub(super) fn rest<C: Clock + Default, T: Tally>(
    skb: *mut __sk_buff,
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
    rest: Rest,
) {
    let mut tracker = Tracker::new(direction, other, totals, Bytes::<C>::at(skb, rest.base));
    (tracker.offset, tracker.len) = (rest.offset, rest.len);
    if tracker.offset < tracker.len {
        run(&mut tracker);
    }
}

/// Follows bytes that are not a packet's.
#[inline(always)]
pub(super) fn parse_kept<T: Tally>(
    payload: impl Payload,
    (seq, len): (u32, u32),
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
) {
    let mut tracker = Tracker::new(direction, other, totals, payload);
    if tracker.begin(seq, len) {
        run(&mut tracker);
    }
}

#[inline(always)]
fn run<P: Payload, T: Tally>(tracker: &mut Tracker<'_, P, T>) {
    // The kernel takes no more (BPF_MAX_LOOPS, or it does not loop at all). Only kept bytes are so many, and they take a turn
    // each at the most: nothing is searched there.
    const MOST: u32 = 1 << 23;
    let turns = tracker.turns();
    let turns = if turns < MOST { turns } else { MOST };
    // SAFETY: the callback's context outlives the call; it returns 1 when nothing is left.
    unsafe {
        bpf_loop(turns, turn::<P, T> as *mut c_void, (&raw mut *tracker).cast(), 0);
    }
}

/// One turn of the tracker, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn turn<P: Payload, T: Tally>(_index: u64, tracker: *mut Tracker<'_, P, T>) -> i64 {
    // SAFETY: `run` passes a live tracker that nothing else refers to meanwhile.
    let more = unsafe { (*tracker).step() };
    i64::from(!more)
}
