//! Packets of connections older than the agent, until it is known what they are.

use core::ffi::c_void;

use agent_ebpf::abi::{Parse, Role};
use agent_ebpf::candidate::{Candidate, HEADERS, Judgement, Observation, Side};
use agent_ebpf::handshake::STATUS_LINE;
use agent_ebpf::opening::{Opening, opening};
use agent_ebpf::reorder::before;
use agent_ebpf::tracker::{self, Payload as _};
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_tcp_sock};

use super::enrol::{self, Newcomer};
use super::segment::{Bytes, KernelClock, Segment};
use super::{exchange, flows, kernel, maps, upgrade};

/// What a candidate has turned out to be, as a subprogram can return it.
pub(super) type Finding = u32;
/// Nothing yet, or nothing of interest.
pub(super) const NOTHING: Finding = 0;
/// A WebSocket of which this host's socket is the server's.
const SERVER: Finding = 1;
/// A WebSocket of which it is the client's.
const CLIENT: Finding = 2;
/// TLS on a port that was named.
const TLS: Finding = 3;

/// Looks at a packet.
#[inline(never)]
pub(super) fn observe<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    candidate: *mut Candidate,
    segment: &Segment,
) -> Finding {
    if segment.len == 0 {
        return NOTHING;
    }
    // SAFETY: a storage value, live during the program. Ingress may come from several CPUs at once: what they do to each
    // other's bookkeeping is lost evidence.
    unsafe {
        if IN && is_refused(sk, &(*candidate).received, segment) {
            return NOTHING;
        }
        let (side, heard) = if IN {
            (&mut (*candidate).received, (*candidate).sent.seen)
        } else {
            (&mut (*candidate).sent, (*candidate).received.seen)
        };
        let payload = Bytes::<KernelClock>::of(skb, segment);
        let mut observation = Observation { side, heard, payload, seq: segment.seq, len: segment.len, at: 0 };
        if observation.begin() {
            bpf_loop(HEADERS, turn as *mut c_void, (&raw mut observation).cast(), 0);
        }
        match (*candidate).judge(local_port::<IN>(segment) < remote_port::<IN>(segment)) {
            Judgement::Undecided => NOTHING,
            Judgement::WebSocket(true) => SERVER,
            Judgement::WebSocket(false) => CLIENT,
            // Without named ports nobody says that a TLS connection is a WebSocket.
            Judgement::Tls if maps::ports_are_named() => TLS,
            Judgement::Tls | Judgement::Other => {
                maps::drop_candidate(sk, candidate);
                NOTHING
            }
        }
    }
}

/// Whether TCP is going to refuse a segment from the peer. Taking note of it would take every real one that follows for a
/// repetition.
#[inline(never)]
fn is_refused(sk: *mut c_void, side: *const Side, segment: &Segment) -> bool {
    // SAFETY: the context's socket, and a storage value, live during the program.
    unsafe {
        (*side).begun()
            && before((*side).seen, segment.seq)
            && kernel::expected(sk).is_none_or(|expected| expected.refuses(segment.seq, segment.ack))
    }
}

/// Whether the packet is to be looked at as that of any connection: it begins like an HTTP message, and nothing that counts as a
/// frame was seen yet, so the upgrade may still come. The candidate stays one until it does: anybody may have such bytes sent in
/// the middle of a message. Only a request and its response, which go opposite ways, show that it is HTTP.
#[inline(never)]
pub(super) fn may_upgrade<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    candidate: *mut Candidate,
    segment: &Segment,
) -> bool {
    const LEN: u32 = STATUS_LINE.len() as u32;
    let mut start = [0u8; 16];
    let (this, other) = if IN { (1, 2) } else { (2, 1) };
    // SAFETY: as for `observe`.
    unsafe {
        if segment.len < LEN
            || !(*candidate).is_open()
            || !Bytes::<KernelClock>::of(skb, segment).load(0, &mut start, LEN)
        {
            return false;
        }
        match opening(&start, LEN) {
            Opening::Upgrade => true,
            Opening::Get | Opening::Request | Opening::Proxy => {
                (*candidate).requests |= this;
                true
            }
            Opening::Response(_) => (*candidate).requests & other != 0 && maps::drop_candidate(sk, candidate),
            _ => false,
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
#[inline(never)]
pub(super) fn adopt<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    candidate: *mut Candidate,
    segment: &Segment,
    finding: Finding,
) {
    let (local, remote) = (local_port::<IN>(segment), remote_port::<IN>(segment));
    let server = finding == SERVER || (finding == TLS && maps::wanted(local));
    // SAFETY: as for `observe`.
    unsafe {
        // Both directions may decide at the same moment, on two CPUs.
        if !maps::claim_candidate(candidate) {
            return;
        }
        // Named was the other end's port: a client's, for a server that serves elsewhere.
        if maps::wanted(if server { local } else { remote }) {
            start::<IN>(skb, sk, candidate, segment, (finding, server));
        }
        maps::delete_candidate(sk);
    }
}

/// Gives the connection its state.
#[inline(always)]
unsafe fn start<const IN: bool>(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    candidate: *mut Candidate,
    segment: &Segment,
    (finding, server): (Finding, bool),
) {
    // SAFETY: as for `observe`; every pointer is null-checked before use.
    unsafe {
        let (received, sent) = (&(*candidate).received, &(*candidate).sent);
        let tcp = bpf_tcp_sock(sk.cast::<bpf_sock>());
        if tcp.is_null() {
            return;
        }
        let connection = upgrade::create::<IN>(sk, segment.seq);
        if connection.is_null() {
            return;
        }
        (*connection).head.inbound = upgrade::ELDER;
        // A direction that was silent goes on where TCP stands.
        // Volatile, as LLVM would choose between the two places first and read then, which the verifier does not allow.
        let (rcv_nxt, snd_nxt) =
            ((&raw const (*tcp).rcv_nxt).read_volatile(), (&raw const (*tcp).snd_nxt).read_volatile());
        let received_seq = if received.begun() { received.seen } else { rcv_nxt };
        let sent_seq = if sent.begun() { sent.seen } else { snd_nxt };
        let parse = if finding == TLS {
            tracker::encrypted(&mut (*connection).received, received_seq);
            tracker::encrypted(&mut (*connection).sent, sent_seq);
            Parse::Encrypted
        } else {
            tracker::adopt(&mut (*connection).received, received_seq, server, received.guess());
            tracker::adopt(&mut (*connection).sent, sent_seq, !server, sent.guess());
            Parse::Adopted
        };
        (*connection).received.counters.unparsed_bytes = received.passed;
        (*connection).sent.counters.unparsed_bytes = sent.passed;
        flows::unsettle(flows::key::<IN>(segment, false));
        flows::unsettle(flows::key::<IN>(segment, true));
        let role = if server { Role::Server } else { Role::Client };
        let exchange = exchange::none::<IN>(segment);
        if !exchange.is_null() {
            enrol::enrol(&mut Newcomer { skb, sk, connection, role, parse, older: true, exchange });
        }
    }
}
