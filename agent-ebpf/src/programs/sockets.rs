//! iter/tcp: one record per tracked socket of the reader's network namespace, and one per candidate that may be presumed to be a
//! WebSocket. A host may have very many candidates that are none: they are left out here, where that costs two look-ups.

use core::ffi::c_void;

use agent_ebpf::abi::{Connection, Endpoints, ListenerKey, Role, SocketHeader, Unjudged, event, grounds};
use agent_ebpf::candidate::Candidate;
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_seq_write};

use super::kernel;
use super::maps::{self, LISTENERS};

/// `struct bpf_iter__tcp`: stable since 5.9.
#[repr(C)]
pub(super) struct TcpIterator {
    meta: *const Meta,
    pub(super) sk_common: *mut c_void,
    uid: u32,
}

impl TcpIterator {
    /// Where records are written to.
    ///
    /// # Safety
    /// The context of a running iterator.
    #[inline(always)]
    pub(super) unsafe fn seq(&self) -> *mut seq_file {
        // SAFETY: by contract the meta data is there on every call.
        unsafe { (*self.meta).seq }
    }
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
        if connection.is_null() {
            let candidate = maps::candidate(sk);
            if !candidate.is_null() {
                show_candidate(&*ctx, sk, candidate);
            }
            return 0;
        }
        // Without a role it is a response head that is still being scanned.
        if (*connection).role == 0 {
            return 0;
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return 0;
        }
        let header = kernel::header(tcp, 0, bpf_ktime_get_ns());
        let seq = (*ctx).seq();
        // Where the buffer ends in between, the kernel drops what this call wrote and calls again for this socket.
        bpf_seq_write(seq, (&raw const header).cast(), size_of::<SocketHeader>() as u32);
        bpf_seq_write(seq, connection.cast_const().cast(), size_of::<Connection>() as u32);
    }
    0
}

/// Writes a record of a candidate, where anything speaks for its being a WebSocket.
///
/// # Safety
/// The context of a running iterator, its socket, and that socket's candidate; neither is null.
#[inline(always)]
unsafe fn show_candidate(ctx: &TcpIterator, sk: *mut c_void, candidate: *const Candidate) {
    // SAFETY: by contract; the pointer to the TCP socket is checked before use.
    unsafe {
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return;
        }
        let header = kernel::header(tcp, event::CANDIDATE, bpf_ktime_get_ns());
        let grounds = grounds(&header.endpoints);
        if grounds == 0 {
            return;
        }
        let unjudged = Unjudged {
            cookie: bpf_get_socket_cookie(sk),
            unparsed_bytes: (*candidate).received.passed + (*candidate).sent.passed,
            pid: (*candidate).pid,
            fd: (*candidate).fd,
            grounds,
            reserved: 0,
        };
        bpf_seq_write(ctx.seq(), (&raw const header).cast(), size_of::<SocketHeader>() as u32);
        bpf_seq_write(ctx.seq(), (&raw const unjudged).cast(), size_of::<Unjudged>() as u32);
    }
}

/// What speaks for a connection between these ends being a WebSocket: bits of [`grounds`].
#[inline(always)]
fn grounds(endpoints: &Endpoints) -> u32 {
    let (local, remote, netns) = (endpoints.local_port, endpoints.remote_port, endpoints.netns);
    let named = |port: u16, bit: u32| if maps::ports_are_named() && maps::wanted(port) { bit } else { 0 };
    let known = |port: u16, role: Role, bit: u32| {
        // SAFETY: the value is a plain integer, and only its presence matters.
        let slot = unsafe { LISTENERS.get(ListenerKey { netns, port, role: role as u16 }) };
        if slot.is_some() { bit } else { 0 }
    };
    named(local, grounds::LOCAL_PORT_NAMED)
        | named(remote, grounds::REMOTE_PORT_NAMED)
        | known(local, Role::Server, grounds::SERVER_KNOWN)
        | known(remote, Role::Client, grounds::CLIENT_KNOWN)
}
