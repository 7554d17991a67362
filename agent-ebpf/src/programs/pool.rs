//! The chunks that reorder buffers keep bytes in: handed out and taken back from any CPU, without a lock.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::reorder::{CHUNK, Reorder, SLACK};
use aya_ebpf::helpers::generated::bpf_loop;

use super::maps::POOL;

/// Chunks in the pool, a power of two: 16 MiB.
pub(super) const CHUNKS: usize = 4096;
/// Chunks in one element of the map, which Linux 6.1 wants to be no larger than 4 MiB.
const IN_BANK: usize = 256;
/// Elements of the map.
pub(super) const BANKS: usize = CHUNKS / IN_BANK;
const STRIDE: usize = (CHUNK + SLACK) as usize;
/// The most that is copied at once, a power of two.
pub(super) const MOST: u32 = 2 * CHUNK;

/// Some of the chunks.
#[repr(C)]
pub(super) struct Bank {
    /// Chunks, and room behind the last that shows the verifier that a piece fits wherever it begins.
    bytes: [u8; IN_BANK * STRIDE + 2 * MOST as usize],
}

/// The free chunk that is taken next, plus 1, in the lower half; 0 for none. The upper half changes each time, so that an
/// exchange notices that others came and went.
#[unsafe(no_mangle)]
static FREE_CHUNKS: AtomicU64 = AtomicU64::new(0);

/// Chunks that were never taken begin here.
#[unsafe(no_mangle)]
static FRESH_CHUNKS: AtomicU64 = AtomicU64::new(0);

/// The free chunk behind each one.
#[unsafe(no_mangle)]
static mut NEXT_CHUNK: [u16; CHUNKS] = [0; CHUNKS];

/// Tries of an exchange, each of which fails only because another CPU's succeeded.
const TRIES: u32 = 1024;

/// Where byte `at` (less than [`MOST`]) of a chunk is; null where there is no such chunk. [`MOST`] bytes from there on are in
/// the map.
#[inline(always)]
pub(super) fn bytes(chunk: u16, at: u32) -> *mut u8 {
    let index = u32::from(chunk).wrapping_sub(1);
    let Some(bank) = POOL.get_ptr_mut(index / IN_BANK as u32) else {
        return core::ptr::null_mut();
    };
    let within = (index as usize & (IN_BANK - 1)) * STRIDE;
    // SAFETY: both offsets are bounded by masks, and their sum by the size of a bank.
    unsafe { addr_of_mut!((*bank).bytes).cast::<u8>().add(within + (at as usize & (MOST as usize - 1))) }
}

/// Takes a chunk; 0 where there is none.
#[inline(always)]
pub(super) fn allocate() -> u16 {
    let mut taken = 0u64;
    // SAFETY: the callback's context outlives the call.
    unsafe { bpf_loop(TRIES, pop as *mut c_void, (&raw mut taken).cast(), 0) };
    if taken != 0 {
        return taken as u16;
    }
    // SAFETY: an aligned word, read whole; LLVM's BPF back end has no atomic load.
    if unsafe { FRESH_CHUNKS.as_ptr().read_volatile() } >= CHUNKS as u64 {
        return 0;
    }
    let fresh = FRESH_CHUNKS.fetch_add(1, Ordering::AcqRel);
    if fresh < CHUNKS as u64 { fresh as u16 + 1 } else { 0 }
}

/// One try, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn pop(_index: u64, taken: *mut u64) -> i64 {
    // SAFETY: `allocate` passes a live value; the table's index is masked. What is read of a chunk that another CPU takes in
    // the meantime is not used, as the exchange fails then.
    unsafe {
        let top = FREE_CHUNKS.as_ptr().read_volatile();
        let chunk = top as u16;
        if chunk == 0 {
            return 1;
        }
        let next = addr_of_mut!(NEXT_CHUNK).cast::<u16>().add(slot(chunk)).read_volatile();
        if !exchange(top, next) {
            return 0;
        }
        *taken = u64::from(chunk);
        1
    }
}

#[inline(always)]
fn slot(chunk: u16) -> usize {
    usize::from(chunk).wrapping_sub(1) & (CHUNKS - 1)
}

#[inline(always)]
fn exchange(top: u64, chunk: u16) -> bool {
    let new = ((top >> 32).wrapping_add(1) << 32) | u64::from(chunk);
    FREE_CHUNKS.compare_exchange(top, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Chunks on their way back, each naming the next.
struct Chain {
    holes: *mut Reorder,
    /// Where the parser stands; chunks before it are taken.
    parsed: u32,
    /// All are taken.
    all: u32,
    first: u32,
    last: u32,
}

/// Gives back the chunks that lie before `parsed`.
///
/// # Safety
/// `holes` is a map value that the caller has claimed.
#[inline(always)]
pub(super) unsafe fn shed(holes: *mut Reorder, parsed: u32) {
    give_back(Chain { holes, parsed, all: 0, first: 0, last: 0 });
}

/// Gives back all chunks.
///
/// # Safety
/// As for [`shed`].
#[inline(always)]
pub(super) unsafe fn spill(holes: *mut Reorder) {
    give_back(Chain { holes, parsed: 0, all: 1, first: 0, last: 0 });
}

#[inline(always)]
fn give_back(mut chain: Chain) {
    // One turn for each place there may be, one that finds no more.
    const TURNS: u32 = agent_ebpf::reorder::PLACES as u32 + 2;
    // SAFETY: the callback's context outlives the call.
    unsafe {
        bpf_loop(TURNS, link as *mut c_void, (&raw mut chain).cast(), 0);
        if chain.first != 0 {
            bpf_loop(TRIES, push as *mut c_void, (&raw mut chain).cast(), 0);
        }
    }
}

/// Adds the next chunk to the chain.
extern "C" fn link(_index: u64, chain: *mut Chain) -> i64 {
    // SAFETY: `give_back` passes a live value that holds a claimed map value; the table's index is masked.
    unsafe {
        let holes = &mut *(*chain).holes;
        let chunk = if (*chain).all != 0 { holes.spill() } else { holes.shed((*chain).parsed) };
        let Some(chunk) = chunk else { return 1 };
        if chunk != 0 {
            addr_of_mut!(NEXT_CHUNK).cast::<u16>().add(slot(chunk)).write_volatile((*chain).first as u16);
            (*chain).first = u32::from(chunk);
            if (*chain).last == 0 {
                (*chain).last = u32::from(chunk);
            }
        }
        0
    }
}

/// One try to put the chain in front of the free chunks.
extern "C" fn push(_index: u64, chain: *mut Chain) -> i64 {
    // SAFETY: as in `link`; the chain is this program's alone until the exchange succeeds.
    unsafe {
        let top = FREE_CHUNKS.as_ptr().read_volatile();
        addr_of_mut!(NEXT_CHUNK).cast::<u16>().add(slot((*chain).last as u16)).write_volatile(top as u16);
        i64::from(exchange(top, (*chain).first as u16))
    }
}
