//! tp_btf on `tcp_destroy_sock`: a tracked socket's last word, with its final counts.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use agent_ebpf::abi::{Connection, Direction, Parse, SocketHeader, Stat, event, stage};
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::kernel::OFF_RCV_NXT;
use super::maps::{self, EVENTS, TOTALS};
use super::{holes, kernel, parked, receive};

/// As the ring buffer carries it.
#[repr(C)]
struct Closed {
    header: SocketHeader,
    connection: Connection,
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
fn headroom_destroy(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a live socket; every pointer is null-checked before use, and a reserved
    // entry is written whole before it is submitted.
    unsafe {
        if !maps::is_switched_on() {
            return 0;
        }
        let connection = maps::connection(sk);
        let candidate = maps::candidate(sk);
        if !candidate.is_null() {
            maps::drop_candidate(sk, candidate);
        }
        if connection.is_null() {
            return 0;
        }
        // Not registered is a response head that never ended, or a connection that is being registered right now on another CPU: that
        // program finds this mark, and counts the end.
        let stage = AtomicU32::from_ptr(addr_of_mut!((*connection).stage));
        if stage.swap(stage::DESTROYED, Ordering::AcqRel) != stage::REGISTERED {
            return 0;
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return 0;
        }
        let now = bpf_ktime_get_ns();
        // For good: a packet on its way on another CPU finds the direction taken. Where one is at work right now, its few
        // bytes are told from the rest below.
        receive::enter(addr_of_mut!((*connection).received));
        if let Some(totals) = TOTALS.get_ptr_mut((*connection).listener) {
            maps::increment(addr_of_mut!((*totals).closed));
            end_wait(&mut (*connection).received, addr_of_mut!((*totals).stalled_ns), now);
            // A header that was not completed will not be any more.
            let (received, sent) = (addr_of_mut!((*totals).received), addr_of_mut!((*totals).nested));
            let unseen = unseen(tcp, &(*connection).received);
            abandon(&mut (*connection).received, unseen, addr_of_mut!((*received).counters.unparsed_bytes));
            abandon(&mut (*connection).sent, 0, addr_of_mut!((*sent).counters.unparsed_bytes));
        }
        parked::discard(connection);
        holes::release(&mut (*connection).received, (*connection).cookie);
        let Some(mut entry) = EVENTS.reserve_untyped::<Closed>(0) else {
            maps::count(Stat::EventsLost);
            return 0;
        };
        let closed = entry.as_mut_ptr();
        (*closed).header = kernel::header(tcp, event::CLOSED, now);
        copy(connection, addr_of_mut!((*closed).connection));
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    0
}

/// Bytes that TCP has from the peer and no packet program saw. A FIN takes a sequence number as well, so one is none.
#[inline(always)]
unsafe fn unseen(tcp: *const c_void, received: &Direction) -> u32 {
    // SAFETY: the caller's TCP socket.
    let rcv_nxt: u32 = unsafe { kernel::member(tcp, &OFF_RCV_NXT) };
    let behind = rcv_nxt.wrapping_sub(received.next_seq) as i32;
    if behind > 1 { behind as u32 - 1 } else { 0 }
}

/// Counts the bytes of a header that is still being put together, and those that were never seen, so that every byte of the
/// stream is in one sum.
#[inline(always)]
unsafe fn abandon(direction: &mut Direction, unseen: u32, unparsed: *mut u64) {
    let bytes = u64::from(direction.held) + u64::from(unseen);
    if bytes == 0 {
        return;
    }
    direction.held = 0;
    direction.next_seq = direction.next_seq.wrapping_add(unseen);
    direction.counters.unparsed_bytes += bytes;
    if direction.parse < Parse::Unsynced as u8 {
        direction.parse = Parse::Unsynced as u8;
    }
    // SAFETY: a count in a map value, which a packet program may be adding to.
    unsafe { AtomicU64::from_ptr(unparsed) }.fetch_add(bytes, Ordering::Relaxed);
}

/// A wait for a lost segment that ends with the connection.
#[inline(always)]
unsafe fn end_wait(direction: &mut Direction, total: *mut u64, now: u64) {
    if direction.stalled_since_ns != 0 {
        let waited = now.wrapping_sub(direction.stalled_since_ns);
        direction.stalled_since_ns = 0;
        direction.stalled_ns += waited;
        // SAFETY: a count in a map value, which a packet program may be adding to.
        unsafe { AtomicU64::from_ptr(total) }.fetch_add(waited, Ordering::Relaxed);
    }
}

/// Copies by the word: as one assignment, a value of this size goes through the stack.
#[inline(always)]
unsafe fn copy(from: *const Connection, to: *mut Connection) {
    for word in 0..size_of::<Connection>() / 8 {
        // SAFETY: both are valid, aligned to 8 bytes and do not overlap; the size is a multiple of 8.
        unsafe { to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read()) };
    }
}
