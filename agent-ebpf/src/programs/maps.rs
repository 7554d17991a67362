//! The maps and globals. Names are those of `agent_ebpf::abi::names`; the build checks that they agree.

use core::ffi::c_void;
use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::abi::{
    Connection, EXCHANGE_SLOTS, Exchange, LISTENER_SLOTS, ListenerKey, ListenerTotals, Refusal, Replay, Stat,
};
use agent_ebpf::candidate::Candidate;
use agent_ebpf::reorder::{BUFFERS, Reorder};
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;

use super::pool::{BANKS, Bank};

#[btf_map]
pub(super) static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

#[btf_map]
pub(super) static LISTENERS: HashMap<ListenerKey, u32, LISTENER_SLOTS> = HashMap::new();

#[btf_map]
pub(super) static TOTALS: PerCpuArray<ListenerTotals, LISTENER_SLOTS> = PerCpuArray::new();

#[btf_map]
static PORTS: HashMap<u16, u8, 64> = HashMap::new();

/// Connections older than the agent, until it is known what they are.
#[btf_map]
pub(super) static ELDERS: SkStorage<Candidate> = SkStorage::new();

/// 3.6 MiB: a handshake lasts from its request to its response, and so many may be under way at once.
#[btf_map]
pub(super) static EXCHANGES: Array<Exchange, EXCHANGE_SLOTS> = Array::new();

#[btf_map]
pub(super) static REFUSALS: HashMap<Refusal, u64, 1024> = HashMap::new();

/// 2.6 MiB: connections with a hole in what they receive, at the same moment.
#[btf_map]
pub(super) static REORDER: Array<Reorder, BUFFERS> = Array::new();

/// 16 MiB: what they received behind it.
#[btf_map]
pub(super) static POOL: Array<Bank, BANKS> = Array::new();

#[btf_map]
pub(super) static REPLAYED: Array<Replay, 1> = Array::new();

/// Room for about 5,000 closed or 3,000 opened connections between two reads.
#[btf_map]
pub(super) static EVENTS: RingBuf<u8, { 4 << 20 }> = RingBuf::new();

#[btf_map]
static STATS: PerCpuArray<u64, { Stat::COUNT }> = PerCpuArray::new();

#[unsafe(no_mangle)]
static FILTER_PORTS: Global<u32> = Global::new(0);

/// The state of a tracked socket, or null. Never creates one.
///
/// # Safety
/// `sk` is a socket pointer the verifier accepts as `ARG_PTR_TO_BTF_ID_SOCK_COMMON`, null excluded.
#[inline(always)]
pub(super) unsafe fn connection(sk: *mut c_void) -> *mut Connection {
    // SAFETY: the map is socket storage of this value type; the caller vouches for `sk`.
    unsafe { bpf_sk_storage_get(addr_of!(CONNECTIONS).cast_mut().cast(), sk, null_mut(), 0).cast() }
}

/// Candidates whose socket is still undecided, so that without any nobody looks for them.
#[unsafe(no_mangle)]
static ELDERS_LEFT: AtomicU64 = AtomicU64::new(0);

/// The state of a candidate, or null. Never creates one.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn candidate(sk: *mut c_void) -> *mut Candidate {
    // An atomic load, which LLVM's BPF back end has no instruction for.
    // SAFETY: an aligned word, read whole.
    if unsafe { ELDERS_LEFT.as_ptr().read_volatile() } == 0 {
        return null_mut();
    }
    // SAFETY: as for `connection`.
    unsafe { bpf_sk_storage_get(addr_of!(ELDERS).cast_mut().cast(), sk, null_mut(), 0).cast() }
}

/// Makes the socket a candidate, if there is memory.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn add_candidate(sk: *mut c_void) {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as for `connection`.
    let candidate = unsafe { bpf_sk_storage_get(addr_of!(ELDERS).cast_mut().cast(), sk, null_mut(), flags) };
    if candidate.is_null() {
        count(Stat::StorageRefused);
    } else {
        ELDERS_LEFT.fetch_add(1, Ordering::Relaxed);
    }
}

/// The socket is no candidate any longer; returns whether it was one until now. Of two CPUs that decide at the same moment,
/// one in each direction, only one is told so.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn drop_candidate(sk: *mut c_void) -> bool {
    // SAFETY: as for `connection`.
    let dropped = unsafe { bpf_sk_storage_delete(addr_of!(ELDERS).cast_mut().cast(), sk) } == 0;
    if dropped {
        ELDERS_LEFT.fetch_sub(1, Ordering::Relaxed);
    }
    dropped
}

/// Whether the ports to be tracked were named.
#[inline(always)]
pub(super) fn ports_are_named() -> bool {
    FILTER_PORTS.load() != 0
}

/// Whether connections of this server port are to be tracked.
#[inline(always)]
pub(super) fn wanted(port: u16) -> bool {
    // SAFETY: the value is a plain integer, written before the programs attached.
    !ports_are_named() || unsafe { PORTS.get(port) }.is_some()
}

/// Counts something that went by unreported.
#[inline(always)]
pub(super) fn count(stat: Stat) {
    if let Some(slot) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: an aligned u64 in a map value.
        unsafe { increment(slot) };
    }
}

/// Adds 1 to a per-CPU count: atomically, as a program in an interrupt may add to the same one meanwhile.
///
/// # Safety
/// `count` is a valid, aligned pointer into a map value.
#[inline(always)]
pub(super) unsafe fn increment(count: *mut u64) {
    // SAFETY: by contract.
    unsafe { AtomicU64::from_ptr(count) }.fetch_add(1, Ordering::Relaxed);
}
