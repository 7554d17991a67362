//! Slots in the listener totals: given out at first sight of a listener, taken back by the agent when it is long gone.
//!
//! Servers and clients have slots of their own: a host's clients may connect to any number of ports, and must not leave its
//! servers without a row.

use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{CLIENT_SLOTS, LISTENER_SLOTS, ListenerKey, Role, Stat};
use aya_ebpf::bindings::BPF_NOEXIST;

use super::maps::{self, FREE_CLIENT_SLOTS, FREE_SERVER_SLOTS, LISTENERS};

/// Next slot that was never given out, of the clients' ...
#[unsafe(no_mangle)]
static NEXT_CLIENT_SLOT: AtomicU32 = AtomicU32::new(1);
/// ... and of the servers'. Slot 0 is for those that find none.
#[unsafe(no_mangle)]
static NEXT_SERVER_SLOT: AtomicU32 = AtomicU32::new(CLIENT_SLOTS as u32);

/// A listener's slot.
#[inline(always)]
pub(super) fn slot(key: ListenerKey) -> u32 {
    // SAFETY: the value is a plain integer, written once.
    if let Some(slot) = unsafe { LISTENERS.get(key) } {
        return *slot;
    }
    let is_client = key.role == Role::Client as u16;
    let free = if is_client {
        next(&NEXT_CLIENT_SLOT, CLIENT_SLOTS).or_else(|| FREE_CLIENT_SLOTS.pop().ok().flatten())
    } else {
        next(&NEXT_SERVER_SLOT, LISTENER_SLOTS).or_else(|| FREE_SERVER_SLOTS.pop().ok().flatten())
    };
    if let Some(slot) = free {
        if LISTENERS.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
            return slot;
        }
        // Another CPU was faster.
        let _ = if is_client { FREE_CLIENT_SLOTS.push(slot, 0) } else { FREE_SERVER_SLOTS.push(slot, 0) };
    }
    // SAFETY: as above.
    match unsafe { LISTENERS.get(key) } {
        Some(slot) => *slot,
        None => {
            maps::count(Stat::ListenersFull);
            0
        }
    }
}

/// A slot that was never given out, below `end`.
#[inline(always)]
fn next(counter: &AtomicU32, end: usize) -> Option<u32> {
    // Looked at before it is counted up, so that it never wraps.
    // SAFETY: an aligned word, read whole.
    if unsafe { counter.as_ptr().read_volatile() } >= end as u32 {
        return None;
    }
    // Not relaxed: LLVM's BPF back end turns a relaxed fetch_add into the form that returns nothing, and `next` would be
    // the addend.
    let next = counter.fetch_add(1, Ordering::AcqRel);
    (next < end as u32).then_some(next)
}
