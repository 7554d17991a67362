//! The heads of handshakes, kept from the request to its response and handed to the agent with the upgrade, which makes
//! sense of them: here nothing is parsed that need not be.
//!
//! A request that asks for a WebSocket leaves two traces. Its head is kept in a table by flow, which has so many places: a
//! head may be lost, and then what it says is not known. That it asks and where it ends is noted in the storage of its
//! socket ([`UpgradeRequest`]), which nobody else can take: a 101 counts as its answer only, and the client's frames begin
//! right behind it. A request that comes with the ACK that completes the TCP handshake still belongs to the listener, which
//! gets no storage; such a request is in the table alone.

use core::ffi::c_void;
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::abi::{
    EXCHANGE_SLOTS, Exchange, Opened, REQUEST_BYTES, RESPONSE_BYTES, Stat, UpgradeRequest,
};
use agent_ebpf::reorder::before;
use agent_ebpf::request::LONGEST;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_tcp_sock};

use super::maps::{self, EXCHANGES};
use super::packet::EGRESS;
use super::segment::{Bytes, KernelClock, Segment};
use super::{flows, request, upgrade};

/// Stands for a tag while somebody writes to the place, or sends what is in it.
const CLAIMED: u64 = 1;
/// Places that a flow's exchange may be in.
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

/// Claims a flow's exchange where the table has it; null otherwise, or where somebody has claimed it.
#[inline(always)]
unsafe fn claim_own((index, tag): (u32, u64)) -> *mut Exchange {
    for attempt in 0..PLACES {
        let Some(exchange) = EXCHANGES.get_ptr_mut((index ^ attempt) & (EXCHANGE_SLOTS as u32 - 1)) else {
            break;
        };
        // SAFETY: a map value.
        unsafe {
            if (*exchange).tag == tag && exchange_tag(exchange, tag, CLAIMED) {
                return exchange;
            }
        }
    }
    null_mut()
}

/// Claims a place for a new exchange or an event: a free one if there is any, else the one whose request began first, which
/// loses its head. Null where all are claimed at this moment.
#[inline(always)]
unsafe fn claim_new(index: u32) -> *mut Exchange {
    let (mut oldest, mut oldest_ns) = (0, u64::MAX);
    for attempt in 0..PLACES {
        let at = (index ^ attempt) & (EXCHANGE_SLOTS as u32 - 1);
        let Some(exchange) = EXCHANGES.get_ptr_mut(at) else {
            break;
        };
        // SAFETY: a map value.
        unsafe {
            let found = (*exchange).tag;
            if found == 0 && exchange_tag(exchange, 0, CLAIMED) {
                return exchange;
            }
            let since = (*exchange).opened.requested_ns;
            if found != CLAIMED && since < oldest_ns {
                (oldest, oldest_ns) = (at, since);
            }
        }
    }
    let Some(exchange) = EXCHANGES.get_ptr_mut(oldest) else {
        return null_mut();
    };
    // SAFETY: a map value.
    unsafe {
        let found = (*exchange).tag;
        if found != CLAIMED && exchange_tag(exchange, found, CLAIMED) { exchange } else { null_mut() }
    }
}

/// Where a flow's exchange may be, and its tag. `reverse` where the packet is of the response.
#[inline(always)]
fn place<const IN: bool>(segment: &Segment, reverse: bool) -> (u32, u64) {
    flows::key::<IN>(segment, reverse).exchange()
}

/// What is known of a packet that may belong to a request: flags of [`request`].
pub(super) mod piece {
    /// It begins like a message. A piece of a head that has not ended may begin like anything.
    pub(in super::super) const OPENS: u32 = 1;
    /// It begins like a GET request, or what a proxy puts before one.
    pub(in super::super) const BEGINS: u32 = 2;
    /// It is the first message of its connection.
    pub(in super::super) const FIRST: u32 = 4;
    /// It ends like a head, and belongs to nothing that was seen.
    pub(in super::super) const ENDS: u32 = 8;
}

/// A packet of an HTTP client: the beginning of a GET request, or more of one where it goes on where that stopped. Returns
/// whether it is a piece of a request that may ask for a WebSocket, so far. Calls its parts one after the other: a call chain
/// has 512 bytes of stack.
#[inline(always)]
pub(super) fn request<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    segment: &Segment,
    piece: u32,
) -> bool {
    let exchange = add::<IN>(skb, sk, segment, piece);
    if exchange.is_null() {
        return false;
    }
    request::headroom_examine(skb, exchange, segment.offset, segment.len, segment.seq);
    settle::<IN>(sk, segment, exchange)
}

/// Claims the exchange that the packet belongs to, or a new one, and appends the packet to it; null where it is no piece of a
/// request, or has nothing new.
#[inline(never)]
fn add<const IN: bool>(skb: *mut __sk_buff, sk: *mut c_void, segment: &Segment, piece: u32) -> *mut Exchange {
    let (index, tag) = place::<IN>(segment, false);
    // SAFETY: a map value, claimed while it is written to.
    unsafe {
        let mut exchange = claim_own((index, tag));
        let mut begins = piece & piece::BEGINS != 0;
        // What of the segment is there already: nothing of one that begins a request.
        let mut known = 0;
        let mut is_headless = false;
        if !exchange.is_null() {
            is_headless = (*exchange).request_state.flags & UpgradeRequest::HEADLESS != 0;
            let ended = (*exchange).request_state.flags & UpgradeRequest::ENDED != 0;
            let ahead = (*exchange).next_seq.wrapping_sub(segment.seq) as i32;
            let start = (*exchange).request_state.start_seq;
            let is_new = begins && start != segment.seq;
            // Another connection may have the same ports and addresses, in another network namespace.
            let is_near = segment.seq.wrapping_sub(start) < LONGEST || ahead == 0;
            let is_more = is_near && ahead < segment.len as i32 && (ahead == 0 || !is_new);
            if is_more && !(ended && piece & piece::OPENS != 0) {
                begins = false;
                known = if is_headless { -1 } else { ahead };
            } else if !is_new {
                // Sent again, or nothing of this request.
                release(exchange, tag);
                return null_mut();
            }
        } else if begins || (piece & piece::ENDS != 0 && is_early::<IN>(sk, segment)) {
            exchange = claim_new(index);
            if !exchange.is_null() && !begins {
                let flags = UpgradeRequest::HEADLESS | direction::<IN>();
                (*exchange).request_state = UpgradeRequest { start_seq: segment.seq, flags, ..NO_REQUEST };
                (*exchange).next_seq = segment.seq;
                (*exchange).opened = Opened { requested_ns: bpf_ktime_get_ns(), ..EMPTY };
                known = -1;
            }
        }
        if exchange.is_null() {
            // It is no request's, or all places are being written to at this moment.
            return exchange;
        }
        if begins {
            let first = piece & piece::FIRST != 0;
            let earlier = (*exchange).request_state;
            let kept = UpgradeRequest::ENDED_LATE | UpgradeRequest::ASKS;
            let (flags, late_seq) =
                if is_headless { (earlier.flags & kept, earlier.late_seq) } else { (0, 0) };
            let flags = flags | direction::<IN>();
            (*exchange).request_state =
                UpgradeRequest { start_seq: segment.seq, frames_seq: 0, flags, late_seq };
            (*exchange).next_seq = segment.seq;
            (*exchange).first = u16::from(first);
            (*exchange).tail = 0;
            // At the client, TCP's round trip is the handshake's until the request is acknowledged.
            let handshake_us = if IN == EGRESS && first { upgrade::handshake_us(sk) } else { 0 };
            (*exchange).opened = Opened { requested_ns: bpf_ktime_get_ns(), handshake_us, ..EMPTY };
        }
        (*exchange).is_late = u16::from(known < 0);
        if known >= 0 {
            append(skb, segment, exchange, known as u32);
        }
        exchange
    }
}

/// The flag of a request in this direction.
#[inline(always)]
const fn direction<const IN: bool>() -> u32 {
    if IN { UpgradeRequest::INBOUND } else { 0 }
}

/// Whether a segment from the peer lies beyond a hole.
#[inline(always)]
unsafe fn is_early<const IN: bool>(sk: *mut c_void, segment: &Segment) -> bool {
    // SAFETY: the context's socket; the pointer is null-checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk.cast::<bpf_sock>());
        IN && !tcp.is_null() && before((*tcp).rcv_nxt, segment.seq)
    }
}

/// A request of which nothing is known.
const NO_REQUEST: UpgradeRequest = UpgradeRequest { start_seq: 0, frames_seq: 0, flags: 0, late_seq: 0 };

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

/// Gives the place back: free, where the request has ended and asked for nothing. Notes in the socket's storage what the
/// request asks for. Returns whether it may ask for a WebSocket.
#[inline(never)]
fn settle<const IN: bool>(sk: *mut c_void, segment: &Segment, exchange: *mut Exchange) -> bool {
    let (_, tag) = place::<IN>(segment, false);
    // SAFETY: the context's socket; the exchange is claimed.
    unsafe {
        let state = (*exchange).request_state;
        let asks = state.flags & UpgradeRequest::ASKS != 0;
        if asks {
            maps::note_request(sk, state);
        }
        let is_plain = !asks && state.flags & UpgradeRequest::ENDED != 0;
        release(exchange, if is_plain { 0 } else { tag });
        !is_plain
    }
}

/// Appends what there is room for, behind the first `known` bytes of the segment. Behind the end of a request are frames of
/// a client that did not wait for its answer: of them is noted only how far they go.
#[inline(always)]
unsafe fn append(skb: *mut __sk_buff, segment: &Segment, exchange: *mut Exchange, known: u32) {
    // SAFETY: as for `add`; the array is twice as long as what is kept.
    unsafe {
        let kept = u32::from((*exchange).opened.request_len);
        let room = (REQUEST_BYTES as u32).saturating_sub(kept);
        let new = segment.len.wrapping_sub(known);
        let len = if new < room { new } else { room };
        (*exchange).next_seq = segment.seq.wrapping_add(segment.len);
        if len == 0 || (*exchange).request_state.flags & UpgradeRequest::ENDED != 0 {
            return;
        }
        let at = kept as usize & (REQUEST_BYTES - 1);
        let to = addr_of_mut!((*exchange).request).cast::<u8>().add(at);
        if Bytes::<KernelClock>::of(skb, segment).copy::<{ REQUEST_BYTES as u32 }>(known, to, len) {
            (*exchange).opened.request_len = (kept + len) as u16;
        }
    }
}

/// Whether a request on this socket asked for a WebSocket, so that a 101 in this packet, which goes the other way, is an
/// answer. One that the table alone knows is noted in the socket's storage, where the rest of the handshake looks for it.
#[inline(never)]
pub(super) fn was_requested<const IN: bool>(sk: *mut c_void, segment: &Segment) -> bool {
    // SAFETY: the context's socket; storage values live as long as the program runs.
    unsafe {
        let noted = maps::request(sk);
        if !noted.is_null() {
            return (*noted).flags & UpgradeRequest::ASKS != 0 && (*noted).is_answered_by(IN);
        }
        let (index, tag) = place::<IN>(segment, true);
        let exchange = claim_own((index, tag));
        if exchange.is_null() {
            return false;
        }
        let state = (*exchange).request_state;
        release(exchange, tag);
        state.flags & UpgradeRequest::ASKS != 0 && state.is_answered_by(IN) && maps::note_request(sk, state)
    }
}

/// A 101 has ended, `head_len` bytes long and all in this packet (0 where it came in pieces); it answers `request`. Returns the
/// exchange, without a request where the table has lost it; null where there is no place. It is claimed until the event is
/// sent.
#[inline(never)]
pub(super) fn finish<const IN: bool>(
    skb: *mut __sk_buff,
    segment: &Segment,
    request: &UpgradeRequest,
    head_len: u16,
) -> *mut Exchange {
    let (index, tag) = place::<IN>(segment, true);
    // SAFETY: as for `add`.
    unsafe {
        let mut exchange = claim_own((index, tag));
        if exchange.is_null() || (*exchange).request_state.start_seq != request.start_seq {
            maps::count(Stat::HeadsLost);
            if exchange.is_null() {
                exchange = claim_new(index);
            }
            if exchange.is_null() {
                return exchange;
            }
            (*exchange).opened = EMPTY;
            // Of another flow.
            (*exchange).next_seq = request.frames_seq;
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
    let (index, _) = place::<IN>(segment, true);
    // SAFETY: as for `add`.
    unsafe {
        let exchange = claim_new(index);
        if !exchange.is_null() {
            (*exchange).opened = EMPTY;
        }
        exchange
    }
}

/// A response that is no 101 and no interim one: the request is answered. Returns whether it was one that asked for a
/// WebSocket, and the first of its connection, as two bits.
#[inline(always)]
pub(super) fn answered<const IN: bool>(sk: *mut c_void, segment: &Segment) -> u32 {
    let (index, tag) = place::<IN>(segment, true);
    // SAFETY: as for `add`; `sk` is the context's socket.
    unsafe {
        let exchange = claim_own((index, tag));
        if exchange.is_null() {
            return 0;
        }
        let asked = (*exchange).request_state.flags & UpgradeRequest::ASKS != 0;
        let first = addr_of!((*exchange).first).read_volatile() != 0;
        release(exchange, 0);
        if !asked {
            return 0;
        }
        maps::drop_request(sk);
        ASKED | if first { FIRST } else { 0 }
    }
}

/// The request asked for a WebSocket.
pub(super) const ASKED: u32 = 1;
/// It was the first of its connection.
pub(super) const FIRST: u32 = 2;
