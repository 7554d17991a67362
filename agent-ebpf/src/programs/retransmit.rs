//! tp_btf on `tcp_retransmit_skb`: what a listener's sockets sent again.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU64, Ordering};

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::kernel;
use super::maps::{self, TOTALS};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn headroom_retransmit(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a live socket; every pointer is null-checked before use. The socket is locked,
    // so nobody else counts its retransmissions meanwhile.
    unsafe {
        let connection = maps::connection(sk);
        if connection.is_null() || (*connection).role == 0 {
            return 0;
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return 0;
        }
        let retransmitted = kernel::retransmitted(tcp);
        let new = retransmitted.wrapping_sub((*connection).retransmitted);
        (*connection).retransmitted = retransmitted;
        if let Some(totals) = TOTALS.get_ptr_mut((*connection).listener) {
            AtomicU64::from_ptr(addr_of_mut!((*totals).retransmitted))
                .fetch_add(u64::from(new), Ordering::Relaxed);
        }
    }
    0
}
