//! The maps and globals. Names are those of `agent_ebpf::abi::names`; the build checks that they agree.

use core::ffi::c_void;
use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use agent_ebpf::abi::{
    CLIENT_SLOTS, Connection, EXCHANGE_SLOTS, Exchange, LISTENER_SLOTS, ListenerKey, ListenerTotals, Refusal,
    Replay, Stat, UpgradeRequest,
};
use agent_ebpf::candidate::Candidate;
use agent_ebpf::reorder::{BUFFERS, Reorder};
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, Queue, RingBuf, SkStorage};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;

use super::pool::{BANKS, Bank};

#[btf_map]
pub(super) static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

#[btf_map]
pub(super) static LISTENERS: HashMap<ListenerKey, u32, LISTENER_SLOTS> = HashMap::new();

/// Slots that the agent has taken back.
#[btf_map]
pub(super) static FREE_SERVER_SLOTS: Queue<u32, LISTENER_SLOTS> = Queue::new();

#[btf_map]
pub(super) static FREE_CLIENT_SLOTS: Queue<u32, CLIENT_SLOTS> = Queue::new();

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

/// Requests that ask for an upgrade, until they are answered.
#[btf_map]
static UPGRADE_REQUESTS: SkStorage<UpgradeRequest> = SkStorage::new();

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

#[unsafe(no_mangle)]
static FLOW_KEY: Global<u64> = Global::new(0);

/// The random number that places in the table of flows depend on.
#[inline(always)]
pub(super) fn flow_key() -> u64 {
    FLOW_KEY.load()
}

/// Set by the agent when all programs are attached. A section of its own, which makes it a map of its own that the agent can
/// write without touching anything else.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.switch")]
static SWITCHED_ON: AtomicU32 = AtomicU32::new(0);

/// Whether the programs are to work. They are attached one after the other, and what one of them alone would count is wrong:
/// a connection whose close is not seen, a direction that begins too late.
#[inline(always)]
pub(super) fn is_switched_on() -> bool {
    // SAFETY: an aligned word, read whole. An atomic load, which LLVM's BPF back end has no instruction for.
    unsafe { SWITCHED_ON.as_ptr().read_volatile() != 0 }
}

/// States of a socket that is no connection (yet): `TCP_LISTEN` and `TCP_NEW_SYN_RECV` of include/net/tcp_states.h.
const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;

/// Whether the socket is a connection's own: data on the ACK that completes a TCP handshake still comes with the listener.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn is_connection(sk: *mut c_void) -> bool {
    // SAFETY: the context's socket.
    let state = unsafe { (*sk.cast::<bpf_sock>()).state };
    state != LISTEN && state != NEW_SYN_RECV
}

/// The request of a socket that has asked for an upgrade and has no answer yet, or null.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn request(sk: *mut c_void) -> *mut UpgradeRequest {
    // SAFETY: as for `connection`.
    unsafe { bpf_sk_storage_get(addr_of!(UPGRADE_REQUESTS).cast_mut().cast(), sk, null_mut(), 0).cast() }
}

/// Notes a request in its socket's storage; returns whether that was possible.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn note_request(sk: *mut c_void, state: UpgradeRequest) -> bool {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as for `connection`; a storage value, live during the program.
    unsafe {
        if !is_connection(sk) {
            return false;
        }
        let map = addr_of!(UPGRADE_REQUESTS).cast_mut().cast();
        let request: *mut UpgradeRequest = bpf_sk_storage_get(map, sk, null_mut(), flags).cast();
        if request.is_null() {
            count(Stat::StorageRefused);
            return false;
        }
        *request = state;
    }
    true
}

/// Forgets the socket's request.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn drop_request(sk: *mut c_void) {
    // SAFETY: as for `connection`.
    unsafe { bpf_sk_storage_delete(addr_of!(UPGRADE_REQUESTS).cast_mut().cast(), sk) };
}

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

/// Takes it upon the caller to end a candidate; returns whether nobody else has. Of two CPUs that decide at the same moment, one in
/// each direction, only one is told so.
///
/// # Safety
/// `candidate` is a storage value. It outlives its deletion until the program ends (RCU).
#[inline(always)]
pub(super) unsafe fn claim_candidate(candidate: *const Candidate) -> bool {
    // SAFETY: an aligned word in a storage value, accessed atomically. Not relaxed: see `slots::next`.
    unsafe { AtomicU32::from_ptr(addr_of!((*candidate).claimed).cast_mut()) }.swap(1, Ordering::AcqRel) == 0
}

/// The socket is no candidate any longer. Only for a candidate that the caller has claimed.
///
/// # Safety
/// As for [`connection`].
#[inline(always)]
pub(super) unsafe fn delete_candidate(sk: *mut c_void) {
    // SAFETY: as for `connection`.
    unsafe { bpf_sk_storage_delete(addr_of!(ELDERS).cast_mut().cast(), sk) };
    ELDERS_LEFT.fetch_sub(1, Ordering::Relaxed);
}

/// Both at once; returns whether it was a candidate until now.
///
/// # Safety
/// As for [`connection`]; `candidate` is this socket's.
#[inline(always)]
pub(super) unsafe fn drop_candidate(sk: *mut c_void, candidate: *const Candidate) -> bool {
    // SAFETY: by contract.
    unsafe {
        let claimed = claim_candidate(candidate);
        if claimed {
            delete_candidate(sk);
        }
        claimed
    }
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
    unsafe { add(count, 1) };
}

/// The same with any amount.
///
/// # Safety
/// As for [`increment`].
#[inline(always)]
pub(super) unsafe fn add(count: *mut u64, amount: u64) {
    // SAFETY: by contract.
    unsafe { AtomicU64::from_ptr(count) }.fetch_add(amount, Ordering::Relaxed);
}
