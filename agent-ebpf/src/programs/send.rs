//! Packets that a tracked socket sends.

use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::abi::{Connection, DirectionTotals, ListenerTotals, SharedTotals};
use aya_ebpf::bindings::__sk_buff;

use super::follow::{self, Rest};
use super::global;
use super::segment::{KernelClock, ProgramClock, Segment};

/// Counts one packet. Egress runs under the socket's lock, so nobody else writes the direction; the listener's totals
/// belong to this CPU, but a program in process context may be interrupted by one that sends for another socket. Whoever
/// comes second adds to totals of its own kind, atomically, which would cost the first five locked instructions.
#[inline(always)]
pub(super) fn sent(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
) {
    // SAFETY: `totals` is this CPU's map value; `busy` is aligned and, but for the release, accessed atomically.
    unsafe {
        let busy = addr_of_mut!((*totals).busy);
        if AtomicU64::from_ptr(busy).swap(1, Ordering::AcqRel) != 0 {
            return nested(skb, connection, totals, segment);
        }
        follow::<KernelClock>(skb, connection, &mut (*totals).sent, segment);
        // Who looks at it runs on this CPU, so program order is all it takes; LLVM's BPF back end has no compiler fence
        // and keeps earlier stores before a volatile one.
        busy.write_volatile(0);
    }
}

/// The same beside a program that was interrupted.
#[inline(never)]
fn nested(skb: *mut __sk_buff, connection: *mut Connection, totals: *mut ListenerTotals, segment: &Segment) {
    // SAFETY: the same memory as atomics; everybody who writes it does so through them.
    let nested: &mut SharedTotals = unsafe { &mut *addr_of_mut!((*totals).nested).cast() };
    // SAFETY: as for `follow`.
    let (direction, other) = unsafe { (&mut (*connection).sent, &(*connection).received) };
    follow::wire(skb, direction, nested, segment);
    if segment.len == 0 {
        return;
    }
    if let Some(offset) = follow::begin::<KernelClock, _>(skb, direction, other, nested, segment) {
        let (base, rest) = Rest::new(segment, offset).pack();
        // SAFETY: a part of the totals.
        let nested = unsafe { addr_of_mut!((*totals).nested) };
        global::headroom_rest_nested(skb, connection, nested, base, rest);
    }
}

#[inline(always)]
pub(super) fn follow<C: ProgramClock>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: &mut DirectionTotals,
    segment: &Segment,
) {
    // SAFETY: a storage value, live during the program; `sent` is written by this hook only. The other direction may
    // change underneath; it is only read, field by field, and any mix of old and new values is a valid state of the ping
    // bookkeeping.
    let (direction, other) = unsafe { (&mut (*connection).sent, &(*connection).received) };
    follow::wire(skb, direction, totals, segment);
    if segment.len == 0 {
        return;
    }
    if let Some(offset) = follow::parse::<C, _>(skb, direction, other, totals, segment) {
        let rest = Rest::new(segment, offset);
        if C::IS_KERNELS {
            let (base, rest) = rest.pack();
            global::headroom_rest_sent(skb, connection, totals, base, rest);
        } else {
            follow::rest::<C, _>(skb, direction, other, totals, rest);
        }
    }
}
