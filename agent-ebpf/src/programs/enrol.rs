//! What every connection gets that is tracked from now on: its listener's slot, its identity, and an event.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use agent_ebpf::abi::{
    Connection, Exchange, ListenerKey, Opened, Parse, REQUEST_BYTES, RESPONSE_BYTES, Role, Stat, event, stage,
};
use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_ringbuf_output};

use super::maps::{self, EVENTS, TOTALS};
use super::{exchange, kernel, slots};

/// The state of a socket that nothing can be sent to or received from any more.
const TCP_CLOSE: u16 = 7;

/// Who is to be enrolled. One argument, as a subprogram takes no more than five.
pub(super) struct Newcomer {
    pub(super) skb: *mut __sk_buff,
    pub(super) sk: *mut c_void,
    /// Its state, with both directions started.
    pub(super) connection: *mut Connection,
    pub(super) role: Role,
    pub(super) parse: Parse,
    /// It is older than the agent.
    pub(super) older: bool,
    /// Where the event is put together.
    pub(super) exchange: *mut Exchange,
}

/// Completes the state; returns whether that was possible.
#[inline(never)]
pub(super) fn enrol(newcomer: &mut Newcomer) -> bool {
    let Newcomer { skb, sk, connection, role, parse, older, exchange } = newcomer;
    let (skb, sk, connection, older, exchange) = (*skb, *sk, *connection, *older, *exchange);
    let (role, parse) = (*role as u16, *parse as u16);
    // SAFETY: the context and its socket; map values, live during the program.
    unsafe {
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            exchange::release(exchange, 0);
            return false;
        }
        let opened = addr_of_mut!((*exchange).opened);
        (*opened).endpoints = kernel::endpoints(tcp);
        let is_server = role == Role::Server as u16;
        let endpoints = &(*opened).endpoints;
        // Packets come in before the socket's lock is taken. A socket that is closed by now has been destroyed, or will be, by a
        // program that may not have found this state.
        if endpoints.state == TCP_CLOSE {
            exchange::release(exchange, 0);
            return false;
        }
        let port = if is_server { endpoints.local_port } else { endpoints.remote_port };
        let listener = slots::slot(ListenerKey { netns: endpoints.netns, port, role });
        let now = bpf_ktime_get_ns();
        let cookie = bpf_get_socket_cookie(skb.cast());
        (*connection).opened_ns = if older { 0 } else { now };
        (*connection).cookie = cookie;
        (*connection).ifindex = (*skb).ifindex;
        (*connection).listener = listener;
        (*connection).fd = -1;
        (*connection).retransmitted = kernel::retransmitted(tcp);
        if let Some(totals) = TOTALS.get_ptr_mut(listener) {
            let adopted = addr_of_mut!((*totals).adopted);
            maps::increment(if older { adopted } else { addr_of_mut!((*totals).opened) });
            // What went by before it is followed.
            let (received, sent) = (addr_of_mut!((*totals).received), addr_of_mut!((*totals).nested));
            let unparsed = (*connection).received.counters.unparsed_bytes;
            maps::add(addr_of_mut!((*received).counters.unparsed_bytes), unparsed);
            let unparsed = (*connection).sent.counters.unparsed_bytes;
            maps::add(addr_of_mut!((*sent).counters.unparsed_bytes), unparsed);
        }
        // From here on packets of either direction are followed.
        (*connection).role = role;
        (*opened).kind = event::OPENED;
        (*opened).time_ns = now;
        (*opened).cookie = cookie;
        (*opened).role = role;
        (*opened).parse = parse;
        (*opened).older = u16::from(older);
        (*opened).deflate = (*connection).deflate;
        announce(exchange);
        exchange::release(exchange, 0);
        // Not relaxed: see `slot`.
        let stage = AtomicU32::from_ptr(addr_of_mut!((*connection).stage));
        if stage.swap(stage::REGISTERED, Ordering::AcqRel) == stage::DESTROYED {
            // Destroyed meanwhile, by a program that found nothing registered and left the end to this one. The event that tells of it
            // is missing.
            if let Some(totals) = TOTALS.get_ptr_mut(listener) {
                maps::increment(addr_of_mut!((*totals).closed));
            }
            maps::count(Stat::EventsLost);
        }
    }
    true
}

/// Sends the event, with as much of the request as there is.
#[inline(always)]
unsafe fn announce(exchange: *mut Exchange) {
    const FIXED: usize = size_of::<Opened>() + RESPONSE_BYTES;
    // SAFETY: the entry is the exchange's front, in a map value.
    unsafe {
        // The verifier must see the bound, which the volatile read hides from the compiler.
        let kept = usize::from(addr_of_mut!((*exchange).opened.request_len).read_volatile())
            & (2 * REQUEST_BYTES - 1);
        let len = (FIXED + kept) as u64;
        let events = core::ptr::addr_of!(EVENTS).cast_mut().cast();
        if bpf_ringbuf_output(events, exchange.cast(), len, u64::from(BPF_RB_NO_WAKEUP)) != 0 {
            maps::count(Stat::EventsLost);
        }
    }
}
