//! Packets that a tracked socket receives: in any order, some twice, from several CPUs at once.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{Connection, Direction, DirectionTotals, ListenerTotals, Stat};
use agent_ebpf::reorder::before;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_loop;

use super::follow::{self, Rest};
use super::global;
use super::kernel;
use super::late::{close, late};
use super::maps;
use super::parked::park;
use super::segment::{KernelClock, ProgramClock, Segment};

/// Counts one packet.
#[inline(always)]
pub(super) fn received(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
) {
    // SAFETY: `connection` is a storage value that lives as long as this program runs (RCU), `totals` this CPU's, written
    // in softirq context alone, which does not interrupt itself. `enter` keeps other CPUs off the direction. The other
    // direction may change underneath, see `send::follow`.
    unsafe {
        let direction = addr_of_mut!((*connection).received);
        // Claimed before anything is read: another CPU may be about to change what is decided on.
        let is_parked = !enter(direction);
        if is_parked {
            // Another CPU has it, and may have it for long. The packet is left to whoever has the direction next, which may
            // be this program.
            if !park(skb, connection, segment) {
                maps::count(Stat::Contended);
                return;
            }
            if !enter(direction) {
                return;
            }
        }
        let mut is_late = false;
        if !is_parked {
            let ahead = before((*direction).next_seq, segment.seq);
            if segment.len == 0 || !(ahead || (*direction).reorder != 0) {
                follow::<KernelClock>(skb, connection, &mut (*totals).received, segment);
            } else if let Some(expected) = kernel::expected(sk) {
                // Ingress runs before TCP's own checks. Following a segment that will be dropped there would take every
                // real one after it for a retransmission.
                if ahead && expected.refuses(segment.seq, segment.ack) {
                    maps::count(Stat::Refused);
                } else {
                    // What TCP has and nobody saw is missed; but not what is parked. The flag is read last: who parked what
                    // TCP has by now has set it.
                    let next_seq = (*direction).next_seq;
                    let is_early = addr_of_mut!((*direction).parked).read_volatile() != 0
                        && before(next_seq, expected.rcv_nxt);
                    let rcv_nxt = if is_early { next_seq } else { expected.rcv_nxt };
                    late::<KernelClock>(skb, connection, totals, segment, rcv_nxt);
                    is_late = (*direction).reorder != 0;
                }
            }
        }
        if is_late || (*direction).parked != 0 {
            global::headroom_settle(connection, totals, u32::from(is_late));
            if is_late {
                close::<KernelClock>(connection, totals);
            }
        }
        leave(direction);
    }
}

/// A segment that is in order.
#[inline(always)]
pub(super) fn follow<C: ProgramClock>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: &mut DirectionTotals,
    segment: &Segment,
) {
    // SAFETY: as for `received`.
    let (direction, other) = unsafe { (&mut (*connection).received, &(*connection).sent) };
    follow::wire(skb, direction, totals, segment);
    if segment.len == 0 {
        return;
    }
    if let Some(offset) = follow::parse::<C, _>(skb, direction, other, totals, segment) {
        rest::<C>(skb, connection, totals, Rest::new(segment, offset));
    }
}

/// Follows the rest of a packet.
#[inline(always)]
pub(super) fn rest<C: ProgramClock>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut DirectionTotals,
    rest: Rest,
) {
    if C::IS_KERNELS {
        let (base, rest) = rest.pack();
        global::headroom_rest_received(skb, connection, totals, base, rest);
        return;
    }
    // SAFETY: as for `received`.
    unsafe {
        follow::rest::<C, _>(skb, &mut (*connection).received, &(*connection).sent, &mut *totals, rest);
    }
}

/// Claims a direction: ingress runs before the socket's lock is taken, from several CPUs at once. The other CPU is done
/// within a microsecond as a rule; a packet that waits in vain is counted and left out.
#[inline(always)]
pub(super) unsafe fn enter(direction: *mut Direction) -> bool {
    // SAFETY: by contract.
    unsafe { claim(direction) || wait(direction) }
}

/// Tries on for some 20 µs, out of line as it is rare.
#[inline(never)]
unsafe fn wait(direction: *mut Direction) -> bool {
    const TRIES: u32 = 1024;
    let mut waiting = Waiting { direction, claimed: 0 };
    // SAFETY: the callback's context outlives the call.
    unsafe { bpf_loop(TRIES, try_again as *mut c_void, (&raw mut waiting).cast(), 0) };
    waiting.claimed != 0
}

/// Who waits for a direction.
struct Waiting {
    direction: *mut Direction,
    claimed: u64,
}

/// One try, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn try_again(_index: u64, waiting: *mut Waiting) -> i64 {
    // SAFETY: `wait` passes a live value; the direction is in a map value.
    unsafe {
        let claimed = u64::from(claim((*waiting).direction));
        (*waiting).claimed = claimed;
        claimed as i64
    }
}

#[inline(always)]
unsafe fn claim(direction: *mut Direction) -> bool {
    // SAFETY: `busy` is an aligned u32 in a map value, claimed by atomic access only.
    unsafe {
        AtomicU32::from_ptr(addr_of_mut!((*direction).busy))
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}

#[inline(always)]
pub(super) unsafe fn leave(direction: *mut Direction) {
    // SAFETY: as in `claim`.
    unsafe {
        let busy = addr_of_mut!((*direction).busy);
        // The object is built for this host, and on x86 every store releases what was stored before. Elsewhere a swap does,
        // as a release store needs a newer instruction set than the oldest kernel's.
        if cfg!(target_arch = "x86_64") {
            busy.write_volatile(0);
        } else {
            AtomicU32::from_ptr(busy).swap(0, Ordering::Release);
        }
    }
}
