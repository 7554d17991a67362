//! Long messages of payloads that look like frames, followed from somewhere in their middle: whatever is taken for a frame
//! boundary there must be one.

use std::io::Write as _;

use agent_ebpf::abi::{Counters, Direction, Parse};
use agent_ebpf::candidate::{Candidate, HEADERS, Judgement, Observation, Side};
use agent_ebpf::simulate::{At, Bytes};
use agent_ebpf::tracker::{self, Tracker};
use fastrand::Rng;

use crate::harness::tracker::{Frame, Noise, Stream};

/// Bytes of each kind to take messages from.
const BLOB: usize = 1 << 20;
/// TCP sends no segment smaller than this in the middle of a message unless an application or a route is odd.
const USUAL: usize = 536;

/// What messages are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The same 1 to 64 random bytes over and over.
    Periodic,
    Zeros,
    Spaces,
    /// Lines of any length.
    JsonLines,
    /// Lines of one length.
    JsonRecords,
    /// Text as permessage-deflate compresses it.
    Deflated,
    Random,
    /// Numbers in eight bytes each, of which the upper two hardly ever change.
    Doubles,
    /// Letters of two and three bytes.
    Unicode,
    /// Frames of another WebSocket, inside those of this one.
    Tunnel,
}

/// Every kind, and its name on the command line.
pub(crate) const KINDS: &[(Kind, &str)] = &[
    (Kind::Periodic, "periodic"),
    (Kind::Zeros, "zeros"),
    (Kind::Spaces, "spaces"),
    (Kind::JsonLines, "json-lines"),
    (Kind::JsonRecords, "json-records"),
    (Kind::Deflated, "deflated"),
    (Kind::Random, "random"),
    (Kind::Doubles, "doubles"),
    (Kind::Unicode, "unicode"),
    (Kind::Tunnel, "tunnel"),
];

/// Sizes of packets: all of one size; of so many segments of one size; of any size up to one.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Fixed(usize),
    Merged(usize),
    UpTo(usize),
}

const CUTS: &[Cut] = &[
    Cut::Fixed(1_448),
    Cut::Fixed(16 << 10),
    Cut::Fixed(64 << 10),
    Cut::Merged(1_448),
    Cut::Fixed(65_483),
    Cut::Fixed(1_447),
    Cut::Fixed(536),
    Cut::UpTo(3_000),
    Cut::Fixed(997),
    Cut::Fixed(4_096),
    Cut::Fixed(32_741),
    Cut::UpTo(64 << 10),
    // What an application that writes a message in tiny pieces does.
    Cut::Fixed(100),
    Cut::Fixed(64),
    Cut::Fixed(37),
    Cut::Fixed(8),
    Cut::UpTo(150),
];

impl Cut {
    fn next(self, random: &mut Rng) -> usize {
        match self {
            Cut::Fixed(size) => size,
            Cut::Merged(size) => size * random.usize(1..=45),
            Cut::UpTo(size) => random.usize(1..=size),
        }
    }

    fn is_usual(self) -> bool {
        matches!(self, Cut::Fixed(size) | Cut::Merged(size) if size >= USUAL)
            || matches!(self, Cut::UpTo(size) if size > USUAL)
    }
}

/// Messages of one kind, and what was taken for a frame in them.
pub(crate) struct Bulk {
    kind: Kind,
    masked: bool,
    random: Rng,
    blob: Vec<u8>,
    stream: Stream,
    /// Where frames begin, and where the stream ends.
    boundaries: Vec<usize>,
    trials: u64,
}

impl Bulk {
    pub(crate) fn new(kind: Kind, masked: bool, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let blob = blob(kind, &mut random);
        let (stream, boundaries) = (Stream::default(), Vec::new());
        Self { kind, masked, random, blob, stream, boundaries, trials: 0 }
    }

    /// Follows one stream from the middle of its first message on; returns its length. Panics where something was taken for
    /// a frame that is none.
    pub(crate) fn trial(&mut self) -> u64 {
        let cut = CUTS[self.random.usize(..CUTS.len())];
        // Short messages, as each has a key of its own, which is lucky or not; and some that take many packets.
        let longest = [20 << 10, 60 << 10, 400 << 10][self.random.usize(..3)];
        self.encode(longest);
        // Each offset from the header's first byte on in turn, and each phase of a packet.
        let lost = 1 + (self.trials as usize % 256) + self.random.usize(..2) * self.random.usize(..2_048);
        self.trials += 1;
        let seed = self.random.u64(..);
        // Tiny packets while the other side talks are a conversation, and nothing else.
        let answers = cut.is_usual() && self.random.bool();
        self.follow(cut, lost, answers, &mut Rng::with_seed(seed));
        self.adopt(cut, lost, answers, &mut Rng::with_seed(seed));
        self.stream.bytes.len() as u64
    }

    /// A few messages, each with a masking key of its own.
    fn encode(&mut self, longest: usize) {
        self.stream.clear();
        self.boundaries.clear();
        if self.kind == Kind::Periodic {
            periodic(&mut self.blob, &mut self.random);
        }
        for _ in 0..3 {
            let len = self.random.usize(longest / 8..longest / 2);
            let at = self.random.usize(..self.blob.len() - len);
            self.boundaries.push(self.stream.bytes.len());
            let key = self.masked.then(|| self.random.u32(..).to_le_bytes());
            self.stream.push_payload(0x82, key, &self.blob[at..at + len]);
        }
        self.boundaries.push(self.stream.bytes.len());
    }

    fn is_boundary(&self, at: u32) -> bool {
        self.boundaries.contains(&(at as usize))
    }

    /// The boundary of a connection that is known is lost.
    fn follow(&self, cut: Cut, lost: usize, answers: bool, random: &mut Rng) {
        let (mut direction, mut other, mut totals) =
            (Direction::default(), Direction::default(), Counters::default());
        tracker::begin(&mut direction, 0, self.masked, random.bool());
        let mut now = 1;
        for (at, end) in packets(lost, self.stream.bytes.len(), cut, random) {
            now += pause(random);
            other.next_seq = other.next_seq.wrapping_add(u32::from(answers && random.u8(..8) == 0));
            direction.counters.packets += 1;
            let bytes = &self.stream.bytes[at..end];
            let mut tracker = Tracker::new(&mut direction, &other, &mut totals, Bytes(bytes, At(now)));
            if tracker.begin(at as u32, bytes.len() as u32) && tracker.fast() {
                let ended = (0..=tracker.turns()).any(|_| !tracker.step());
                assert!(ended, "the turns did not suffice");
            }
            let next = direction
                .next_seq
                .wrapping_sub(direction.held.into())
                .wrapping_add(direction.remaining as u32);
            let is_right = direction.parse >= Parse::Unsynced as u8 || self.is_boundary(next);
            assert!(is_right, "{} a frame at {next} of {:?}", self.name(cut, lost), self.boundaries);
        }
        let counted = direction.counters.frames.iter().sum::<u64>();
        assert!(counted < 3, "{} {counted} frames", self.name(cut, lost));
        let Counters { payload_bytes, control_bytes, header_bytes, unparsed_bytes, .. } = direction.counters;
        let sum = payload_bytes + control_bytes + header_bytes + unparsed_bytes + u64::from(direction.held);
        assert_eq!(sum, self.stream.bytes.len() as u64, "{} every byte is in one sum", self.name(cut, lost));
        assert_eq!(totals, Counters { packets: 0, ..direction.counters });
    }

    /// The agent comes while the message is under way; the other direction may push frames meanwhile.
    fn adopt(&self, cut: Cut, lost: usize, answers: bool, random: &mut Rng) {
        let mut candidate = Candidate::default();
        let (mut now, mut pushed) = (1, 0);
        for (at, end) in packets(lost, self.stream.bytes.len(), cut, random) {
            now += pause(random);
            if answers && random.u8(..8) == 0 {
                let push: &[u8] =
                    if self.masked { b"\x81\x05hello" } else { b"\x81\x85abcd\x09\x07\x0f\x08\x0e" };
                observe(&mut candidate, true, pushed, push, now);
                pushed = pushed.wrapping_add(push.len() as u32);
            }
            observe(&mut candidate, false, at as u32, &self.stream.bytes[at..end], now);
            let judgement = candidate.judge(self.masked);
            if let Judgement::WebSocket(is_server) = judgement {
                assert!(
                    answers && is_server == self.masked,
                    "{} taken for a WebSocket",
                    self.name(cut, lost)
                );
                let guess = candidate.received.guess().filter(|(_, evidence)| evidence.is_proof(self.masked));
                let next = guess.map(|(bytes, _)| (end as u32).wrapping_add(bytes));
                let is_right = next.is_none_or(|next| self.is_boundary(next));
                assert!(
                    is_right,
                    "{} adopted with a frame at {next:?} of {:?}",
                    self.name(cut, lost),
                    self.boundaries
                );
                return;
            }
        }
    }

    fn name(&self, cut: Cut, lost: usize) -> String {
        let masked = if self.masked { "masked" } else { "unmasked" };
        format!("{:?} {masked} in packets of {cut:?}, lost up to {lost} in trial {}:", self.kind, self.trials)
    }
}

fn observe(candidate: &mut Candidate, sent: bool, seq: u32, bytes: &[u8], now: u64) {
    let (side, other): (&mut Side, &Side) = match sent {
        true => (&mut candidate.sent, &candidate.received),
        false => (&mut candidate.received, &candidate.sent),
    };
    let (payload, len) = (Bytes(bytes, At(now)), bytes.len() as u32);
    let mut observation = Observation { heard: other.seen, side, payload, seq, len, at: 0 };
    if observation.begin() {
        let _ = (0..HEADERS).any(|_| !observation.step());
    }
}

/// The stream from `lost` on as packets.
fn packets(lost: usize, len: usize, cut: Cut, random: &mut Rng) -> Vec<(usize, usize)> {
    let (mut at, mut packets) = (lost.min(len), Vec::new());
    while at < len {
        let end = len.min(at + cut.next(random));
        packets.push((at, end));
        at = end;
    }
    packets
}

/// Time between two packets of a message: they follow each other, and now and then the sender has to wait.
fn pause(random: &mut Rng) -> u64 {
    if random.u16(..500) == 0 { 5_000_000 } else { 2_000 }
}

fn periodic(blob: &mut [u8], random: &mut Rng) {
    let period = random.usize(1..=64);
    for byte in &mut blob[..period] {
        *byte = random.u8(..);
    }
    for at in period..blob.len() {
        blob[at] = blob[at - period];
    }
}

fn blob(kind: Kind, random: &mut Rng) -> Vec<u8> {
    let mut blob = Vec::with_capacity(BLOB + 4_096);
    match kind {
        Kind::Periodic | Kind::Zeros => blob.resize(BLOB, 0),
        Kind::Spaces => blob.resize(BLOB, b' '),
        Kind::Random => blob.extend(std::iter::repeat_with(|| random.u8(..)).take(BLOB)),
        _ => {}
    }
    let mut noise = Noise::new(random.u64(..));
    while blob.len() < BLOB {
        match kind {
            Kind::JsonLines => writeln(&mut blob, &json(random)),
            Kind::JsonRecords => {
                let (id, value) = (random.u32(100_000..1_000_000), random.u32(100..1_000));
                writeln(&mut blob, &format!(r#"{{"id":{id},"at":"B{value}","ok":true}}"#));
            }
            Kind::Deflated => {
                let text: String = (0..200).map(|_| json(random)).collect();
                let level = flate2::Compression::default();
                let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), level);
                deflate.write_all(text.as_bytes()).expect("a vector takes everything");
                blob.extend(deflate.finish().expect("a vector takes everything"));
            }
            Kind::Doubles => blob.extend((1.0 + random.f64() / 16.0).to_le_bytes()),
            Kind::Unicode => {
                let words = ["привет ", "мир, ", "あい、", "うえ あ\n", "ÁÂ é ", "ok "];
                blob.extend(words[random.usize(..words.len())].as_bytes());
            }
            Kind::Tunnel => {
                let mut stream = Stream::default();
                let len = random.usize(1..2_500);
                stream.push(&Frame::new(random.u8(..2), true, false, len), false, &mut noise);
                blob.extend(stream.bytes);
            }
            Kind::Periodic | Kind::Zeros | Kind::Spaces | Kind::Random => {}
        }
    }
    blob
}

fn json(random: &mut Rng) -> String {
    let names = ["Alice", "Bob", "AB", "a", "Grüße"];
    let (id, name) = (random.u32(..100_000), names[random.usize(..names.len())]);
    format!(r#"{{"id":{id},"name":"{name}","price":{:.2},"tags":["A","BB"]}}"#, random.f64() * 100.0)
}

fn writeln(blob: &mut Vec<u8>, line: &str) {
    blob.extend(line.as_bytes());
    blob.push(b'\n');
}
