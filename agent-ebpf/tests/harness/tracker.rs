//! The frame tracker under any delivery of a stream that tungstenite encodes, and under any bytes at all.

use agent_ebpf::abi::{Counters, Direction, Parse, Replay, frame_slot};
use agent_ebpf::reorder::WINDOW;
use agent_ebpf::simulate::Buffer;
use agent_ebpf::{simulate, tracker};
use arbitrary::{Arbitrary, Unstructured};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Keeps one run short: scenarios grow by packets, not by payload.
const LONGEST_STREAM: usize = 1 << 18;

/// IP and TCP headers of a packet.
const HEADERS: u32 = 40;

/// Reads the bytes as a scenario, plays it, and panics where the tracker is wrong.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    // Input that ends early is a shorter scenario.
    let _ = match input.arbitrary() {
        Ok(true) => raw(&mut input),
        _ => encoded(&mut input),
    };
}

/// One direction of a connection, followed packet by packet as the packet programs do it.
pub(crate) struct Follower {
    state: Replay,
    buffer: Buffer,
    start: u32,
    /// What TCP has: everything up to the edge, and ranges beyond it.
    edge: usize,
    beyond: Vec<(usize, usize)>,
}

impl Follower {
    /// Inbound, segments may come late and are put in order; outbound, they come as they were sent.
    pub(crate) fn new(start: u32, masked: bool, inbound: bool) -> Self {
        let mut state = Replay { inbound: inbound.into(), rcv_nxt: start, ..Replay::default() };
        tracker::start(&mut state.connection.received, start, masked);
        tracker::start(&mut state.connection.sent, start, masked);
        Self { state, buffer: Buffer::default(), start, edge: 0, beyond: Vec::new() }
    }

    /// The part of the stream from `from` up to `to` passes by and reaches TCP.
    pub(crate) fn deliver(&mut self, stream: &[u8], from: usize, to: usize) {
        self.packet(self.start.wrapping_add(from as u32), &stream[from..to]);
        self.reach_tcp(from, to);
    }

    /// It reaches TCP; nothing else saw it.
    fn reach_tcp(&mut self, from: usize, to: usize) {
        if from > self.edge {
            self.beyond.push((from, to));
            self.beyond.sort_unstable();
        } else {
            self.edge = self.edge.max(to);
        }
        for (start, end) in &self.beyond {
            if *start <= self.edge {
                self.edge = self.edge.max(*end);
            }
        }
        self.beyond.retain(|(_, end)| *end > self.edge);
        self.state.rcv_nxt = self.start.wrapping_add(self.edge as u32);
    }

    /// Follows a packet; whatever it holds, every byte it moves the stream on by is in exactly one sum.
    fn packet(&mut self, seq: u32, bytes: &[u8]) {
        let (before, expected) = (self.accounted(), self.direction().next_seq);
        self.state.now_ns += 1_000;
        simulate::packet(&mut self.state, &mut self.buffer, seq, HEADERS, bytes);
        let moved = self.direction().next_seq.wrapping_sub(expected);
        assert!(moved as i32 >= 0, "the stream went back by {}", moved.wrapping_neg());
        assert_eq!(self.accounted(), before + u64::from(moved), "bytes are lost or invented");
        assert_eq!(self.totals(), &self.direction().counters, "the totals differ");
    }

    fn direction(&self) -> &Direction {
        let connection = &self.state.connection;
        if self.state.inbound == 0 { &connection.sent } else { &connection.received }
    }

    fn totals(&self) -> &Counters {
        let totals = &self.state.totals;
        if self.state.inbound == 0 { &totals.sent.counters } else { &totals.received.counters }
    }

    /// Bytes in any sum, and those of a header that is still being put together.
    fn accounted(&self) -> u64 {
        let counters = &self.direction().counters;
        let sums = counters.payload_bytes + counters.control_bytes + counters.header_bytes;
        sums + counters.unparsed_bytes + u64::from(self.direction().held)
    }

    /// After every byte of the stream came, in whatever packets, once or more often.
    pub(crate) fn assert_exact(&self, sent: &Counters) {
        let direction = self.direction();
        let Counters { packets, packet_bytes, .. } = direction.counters;
        assert_eq!(direction.counters, Counters { packets, packet_bytes, ..*sent });
        assert_eq!(direction.parse, Parse::Exact as u8);
        assert_eq!((direction.held, direction.remaining), (0, 0), "the stream ended with a frame");
        assert_eq!((direction.reorder, direction.stalled_since_ns), (0, 0), "no hole is left");
    }

    /// After some of it may have been lost.
    pub(crate) fn assert_honest(&self, sent: &Counters) {
        let found = &self.direction().counters;
        if self.direction().parse != Parse::Exact as u8 {
            assert!(found.unparsed_bytes > 0, "nothing was lost, yet the boundary is");
            return;
        }
        assert_eq!(found.unparsed_bytes, 0, "exact, yet not parsed");
        for (found, sent) in found.frames.iter().zip(sent.frames) {
            assert!(*found <= sent, "{found} frames of {sent}");
        }
        assert!(found.header_bytes <= sent.header_bytes);
        assert!(found.payload_bytes <= sent.payload_bytes && found.control_bytes <= sent.control_bytes);
    }
}

/// A frame to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) opcode: OpCode,
    pub(crate) fin: bool,
    pub(crate) rsv1: bool,
    pub(crate) len: usize,
}

impl Frame {
    /// A legal frame of the opcode that `kind` chooses.
    pub(crate) fn new(kind: u8, fin: bool, rsv1: bool, len: usize) -> Self {
        let opcode = match kind % 6 {
            0 => OpCode::Data(Data::Text),
            1 => OpCode::Data(Data::Binary),
            2 => OpCode::Data(Data::Continue),
            3 => OpCode::Control(Control::Ping),
            4 => OpCode::Control(Control::Pong),
            _ => OpCode::Control(Control::Close),
        };
        match opcode {
            OpCode::Control(_) => Self { opcode, fin: true, rsv1: false, len: len.min(125) },
            OpCode::Data(Data::Continue) => Self { opcode, fin, rsv1: false, len },
            OpCode::Data(_) => Self { opcode, fin, rsv1, len },
        }
    }
}

impl<'a> Arbitrary<'a> for Frame {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let [kind, bits, len]: [u8; 3] = input.arbitrary()?;
        let len = match bits >> 2 {
            // The lengths around which the header's form changes.
            0 => 120 + usize::from(len % 12),
            1 => 65_530 + usize::from(len % 12),
            2 => usize::from(len) * 16,
            _ => usize::from(len % 41),
        };
        Ok(Self::new(kind, bits & 1 == 0, bits & 2 != 0, len))
    }
}

/// Bytes that look like anything.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> [u8; 8] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()
    }
}

/// A stream as tungstenite encodes it, with its counts.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sent: Counters,
}

impl Stream {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = Counters::default();
    }

    /// Appends a frame with noise for a payload.
    pub(crate) fn push(&mut self, frame: &Frame, masked: bool, noise: &mut Noise) {
        let [m0, m1, m2, m3, ..] = noise.next();
        let header = FrameHeader {
            is_final: frame.fin,
            rsv1: frame.rsv1,
            opcode: frame.opcode,
            mask: masked.then_some([m0, m1, m2, m3]),
            ..FrameHeader::default()
        };
        let len = frame.len as u64;
        header.format(len, &mut self.bytes).expect("a vector takes everything");
        for _ in 0..frame.len / 8 {
            self.bytes.extend_from_slice(&noise.next());
        }
        self.bytes.extend_from_slice(&noise.next()[..frame.len % 8]);
        self.sent.frames[frame_slot(frame.opcode.into())] += 1;
        self.sent.header_bytes += header.len(len) as u64;
        match frame.opcode {
            OpCode::Control(_) => self.sent.control_bytes += len,
            OpCode::Data(_) => self.sent.payload_bytes += len,
        }
        self.sent.compressed_frames += u64::from(frame.rsv1);
    }
}

impl Stream {
    /// Appends a frame with this payload; `first` is its first byte.
    pub(crate) fn push_payload(&mut self, first: u8, key: Option<[u8; 4]>, payload: &[u8]) {
        let header = FrameHeader {
            is_final: first & 0x80 != 0,
            opcode: OpCode::from(first & 15),
            mask: key,
            ..FrameHeader::default()
        };
        header.format(payload.len() as u64, &mut self.bytes).expect("a vector takes everything");
        let [a, b, c, d] = key.unwrap_or_default();
        let keys = u64::from_le_bytes([a, b, c, d, a, b, c, d]).to_le_bytes();
        let (words, rest) = payload.as_chunks::<8>();
        for word in words {
            self.bytes.extend((u64::from_le_bytes(*word) ^ u64::from_le_bytes(keys)).to_le_bytes());
        }
        self.bytes.extend(rest.iter().zip(keys).map(|(byte, key)| byte ^ key));
    }
}

/// A packet of the stream, and what becomes of it.
#[derive(Debug, Clone, Copy)]
struct Cut {
    len: usize,
    fate: Fate,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It comes.
    Once,
    /// It comes again, from some bytes earlier on, as a retransmission does.
    Again(usize),
    /// It reaches back into what came before, as a repacketised retransmission does.
    Overlap(usize),
    /// It never comes.
    Lost,
    /// It reaches TCP and is not seen, as where another CPU has the direction.
    Unseen,
    /// It comes behind the next one.
    Late,
}

impl<'a> Arbitrary<'a> for Cut {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let [len, fate]: [u8; 2] = input.arbitrary()?;
        let len = match len {
            0..128 => usize::from(len % 32) + 1,
            128..224 => usize::from(len - 127) * 15,
            _ => usize::from(len - 223) * 2_000,
        };
        let back = usize::from(fate >> 3) * 7;
        let fate = match fate & 7 {
            0..4 => Fate::Once,
            4 => Fate::Again(back),
            5 => Fate::Overlap(back),
            6 if back.is_multiple_of(2) => Fate::Lost,
            6 => Fate::Unseen,
            _ => Fate::Late,
        };
        Ok(Self { len, fate })
    }
}

/// A stream of frames, cut, repeated, reordered and lost as the input says.
fn encoded(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (masked, inbound, start, seed): (bool, bool, u32, u64) = input.arbitrary()?;
    let (mut stream, mut noise) = (Stream::default(), Noise::new(seed));
    let frames: u8 = input.arbitrary()?;
    for _ in 0..frames {
        let Ok(frame) = input.arbitrary() else { break };
        if stream.bytes.len() < LONGEST_STREAM {
            stream.push(&frame, masked, &mut noise);
        }
    }
    let bytes = &stream.bytes;
    let mut follower = Follower::new(start, masked, inbound);
    let (mut at, mut late, mut whole) = (0, None, true);
    while at < bytes.len() {
        // Behind the input's end the rest comes in one piece.
        let cut =
            if input.is_empty() { Cut { len: bytes.len(), fate: Fate::Once } } else { input.arbitrary()? };
        let end = bytes.len().min(at + cut.len);
        let held_back = late.take();
        match cut.fate {
            Fate::Once => follower.deliver(bytes, at, end),
            Fate::Again(back) => {
                follower.deliver(bytes, at, end);
                follower.deliver(bytes, at.saturating_sub(back), end);
            }
            Fate::Overlap(back) => follower.deliver(bytes, at.saturating_sub(back), end),
            Fate::Lost => whole = false,
            Fate::Unseen => {
                follower.reach_tcp(at, end);
                whole = false;
            }
            Fate::Late => late = Some((at, end)),
        }
        if let Some((from, to)) = held_back {
            follower.deliver(bytes, from, to);
            // Exact as long as the buffer holds what came meanwhile.
            whole &= late.is_some() || (inbound && end - from <= WINDOW as usize);
        }
        at = end;
    }
    if let Some((from, to)) = late {
        follower.deliver(bytes, from, to);
    }
    if whole {
        follower.assert_exact(&stream.sent);
    } else {
        follower.assert_honest(&stream.sent);
    }
    Ok(())
}

/// Packets of any bytes anywhere around where the stream is, and TCP's edge anywhere around that.
fn raw(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (masked, inbound, start): (bool, bool, u32) = input.arbitrary()?;
    let mut follower = Follower::new(start, masked, inbound);
    while !input.is_empty() {
        let (shift, edge, len): (i8, i8, u8) = input.arbitrary()?;
        // Mostly where it is expected, so that frames can form.
        let shifted = |shift: i8| if shift & 3 == 0 { i32::from(shift >> 2) * 3 } else { 0 };
        let expected = follower.direction().next_seq;
        follower.state.rcv_nxt = expected.wrapping_add_signed(shifted(edge));
        let len = usize::from(len).min(input.len());
        follower.packet(expected.wrapping_add_signed(shifted(shift)), input.bytes(len)?);
    }
    Ok(())
}
