//! Who has which reorder buffer. A buffer is claimed before it is used, by its owner as by those that take it away, and
//! nobody waits for one.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use agent_ebpf::abi::{Direction, Stat};
use agent_ebpf::reorder::{BUFFERS, CHOICES, Reorder, choice};
use aya_ebpf::helpers::generated::bpf_loop;

use super::maps::{self, REORDER};
use super::pool::{self, CHUNKS};

/// A hole that stood open for so long is worth less than a new one. With a peer that is there, TCP fills it sooner, or
/// has lost so much that its timer backs off.
const STALE_NS: u64 = 1_000_000_000;
/// Buffers looked at for one that holds many chunks.
const SAMPLE: u32 = 64;

/// Where the next sample begins.
#[unsafe(no_mangle)]
static NEXT_SAMPLE: AtomicU64 = AtomicU64::new(0);

/// The direction's buffer, not claimed; null where it has none.
#[inline(always)]
pub(super) fn buffer(direction: &Direction) -> *mut Reorder {
    REORDER.get_ptr_mut(u32::from(direction.reorder).wrapping_sub(1)).unwrap_or(core::ptr::null_mut())
}

/// Claims a buffer.
///
/// # Safety
/// `holes` is a map value.
#[inline(always)]
pub(super) unsafe fn claim(holes: *mut Reorder) -> bool {
    // SAFETY: an aligned word in a map value, claimed by atomic access only.
    unsafe { AtomicU32::from_ptr(addr_of_mut!((*holes).busy)) }
        .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

/// Ends a claim.
///
/// # Safety
/// The caller has claimed it.
#[inline(always)]
pub(super) unsafe fn unclaim(holes: *mut Reorder) {
    // SAFETY: as for `claim`.
    unsafe { AtomicU32::from_ptr(addr_of_mut!((*holes).busy)) }.swap(0, Ordering::AcqRel);
}

/// A look at several buffers, for one that is free or can be taken away.
struct Search {
    cookie: u64,
    /// When the edge of the oldest of them moved.
    oldest_ns: u64,
    oldest: u32,
    /// The free one, claimed, plus 1.
    found: u32,
}

/// Claims a buffer for a connection that has none; returns its place plus 1, or 0.
#[inline(never)]
pub(super) fn acquire(cookie: u64, now: u64) -> u32 {
    let mut search = Search { cookie, oldest_ns: u64::MAX, oldest: 0, found: 0 };
    // SAFETY: the callback's context outlives the call; buffers are map values.
    unsafe {
        bpf_loop(CHOICES, try_free as *mut c_void, (&raw mut search).cast(), 0);
        if search.found == 0 && search.oldest_ns < now.wrapping_sub(STALE_NS) {
            let Some(holes) = REORDER.get_ptr_mut(search.oldest) else { return 0 };
            if claim(holes) {
                if (*holes).moved_ns == search.oldest_ns {
                    pool::spill(holes);
                    maps::count(Stat::ReorderSpilled);
                    search.found = search.oldest + 1;
                } else {
                    unclaim(holes);
                }
            }
        }
        if search.found == 0 {
            return 0;
        }
        let Some(holes) = REORDER.get_ptr_mut(search.found - 1) else { return 0 };
        (*holes).owner = cookie;
        search.found
    }
}

extern "C" fn try_free(attempt: u64, search: *mut Search) -> i64 {
    // SAFETY: `acquire` passes a live value. What is read of a buffer before it is claimed may be anybody's, and is looked at
    // again afterwards.
    unsafe {
        let index = choice((*search).cookie, attempt as u32);
        let Some(holes) = REORDER.get_ptr_mut(index) else { return 1 };
        if addr_of_mut!((*holes).owner).read_volatile() == 0 {
            if !claim(holes) {
                return 0;
            }
            if addr_of_mut!((*holes).owner).read_volatile() == 0 {
                (*search).found = index + 1;
                return 1;
            }
            unclaim(holes);
        }
        let moved_ns = addr_of_mut!((*holes).moved_ns).read_volatile();
        if moved_ns < (*search).oldest_ns {
            (*search).oldest_ns = moved_ns;
            (*search).oldest = index;
        }
        0
    }
}

/// Gives a claimed buffer back.
///
/// # Safety
/// The caller has claimed it.
#[inline(always)]
pub(super) unsafe fn free(holes: *mut Reorder) {
    // SAFETY: by contract.
    unsafe {
        pool::spill(holes);
        addr_of_mut!((*holes).owner).write_volatile(0);
        unclaim(holes);
    }
}

/// Gives the direction's buffer back, unless somebody took it in the meantime.
#[inline(always)]
pub(super) fn release(direction: &mut Direction, cookie: u64) {
    let holes = buffer(direction);
    direction.reorder = 0;
    // SAFETY: a map value.
    unsafe {
        if holes.is_null() || !claim(holes) {
            return;
        }
        if (*holes).owner == cookie {
            free(holes);
        } else {
            unclaim(holes);
        }
    }
}

/// A look at several buffers, for the one that can best be done without.
struct Victim {
    start: u64,
    now: u64,
    worst: u32,
    index: u32,
}

/// Takes the chunks of a connection that holds more than `held`, or that has waited for long. Returns whether there are
/// some now.
#[inline(never)]
pub(super) fn make_room(held: u32, now: u64) -> bool {
    let start = NEXT_SAMPLE.fetch_add(u64::from(SAMPLE), Ordering::AcqRel);
    let mut victim = Victim { start, now, worst: held, index: 0 };
    // SAFETY: the callback's context outlives the call; buffers are map values.
    unsafe {
        bpf_loop(SAMPLE, judge as *mut c_void, (&raw mut victim).cast(), 0);
        if victim.worst <= held {
            return false;
        }
        let Some(holes) = REORDER.get_ptr_mut(victim.index) else { return false };
        if !claim(holes) {
            return false;
        }
        let had_some = (*holes).held > 0;
        if had_some {
            maps::count(Stat::ReorderSpilled);
        }
        free(holes);
        had_some
    }
}

extern "C" fn judge(index: u64, victim: *mut Victim) -> i64 {
    // SAFETY: `make_room` passes a live value; what is read may be old, and is looked at again by those that act on it.
    unsafe {
        let index = ((*victim).start.wrapping_add(index) & (BUFFERS as u64 - 1)) as u32;
        let Some(holes) = REORDER.get_ptr_mut(index) else { return 1 };
        let held = addr_of_mut!((*holes).held).read_volatile();
        let moved_ns = addr_of_mut!((*holes).moved_ns).read_volatile();
        let is_stale = (*victim).now.wrapping_sub(moved_ns) as i64 > STALE_NS as i64;
        let weight = if is_stale && held > 0 { held + CHUNKS as u32 } else { held };
        if weight > (*victim).worst {
            (*victim).worst = weight;
            (*victim).index = index;
        }
        0
    }
}
