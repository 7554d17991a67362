//! Recognises a 101 on a socket that is not tracked yet, and starts tracking it.

use core::ffi::c_void;
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{Connection, LISTENER_SLOTS, ListenerKey, Opened, Role, Stat, event};
use agent_ebpf::handshake::STATUS_LINE;
use agent_ebpf::tracker::{self, Payload as _};
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_loop, bpf_sk_storage_delete, bpf_sk_storage_get,
    bpf_tcp_sock,
};

use aya_log_ebpf_macros::debug;

use super::maps::{self, CONNECTIONS, EVENTS, LISTENERS, TOTALS};
use super::packet::{EGRESS, INGRESS};
use super::segment::{Bytes, Segment};
use super::{flows, kernel};

/// Next free slot in the listener totals; slot 0 is for those that find none.
#[unsafe(no_mangle)]
static NEXT_SLOT: AtomicU32 = AtomicU32::new(1);

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
}

/// Reads one byte of the head; chunks of 16 keep the helper calls down.
extern "C" fn turn(index: u64, scan: *mut Scan) -> i64 {
    // SAFETY: `scan` below passes a live context that nothing else refers to during the loop.
    let scan = unsafe { &mut *scan };
    let at = (index & 15) as usize;
    if at == 0 {
        let offset = scan.start + index as u32;
        // SAFETY: the context's packet.
        let left = unsafe { (*scan.payload.skb).len } - scan.payload.base - offset;
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
        let mut state =
            Scan { payload: Bytes { skb, base: segment.offset }, connection, chunk: [0; 16], start: seen };
        let before = (*connection).head.taken();
        let turns = segment.len - seen;
        // The scanner stops by itself at the head's end or at its limit.
        bpf_loop(turns, turn as *mut c_void, (&raw mut state).cast(), 0);
        let head = &(*connection).head;
        direction.next_seq = direction.next_seq.wrapping_add(u32::from(head.taken() - before));
        if head.is_upgrade() {
            flows::unsettle_reverse::<IN>(segment);
            log(skb, u32::from(head.taken()));
            return track::<IN>(skb, sk, connection);
        }
        if head.ended() || head.failed() {
            // A response of another status that came in small pieces is no loss; a 101 is.
            return drop_head(sk, usize::from(head.taken()) > STATUS_LINE.len());
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

/// The head ended: tells where the frames of both directions begin.
#[inline(always)]
fn track<const IN: bool>(skb: *mut __sk_buff, sk: *mut c_void, connection: *mut Connection) -> bool {
    // SAFETY: as for `scan`; every pointer is null-checked before use. No packet of the other direction touches the
    // value before `role` is set, which is done last.
    unsafe {
        let tcp = kernel::tcp_sock(sk);
        let state = bpf_tcp_sock(sk.cast::<bpf_sock>());
        if tcp.is_null() || state.is_null() {
            return false;
        }
        let (rcv_nxt, snd_nxt) = ((*state).rcv_nxt, (*state).snd_nxt);
        let role = if IN == INGRESS { Role::Client } else { Role::Server };
        let mut endpoints = kernel::endpoints(tcp);
        let port = if IN == EGRESS { endpoints.local_port } else { endpoints.remote_port };
        let listener = slot(ListenerKey { netns: endpoints.netns, port, role: role as u16 });
        let now = bpf_ktime_get_ns();
        let cookie = bpf_get_socket_cookie(skb.cast());
        (*connection).opened_ns = now;
        (*connection).cookie = cookie;
        (*connection).ifindex = (*skb).ifindex;
        (*connection).listener = listener;
        (*connection).fd = -1;
        (*connection).deflate = (*connection).head.deflate().0;
        // Frames from the client are masked, frames from the server are not (RFC 6455 section 5.1).
        if IN == EGRESS {
            let frames = (*connection).sent.next_seq;
            tracker::start(&mut (*connection).sent, frames, false);
            tracker::start(&mut (*connection).received, rcv_nxt, true);
        } else {
            let frames = (*connection).received.next_seq;
            tracker::start(&mut (*connection).received, frames, false);
            tracker::start(&mut (*connection).sent, snd_nxt, true);
        }
        if let Some(totals) = TOTALS.get_ptr_mut(listener) {
            maps::increment(addr_of_mut!((*totals).opened));
        }
        (*connection).role = role as u16;
        endpoints.reserved = role as u32;
        announce(Opened { kind: event::OPENED, time_ns: now, cookie, endpoints });
        true
    }
}

#[inline(always)]
fn announce(opened: Opened) {
    match EVENTS.reserve_untyped::<Opened>(0) {
        Some(mut entry) => {
            entry.write(opened);
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => maps::count(Stat::EventsLost),
    }
}

/// The listener's slot in the totals, given out on first sight.
#[inline(always)]
fn slot(key: ListenerKey) -> u32 {
    // SAFETY: the value is a plain integer, written once.
    if let Some(slot) = unsafe { LISTENERS.get(key) } {
        return *slot;
    }
    // Not relaxed: LLVM's BPF back end turns a relaxed fetch_add into the form that returns nothing, and `next` would be
    // the addend.
    let next = NEXT_SLOT.fetch_add(1, Ordering::AcqRel);
    if next < LISTENER_SLOTS as u32 && LISTENERS.insert(key, next, u64::from(BPF_NOEXIST)).is_ok() {
        return next;
    }
    // Full, or another CPU was faster.
    // SAFETY: as above.
    match unsafe { LISTENERS.get(key) } {
        Some(slot) => *slot,
        None => {
            maps::count(Stat::ListenersFull);
            0
        }
    }
}
