//! Packets that a tracked socket receives: in any order, some twice, from several CPUs at once.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use agent_ebpf::abi::{Connection, Direction, DirectionTotals, ListenerTotals, Stat};
use agent_ebpf::reorder::{CHOICES, CHUNK, Kept, Reorder, Verdict, WINDOW, before, choice};
use agent_ebpf::tracker::Clock;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_loop;

use super::follow;
use super::kernel;
use super::maps::{self, REORDER};
use super::segment::{Bytes, KernelClock, Segment};

/// After this long, TCP itself has given up on a hole; whoever had the buffer is gone.
const ABANDONED_NS: u64 = 1_200_000_000_000;

/// Counts one packet.
#[inline(always)]
pub(super) fn received(
    skb: *mut __sk_buff,
    sk: *mut c_void,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
) {
    // SAFETY: `connection` is a storage value that lives as long as this program runs (RCU), `totals` this CPU's, written
    // in softirq context alone, which does not interrupt itself. `enter` keeps other CPUs off the direction. The other
    // direction may change underneath, see `send::follow`.
    unsafe {
        let direction = addr_of_mut!((*connection).received);
        // Claimed before anything is read: another CPU may be about to change what is decided on.
        if !enter(direction) {
            return;
        }
        let ahead = before((*direction).next_seq, segment.seq);
        if segment.len == 0 || !(ahead || (*direction).reorder != 0) {
            follow::<KernelClock>(skb, connection, &mut (*totals).received, segment);
        } else if let Some(expected) = kernel::expected(sk) {
            // Ingress runs before TCP's own checks. Following a segment that will be dropped there would take every real
            // one after it for a retransmission.
            if ahead && expected.refuses(segment.seq, segment.ack) {
                maps::count(Stat::Refused);
            } else {
                late::<KernelClock>(skb, connection, totals, segment, expected.rcv_nxt);
            }
        }
        leave(direction);
    }
}

/// A segment that is in order.
#[inline(always)]
pub(super) fn follow<C: Clock + Default>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: &mut DirectionTotals,
    segment: &Segment,
) {
    // SAFETY: as for `received`.
    let (direction, other) = unsafe { (&mut (*connection).received, &(*connection).sent) };
    follow::wire(skb, direction, totals, segment);
    if segment.len > 0 {
        follow::parse::<C, _>(skb, direction, other, totals, segment);
    }
}

/// A segment behind a hole, or on a connection that has one. Calls its parts one after the other, none from another: a
/// call chain has 512 bytes of stack.
#[inline(always)]
pub(super) fn late<C: Clock + Default>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
    rcv_nxt: u32,
) {
    // SAFETY: as for `received`, the direction being claimed.
    unsafe {
        follow::wire(skb, &mut (*connection).received, &mut (*totals).received, segment);
        let verdict = admit::<C>(connection, totals, segment, rcv_nxt);
        if verdict == Verdict::Keep as u32 {
            keep(skb, &(*connection).received, segment);
        } else if verdict != Verdict::Known as u32 {
            parse::<C>(skb, connection, totals, segment);
        }
        if (*connection).received.reorder != 0 {
            catch_up::<C>(connection, totals);
        }
    }
}

/// Has the reorder buffer judge the segment; returns the [`Verdict`] as a number, as a subprogram must.
#[inline(never)]
fn admit<C: Clock + Default>(
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
    rcv_nxt: u32,
) -> u32 {
    // SAFETY: as for `late`.
    unsafe {
        let end = segment.seq.wrapping_add(segment.len);
        let Some(buffer) = buffer::<C>(connection, totals, segment.seq, rcv_nxt) else {
            return Verdict::Parse as u32;
        };
        let verdict = (*buffer).admit(&(*connection).received, segment.seq, end, rcv_nxt);
        if verdict == Verdict::GiveUp {
            maps::count(Stat::ReorderFull);
        }
        verdict as u32
    }
}

/// The connection's buffer, or a new one where the segment makes a hole; `None` where none is needed or free.
#[inline(always)]
unsafe fn buffer<C: Clock + Default>(
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    seq: u32,
    rcv_nxt: u32,
) -> Option<*mut Reorder> {
    // SAFETY: the caller has claimed the direction; buffers are map values, claimed by their owner's cookie.
    unsafe {
        let direction = addr_of_mut!((*connection).received);
        let cookie = (*connection).cookie;
        if (*direction).reorder != 0 {
            let buffer = REORDER.get_ptr_mut(u32::from((*direction).reorder) - 1)?;
            if (*buffer).owner == cookie {
                return Some(buffer);
            }
            (*direction).reorder = 0;
            (*direction).stalled_since_ns = 0;
        }
        // Where TCP has everything up to here, the hole is in what was seen and not in the stream.
        if !before(rcv_nxt, seq) {
            return None;
        }
        let now = C::default().now_ns();
        for attempt in 0..CHOICES {
            let index = choice(cookie, attempt);
            let buffer = REORDER.get_ptr_mut(index)?;
            let owner = (*buffer).owner;
            let stale = now.wrapping_sub((*buffer).used_ns) > ABANDONED_NS;
            if (owner == 0 || stale)
                && AtomicU64::from_ptr(addr_of_mut!((*buffer).owner))
                    .compare_exchange(owner, cookie, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                (*buffer).used_ns = now;
                (*buffer).begin((*direction).next_seq);
                (*direction).reorder = index as u16 + 1;
                (*direction).stalled_since_ns = now;
                (*direction).stalls += 1;
                (*totals).stalls += 1;
                return Some(buffer);
            }
        }
        maps::count(Stat::ReorderFull);
        None
    }
}

#[inline(never)]
unsafe fn parse<C: Clock + Default>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
) {
    // SAFETY: as for `received`.
    unsafe {
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        let payload = Bytes::<C>::of(skb, segment);
        let place = (segment.seq, segment.len);
        follow::parse_rare(payload, place, direction, other, &mut (*totals).received);
    }
}

/// Copies the segment into the connection's buffer.
#[inline(never)]
unsafe fn keep(skb: *mut __sk_buff, direction: &Direction, segment: &Segment) {
    // SAFETY: a map value; `place` keeps each piece within the ring, whose slack has room for a whole chunk anywhere.
    unsafe {
        let Some(buffer) = REORDER.get_ptr_mut(u32::from(direction.reorder).wrapping_sub(1)) else {
            return;
        };
        let payload = Bytes::<KernelClock>::of(skb, segment);
        let mut taken = 0;
        // The window in whole chunks, one more where the segment is not aligned, one where the ring ends.
        for _ in 0..WINDOW / CHUNK + 2 {
            let (at, len) = Reorder::place(segment.seq.wrapping_add(taken), segment.len - taken);
            let to = addr_of_mut!((*buffer).bytes).cast::<u8>().add(at & (WINDOW as usize - 1));
            if len == 0 || !payload.copy::<CHUNK>(taken, to, len) {
                return;
            }
            taken += len;
        }
    }
}

/// Follows what was kept and is in order now; ends the wait where no hole is left.
#[inline(never)]
unsafe fn catch_up<C: Clock + Default>(connection: *mut Connection, totals: *mut ListenerTotals) {
    // SAFETY: as for `admit`.
    unsafe {
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        let Some(buffer) = REORDER.get_ptr_mut(u32::from(direction.reorder).wrapping_sub(1)) else {
            return;
        };
        let run = (*buffer).run(direction.next_seq);
        if run > 0 {
            let kept = Kept::new(&*buffer, direction.next_seq, C::default());
            let place = (direction.next_seq, run);
            follow::parse_rare(kept, place, direction, other, &mut (*totals).received);
        }
        let now = C::default().now_ns();
        (*buffer).used_ns = now;
        if (*buffer).is_whole() {
            let waited = now.wrapping_sub(direction.stalled_since_ns);
            direction.stalled_ns += waited;
            (*totals).stalled_ns += waited;
            direction.stalled_since_ns = 0;
            release(direction, (*connection).cookie);
        }
    }
}

/// Gives the direction's buffer back, unless somebody took it in the meantime.
#[inline(always)]
pub(super) fn release(direction: &mut Direction, cookie: u64) {
    let index = u32::from(direction.reorder).wrapping_sub(1);
    direction.reorder = 0;
    if let Some(buffer) = REORDER.get_ptr_mut(index) {
        // SAFETY: a map value; the owner is accessed atomically by those who want it.
        let owner = unsafe { AtomicU64::from_ptr(addr_of_mut!((*buffer).owner)) };
        let _ = owner.compare_exchange(cookie, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Claims a direction: ingress runs before the socket's lock is taken, from several CPUs at once. The other CPU is done
/// within a microsecond as a rule; a packet that waits in vain is counted and left out.
#[inline(always)]
pub(super) unsafe fn enter(direction: *mut Direction) -> bool {
    // SAFETY: by contract.
    unsafe { claim(direction) || wait(direction) }
}

/// Tries on, out of line as it is rare. Long enough for another CPU to copy a whole window into a reorder buffer.
#[inline(never)]
unsafe fn wait(direction: *mut Direction) -> bool {
    const TRIES: u32 = 4096;
    let mut waiting = Waiting { direction, claimed: 0 };
    // SAFETY: the callback's context outlives the call.
    unsafe { bpf_loop(TRIES, try_again as *mut c_void, (&raw mut waiting).cast(), 0) };
    if waiting.claimed == 0 {
        maps::count(Stat::Contended);
    }
    waiting.claimed != 0
}

/// Who waits for a direction.
struct Waiting {
    direction: *mut Direction,
    claimed: u64,
}

/// One try, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn try_again(_index: u64, waiting: *mut Waiting) -> i64 {
    // SAFETY: `wait` passes a live value; the direction is in a map value.
    unsafe {
        let claimed = u64::from(claim((*waiting).direction));
        (*waiting).claimed = claimed;
        claimed as i64
    }
}

#[inline(always)]
unsafe fn claim(direction: *mut Direction) -> bool {
    // SAFETY: `busy` is an aligned u32 in a map value, claimed by atomic access only.
    unsafe {
        AtomicU32::from_ptr(addr_of_mut!((*direction).busy))
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}

#[inline(always)]
pub(super) unsafe fn leave(direction: *mut Direction) {
    // SAFETY: as in `claim`.
    unsafe {
        let busy = addr_of_mut!((*direction).busy);
        // The object is built for this host, and on x86 every store releases what was stored before. Elsewhere a swap does,
        // as a release store needs a newer instruction set than the oldest kernel's.
        if cfg!(target_arch = "x86_64") {
            busy.write_volatile(0);
        } else {
            AtomicU32::from_ptr(busy).swap(0, Ordering::Release);
        }
    }
}
