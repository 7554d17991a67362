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
    EXCHANGE_SLOTS, Exchange, ListenerKey, Opened, REQUEST_BYTES, RESPONSE_BYTES, Refusal, Role,
};
use agent_ebpf::opening::{KeySearch, STRETCH};
use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop};

use super::kernel;
use super::maps::{EXCHANGES, REFUSALS};
use super::packet::EGRESS;
use super::segment::{Bytes, KernelClock, Segment};
use super::{flows, upgrade};

/// Responses below this are answers to what was asked, as a rule; only the first request of a connection is looked at to
/// find out.
const MULTIPLE_CHOICES: u32 = 300;
const OK: u32 = 200;

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
    // SAFETY: a map value. Two flows that meet in one place at the same moment mix their heads up; `finish` finds the
    // sequence number wrong then.
    unsafe {
        if (*exchange).tag == tag && (*exchange).start_seq == segment.seq {
            // Sent again.
            return;
        }
        (*exchange).tag = tag;
        (*exchange).start_seq = segment.seq;
        (*exchange).next_seq = segment.seq;
        (*exchange).first = u64::from(first);
        // At the client, TCP's round trip is the handshake's until the request is acknowledged.
        let handshake_us = if IN == EGRESS && first { upgrade::handshake_us(sk) } else { 0 };
        (*exchange).opened = Opened { requested_ns: bpf_ktime_get_ns(), handshake_us, ..EMPTY };
        append(skb, segment, exchange);
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
        let goes_on =
            (*exchange).tag == tag && (*exchange).next_seq == segment.seq && !(opens && has_ended(exchange));
        if goes_on {
            append(skb, segment, exchange);
        }
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
/// one kept; null where there is no place.
#[inline(never)]
pub(super) fn finish<const IN: bool>(
    skb: *mut __sk_buff,
    segment: &Segment,
    request_end: u32,
    head_len: u16,
) -> *mut Exchange {
    // A subprogram returns no more than a word.
    let Some((exchange, tag)) = place::<IN>(segment, true) else { return null_mut() };
    // SAFETY: as for `begin`.
    unsafe {
        if (*exchange).tag != tag || (*exchange).next_seq != request_end {
            (*exchange).opened = EMPTY;
        }
        (*exchange).tag = 0;
        let most = RESPONSE_BYTES as u16;
        let len = if head_len < most { head_len } else { most };
        let to = addr_of_mut!((*exchange).response).cast();
        let payload = Bytes::<KernelClock>::of(skb, segment);
        if len > 0 && payload.copy::<{ RESPONSE_BYTES as u32 }>(0, to, u32::from(len)) {
            (*exchange).opened.response_len = len;
        }
    }
    exchange
}

/// The place of an exchange that has no heads.
#[inline(always)]
pub(super) fn none<const IN: bool>(segment: &Segment) -> *mut Exchange {
    let Some((exchange, _)) = place::<IN>(segment, true) else { return null_mut() };
    // SAFETY: as for `begin`.
    unsafe {
        (*exchange).opened = EMPTY;
        (*exchange).tag = 0;
    }
    exchange
}

/// A response that is no 101: counts it where the request asked for one.
#[inline(never)]
pub(super) fn refuse<const IN: bool>(sk: *mut c_void, segment: &Segment, status: u32) {
    let Some((exchange, tag)) = place::<IN>(segment, true) else { return };
    // SAFETY: as for `begin`; `sk` is the context's socket.
    unsafe {
        // Interim responses (RFC 9110 section 15.2) answer nothing.
        if (*exchange).tag != tag || status < OK {
            return;
        }
        (*exchange).tag = 0;
        if status < MULTIPLE_CHOICES && (*exchange).first == 0 {
            return;
        }
        if !asks_for_upgrade(exchange) {
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
            None => {
                // Two CPUs that meet here lose one of the first two refusals; a full map loses this kind.
                let _ = REFUSALS.insert(refusal, 1, u64::from(BPF_ANY));
            }
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
