//! iter/tcp: one record per tracked socket of the reader's network namespace.

use core::ffi::c_void;

use agent_ebpf::abi::{Connection, SocketHeader};
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_seq_write};

use super::{kernel, maps};

/// `struct bpf_iter__tcp`: stable since 5.9.
#[repr(C)]
pub(super) struct TcpIterator {
    meta: *const Meta,
    pub(super) sk_common: *mut c_void,
    uid: u32,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
pub(super) struct Meta {
    pub(super) seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn headroom_sockets(ctx: *const TcpIterator) -> i32 {
    // SAFETY: the iterator's context; `sk_common` is null on the last call and checked, as is what it leads to.
    unsafe {
        let sk = (*ctx).sk_common;
        if sk.is_null() {
            return 0;
        }
        let connection = maps::connection(sk);
        // Without a role it is a response head that is still being scanned.
        if connection.is_null() || (*connection).role == 0 {
            return 0;
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return 0;
        }
        let header = kernel::header(tcp, 0, bpf_ktime_get_ns());
        let seq = (*(*ctx).meta).seq;
        // Where the buffer ends in between, the kernel drops what this call wrote and calls again for this socket.
        bpf_seq_write(seq, (&raw const header).cast(), size_of::<SocketHeader>() as u32);
        bpf_seq_write(seq, connection.cast_const().cast(), size_of::<Connection>() as u32);
    }
    0
}
