//! Recognises a 101 on a socket that is not tracked yet, and starts tracking it.

use core::ffi::c_void;
use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{Connection, LISTENER_SLOTS, ListenerKey, Opened, Role, Stat, event};
use agent_ebpf::handshake::{MAX_HEAD, STATUS_LINE, Scanner};
use agent_ebpf::tracker::{self, Payload as _};
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_loop, bpf_sk_storage_get, bpf_tcp_sock,
};

use super::kernel;
use super::maps::{self, CONNECTIONS, EVENTS, FILTER_PORTS, LISTENERS, PORTS, TOTALS};
use super::packet::{self, EGRESS, INGRESS};
use super::segment::{Bytes, Segment};

/// Next free slot in the listener totals; slot 0 is for those that find none.
#[unsafe(no_mangle)]
static NEXT_SLOT: AtomicU32 = AtomicU32::new(1);

/// A 101 leaves a server (egress) and reaches a client (ingress). Cheap for everything else: one comparison.
#[inline(always)]
pub(super) fn look<const IN: bool>(skb: *mut __sk_buff, sk: *mut c_void, segment: Segment) {
    if segment.len < STATUS_LINE.len() as u32 {
        return;
    }
    let mut start = [0u8; 16];
    let payload = Bytes {
        skb,
        base: segment.offset,
    };
    if !payload.load(0, &mut start, STATUS_LINE.len() as u32) || !is_status_line(&start) {
        return;
    }
    upgrade::<IN>(skb, sk, segment.seq, segment.offset, segment.len);
}

#[inline(always)]
fn is_status_line(start: &[u8; 16]) -> bool {
    let word = |at: usize| u32::from_ne_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
    let want = |at: usize| {
        let s = &STATUS_LINE;
        u32::from_ne_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]])
    };
    word(0) == want(0) && word(4) == want(4) && word(8) == want(8)
}

/// Where the scan of a response head stands.
struct Head {
    payload: Bytes,
    scanner: Scanner,
    chunk: [u8; 16],
    offset: u32,
    len: u32,
}

/// Reads one byte of the head; chunks of 16 keep the helper calls down.
extern "C" fn scan(_index: u64, head: *mut Head) -> i64 {
    // SAFETY: `upgrade` passes a live context that nothing else refers to during the loop.
    let head = unsafe { &mut *head };
    let at = head.offset & 15;
    if at == 0 {
        let left = head.len.wrapping_sub(head.offset);
        let wanted = if left < 16 { left } else { 16 };
        if !head.payload.load(head.offset, &mut head.chunk, wanted) {
            return 1;
        }
    }
    let more = head.scanner.push(head.chunk[at as usize]);
    head.offset += 1;
    i64::from(!more || head.offset >= head.len)
}

/// Out of line: rare, and the packet path should not carry its stack and registers.
#[inline(never)]
fn upgrade<const IN: bool>(skb: *mut __sk_buff, sk: *mut c_void, seq: u32, offset: u32, len: u32) {
    let mut head = Head {
        payload: Bytes { skb, base: offset },
        scanner: Scanner::default(),
        chunk: [0; 16],
        offset: 0,
        len,
    };
    let turns = if len < MAX_HEAD { len } else { MAX_HEAD };
    // SAFETY: the context outlives the call; the callback stops at the head's or the packet's end.
    unsafe { bpf_loop(turns, scan as *mut c_void, (&raw mut head).cast(), 0) };
    if !head.scanner.is_upgrade() {
        maps::count(Stat::HandshakesUnparsed);
        return;
    }
    if let Some(connection) = track::<IN>(skb, sk, seq.wrapping_add(head.offset), head.scanner.deflate().0) {
        // Frames may stand right behind the head, in this very packet; the tracker skips what is before them.
        packet::tracked::<IN>(skb, connection, Segment { seq, offset, len });
    }
}

/// Starts tracking; `frames_seq` is the sequence number of the first byte behind the head.
#[inline(always)]
fn track<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    frames_seq: u32,
    deflate: u16,
) -> Option<*mut Connection> {
    // SAFETY: `sk` is the context's socket; every pointer is null-checked before use. The new value is zeroed and no
    // other program changes it before this one has filled it: the peer answers the 101 only after it was sent.
    unsafe {
        let tcp = kernel::tcp_sock(sk);
        let state = bpf_tcp_sock(sk.cast::<bpf_sock>());
        if tcp.is_null() || state.is_null() {
            return None;
        }
        let (rcv_nxt, snd_nxt) = ((*state).rcv_nxt, (*state).snd_nxt);
        let role = if IN == INGRESS { Role::Client } else { Role::Server };
        let mut endpoints = kernel::endpoints(tcp);
        let port = if IN == EGRESS {
            endpoints.local_port
        } else {
            endpoints.remote_port
        };
        if FILTER_PORTS.load() != 0 && PORTS.get(&port).is_none() {
            return None;
        }
        let listener = slot(ListenerKey {
            netns: endpoints.netns,
            port,
            role: role as u16,
        });
        let connection: *mut Connection = bpf_sk_storage_get(
            addr_of!(CONNECTIONS).cast_mut().cast(),
            sk,
            null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
        .cast();
        if connection.is_null() {
            maps::count(Stat::StorageRefused);
            return None;
        }
        let now = bpf_ktime_get_ns();
        let cookie = bpf_get_socket_cookie(skb.cast());
        (*connection).opened_ns = now;
        (*connection).cookie = cookie;
        (*connection).ifindex = (*skb).ifindex;
        (*connection).listener = listener;
        (*connection).fd = -1;
        (*connection).role = role as u16;
        (*connection).deflate = deflate;
        // Frames from the client are masked, frames from the server are not (RFC 6455 section 5.1).
        if IN == EGRESS {
            tracker::start(&mut (*connection).sent, frames_seq, false);
            tracker::start(&mut (*connection).received, rcv_nxt, true);
        } else {
            tracker::start(&mut (*connection).received, frames_seq, false);
            tracker::start(&mut (*connection).sent, snd_nxt, true);
        }
        if let Some(totals) = TOTALS.get_ptr_mut(listener) {
            (*totals).opened += 1;
        }
        endpoints.reserved = role as u32;
        announce(Opened {
            kind: event::OPENED,
            time_ns: now,
            cookie,
            endpoints,
        });
        Some(connection)
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
    if let Some(slot) = unsafe { LISTENERS.get(&key) } {
        return *slot;
    }
    let next = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
    if next < LISTENER_SLOTS as u32 && LISTENERS.insert(&key, &next, u64::from(BPF_NOEXIST)).is_ok() {
        return next;
    }
    // Full, or another CPU was faster.
    // SAFETY: as above.
    match unsafe { LISTENERS.get(&key) } {
        Some(slot) => *slot,
        None => {
            maps::count(Stat::ListenersFull);
            0
        }
    }
}
