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

/// Follows a packet's payload. Most packets carry one data frame: that is done inline, and only what is left pays for a
/// loop. On hosts that guard returns against speculation every call costs ten nanoseconds.
#[inline(always)]
pub(super) fn parse<C: Clock + Default, T: Tally>(
    skb: *mut __sk_buff,
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
    segment: &Segment,
) {
    let payload = Bytes::<C>::of(skb, segment);
    let mut tracker = Tracker::new(direction, other, totals, payload);
    if tracker.begin(segment.seq, segment.len) && tracker.fast() {
        // A copy, so that only the loop needs it in memory.
        let mut rest = tracker;
        run(&mut rest);
    }
}

/// The same off the beaten track, where less code and stack are worth more than a call.
#[inline(always)]
pub(super) fn parse_rare<T: Tally>(
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
