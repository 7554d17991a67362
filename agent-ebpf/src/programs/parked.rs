//! Packets that found their direction in use on another CPU: parked with all their bytes, and followed by whoever has
//! the direction next.

use core::ffi::c_void;
use core::ptr::{addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{Connection, ListenerTotals, Tally as _};
use agent_ebpf::reorder::{Keeping, PARKED, PARKING, Reorder, Verdict, before, choice, verdict};
use agent_ebpf::tracker::Clock as _;
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

/// Follows the parked packets that are in order now. The caller has claimed the direction.
#[inline(always)]
pub(super) unsafe fn drain(connection: *mut Connection, totals: *mut ListenerTotals) {
    let mut draining = Draining { connection, totals };
    // SAFETY: the direction is claimed; the callback's context outlives the call.
    unsafe {
        let direction = addr_of_mut!((*connection).received);
        addr_of_mut!((*direction).parked).write_volatile(0);
        // So that a packet parked from now on sets it again, and one parked before is found: an exchange is a barrier.
        AtomicU32::from_ptr(addr_of_mut!((*direction).busy)).swap(1, Ordering::AcqRel);
        bpf_loop(PARKING, drain_first as *mut c_void, (&raw mut draining).cast(), 0);
    }
}

struct Draining {
    connection: *mut Connection,
    totals: *mut ListenerTotals,
}

/// Follows the first of the parked packets; ends where there is none, or where a hole is before it.
extern "C" fn drain_first(_index: u64, draining: *mut Draining) -> i64 {
    // SAFETY: `drain` passes live values; the direction is claimed.
    unsafe {
        let (connection, totals) = ((*draining).connection, (*draining).totals);
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        let places = Places::look((*connection).cookie, find_first);
        let place = places.found();
        if place.is_null() {
            return 1;
        }
        // Somebody is about to take it away.
        if !holes::claim(place) {
            return 1;
        }
        if (*place).owner != (*connection).cookie | PARKED {
            holes::unclaim(place);
            return 1;
        }
        let (start, end) = ((*place).edge, (*place).end);
        let verdict = if start == end { Verdict::Known } else { verdict(direction, start, end) };
        if verdict == Verdict::Keep {
            direction.parked = 1;
            holes::unclaim(place);
            return 1;
        }
        let totals = &mut (*totals).received;
        let (packets, bytes) = (u64::from((*place).packets), u64::from((*place).packet_bytes));
        direction.counters.wire(packets, bytes);
        totals.wire(packets, bytes);
        if verdict == Verdict::Parse {
            let kept = Kept { holes: place, seq: start, clock: KernelClock };
            follow::parse_kept(kept, (start, end.wrapping_sub(start)), direction, other, totals);
        }
        holes::free(place);
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
