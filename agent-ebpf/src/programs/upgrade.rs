//! Recognises a 101 on a socket that is not tracked yet, and starts tracking it.

use core::ffi::c_void;
use core::ptr::{addr_of, null_mut};

use agent_ebpf::abi::{Connection, Parse, Role, Stat, UpgradeRequest};
use agent_ebpf::handshake::STATUS_LINE;
use agent_ebpf::reorder::before;
use agent_ebpf::tracker::{self, Payload as _};
use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_tcp_sock};

use aya_log_ebpf_macros::debug;

use super::enrol::{self, Newcomer};
use super::maps::{self, CONNECTIONS};
use super::packet::{EGRESS, INGRESS};
use super::segment::{Bytes, KernelClock, Segment};
use super::{exchange, flows};

/// Gives a socket its state, in which the head of a 101 is scanned, if a request on it asked for an upgrade; null otherwise.
#[inline(never)]
pub(super) fn begin<const IN: bool>(sk: *mut c_void, segment: &Segment) -> *mut Connection {
    if !exchange::was_requested::<IN>(sk, segment) {
        unasked::<IN>(sk);
        return null_mut();
    }
    // SAFETY: the context's socket.
    unsafe { create::<IN>(sk, segment.seq) }
}

/// A 101 or a ServerHello, and nobody was seen to ask for it. Anybody may send such bytes to any server. What a server of this
/// host says itself is believed so far that its frames are looked at: its client's request may have been lost in the table.
#[inline(always)]
fn unasked<const IN: bool>(sk: *mut c_void) {
    maps::count(Stat::UnaskedUpgrades);
    // SAFETY: the context's socket.
    unsafe {
        if IN == EGRESS && maps::is_connection(sk) && maps::candidate(sk).is_null() {
            maps::add_candidate(sk);
        }
    }
}

/// Gives a socket its state; null where there is no memory.
///
/// # Safety
/// `sk` is the context's socket.
#[inline(never)]
pub(super) unsafe fn create<const IN: bool>(sk: *mut c_void, seq: u32) -> *mut Connection {
    // SAFETY: by contract; every pointer is null-checked before use.
    unsafe {
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let connection: *mut Connection =
            bpf_sk_storage_get(addr_of!(CONNECTIONS).cast_mut().cast(), sk, null_mut(), flags).cast();
        if connection.is_null() {
            maps::count(Stat::StorageRefused);
            return connection;
        }
        (*connection).head.inbound = u8::from(IN == INGRESS);
        let direction = if IN { &mut (*connection).received } else { &mut (*connection).sent };
        direction.next_seq = seq;
        connection
    }
}

/// A turn of the scan.
struct Scan {
    payload: Bytes,
    connection: *mut Connection,
    chunk: [u8; 16],
    start: u32,
    len: u32,
}

/// Reads one byte of the head; chunks of 16 keep the helper calls down.
extern "C" fn turn(index: u64, scan: *mut Scan) -> i64 {
    // SAFETY: `scan` below passes a live context that nothing else refers to during the loop.
    let scan = unsafe { &mut *scan };
    let at = (index & 15) as usize;
    if at == 0 {
        let offset = scan.start + index as u32;
        let left = scan.len - offset;
        if !scan.payload.load(offset, &mut scan.chunk, if left < 16 { left } else { 16 }) {
            return 1;
        }
    }
    // SAFETY: a storage value, live during the program.
    i64::from(unsafe { !(*scan.connection).head.push(scan.chunk[at]) })
}

/// Goes on with the head; returns whether it ended as an upgrade, so that frames begin.
#[inline(never)]
pub(super) fn scan<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    connection: *mut Connection,
    segment: &Segment,
) -> bool {
    // SAFETY: a storage value, live during the program. Only the head's own direction comes past the first check, and
    // a second CPU's packet would have to carry the same bytes twice within microseconds to meet this one.
    unsafe {
        if (*connection).head.inbound != u8::from(IN == INGRESS) {
            return false;
        }
        let direction = if IN { &mut (*connection).received } else { &mut (*connection).sent };
        let seen = direction.next_seq.wrapping_sub(segment.seq) as i32;
        if seen < 0 {
            return drop_head(sk, true);
        }
        let seen = seen as u32;
        if seen >= segment.len {
            return false;
        }
        let payload = Bytes::<KernelClock>::of(skb, segment);
        let mut state = Scan { payload, connection, chunk: [0; 16], start: seen, len: segment.len };
        let before = (*connection).head.taken();
        let turns = segment.len - seen;
        // The scanner stops by itself at the head's end or at its limit.
        bpf_loop(turns, turn as *mut c_void, (&raw mut state).cast(), 0);
        let head = &(*connection).head;
        direction.next_seq = direction.next_seq.wrapping_add(u32::from(head.taken() - before));
        if head.is_upgrade() {
            flows::unsettle(flows::key::<IN>(segment, true));
            log(skb, u32::from(head.taken()));
            // A head that came in pieces is not kept.
            let whole = if before == 0 { head.taken() } else { 0 };
            return track::<IN>(skb, sk, connection, segment, whole);
        }
        if head.ended() || head.failed() {
            // A response of another status that came in small pieces is no loss, nor is a 101 to another protocol; a 101
            // that is too long is.
            return drop_head(sk, !head.ended() && usize::from(head.taken()) > STATUS_LINE.len());
        }
    }
    false
}

/// Out of line, because its arguments need most of what stack a call chain may use.
#[inline(never)]
fn log(skb: *mut __sk_buff, len: u32) {
    debug!(skb, "upgrade, response head of {} bytes", len);
}

/// Not an upgrade, or one that cannot be followed.
#[inline(always)]
fn drop_head(sk: *mut c_void, unparsed: bool) -> bool {
    if unparsed {
        maps::count(Stat::HandshakesUnparsed);
    }
    // SAFETY: the context's socket.
    unsafe { bpf_sk_storage_delete(addr_of!(CONNECTIONS).cast_mut().cast(), sk) };
    false
}

/// The round trip of the TCP handshake, as long as TCP has measured no other: none of the socket's bytes was acknowledged
/// beside its SYN. 0 afterwards.
#[inline(always)]
pub(super) fn handshake_us(sk: *mut c_void) -> u32 {
    // SAFETY: the context's socket; the pointer is null-checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk.cast::<bpf_sock>());
        if tcp.is_null() || (*tcp).bytes_acked > 1 { 0 } else { (*tcp).srtt_us >> 3 }
    }
}

/// The head ended: tells where the frames of both directions begin. The client's begin behind its request, whatever TCP says
/// of this moment: where the network is fast, the transmit path has not advanced `snd_nxt` yet.
#[inline(always)]
fn track<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    connection: *mut Connection,
    segment: &Segment,
    head_len: u16,
) -> bool {
    // SAFETY: as for `scan`; every pointer is null-checked before use. No packet of the other direction touches the
    // value before `role` is set, which `enrol` does last.
    unsafe {
        let tcp = bpf_tcp_sock(sk.cast::<bpf_sock>());
        if tcp.is_null() {
            return false;
        }
        let noted = maps::request(sk);
        if noted.is_null() {
            return drop_head(sk, true);
        }
        let request = *noted;
        maps::drop_request(sk);
        let edge = if IN == EGRESS { (*tcp).rcv_nxt } else { segment.ack };
        let frames_seq = request.frames_seq(edge);
        let ended = frames_seq.is_some();
        let deflate = (*connection).head.deflate();
        (*connection).deflate = deflate.0;
        let compressible = deflate.negotiated();
        // Behind a request whose end was not seen frames begin where TCP stands, unless the client did not wait.
        let from_client = if IN == EGRESS { &mut (*connection).received } else { &mut (*connection).sent };
        tracker::begin(from_client, frames_seq.unwrap_or(edge), true, compressible);
        if !ended {
            from_client.parse = Parse::Adopted as u8;
        }
        // Frames from the client are masked, frames from the server are not (RFC 6455 section 5.1).
        let role = if IN == EGRESS {
            let frames = (*connection).sent.next_seq;
            tracker::begin(&mut (*connection).sent, frames, false, compressible);
            Role::Server
        } else {
            let frames = (*connection).received.next_seq;
            tracker::begin(&mut (*connection).received, frames, false, compressible);
            Role::Client
        };
        let exchange = exchange::finish::<IN>(skb, segment, &request, head_len);
        if exchange.is_null() {
            return drop_head(sk, true);
        }
        // What the client sent behind its request and before this answer went by unparsed. The server's side finds that out by
        // itself: it is a gap before what is received next, and TCP's edge tells the rest.
        let early =
            if IN == INGRESS && ended { early_bytes(segment.ack, (*exchange).next_seq, &request) } else { 0 };
        if IN == EGRESS {
            (*exchange).opened.handshake_us = handshake_us(sk);
        }
        let parse = match (ended, early) {
            (true, 0) => Parse::Exact,
            (true, _) => {
                tracker::skip(&mut (*connection).sent, early);
                Parse::Unsynced
            }
            (false, _) => Parse::Adopted,
        };
        enrol::enrol(&mut Newcomer { skb, sk, connection, role, parse, older: false, exchange })
    }
}

/// Bytes that a client sent behind its request: as many as the server has acknowledged, or as went by here.
#[inline(always)]
fn early_bytes(acknowledged: u32, seen: u32, request: &UpgradeRequest) -> u32 {
    let last = if before(seen, acknowledged) { acknowledged } else { seen };
    if before(request.frames_seq, last) { last.wrapping_sub(request.frames_seq) } else { 0 }
}

/// Stands in a scanner's `inbound` where the first packet was a TLS ServerHello and no head.
pub(super) const HELLO: u8 = 2;
/// Stands there where the connection is older than the agent: it has no head, and another packet finds nothing to scan.
pub(super) const ELDER: u8 = 3;

/// A client begins TLS on a port that was named.
#[inline(always)]
pub(super) fn client_hello<const IN: bool>(sk: *mut c_void, segment: &Segment) {
    let flags = UpgradeRequest::CLIENT_HELLO | if IN { UpgradeRequest::INBOUND } else { 0 };
    let state = UpgradeRequest { start_seq: segment.seq, frames_seq: 0, flags, late_seq: 0 };
    // SAFETY: the context's socket.
    unsafe { maps::note_request(sk, state) };
}

/// A server answers: gives the connection its state, if a client was seen to ask.
#[inline(always)]
pub(super) fn server_hello<const IN: bool>(sk: *mut c_void, segment: &Segment) -> *mut Connection {
    // SAFETY: the context's socket; storage values live during the program.
    unsafe {
        let request = maps::request(sk);
        if request.is_null()
            || (*request).flags & UpgradeRequest::CLIENT_HELLO == 0
            || !(*request).is_answered_by(IN)
        {
            unasked::<IN>(sk);
            return null_mut();
        }
        let connection = create::<IN>(sk, segment.seq);
        if !connection.is_null() {
            (*connection).head.inbound = HELLO;
        }
        connection
    }
}

/// Starts to follow it: all that can be seen of it are its bytes, from the ClientHello on.
#[inline(never)]
pub(super) fn encrypted<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    connection: *mut Connection,
    segment: &Segment,
) -> bool {
    // SAFETY: as for `track`.
    unsafe {
        let tcp = bpf_tcp_sock(sk.cast::<bpf_sock>());
        let request = maps::request(sk);
        if tcp.is_null() || request.is_null() {
            return false;
        }
        let start = (*request).start_seq;
        maps::drop_request(sk);
        let role = if IN == EGRESS {
            let rcv_nxt = (*tcp).rcv_nxt;
            tracker::encrypted(&mut (*connection).sent, segment.seq);
            tracker::encrypted(&mut (*connection).received, rcv_nxt);
            (*connection).received.counters.unparsed_bytes = u64::from(rcv_nxt.wrapping_sub(start));
            Role::Server
        } else {
            tracker::encrypted(&mut (*connection).received, segment.seq);
            tracker::encrypted(&mut (*connection).sent, segment.ack);
            (*connection).sent.counters.unparsed_bytes = u64::from(segment.ack.wrapping_sub(start));
            Role::Client
        };
        flows::unsettle(flows::key::<IN>(segment, true));
        let exchange = exchange::none::<IN>(segment);
        if exchange.is_null() {
            return drop_head(sk, true);
        }
        let parse = Parse::Encrypted;
        enrol::enrol(&mut Newcomer { skb, sk, connection, role, parse, older: false, exchange })
    }
}
