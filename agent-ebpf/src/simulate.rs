//! What the packet programs do with a packet of a tracked connection, without a kernel: for tests of everything that can
//! be tested so, and for comparing the programs with (`headroom_replay`).

use alloc::vec::Vec;

use crate::abi::{Direction, Replay, Tally};
use crate::reorder::{
    Arrival, CHUNK, Keeping, Range, Reorder, Resume, SLACK, Verdict, before, choice, locate, missed, place,
    verdict,
};
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

/// A connection's reorder buffer, with a pool of its own.
pub struct Buffer {
    holes: Reorder,
    chunks: Vec<[u8; (CHUNK + SLACK) as usize]>,
    free: Vec<u16>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { holes: Reorder::FREE, chunks: Vec::new(), free: Vec::new() }
    }
}

/// Bytes that a buffer holds.
struct Kept<'a> {
    buffer: &'a Buffer,
    seq: u32,
    clock: At,
}

impl Payload for Kept<'_> {
    const SEARCHED: bool = false;

    fn load(&self, offset: u32, to: &mut [u8; 16], _len: u32) -> bool {
        let (chunk, at) = locate(self.seq.wrapping_add(offset));
        let chunk = usize::from(self.buffer.holes.places[place(chunk)]);
        // What the parser asks for is there.
        to.copy_from_slice(&self.buffer.chunks[chunk - 1][at as usize..][..16]);
        true
    }

    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }
}

/// Runs one packet: `payload` at TCP sequence number `seq` behind `headers` bytes of IP and TCP headers. `buffer` is the
/// connection's alone. Direction, clock and TCP's edge are what `state` says.
pub fn packet(state: &mut Replay, buffer: &mut Buffer, seq: u32, headers: u32, payload: &[u8]) {
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
    if direction.reorder == 0 && before(state.rcv_nxt, seq) && before(direction.next_seq, seq) {
        buffer.holes.begin(direction.next_seq, now.0);
        direction.reorder = choice(connection.cookie, 0) as u16 + 1;
        direction.stalled_since_ns = now.0;
        direction.stalls += 1;
        totals.stalls += 1;
    }
    let end = seq.wrapping_add(len);
    if let Some(to) = missed(direction.next_seq, seq, state.rcv_nxt) {
        let to = if direction.reorder == 0 { to } else { buffer.resume(direction.next_seq, to) };
        Tracker::new(direction, other, &mut totals.received, Bytes(&[], now)).begin(to, 0);
    }
    if direction.reorder == 0 {
        follow(Bytes(payload, now), seq, len, direction, other, &mut totals.received);
        return;
    }
    let known = buffer.holes.advance(direction.next_seq, state.rcv_nxt);
    buffer.arrive(known, now);
    match verdict(direction, seq, end) {
        Verdict::Known => {
            buffer.arrive(Range::new(seq, end), now);
        }
        Verdict::Keep => {
            let taken = buffer.keep(direction.next_seq, seq, payload);
            buffer.arrive(Range::new(seq, seq.wrapping_add(taken)), now);
        }
        Verdict::Parse => {
            buffer.arrive(Range::new(seq, end), now);
            follow(Bytes(payload, now), seq, len, direction, other, &mut totals.received);
        }
    }
    let run = buffer.holes.run(direction.next_seq);
    if run > 0 {
        let seq = direction.next_seq;
        follow(Kept { buffer, seq, clock: now }, seq, run, direction, other, &mut totals.received);
    }
    while let Some(chunk) = buffer.holes.shed(direction.next_seq) {
        buffer.free.extend((chunk != 0).then_some(chunk));
    }
    if buffer.holes.is_whole() {
        let waited = now.0.wrapping_sub(direction.stalled_since_ns);
        direction.stalled_ns += waited;
        totals.stalled_ns += waited;
        direction.stalled_since_ns = 0;
        direction.reorder = 0;
        while let Some(chunk) = buffer.holes.spill() {
            buffer.free.extend((chunk != 0).then_some(chunk));
        }
    }
}

impl Buffer {
    fn arrive(&mut self, range: Range, now: At) -> bool {
        let mut arrival = Arrival::new(&mut self.holes, range);
        if !arrival.begin() {
            return true;
        }
        while arrival.step() {}
        arrival.end(now.0)
    }

    fn resume(&self, parsed: u32, to: u32) -> u32 {
        let mut resume = Resume::new(&self.holes, parsed, to);
        while resume.step() {}
        resume.end()
    }

    fn keep(&mut self, parsed: u32, seq: u32, payload: &[u8]) -> u32 {
        let Some(mut keeping) = Keeping::new(parsed, seq, payload.len() as u32) else { return 0 };
        while let Some(piece) = keeping.piece() {
            if self.holes.places[piece.place] == 0 {
                self.holes.places[piece.place] = self.free.pop().unwrap_or_else(|| {
                    self.chunks.push([0; (CHUNK + SLACK) as usize]);
                    self.chunks.len() as u16
                });
                self.holes.held += 1;
            }
            let chunk = usize::from(self.holes.places[piece.place]) - 1;
            let [at, from, len] = [piece.at, piece.from, piece.len].map(|number| number as usize);
            self.chunks[chunk][at..at + len].copy_from_slice(&payload[from..from + len]);
            keeping.kept();
        }
        keeping.taken()
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
