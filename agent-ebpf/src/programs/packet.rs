//! cgroup_skb, both directions: counts frames of tracked connections and recognises new ones. Always lets pass.

use core::ffi::c_void;
use core::ptr::{addr_of_mut, null_mut};

use agent_ebpf::abi::{Connection, Stat};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use super::flows::{self, Flow};
use super::segment::Segment;
use super::{elders, exchange, maps, receive, refuse, send, upgrade};

/// Returned by every path: a packet program that returns 0 would drop traffic.
pub(super) const PASS: i32 = 1;

/// Packets to the socket.
pub(super) const INGRESS: bool = true;
/// Packets from the socket.
pub(super) const EGRESS: bool = false;

#[cgroup_skb(ingress)]
fn headroom_ingress(ctx: SkBuffContext) -> i32 {
    packet::<INGRESS>(ctx.skb.skb);
    PASS
}

#[cgroup_skb(egress)]
fn headroom_egress(ctx: SkBuffContext) -> i32 {
    packet::<EGRESS>(ctx.skb.skb);
    PASS
}

/// Does nothing: what the kernel's hook itself costs, for `cargo xtask bench packet`.
#[cgroup_skb(egress)]
fn headroom_empty(_ctx: SkBuffContext) -> i32 {
    PASS
}

#[inline(always)]
fn packet<const IN: bool>(skb: *mut __sk_buff) {
    // SAFETY: the context's socket, null-checked; it may be a listener, which is then simply not tracked. Storage
    // values live as long as this program runs (RCU).
    unsafe {
        let sk: *mut c_void = (*skb).__bindgen_anon_2.sk.cast();
        if sk.is_null() || !maps::is_switched_on() {
            return;
        }
        let Some(segment) = Segment::of(skb) else { return };
        let flow = Flow::of::<IN>(skb, &segment);
        // A SYN on a settled flow is a port used again.
        if flow.is_settled() && !segment.syn {
            return;
        }
        let mut connection = maps::connection(sk);
        if connection.is_null() {
            // Here and not in `discover`: a call chain has 512 bytes of stack.
            let candidate = maps::candidate(sk);
            if !candidate.is_null() && !elders::may_upgrade::<IN>(skb, sk, candidate, &segment) {
                let finding = elders::observe::<IN>(skb, sk, candidate, &segment);
                if finding != elders::NOTHING {
                    elders::adopt::<IN>(skb, sk, candidate, &segment, finding);
                }
                return;
            }
            let seen = flow.inspect(skb, &segment);
            if seen == flows::NOTHING {
                return;
            }
            if flows::is_piece(seen) && exchange::request::<IN>(skb, sk, &segment, flows::piece(seen)) {
                // A proxy's header alone does not say what follows it.
                flow.note_http();
                return;
            }
            connection = discover::<IN>(sk, &segment, seen);
            if connection.is_null() {
                return;
            }
        }
        if (*connection).role == 0 {
            // A head comes in on several CPUs as frames do, and one of them may be about to enrol the connection.
            let received = addr_of_mut!((*connection).received);
            if IN && !receive::enter(received) {
                maps::count(Stat::Contended);
                return;
            }
            let begins = if (*connection).head.inbound == upgrade::HELLO {
                upgrade::encrypted::<IN>(skb, sk, connection, &segment)
            } else {
                upgrade::scan::<IN>(skb, sk, connection, &segment)
            };
            if IN {
                receive::leave(received);
            }
            if !begins {
                return;
            }
        }
        // Frames may stand right behind a head, in the very same packet; the tracker skips what is before them.
        let Some(totals) = maps::TOTALS.get_ptr_mut((*connection).listener) else {
            return;
        };
        if IN {
            receive::received(skb, sk, connection, totals, &segment);
        } else {
            send::sent(skb, connection, totals, &segment);
        }
    }
}

/// A packet of a socket that is not tracked, and no piece of a request; returns the socket's new state, or null where it gets
/// none.
#[inline(never)]
fn discover<const IN: bool>(sk: *mut c_void, segment: &Segment, seen: u32) -> *mut Connection {
    match flows::kind(seen) {
        flows::UPGRADE => return upgrade::begin::<IN>(sk, segment),
        flows::RESPONSE => refuse::refuse::<IN>(sk, segment, flows::status(seen)),
        flows::CLIENT_HELLO => upgrade::client_hello::<IN>(sk, segment),
        flows::SERVER_HELLO => return upgrade::server_hello::<IN>(sk, segment),
        _ => {}
    }
    null_mut()
}
