//! Recognises a 101 on a socket that is not tracked yet, and starts tracking it.

use core::ffi::c_void;
use core::ptr::{addr_of, null_mut};

use agent_ebpf::abi::{Connection, Parse, Role, Stat};
use agent_ebpf::handshake::STATUS_LINE;
use agent_ebpf::tracker::{self, Payload as _};
use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_tcp_sock};

use aya_log_ebpf_macros::debug;

use super::enrol::{self, Newcomer};
use super::maps::{self, CONNECTIONS};
use super::packet::{EGRESS, INGRESS};
use super::segment::{Bytes, KernelClock, Segment};
use super::{exchange, flows};

/// Gives a suspect socket its state, in which the head is scanned; null where there is no memory.
#[inline(never)]
pub(super) fn begin<const IN: bool>(sk: *mut c_void, seq: u32) -> *mut Connection {
    // SAFETY: `sk` is the context's socket; every pointer is null-checked before use.
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

/// The head ended: tells where the frames of both directions begin.
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
        let (rcv_nxt, snd_nxt) = ((*tcp).rcv_nxt, (*tcp).snd_nxt);
        let deflate = (*connection).head.deflate();
        (*connection).deflate = deflate.0;
        let compressible = deflate.negotiated();
        // Frames from the client are masked, frames from the server are not (RFC 6455 section 5.1).
        let (role, request_end) = if IN == EGRESS {
            let frames = (*connection).sent.next_seq;
            tracker::begin(&mut (*connection).sent, frames, false, compressible);
            tracker::begin(&mut (*connection).received, rcv_nxt, true, compressible);
            (Role::Server, rcv_nxt)
        } else {
            let frames = (*connection).received.next_seq;
            tracker::begin(&mut (*connection).received, frames, false, compressible);
            tracker::begin(&mut (*connection).sent, snd_nxt, true, compressible);
            (Role::Client, snd_nxt)
        };
        let exchange = exchange::finish::<IN>(skb, segment, request_end, head_len);
        if exchange.is_null() {
            return drop_head(sk, true);
        }
        if IN == EGRESS {
            (*exchange).opened.handshake_us = handshake_us(sk);
        }
        enrol::enrol(&mut Newcomer { skb, sk, connection, role, parse: Parse::Exact, older: false, exchange })
    }
}

/// Stands in a scanner's `inbound` where the first packet was a TLS ServerHello and no head.
pub(super) const HELLO: u8 = 2;
/// Stands there where the connection is older than the agent: it has no head, and another packet finds nothing to scan.
pub(super) const ELDER: u8 = 3;

/// Gives a TLS connection on a port that was named its state.
#[inline(always)]
pub(super) fn hello<const IN: bool>(sk: *mut c_void, seq: u32) -> *mut Connection {
    let connection = begin::<IN>(sk, seq);
    if !connection.is_null() {
        // SAFETY: a storage value, live during the program.
        unsafe { (*connection).head.inbound = HELLO };
    }
    connection
}

/// Starts to follow it: all that can be seen of it are its bytes.
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
        if tcp.is_null() {
            return false;
        }
        let role = if IN == EGRESS {
            tracker::encrypted(&mut (*connection).sent, segment.seq);
            tracker::encrypted(&mut (*connection).received, (*tcp).rcv_nxt);
            Role::Server
        } else {
            tracker::encrypted(&mut (*connection).received, segment.seq);
            tracker::encrypted(&mut (*connection).sent, (*tcp).snd_nxt);
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
