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

macro_rules! rests {
    ($($(#[$doc:meta])* $name:ident: $direction:ident, $other:ident, $totals:ty;)*) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(super) extern "C" fn $name(
            skb: *mut __sk_buff,
            connection: *mut Connection,
            totals: *mut DirectionTotals,
            base: u32,
            rest: u64,
        ) -> u32 {
            if connection.is_null() || totals.is_null() {
                return 0;
            }
            // SAFETY: map values, see `receive::received` and `send::sent`; both kinds of totals are views of the same memory.
            unsafe {
                let (direction, other) = (&mut (*connection).$direction, &(*connection).$other);
                let totals: &mut $totals = &mut *totals.cast();
                follow::rest::<KernelClock, _>(skb, direction, other, totals, Rest::unpack(base, rest));
            }
            0
        }
    )* };
}

rests! {
    /// Follows the rest of a received packet. The caller has claimed the direction.
    headroom_rest_received: received, sent, DirectionTotals;
    /// Follows the rest of a sent packet.
    headroom_rest_sent: sent, received, DirectionTotals;
    /// The same beside a program that was interrupted: `totals` are added to atomically.
    headroom_rest_nested: sent, received, SharedTotals;
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
