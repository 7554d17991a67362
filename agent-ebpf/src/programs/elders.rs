//! Packets of connections older than the agent, until it is known what they are.

use core::ffi::c_void;

use agent_ebpf::abi::{Parse, Role};
use agent_ebpf::candidate::{Candidate, HEADERS, Judgement, Observation, Side};
use agent_ebpf::tracker;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_tcp_sock};

use super::enrol::{self, Newcomer};
use super::segment::{Bytes, KernelClock, Segment};
use super::{exchange, flows, maps, upgrade};

/// Looks at a packet and, once the candidate has shown what it is, acts on it.
#[inline(never)]
pub(super) fn observe<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    candidate: *mut Candidate,
    segment: &Segment,
) {
    if segment.len == 0 {
        return;
    }
    // SAFETY: a storage value, live during the program. Ingress may come from several CPUs at once: what they do to each
    // other's bookkeeping is lost evidence.
    unsafe {
        let side = if IN { &mut (*candidate).received } else { &mut (*candidate).sent };
        let payload = Bytes::<KernelClock>::of(skb, segment);
        let mut observation = Observation { side, payload, seq: segment.seq, len: segment.len, at: 0 };
        if observation.begin() {
            bpf_loop(HEADERS, turn as *mut c_void, (&raw mut observation).cast(), 0);
        }
        match (*candidate).judge() {
            Judgement::Undecided => {}
            Judgement::WebSocket(server) => adopt::<IN>(skb, sk, candidate, segment, server, false),
            // Without named ports nobody says that a TLS connection is a WebSocket.
            Judgement::Tls if maps::ports_are_named() => {
                let server = maps::wanted(local_port::<IN>(segment));
                adopt::<IN>(skb, sk, candidate, segment, server, true);
            }
            Judgement::Tls | Judgement::Other => maps::drop_candidate(sk),
        }
    }
}

/// One header, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn turn(_index: u64, observation: *mut Observation<'_, Bytes<KernelClock>>) -> i64 {
    // SAFETY: `observe` passes a live value that nothing else refers to meanwhile.
    i64::from(unsafe { !(*observation).step() })
}

#[inline(always)]
fn local_port<const IN: bool>(segment: &Segment) -> u16 {
    if IN { segment.destination_port() } else { segment.source_port() }
}

#[inline(always)]
fn remote_port<const IN: bool>(segment: &Segment) -> u16 {
    if IN { segment.source_port() } else { segment.destination_port() }
}

/// Starts tracking, behind this packet.
#[inline(always)]
unsafe fn adopt<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    candidate: *mut Candidate,
    segment: &Segment,
    server: bool,
    encrypted: bool,
) {
    // SAFETY: as for `observe`; every pointer is null-checked before use.
    unsafe {
        let (received, sent): (Side, Side) = ((*candidate).received, (*candidate).sent);
        maps::drop_candidate(sk);
        if !maps::wanted(if server { local_port::<IN>(segment) } else { remote_port::<IN>(segment) }) {
            return;
        }
        let tcp = bpf_tcp_sock(sk.cast::<bpf_sock>());
        if tcp.is_null() {
            return;
        }
        let connection = upgrade::begin::<IN>(sk, segment.seq);
        if connection.is_null() {
            return;
        }
        // A direction that was silent goes on where TCP stands.
        let received_seq = if received.begun() { received.seen } else { (*tcp).rcv_nxt };
        let sent_seq = if sent.begun() { sent.seen } else { (*tcp).snd_nxt };
        let parse = if encrypted {
            tracker::encrypted(&mut (*connection).received, received_seq);
            tracker::encrypted(&mut (*connection).sent, sent_seq);
            Parse::Encrypted
        } else {
            tracker::adopt(&mut (*connection).received, received_seq, server, received.boundary());
            tracker::adopt(&mut (*connection).sent, sent_seq, !server, sent.boundary());
            Parse::Adopted
        };
        flows::unsettle(flows::key::<IN>(segment, false));
        flows::unsettle(flows::key::<IN>(segment, true));
        let role = if server { Role::Server } else { Role::Client };
        let exchange = exchange::none::<IN>(segment);
        if !exchange.is_null() {
            enrol::enrol(&mut Newcomer { skb, sk, connection, role, parse, exchange });
        }
    }
}
