//! The maps and globals. Names are those of `agent_ebpf::abi::names`; the build checks that they agree.

use core::ffi::c_void;
use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::abi::{Connection, LISTENER_SLOTS, ListenerKey, ListenerTotals, Stat};
use aya_ebpf::Global;
use aya_ebpf::btf_maps::{HashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;

#[btf_map]
pub(super) static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

#[btf_map]
pub(super) static LISTENERS: HashMap<ListenerKey, u32, LISTENER_SLOTS> = HashMap::new();

#[btf_map]
pub(super) static TOTALS: PerCpuArray<ListenerTotals, LISTENER_SLOTS> = PerCpuArray::new();

#[btf_map]
static PORTS: HashMap<u16, u8, 64> = HashMap::new();

/// Room for about 3,500 closed connections between two reads.
#[btf_map]
pub(super) static EVENTS: RingBuf<u8, { 2 << 20 }> = RingBuf::new();

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

/// Whether connections of this server port are to be tracked.
#[inline(always)]
pub(super) fn wanted(port: u16) -> bool {
    // SAFETY: the value is a plain integer, written before the programs attached.
    FILTER_PORTS.load() == 0 || unsafe { PORTS.get(port) }.is_some()
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
