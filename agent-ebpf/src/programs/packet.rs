//! cgroup_skb, both directions: counts frames of tracked connections and recognises new ones. Always lets pass.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{Connection, Direction, SharedCounters, Stat, Tally};
use agent_ebpf::tracker::Tracker;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use super::flows::Flow;
use super::segment::{Bytes, Segment};
use super::upgrade;
use super::{kernel, maps};

/// Returned by every path: a packet program that returns 0 would drop traffic.
const PASS: i32 = 1;

/// Packets to the socket.
pub(super) const INGRESS: bool = true;
/// Packets from the socket.
pub(super) const EGRESS: bool = false;

#[cgroup_skb(ingress)]
fn headroom_ingress(ctx: SkBuffContext) -> i32 {
    packet::<INGRESS>(ctx.skb.skb);
    PASS
}

#[cgroup_skb(egress)]
fn headroom_egress(ctx: SkBuffContext) -> i32 {
    packet::<EGRESS>(ctx.skb.skb);
    PASS
}

/// Does nothing: what the kernel's hook itself costs, for `cargo xtask bench packet`.
#[cgroup_skb(egress)]
fn headroom_empty(_ctx: SkBuffContext) -> i32 {
    PASS
}

#[inline(always)]
fn packet<const IN: bool>(skb: *mut __sk_buff) {
    // SAFETY: the context's socket, null-checked; it may be a listener, which is then simply not tracked. Storage
    // values live as long as this program runs (RCU).
    unsafe {
        let sk: *mut c_void = (*skb).__bindgen_anon_2.sk.cast();
        if sk.is_null() {
            return;
        }
        let Some(segment) = Segment::of(skb) else { return };
        let flow = Flow::of::<IN>(skb, &segment);
        // A SYN on a settled flow is a port used again.
        if flow.is_settled() && !segment.syn {
            return;
        }
        let mut connection = maps::connection(sk);
        if connection.is_null() {
            if !flow.suspect(skb, &segment) {
                return;
            }
            connection = upgrade::begin::<IN>(sk, segment.seq);
            if connection.is_null() {
                return;
            }
        }
        if (*connection).role == 0 && !upgrade::scan::<IN>(skb, sk, connection, &segment) {
            return;
        }
        // Frames may stand right behind a head, in the very same packet; the tracker skips what is before them.
        tracked::<IN>(skb, sk, connection, segment);
    }
}

/// Follows one packet of a tracked connection.
#[inline(always)]
fn tracked<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    connection: *mut Connection,
    segment: Segment,
) {
    // SAFETY: `connection` is a socket storage value that lives as long as this program runs (RCU), and the totals are
    // this CPU's. `direction` is written by this hook only: egress runs under the socket's lock, ingress takes `busy`.
    // The other direction may change underneath; it is only read, field by field, and any mix of old and new values
    // is a valid state of the ping bookkeeping. Received totals are written in softirq context alone, which does not
    // interrupt itself; sent ones from process context as well, and so atomically.
    unsafe {
        let Some(totals) = maps::TOTALS.get_ptr_mut((*connection).listener) else {
            return;
        };
        let (received, sent) = (addr_of_mut!((*connection).received), addr_of_mut!((*connection).sent));
        if !IN {
            let totals: *mut SharedCounters = addr_of_mut!((*totals).sent).cast();
            follow(skb, &mut *sent, &*received, &mut *totals, segment);
            return;
        }
        // Ingress runs before TCP's own checks. A segment from beyond the window will be dropped there, and following it
        // would take every real one after it for a retransmission.
        let ahead = segment.seq.wrapping_sub((*received).next_seq) as i32 > 0;
        if ahead && !kernel::in_window(sk, segment.seq) {
            return;
        }
        if !enter(received) {
            maps::count(Stat::Contended);
            return;
        }
        follow(skb, &mut *received, &*sent, &mut (*totals).received, segment);
        leave(received);
    }
}

#[inline(always)]
fn follow<T: Tally>(
    skb: *mut __sk_buff,
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
    segment: Segment,
) {
    // SAFETY: the program's context.
    let (segments, len) = unsafe { ((*skb).gso_segs, (*skb).len) };
    let packets = if segments == 0 { 1 } else { u64::from(segments) };
    // Each segment of a GSO packet gets headers of its own on the wire.
    let bytes = u64::from(len) + (packets - 1) * u64::from(segment.offset);
    direction.counters.wire(packets, bytes);
    totals.wire(packets, bytes);
    if segment.len == 0 {
        return;
    }
    let payload = Bytes { skb, base: segment.offset };
    let mut tracker = Tracker { direction, other, totals, payload, offset: 0, len: 0 };
    if !tracker.begin(segment.seq, segment.len) {
        return;
    }
    // Most packets carry one frame: the first turn is inline, and only what is left pays for a loop. On hosts that
    // guard returns against speculation every call costs ten nanoseconds.
    if tracker.step() {
        let turns = tracker.len - tracker.offset;
        // SAFETY: the callback's context outlives the call; it returns 1 when nothing is left, and every turn eats a
        // byte, so `turns` bounds it as well.
        unsafe {
            bpf_loop(turns, turn::<T> as *mut c_void, (&raw mut tracker).cast(), 0);
        }
    }
}

/// One turn of the tracker, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn turn<T: Tally>(_index: u64, tracker: *mut Tracker<'_, Bytes, T>) -> i64 {
    // SAFETY: `follow` passes a live tracker that nothing else refers to meanwhile.
    let more = unsafe { (*tracker).step() };
    i64::from(!more)
}

/// Claims a direction: ingress runs before the socket's lock is taken, from several CPUs at once. The other CPU is done
/// within a microsecond or so, which a few tries outlast.
#[inline(always)]
unsafe fn enter(direction: *mut Direction) -> bool {
    const TRIES: u32 = 16;
    for _ in 0..TRIES {
        // SAFETY: `busy` is an aligned u32 in a map value and only ever accessed atomically.
        let claimed = unsafe {
            AtomicU32::from_ptr(addr_of_mut!((*direction).busy))
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        if claimed {
            return true;
        }
    }
    false
}

#[inline(always)]
unsafe fn leave(direction: *mut Direction) {
    // SAFETY: as in `enter`. A swap, because a release store needs a newer instruction set than the oldest kernel's.
    unsafe { AtomicU32::from_ptr(addr_of_mut!((*direction).busy)).swap(0, Ordering::Release) };
}
