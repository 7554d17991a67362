//! Packets that found their direction in use on another CPU: parked with all their bytes, and followed by whoever has
//! the direction next.

use core::ffi::c_void;
use core::ptr::{addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{Connection, Direction, ListenerTotals, Tally as _};
use agent_ebpf::reorder::{Keeping, PARKED, PARKING, Reorder, Verdict, before, choice, verdict};
use agent_ebpf::tracker::Clock;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_loop;

use super::follow;
use super::holes;
use super::late::{Copying, Kept};
use super::maps::REORDER;
use super::segment::{KernelClock, Segment};

/// A look at the places of a connection's parked packets.
struct Places {
    cookie: u64,
    /// The one that is looked for, plus 1; 0 for none.
    found: u32,
    /// Where the first byte of the found one is.
    start: u32,
}

impl Places {
    #[inline(always)]
    fn look(cookie: u64, at: extern "C" fn(u64, *mut Places) -> i64) -> Places {
        let mut places = Places { cookie, found: 0, start: 0 };
        // SAFETY: the callback's context outlives the call.
        unsafe { bpf_loop(PARKING, at as *mut c_void, (&raw mut places).cast(), 0) };
        places
    }

    #[inline(always)]
    fn found(&self) -> *mut Reorder {
        REORDER.get_ptr_mut(self.found.wrapping_sub(1)).unwrap_or(null_mut())
    }
}

/// Parks a packet. The caller has not claimed the direction. Returns `false` where there is no room.
#[inline(never)]
pub(super) unsafe fn park(skb: *mut __sk_buff, connection: *mut Connection, segment: &Segment) -> bool {
    // SAFETY: a storage value, and a map value that `claim_free` has claimed.
    unsafe {
        let cookie = (*connection).cookie;
        let place = Places::look(cookie, claim_free).found();
        if place.is_null() {
            return false;
        }
        (*place).begin(segment.seq, KernelClock.now_ns());
        if segment.len > 0 {
            let taken = match Keeping::new(segment.seq, segment.seq, segment.len) {
                Some(keeping) => {
                    let mut copying = Copying::new(skb, segment, place, keeping);
                    copying.run(segment.len);
                    copying.keeping.taken()
                }
                None => 0,
            };
            if taken < segment.len {
                holes::free(place);
                return false;
            }
        }
        let (packets, bytes) = follow::on_the_wire(skb, segment);
        (*place).packets = packets as u32;
        (*place).packet_bytes = bytes as u32;
        (*place).end = segment.seq.wrapping_add(segment.len);
        (*place).owner = cookie | PARKED;
        holes::unclaim(place);
        addr_of_mut!((*connection).received.parked).write_volatile(1);
        true
    }
}

extern "C" fn claim_free(attempt: u64, places: *mut Places) -> i64 {
    // SAFETY: `park` passes a live value. What is read of a buffer before it is claimed is looked at again afterwards.
    unsafe {
        let index = choice((*places).cookie, attempt as u32);
        let Some(place) = REORDER.get_ptr_mut(index) else { return 1 };
        let owner = addr_of_mut!((*place).owner);
        if owner.read_volatile() != 0 || !holes::claim(place) {
            return 0;
        }
        if owner.read_volatile() != 0 {
            holes::unclaim(place);
            return 0;
        }
        (*places).found = index + 1;
        1
    }
}

/// What is left to be followed in a direction.
struct Settling<C> {
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    /// The connection's buffer is claimed.
    is_open: u32,
    clock: C,
}

/// Follows what is in order now: parked packets, and what was kept. The caller has claimed the direction, and the
/// connection's buffer where `is_open`. One place for both, because the verifier walks the parser for each.
#[inline(always)]
pub(super) unsafe fn settle<C: Clock + Default>(
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    is_open: bool,
) {
    // Each parked packet may have something behind it that was kept, and then there is nothing more.
    const TURNS: u32 = 2 * PARKING + 2;
    let is_open = u32::from(is_open);
    let mut settling = Settling { connection, totals, is_open, clock: C::default() };
    // SAFETY: the direction is claimed; the callback's context outlives the call.
    unsafe { bpf_loop(TURNS, settle_one::<C> as *mut c_void, (&raw mut settling).cast(), 0) };
}

/// Says that parked packets are to be looked for, or not. An exchange is a barrier: a packet parked from now on sets the
/// flag again, and one parked before is found.
#[inline(always)]
unsafe fn unflag(direction: *mut Direction) {
    // SAFETY: a claimed direction, whose claim is exchanged for itself.
    unsafe {
        addr_of_mut!((*direction).parked).write_volatile(0);
        AtomicU32::from_ptr(addr_of_mut!((*direction).busy)).swap(1, Ordering::AcqRel);
    }
}

/// Follows the first of the parked packets, or else what was kept; ends where neither is in order.
extern "C" fn settle_one<C: Clock>(_index: u64, settling: *mut Settling<C>) -> i64 {
    // SAFETY: `settle` passes live values; the direction is claimed.
    unsafe {
        let (connection, totals) = ((*settling).connection, (*settling).totals);
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        let (mut source, mut is_parked) = (0, false);
        if direction.parked != 0 {
            unflag(direction);
            source = claim_parked(connection);
            is_parked = source != 0;
        }
        if !is_parked && (*settling).is_open != 0 {
            source = u32::from(direction.reorder);
        }
        let Some(holes) = REORDER.get_ptr_mut(source.wrapping_sub(1)) else { return 1 };
        let start = if is_parked { (*holes).edge } else { direction.next_seq };
        let len = if is_parked { (*holes).end.wrapping_sub(start) } else { (*holes).run(start) };
        let totals = &mut (*totals).received;
        if len > 0 {
            let kept = Kept { holes, seq: start, clock: (*settling).clock };
            follow::parse_kept(kept, (start, len), direction, other, totals);
        }
        if !is_parked {
            return 1;
        }
        let (packets, bytes) = (u64::from((*holes).packets), u64::from((*holes).packet_bytes));
        direction.counters.wire(packets, bytes);
        totals.wire(packets, bytes);
        holes::free(holes);
        // There may be more.
        direction.parked = 1;
        0
    }
}

/// Claims the first of the parked packets if it is in order; its place plus 1, or 0.
#[inline(never)]
unsafe fn claim_parked(connection: *mut Connection) -> u32 {
    // SAFETY: as for `settle_one`.
    unsafe {
        let direction = &mut (*connection).received;
        let places = Places::look((*connection).cookie, find_first);
        let place = places.found();
        // Where it cannot be claimed, somebody is about to take it away.
        if place.is_null() || !holes::claim(place) {
            return 0;
        }
        let (start, end) = ((*place).edge, (*place).end);
        let is_own = (*place).owner == (*connection).cookie | PARKED;
        if is_own && (start == end || verdict(direction, start, end) != Verdict::Keep) {
            return places.found;
        }
        // A hole is before it.
        direction.parked = is_own as u8;
        holes::unclaim(place);
        0
    }
}

/// Of a connection's parked packets, finds the first in order.
extern "C" fn find_first(attempt: u64, places: *mut Places) -> i64 {
    // SAFETY: as for `claim_free`.
    unsafe {
        let index = choice((*places).cookie, attempt as u32);
        let Some(place) = REORDER.get_ptr_mut(index) else { return 1 };
        if addr_of_mut!((*place).owner).read_volatile() == (*places).cookie | PARKED {
            let start = (*place).edge;
            if (*places).found == 0 || before(start, (*places).start) {
                (*places).start = start;
                (*places).found = index + 1;
            }
        }
        0
    }
}

/// Gives the places of parked packets back, when their socket is destroyed.
#[inline(always)]
pub(super) unsafe fn discard(connection: *mut Connection) {
    // SAFETY: a storage value.
    unsafe {
        if addr_of_mut!((*connection).received.parked).read_volatile() != 0 {
            Places::look((*connection).cookie, discard_one);
        }
    }
}

extern "C" fn discard_one(attempt: u64, places: *mut Places) -> i64 {
    // SAFETY: as for `claim_free`.
    unsafe {
        let index = choice((*places).cookie, attempt as u32);
        let Some(place) = REORDER.get_ptr_mut(index) else { return 1 };
        if addr_of_mut!((*place).owner).read_volatile() == (*places).cookie | PARKED && holes::claim(place) {
            if (*place).owner == (*places).cookie | PARKED {
                holes::free(place);
            } else {
                holes::unclaim(place);
            }
        }
        0
    }
}
