//! Never attached: runs packets through the same code on a state of the caller's (`BPF_PROG_TEST_RUN`), so that tests can
//! compare the kernel's build of the tracker with the host's, bit for bit.

use core::ptr::addr_of_mut;

use agent_ebpf::abi::ListenerTotals;
use agent_ebpf::reorder::before;
use agent_ebpf::tracker::Clock;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use super::late::{close, late};
use super::maps::REPLAYED;
use super::packet::PASS;
use super::parked::settle;
use super::receive;
use super::segment::{ProgramClock, Segment};
use super::send;

/// Says what the caller wants it to say.
#[derive(Clone, Copy, Default)]
struct ReplayClock;

impl Clock for ReplayClock {
    #[inline(always)]
    fn now_ns(self) -> u64 {
        // SAFETY: a plain integer in a map value.
        REPLAYED.get_ptr(0).map_or(0, |replay| unsafe { (*replay).now_ns })
    }
}

impl ProgramClock for ReplayClock {
    const IS_KERNELS: bool = false;
}

#[cgroup_skb(ingress)]
fn headroom_replay(ctx: SkBuffContext) -> i32 {
    replay(ctx.skb.skb);
    PASS
}

#[inline(always)]
fn replay(skb: *mut __sk_buff) {
    let (Some(replay), Some(segment)) = (REPLAYED.get_ptr_mut(0), Segment::of(skb)) else {
        return;
    };
    // SAFETY: a map value; the caller runs one packet at a time.
    unsafe {
        let connection = addr_of_mut!((*replay).connection);
        let totals: *mut ListenerTotals = addr_of_mut!((*replay).totals);
        if (*replay).inbound == 0 {
            send::follow::<ReplayClock>(skb, connection, &mut (*totals).sent, &segment);
            return;
        }
        let received = addr_of_mut!((*connection).received);
        if segment.len > 0 && (before((*received).next_seq, segment.seq) || (*received).reorder != 0) {
            late::<ReplayClock>(skb, connection, totals, &segment, (*replay).rcv_nxt);
            if (*received).reorder != 0 {
                settle::<ReplayClock>(connection, totals, true);
                close::<ReplayClock>(connection, totals);
            }
        } else {
            receive::follow::<ReplayClock>(skb, connection, &mut (*totals).received, &segment);
        }
    }
}
