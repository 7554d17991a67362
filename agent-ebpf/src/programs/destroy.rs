//! tp_btf on `tcp_destroy_sock`: a tracked socket's last word, with its final counts.

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use agent_ebpf::abi::{Connection, SocketHeader, Stat, event};
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::kernel;
use super::maps::{self, EVENTS, TOTALS};

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
        let connection = maps::connection(sk);
        // Without a role it is a response head that never ended.
        if connection.is_null() || (*connection).role == 0 {
            return 0;
        }
        if let Some(totals) = TOTALS.get_ptr_mut((*connection).listener) {
            maps::increment(addr_of_mut!((*totals).closed));
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return 0;
        }
        let Some(mut entry) = EVENTS.reserve_untyped::<Closed>(0) else {
            maps::count(Stat::EventsLost);
            return 0;
        };
        let closed = entry.as_mut_ptr();
        (*closed).header = SocketHeader {
            kind: event::CLOSED,
            time_ns: bpf_ktime_get_ns(),
            endpoints: kernel::endpoints(tcp),
            memory: kernel::memory(tcp),
        };
        (*closed).connection = *connection;
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    0
}
