//! The heads of handshakes, kept from the request to its response and handed to the agent with the upgrade, which makes
//! sense of them: here nothing is parsed that need not be.
//!
//! By flow and not by socket, because a request that comes with the ACK that completes the TCP handshake still belongs to
//! the listener. Whether a response answers the request that is kept is told by TCP: the server has received, or the
//! client sent, everything up to the request's last byte and nothing beyond.

use core::ffi::c_void;
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::abi::{
    EXCHANGE_SLOTS, Exchange, ListenerKey, Opened, REQUEST_BYTES, RESPONSE_BYTES, Refusal, Role, Stat,
};
use agent_ebpf::opening::{KeySearch, STRETCH};
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop};

use super::kernel;
use super::maps::{self, EXCHANGES, REFUSALS};
use super::packet::EGRESS;
use super::segment::{Bytes, KernelClock, Segment};
use super::{flows, upgrade};

/// Responses below this are answers to what was asked, as a rule; only the first request of a connection is looked at to
/// find out.
const MULTIPLE_CHOICES: u32 = 300;
const OK: u32 = 200;

/// Stands for a tag while somebody writes to the place, or sends what is in it.
const CLAIMED: u64 = 1;
/// Places that are tried for an event where a flow's own is claimed; a claim lasts microseconds.
const PLACES: u32 = 4;

/// Puts a tag in another's place; returns whether that was the expected one.
#[inline(always)]
unsafe fn exchange_tag(exchange: *mut Exchange, expected: u64, tag: u64) -> bool {
    // SAFETY: an aligned word in a map value, changed by atomic access only.
    let place = unsafe { AtomicU64::from_ptr(addr_of_mut!((*exchange).tag)) };
    place.compare_exchange(expected, tag, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Gives a claimed place back, with a tag or with 0.
///
/// # Safety
/// `exchange` is a map value that the caller has claimed.
#[inline(always)]
pub(super) unsafe fn release(exchange: *mut Exchange, tag: u64) {
    // SAFETY: as for `exchange_tag`.
    unsafe { AtomicU64::from_ptr(addr_of_mut!((*exchange).tag)) }.swap(tag, Ordering::Release);
}

/// Claims a place for an event, its own flow's if that is free; returns it and the tag that was there, or null.
#[inline(always)]
unsafe fn claim_any(index: u32) -> (*mut Exchange, u64) {
    for attempt in 0..PLACES {
        let Some(exchange) = EXCHANGES.get_ptr_mut((index ^ attempt) & (EXCHANGE_SLOTS as u32 - 1)) else {
            break;
        };
        // SAFETY: as for `exchange_tag`.
        let found =
            unsafe { AtomicU64::from_ptr(addr_of_mut!((*exchange).tag)) }.swap(CLAIMED, Ordering::AcqRel);
        if found != CLAIMED {
            return (exchange, found);
        }
    }
    (null_mut(), 0)
}

/// The place for a flow's exchange, and its tag. `reverse` where the packet is of the response.
#[inline(always)]
fn place<const IN: bool>(segment: &Segment, reverse: bool) -> Option<(*mut Exchange, u64)> {
    let (index, tag) = flows::key::<IN>(segment, reverse).exchange();
    Some((EXCHANGES.get_ptr_mut(index & (EXCHANGE_SLOTS as u32 - 1))?, tag))
}

/// A GET request begins.
#[inline(never)]
pub(super) fn begin<const IN: bool>(skb: *mut __sk_buff, sk: *mut c_void, segment: &Segment, first: bool) {
    let Some((exchange, tag)) = place::<IN>(segment, false) else { return };
    // SAFETY: a map value, claimed while it is written to.
    unsafe {
        let found = (*exchange).tag;
        // Sent again, or in somebody's hands.
        if (found == tag && (*exchange).start_seq == segment.seq)
            || found == CLAIMED
            || !exchange_tag(exchange, found, CLAIMED)
        {
            return;
        }
        (*exchange).start_seq = segment.seq;
        (*exchange).next_seq = segment.seq;
        (*exchange).first = u64::from(first);
        // At the client, TCP's round trip is the handshake's until the request is acknowledged.
        let handshake_us = if IN == EGRESS && first { upgrade::handshake_us(sk) } else { 0 };
        (*exchange).opened = Opened { requested_ns: bpf_ktime_get_ns(), handshake_us, ..EMPTY };
        append(skb, segment, exchange);
        release(exchange, tag);
    }
}

/// A value without a call to `memset`.
const EMPTY: Opened = Opened {
    kind: 0,
    time_ns: 0,
    cookie: 0,
    endpoints: agent_ebpf::abi::Endpoints {
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        family: 0,
        state: 0,
        netns: 0,
        reserved: 0,
    },
    requested_ns: 0,
    handshake_us: 0,
    role: 0,
    parse: 0,
    deflate: 0,
    response_len: 0,
    request_len: 0,
    older: 0,
};

/// A packet in the middle of something, or one that begins like a message where `opens` is set: more of the request, if it
/// goes on where that stopped. Returns whether it does.
#[inline(never)]
pub(super) fn go_on<const IN: bool>(skb: *mut __sk_buff, segment: &Segment, opens: bool) -> bool {
    let Some((exchange, tag)) = place::<IN>(segment, false) else { return false };
    // SAFETY: as for `begin`.
    unsafe {
        if (*exchange).tag != tag || !exchange_tag(exchange, tag, CLAIMED) {
            return false;
        }
        let goes_on = (*exchange).next_seq == segment.seq && !(opens && has_ended(exchange));
        if goes_on {
            append(skb, segment, exchange);
        }
        release(exchange, tag);
        goes_on
    }
}

/// Whether the request's head is complete, or too long to tell.
#[inline(always)]
unsafe fn has_ended(exchange: *const Exchange) -> bool {
    // SAFETY: as for `begin`; the array is twice as long as what is kept.
    unsafe {
        let kept = usize::from((*exchange).opened.request_len);
        if !(4..REQUEST_BYTES).contains(&kept) {
            return kept >= REQUEST_BYTES;
        }
        // Read anew, so that the compiler does not know the bound and leaves it to be seen by the verifier.
        let len = usize::from(addr_of!((*exchange).opened.request_len).read_volatile());
        let at = len.wrapping_sub(4) & (REQUEST_BYTES - 1);
        let end = addr_of!((*exchange).request).cast::<u8>().add(at);
        [*end, *end.add(1), *end.add(2), *end.add(3)] == *b"\r\n\r\n"
    }
}

#[inline(always)]
unsafe fn append(skb: *mut __sk_buff, segment: &Segment, exchange: *mut Exchange) {
    // SAFETY: as for `begin`; the array is twice as long as what is kept.
    unsafe {
        let kept = u32::from((*exchange).opened.request_len);
        let room = (REQUEST_BYTES as u32).saturating_sub(kept);
        let len = if segment.len < room { segment.len } else { room };
        (*exchange).next_seq = segment.seq.wrapping_add(segment.len);
        if len == 0 {
            return;
        }
        let at = kept as usize & (REQUEST_BYTES - 1);
        let to = addr_of_mut!((*exchange).request).cast::<u8>().add(at);
        if Bytes::<KernelClock>::of(skb, segment).copy::<{ REQUEST_BYTES as u32 }>(0, to, len) {
            (*exchange).opened.request_len = (kept + len) as u16;
        }
    }
}

/// A 101 has ended, `head_len` bytes long and all in this packet (0 where it came in pieces); `request_end` is the
/// sequence number at which the request must have ended. Returns the exchange, without a request where that is not the
/// one kept; null where there is no place. It is claimed until the event is sent.
#[inline(never)]
pub(super) fn finish<const IN: bool>(
    skb: *mut __sk_buff,
    segment: &Segment,
    request_end: u32,
    head_len: u16,
) -> *mut Exchange {
    // A subprogram returns no more than a word.
    let (index, tag) = flows::key::<IN>(segment, true).exchange();
    // SAFETY: as for `begin`.
    unsafe {
        let (exchange, found) = claim_any(index);
        if exchange.is_null() {
            return exchange;
        }
        if found != tag || (*exchange).next_seq != request_end {
            (*exchange).opened = EMPTY;
        }
        let most = RESPONSE_BYTES as u16;
        let len = if head_len < most { head_len } else { most };
        let to = addr_of_mut!((*exchange).response).cast();
        let payload = Bytes::<KernelClock>::of(skb, segment);
        if len > 0 && payload.copy::<{ RESPONSE_BYTES as u32 }>(0, to, u32::from(len)) {
            (*exchange).opened.response_len = len;
        }
        exchange
    }
}

/// A place for an event without heads, likewise.
#[inline(always)]
pub(super) fn none<const IN: bool>(segment: &Segment) -> *mut Exchange {
    let (index, _) = flows::key::<IN>(segment, true).exchange();
    // SAFETY: as for `begin`.
    unsafe {
        let (exchange, _) = claim_any(index);
        if !exchange.is_null() {
            (*exchange).opened = EMPTY;
        }
        exchange
    }
}

/// A response that is no 101: counts it where the request asked for one.
#[inline(never)]
pub(super) fn refuse<const IN: bool>(sk: *mut c_void, segment: &Segment, status: u32) {
    let Some((exchange, tag)) = place::<IN>(segment, true) else { return };
    // SAFETY: as for `begin`; `sk` is the context's socket.
    unsafe {
        // Interim responses (RFC 9110 section 15.2) answer nothing.
        if (*exchange).tag != tag || status < OK || !exchange_tag(exchange, tag, CLAIMED) {
            return;
        }
        let is_refusal = (status >= MULTIPLE_CHOICES || (*exchange).first != 0) && asks_for_upgrade(exchange);
        release(exchange, 0);
        if !is_refusal {
            return;
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return;
        }
        let role = if IN == EGRESS { Role::Server } else { Role::Client } as u16;
        // A response comes from the server's port, on either side.
        let listener = ListenerKey { netns: kernel::netns(tcp), port: segment.source_port(), role };
        let refusal = Refusal { listener, status, reserved: 0 };
        match REFUSALS.get_ptr_mut(refusal) {
            Some(count) => {
                AtomicU64::from_ptr(count).fetch_add(1, Ordering::Relaxed);
            }
            None if REFUSALS.insert(refusal, 1, u64::from(BPF_NOEXIST)).is_ok() => {}
            // Another CPU was faster, or the map is full.
            None => match REFUSALS.get_ptr_mut(refusal) {
                Some(count) => {
                    AtomicU64::from_ptr(count).fetch_add(1, Ordering::Relaxed);
                }
                None => maps::count(Stat::RefusalsUnknown),
            },
        }
    }
}

/// A search through a request head.
struct Search {
    exchange: *const Exchange,
    search: KeySearch,
    found: bool,
}

/// Whether the request asked for a WebSocket.
#[inline(always)]
unsafe fn asks_for_upgrade(exchange: *const Exchange) -> bool {
    let mut search = Search { exchange, search: KeySearch::default(), found: false };
    // SAFETY: the callback's context outlives the call.
    unsafe {
        bpf_loop((REQUEST_BYTES / STRETCH) as u32, stretch as *mut c_void, (&raw mut search).cast(), 0)
    };
    search.found
}

/// One stretch, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn stretch(index: u64, search: *mut Search) -> i64 {
    // SAFETY: `asks_for_upgrade` passes a live value; the exchange is a map value.
    unsafe {
        let exchange = (*search).exchange;
        let len = u32::from((*exchange).opened.request_len);
        (*search).found = (*search).search.step(&(*exchange).request, len, index as u32);
        i64::from((*search).found || (index as usize + 1) * STRETCH >= len as usize)
    }
}
