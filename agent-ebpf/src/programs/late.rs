//! Segments behind a hole, and what they leave.
//!
//! [`late`] calls its parts one after the other, none from another: a call chain has 512 bytes of stack. The caller has
//! claimed the direction, `late` claims its buffer, and [`close`] ends that claim when what is in order now was followed
//! (`parked::settle`).

use core::ffi::c_void;

use agent_ebpf::abi::{Connection, Direction, ListenerTotals, Stat};
use agent_ebpf::reorder::{
    Arrival, CHUNK, Keeping, PLACES, RANGES, Range, Reorder, Resume, Verdict, before, locate, missed, place,
    verdict,
};
use agent_ebpf::tracker::{Clock, Payload, Tracker};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_loop;

use super::follow::{self, Rest};
use super::holes::{self, buffer};
use super::maps;
use super::pool::{self, MOST};
use super::receive;
use super::segment::{Bytes, ProgramClock, Segment};

/// A segment behind a hole, or on a connection that has one.
#[inline(always)]
pub(super) fn late<C: ProgramClock>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
    rcv_nxt: u32,
) {
    // SAFETY: `connection` and `totals` are map values, the direction being claimed.
    unsafe {
        follow::wire(skb, &mut (*connection).received, &mut (*totals).received, segment);
        open::<C>(connection, totals, segment.seq, rcv_nxt);
        skip(connection, totals, segment.seq, rcv_nxt);
        let verdict = note::<C>(connection, segment, rcv_nxt);
        if verdict == Verdict::Keep as u32 {
            keep::<C>(skb, connection, segment);
        } else if verdict == Verdict::Parse as u32 {
            parse::<C>(skb, connection, totals, segment);
        }
    }
}

/// Claims the connection's buffer, or a new one where the segment makes a hole.
#[inline(never)]
unsafe fn open<C: ProgramClock>(
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    seq: u32,
    rcv_nxt: u32,
) {
    // SAFETY: as for `late`.
    unsafe {
        let direction = &mut (*connection).received;
        let cookie = (*connection).cookie;
        if direction.reorder != 0 {
            let holes = buffer(direction);
            if !holes.is_null() && holes::claim(holes) {
                if (*holes).owner == cookie {
                    return;
                }
                holes::unclaim(holes);
            }
            // Somebody took it.
            direction.reorder = 0;
            direction.stalled_since_ns = 0;
        }
        // Where TCP has everything up to here, the hole is in what was seen and not in the stream.
        if !before(rcv_nxt, seq) || !before(direction.next_seq, seq) {
            return;
        }
        let now = C::default().now_ns();
        direction.reorder = holes::acquire(cookie, now) as u16;
        let holes = buffer(direction);
        if holes.is_null() {
            return;
        }
        (*holes).begin(direction.next_seq, now);
        direction.stalled_since_ns = now;
        direction.stalls += 1;
        (*totals).stalls += 1;
    }
}

/// Goes on behind what is missing and will not come again, if there is any before the segment.
#[inline(never)]
unsafe fn skip(connection: *mut Connection, totals: *mut ListenerTotals, seq: u32, rcv_nxt: u32) {
    // SAFETY: as for `late`; the callback's context outlives the call.
    unsafe {
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        let Some(mut to) = missed(direction.next_seq, seq, rcv_nxt) else { return };
        let holes = buffer(direction);
        if !holes.is_null() {
            let mut resume = Resume::new(&*holes, direction.next_seq, to);
            bpf_loop(RANGES as u32 + 1, resume_step as *mut c_void, (&raw mut resume).cast(), 0);
            to = resume.end();
        }
        if to != direction.next_seq {
            maps::count(Stat::Missed);
            Tracker::new(direction, other, &mut (*totals).received, Nothing).begin(to, 0);
        }
    }
}

extern "C" fn resume_step(_index: u64, resume: *mut Resume<'_>) -> i64 {
    // SAFETY: `skip` passes a live value.
    i64::from(!unsafe { (*resume).step() })
}

/// A payload without any bytes.
struct Nothing;

impl Payload for Nothing {
    #[inline(always)]
    fn load(&self, _offset: u32, _to: &mut [u8; 16], _len: u32) -> bool {
        false
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        0
    }
}

/// Says what becomes of the segment, a [`Verdict`] as a number, and notes what of it needs not be kept.
#[inline(never)]
unsafe fn note<C: ProgramClock>(connection: *mut Connection, segment: &Segment, rcv_nxt: u32) -> u32 {
    // SAFETY: as for `late`.
    unsafe {
        let direction = &(*connection).received;
        let end = segment.seq.wrapping_add(segment.len);
        let verdict = verdict(direction, segment.seq, end);
        let holes = buffer(direction);
        if !holes.is_null() {
            let now = C::default().now_ns();
            let known = (*holes).advance(direction.next_seq, rcv_nxt);
            arrive(holes, known, now);
            if verdict != Verdict::Keep {
                arrive(holes, Range::new(segment.seq, end), now);
            }
        }
        verdict as u32
    }
}

/// Notes an arrival.
#[inline(always)]
unsafe fn arrive(holes: *mut Reorder, range: Range, now: u64) {
    // SAFETY: a claimed map value; the callback's context outlives the call.
    unsafe {
        let mut arrival = Arrival::new(&mut *holes, range);
        if arrival.begin() {
            bpf_loop(RANGES as u32 + 1, arrival_step as *mut c_void, (&raw mut arrival).cast(), 0);
            if !arrival.end(now) {
                maps::count(Stat::ReorderFull);
            }
        }
    }
}

extern "C" fn arrival_step(_index: u64, arrival: *mut Arrival<'_>) -> i64 {
    // SAFETY: `arrive` passes a live value.
    i64::from(!unsafe { (*arrival).step() })
}

#[inline(never)]
unsafe fn parse<C: ProgramClock>(
    skb: *mut __sk_buff,
    connection: *mut Connection,
    totals: *mut ListenerTotals,
    segment: &Segment,
) {
    // SAFETY: as for `late`.
    unsafe {
        let (direction, other) = (&mut (*connection).received, &(*connection).sent);
        let received = &mut (*totals).received;
        if let Some(offset) = follow::begin::<C, _>(skb, direction, other, received, segment) {
            receive::rest::<C>(skb, connection, received, Rest::new(segment, offset));
        }
    }
}

/// A segment on its way into chunks.
pub(super) struct Copying {
    payload: Bytes,
    holes: *mut Reorder,
    pub(super) keeping: Keeping,
}

impl Copying {
    #[inline(always)]
    pub(super) fn new(skb: *mut __sk_buff, segment: &Segment, holes: *mut Reorder, keeping: Keeping) -> Self {
        Self { payload: Bytes::of(skb, segment), holes, keeping }
    }

    /// Copies until all is copied or there is no room.
    #[inline(always)]
    pub(super) fn run(&mut self, len: u32) {
        // One chunk more where the segment begins in the middle of one, one for its slack, one turn that finds no more.
        let turns = len / CHUNK + 3;
        // SAFETY: the callback's context outlives the call.
        unsafe { bpf_loop(turns, copy_piece as *mut c_void, (&raw mut *self).cast(), 0) };
    }
}

/// Copies the segment into chunks. What finds no room is left out, and will be missed.
#[inline(never)]
unsafe fn keep<C: ProgramClock>(skb: *mut __sk_buff, connection: *mut Connection, segment: &Segment) {
    // SAFETY: as for `late`.
    unsafe {
        let direction = &(*connection).received;
        let holes = buffer(direction);
        let keeping = Keeping::new(direction.next_seq, segment.seq, segment.len);
        let (false, Some(keeping)) = (holes.is_null(), keeping) else {
            maps::count(Stat::ReorderFull);
            return;
        };
        let now = C::default().now_ns();
        let mut copying = Copying::new(skb, segment, holes, keeping);
        copying.run(segment.len);
        if copying.keeping.taken() < segment.len && holes::make_room((*holes).held, now) {
            copying.run(segment.len);
        }
        let taken = copying.keeping.taken();
        if taken < segment.len {
            maps::count(Stat::ReorderFull);
        }
        arrive(holes, Range::new(segment.seq, segment.seq.wrapping_add(taken)), now);
    }
}

extern "C" fn copy_piece(_index: u64, copying: *mut Copying) -> i64 {
    // SAFETY: `keep` passes a live value that holds a claimed map value; a place is masked.
    unsafe {
        let holes = (*copying).holes;
        let Some(piece) = (*copying).keeping.piece() else { return 1 };
        let place = piece.place & (PLACES - 1);
        if (*holes).places[place] == 0 {
            let chunk = pool::allocate();
            if chunk == 0 {
                return 1;
            }
            (*holes).places[place] = chunk;
            (*holes).held += 1;
        }
        let to = pool::bytes((*holes).places[place], piece.at);
        if to.is_null() || !(*copying).payload.copy::<MOST>(piece.from, to, piece.len) {
            return 1;
        }
        (*copying).keeping.kept();
        0
    }
}

/// Kept bytes behind the tracker's interface.
pub(super) struct Kept<C> {
    /// Claimed.
    pub(super) holes: *const Reorder,
    /// Where it begins.
    pub(super) seq: u32,
    pub(super) clock: C,
}

impl<C: Clock> Payload for Kept<C> {
    // A call chain has 512 bytes of stack, and here is the longest; the next packet is a chance as good.
    const SEARCHED: bool = false;

    #[inline(always)]
    fn load(&self, offset: u32, to: &mut [u8; 16], _len: u32) -> bool {
        let (chunk, at) = locate(self.seq.wrapping_add(offset));
        // SAFETY: a claimed map value; of a chunk, 16 bytes can be read from any byte on.
        unsafe {
            let from = pool::bytes((*self.holes).places[place(chunk)], at);
            if from.is_null() {
                return false;
            }
            // All 16, wanted or not: 16 branches would have the verifier walk 16 ways.
            for (index, byte) in to.iter_mut().enumerate() {
                *byte = *from.add(index);
            }
        }
        true
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }
}

/// Gives back what is not needed any more, and ends the wait where no hole is left.
#[inline(never)]
pub(super) unsafe fn close<C: ProgramClock>(connection: *mut Connection, totals: *mut ListenerTotals) {
    // SAFETY: as for `late`.
    unsafe {
        let direction: &mut Direction = &mut (*connection).received;
        let holes = buffer(direction);
        if holes.is_null() {
            return;
        }
        if !(*holes).is_whole() {
            pool::shed(holes, direction.next_seq);
            holes::unclaim(holes);
            return;
        }
        let now = C::default().now_ns();
        let waited = now.wrapping_sub(direction.stalled_since_ns);
        direction.stalled_ns += waited;
        (*totals).stalled_ns += waited;
        direction.stalled_since_ns = 0;
        direction.reorder = 0;
        holes::free(holes);
    }
}
