//! What the packet programs do with a packet of a tracked connection, without a kernel: for tests of everything that can
//! be tested so, and for comparing the programs with (`headroom_replay`).

use crate::abi::{Direction, Replay, Tally};
use crate::reorder::{Kept, Reorder, Verdict, before, choice};
use crate::tracker::{Clock, Payload, Tracker};

/// A clock that stands still.
#[derive(Debug, Clone, Copy)]
pub struct At(pub u64);

impl Clock for At {
    fn now_ns(self) -> u64 {
        self.0
    }
}

/// A packet's payload, and when it comes.
pub struct Bytes<'a>(pub &'a [u8], pub At);

impl Payload for Bytes<'_> {
    fn load(&self, offset: u32, to: &mut [u8; 16], len: u32) -> bool {
        let Some(from) = self.0.get(offset as usize..(offset + len) as usize) else {
            return false;
        };
        to[..len as usize].copy_from_slice(from);
        true
    }

    fn now_ns(&self) -> u64 {
        self.1.now_ns()
    }
}

/// Runs one packet: `payload` at TCP sequence number `seq` behind `headers` bytes of IP and TCP headers. `buffer` is the
/// connection's alone. Direction, clock and TCP's edge are what `state` says.
pub fn packet(state: &mut Replay, buffer: &mut Reorder, seq: u32, headers: u32, payload: &[u8]) {
    let (now, len) = (At(state.now_ns), payload.len() as u32);
    let (connection, totals) = (&mut state.connection, &mut state.totals);
    if state.inbound == 0 {
        let (direction, other) = (&mut connection.sent, &connection.received);
        wire(direction, &mut totals.sent, headers + len);
        follow(Bytes(payload, now), seq, len, direction, other, &mut totals.sent);
        return;
    }
    let (direction, other) = (&mut connection.received, &connection.sent);
    wire(direction, &mut totals.received, headers + len);
    if len == 0 || !(before(direction.next_seq, seq) || direction.reorder != 0) {
        follow(Bytes(payload, now), seq, len, direction, other, &mut totals.received);
        return;
    }
    if direction.reorder == 0 && before(state.rcv_nxt, seq) {
        buffer.begin(direction.next_seq);
        direction.reorder = choice(connection.cookie, 0) as u16 + 1;
        direction.stalled_since_ns = now.0;
        direction.stalls += 1;
        totals.stalls += 1;
    }
    let verdict = match direction.reorder {
        0 => Verdict::Parse,
        _ => buffer.admit(direction, seq, seq.wrapping_add(len), state.rcv_nxt),
    };
    match verdict {
        Verdict::Known => {}
        Verdict::Keep => keep(buffer, seq, payload),
        Verdict::Parse | Verdict::GiveUp => {
            follow(Bytes(payload, now), seq, len, direction, other, &mut totals.received);
        }
    }
    if direction.reorder == 0 {
        return;
    }
    let run = buffer.run(direction.next_seq);
    if run > 0 {
        let seq = direction.next_seq;
        follow(Kept::new(buffer, seq, now), seq, run, direction, other, &mut totals.received);
    }
    if buffer.is_whole() {
        let waited = now.0.wrapping_sub(direction.stalled_since_ns);
        direction.stalled_ns += waited;
        totals.stalled_ns += waited;
        direction.stalled_since_ns = 0;
        direction.reorder = 0;
    }
}

fn wire(direction: &mut Direction, totals: &mut impl Tally, bytes: u32) {
    direction.counters.wire(1, bytes as u64);
    totals.wire(1, bytes as u64);
}

fn follow<T: Tally>(
    payload: impl Payload,
    seq: u32,
    len: u32,
    direction: &mut Direction,
    other: &Direction,
    totals: &mut T,
) {
    let mut tracker = Tracker::new(direction, other, totals, payload);
    if len > 0 && tracker.begin(seq, len) {
        // As the loop in the kernel is bounded.
        let ended = (0..=tracker.turns()).any(|_| !tracker.step());
        assert!(ended, "the turns did not suffice");
    }
}

fn keep(buffer: &mut Reorder, seq: u32, payload: &[u8]) {
    let mut taken = 0;
    while taken < payload.len() {
        let (at, len) = Reorder::place(seq.wrapping_add(taken as u32), (payload.len() - taken) as u32);
        let len = len as usize;
        buffer.bytes[at..at + len].copy_from_slice(&payload[taken..taken + len]);
        taken += len;
    }
}
