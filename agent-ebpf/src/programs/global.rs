//! Global functions, as the verifier calls what is exported: it looks at each once, for itself, with any memory of the right
//! size for its arguments, and not again for each way that leads there. What is large and rare is one.
//!
//! They take a context, memory and numbers, at most five, and return a number. Of memory the verifier does not know that it is
//! there, so null is looked for.

use agent_ebpf::abi::{Connection, DirectionTotals, ListenerTotals, SharedTotals};
use aya_ebpf::bindings::__sk_buff;

use super::follow::{self, Rest};
use super::parked;
use super::segment::KernelClock;

/// Follows the rest of a received packet. The caller has claimed the direction.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn headroom_rest_received(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut DirectionTotals,
    base: u32,
    rest: u64,
) -> u32 {
    if connection.is_null() || totals.is_null() {
        return 0;
    }
    // SAFETY: map values, see `receive::received`.
    unsafe {
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        follow::rest::<KernelClock, _>(skb, direction, other, &mut *totals, Rest::unpack(base, rest));
    }
    0
}

/// Follows the rest of a sent packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn headroom_rest_sent(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut DirectionTotals,
    base: u32,
    rest: u64,
) -> u32 {
    if connection.is_null() || totals.is_null() {
        return 0;
    }
    // SAFETY: map values, see `send::sent`.
    unsafe {
        let (direction, other) = (&mut (*connection).sent, &(*connection).received);
        follow::rest::<KernelClock, _>(skb, direction, other, &mut *totals, Rest::unpack(base, rest));
    }
    0
}

/// The same beside a program that was interrupted: `totals` are added to atomically.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn headroom_rest_nested(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut DirectionTotals,
    base: u32,
    rest: u64,
) -> u32 {
    if connection.is_null() || totals.is_null() {
        return 0;
    }
    // SAFETY: map values, see `send::nested`; the two kinds of totals are views of the same memory.
    unsafe {
        let (direction, other) = (&mut (*connection).sent, &(*connection).received);
        let totals: &mut SharedTotals = &mut *totals.cast();
        follow::rest::<KernelClock, _>(skb, direction, other, totals, Rest::unpack(base, rest));
    }
    0
}

/// Follows what is in order now, of parked packets and of what was kept. The caller has claimed the direction, and the connection's
/// buffer where `is_open` is 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn headroom_settle(
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    is_open: u32,
) -> u32 {
    if connection.is_null() || totals.is_null() {
        return 0;
    }
    // SAFETY: map values, the direction being claimed.
    unsafe { parked::settle::<KernelClock>(connection, totals, is_open != 0) };
    0
}
