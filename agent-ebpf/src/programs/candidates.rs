//! iter/tcp: makes every established connection that is not tracked a candidate, once, when the agent has attached. Writes the
//! network namespace of each, so that sweeps know where there are some.

use core::ffi::c_void;

use agent_ebpf::flow::Key;
use aya_ebpf::helpers::generated::bpf_seq_write;

use super::sockets::TcpIterator;
use super::{flows, kernel, maps};

const TCP_ESTABLISHED: u16 = 1;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn headroom_candidates(ctx: *const TcpIterator) -> i32 {
    // SAFETY: the iterator's context; `sk_common` is null on the last call and checked, as is what it leads to.
    unsafe {
        let sk: *mut c_void = (*ctx).sk_common;
        if sk.is_null() {
            return 0;
        }
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return 0;
        }
        let endpoints = kernel::endpoints(tcp);
        if endpoints.state != TCP_ESTABLISHED
            || !(maps::wanted(endpoints.local_port) || maps::wanted(endpoints.remote_port))
            || !maps::connection(sk).is_null()
        {
            return 0;
        }
        // An iterator may show a socket twice.
        if maps::candidate(sk).is_null() {
            maps::add_candidate(sk);
        }
        let netns = u64::from(endpoints.netns);
        bpf_seq_write((*ctx).seq(), (&raw const netns).cast(), size_of::<u64>() as u32);
        // What its packets said of its flows until now must not hide the next ones.
        let (local, remote) =
            (u32::from(endpoints.local_port.to_be()), u32::from(endpoints.remote_port.to_be()));
        let (here, there) = (
            kernel::last_word(&endpoints.local, endpoints.family),
            kernel::last_word(&endpoints.remote, endpoints.family),
        );
        let secret = maps::flow_key();
        flows::unsettle(Key::new(secret, local | remote << 16, (here, there), 0, false));
        flows::unsettle(Key::new(secret, remote | local << 16, (there, here), 0, true));
    }
    0
}
