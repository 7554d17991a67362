//! The tracker against tungstenite's codec: random frames, cut, repeated and lost at random.

use std::io::Cursor;

use agent_ebpf::abi::{Counters, Direction, Parse, Replay, frame_slot};
use agent_ebpf::simulate::{self, At, Buffer, Bytes};
use agent_ebpf::tracker::{self, Tracker};
use proptest::prelude::*;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A frame to be sent.
#[derive(Debug, Clone)]
struct Sent {
    opcode: OpCode,
    fin: bool,
    len: usize,
}

/// Runs one packet through the tracker the way the packet program does.
fn packet(direction: &mut Direction, totals: &mut Counters, seq: u32, bytes: &[u8]) {
    packet_at(direction, totals, seq, bytes, 1);
}

fn packet_at(direction: &mut Direction, totals: &mut Counters, seq: u32, bytes: &[u8], now: u64) {
    let other = Direction::default();
    let len = bytes.len() as u32;
    let mut tracker = Tracker::new(direction, &other, totals, Bytes(bytes, At(now)));
    if !tracker.begin(seq, len) {
        return;
    }
    // As the loop in the kernel is bounded.
    for _ in 0..=tracker.turns() {
        if !tracker.step() {
            return;
        }
    }
    panic!("the turns did not suffice");
}

/// The stream as tungstenite encodes it. The payload is noise from `seed`, so that it looks like anything.
fn encode(frames: &[Sent], masked: bool, seed: u64) -> Vec<u8> {
    let (mut stream, mut noise) = (Vec::new(), seed | 1);
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    };
    for frame in frames {
        let mask = masked.then(|| [next(), next(), next(), next()]);
        let header =
            FrameHeader { is_final: frame.fin, opcode: frame.opcode, mask, ..FrameHeader::default() };
        header.format(frame.len as u64, &mut stream).expect("a vector takes everything");
        stream.extend((0..frame.len).map(|_| next()));
    }
    stream
}

/// What tungstenite finds in the stream.
fn oracle(stream: &[u8]) -> Counters {
    let mut counters = Counters::default();
    let mut cursor = Cursor::new(stream);
    while let Some((header, len)) = FrameHeader::parse(&mut cursor).expect("its own encoding") {
        counters.frames[frame_slot(u8::from(header.opcode))] += 1;
        counters.header_bytes += header.len(len) as u64;
        match header.opcode {
            OpCode::Control(_) => counters.control_bytes += len,
            OpCode::Data(_) => counters.payload_bytes += len,
        }
        cursor.set_position(cursor.position() + len);
    }
    counters
}

fn frames() -> impl Strategy<Value = Vec<Sent>> {
    let data = prop_oneof![Just(Data::Continue), Just(Data::Text), Just(Data::Binary)].prop_map(OpCode::Data);
    let control = prop_oneof![Just(Control::Close), Just(Control::Ping), Just(Control::Pong)];
    // The lengths around which the header's form changes, and some of every size.
    let lengths = prop_oneof![
        Just(0usize),
        1usize..20,
        120usize..135,
        Just(65_535usize),
        Just(65_536usize),
        200usize..3_000
    ];
    let data = (data, any::<bool>(), lengths).prop_map(|(opcode, fin, len)| Sent { opcode, fin, len });
    let control = (control, 0usize..126).prop_map(|(opcode, len)| Sent {
        opcode: OpCode::Control(opcode),
        fin: true,
        len,
    });
    prop::collection::vec(prop_oneof![3 => data, 2 => control], 1..40)
}

/// Sizes of successive packets: many tiny ones, some as large as a GSO packet.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => 1usize..8, 2 => 8usize..1_500, 1 => 1_500usize..65_000], 1..200)
}

/// The stream as packets (offset, length); the sizes repeat until it ends.
fn segments(len: usize, cuts: &[usize]) -> Vec<(usize, usize)> {
    let mut segments = Vec::new();
    let mut at = 0;
    for size in cuts.iter().cycle() {
        if at == len {
            break;
        }
        let size = (*size).min(len - at);
        segments.push((at, size));
        at += size;
    }
    segments
}

/// The order in which segments arrive: a late one comes after so many others, in the meantime lost or just slow; and some
/// that came are sent again.
fn arrivals(segments: &[(usize, usize)], late: &[(bool, usize)]) -> Vec<(usize, usize)> {
    let mut order: Vec<(usize, usize, (usize, usize))> = Vec::new();
    for (index, (segment, (is_late, by))) in segments.iter().zip(late.iter().cycle()).enumerate() {
        order.push((index + if *is_late { *by } else { 0 }, index, *segment));
        if *by == 3 {
            order.push((index + 2 * by, index, *segment));
        }
    }
    order.sort_by_key(|(place, index, _)| (*place, *index));
    order.into_iter().map(|(_, _, segment)| segment).collect()
}

/// TCP's edge, from what has arrived.
#[derive(Default)]
struct Arrived {
    edge: usize,
    beyond: Vec<(usize, usize)>,
}

impl Arrived {
    fn take(&mut self, at: usize, len: usize) -> usize {
        self.beyond.push((at, at + len));
        self.beyond.sort_unstable();
        for (start, end) in &self.beyond {
            if *start <= self.edge {
                self.edge = self.edge.max(*end);
            }
        }
        self.beyond.retain(|(_, end)| *end > self.edge);
        self.edge
    }
}

fn check_sum(counters: &Counters) -> u64 {
    counters.payload_bytes + counters.control_bytes + counters.header_bytes + counters.unparsed_bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_counts_exactly(
        frames in frames(), cuts in cuts(), masked: bool, seed: u64, start: u32,
    ) {
        let stream = encode(&frames, masked, seed);
        let (mut direction, mut totals) = (Direction::default(), Counters::default());
        tracker::start(&mut direction, start, masked);
        for (at, len) in segments(stream.len(), &cuts) {
            packet(&mut direction, &mut totals, start.wrapping_add(at as u32), &stream[at..at + len]);
        }
        prop_assert_eq!(direction.counters, oracle(&stream));
        prop_assert_eq!(totals, direction.counters);
        prop_assert_eq!(direction.parse, Parse::Exact as u8);
    }

    #[test]
    fn retransmissions_and_overlaps_count_once(
        frames in frames(), cuts in cuts(), masked: bool, seed: u64, start: u32,
        again in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3_000), 0..60),
    ) {
        let stream = encode(&frames, masked, seed);
        let (mut direction, mut totals) = (Direction::default(), Counters::default());
        tracker::start(&mut direction, start, masked);
        let mut again = again.iter().cycle();
        for (at, len) in segments(stream.len(), &cuts) {
            let (mut start_at, end) = (at, at + len);
            if let Some((index, back)) = again.next() {
                // Half of the segments reach back into what was sent before, as a repacketised retransmission does.
                if back % 2 == 0 {
                    start_at = at.saturating_sub(*back);
                }
                // And a copy of anything sent so far, at any offset.
                let from = index.index(end);
                let to = (from + back).min(at);
                if from < to {
                    packet(&mut direction, &mut totals, start.wrapping_add(from as u32), &stream[from..to]);
                }
            }
            packet(&mut direction, &mut totals, start.wrapping_add(start_at as u32), &stream[start_at..end]);
        }
        prop_assert_eq!(direction.counters, oracle(&stream));
        prop_assert_eq!(direction.parse, Parse::Exact as u8);
    }

    #[test]
    fn loss_is_accounted_and_nothing_is_invented(
        frames in frames(), cuts in cuts(), masked: bool, seed: u64, start: u32,
        lost in prop::collection::vec(prop::bool::weighted(0.1), 200),
    ) {
        let stream = encode(&frames, masked, seed);
        let (mut direction, mut totals) = (Direction::default(), Counters::default());
        tracker::start(&mut direction, start, masked);
        let mut reached = 0;
        for ((at, len), lost) in segments(stream.len(), &cuts).into_iter().zip(lost.iter().cycle()) {
            if !lost {
                packet(&mut direction, &mut totals, start.wrapping_add(at as u32), &stream[at..at + len]);
                reached = at + len;
            }
        }
        let (counters, truth) = (direction.counters, oracle(&stream));
        // Every byte up to the last packet seen is in exactly one sum, a header still being put together apart.
        prop_assert_eq!(check_sum(&counters) + u64::from(direction.held), reached as u64);
        if direction.parse == Parse::Exact as u8 {
            for (found, sent) in counters.frames.iter().zip(truth.frames) {
                prop_assert!(*found <= sent);
            }
            prop_assert_eq!(counters.unparsed_bytes, 0);
        } else {
            prop_assert!(counters.unparsed_bytes > 0);
        }
    }

    /// Loss, duplication and reordering as a receiver sees them: everything arrives in the end, in any order a little off,
    /// some of it twice. As long as the buffer's limits are kept, the counts are those of a perfect network.
    #[test]
    fn reordering_within_the_buffers_limits_counts_exactly(
        frames in frames(), masked: bool, seed: u64, start: u32,
        sizes in prop::collection::vec(1usize..1_500, 1..50),
        late in prop::collection::vec((prop::bool::weighted(0.15), 1usize..6), 1..60),
    ) {
        let stream = encode(&frames, masked, seed);
        let (mut state, mut buffer) = (Replay::default(), Buffer::default());
        state.inbound = 1;
        state.connection.cookie = seed;
        state.rcv_nxt = start;
        tracker::start(&mut state.connection.received, start, masked);
        let arrivals = arrivals(&segments(stream.len(), &sizes), &late);
        let mut tcp = Arrived::default();
        for (at, len) in arrivals {
            state.now_ns += 1_000;
            let seq = start.wrapping_add(at as u32);
            simulate::packet(&mut state, &mut buffer, seq, 40, &stream[at..at + len]);
            state.rcv_nxt = start.wrapping_add(tcp.take(at, len) as u32);
        }
        let received = &state.connection.received;
        let wire = Counters { packets: received.counters.packets, packet_bytes: received.counters.packet_bytes, ..oracle(&stream) };
        prop_assert_eq!(received.counters, wire);
        prop_assert_eq!(state.totals.received.counters, wire);
        prop_assert_eq!(received.parse, Parse::Exact as u8);
        prop_assert_eq!((received.reorder, received.stalled_since_ns), (0, 0), "no hole is left");
        prop_assert_eq!(received.stalls > 0, received.stalled_ns > 0);
    }

    /// The same without any regard for limits: what is counted was sent, once, and every byte is in one sum.
    #[test]
    fn any_order_invents_nothing(
        frames in frames(), masked: bool, seed: u64, start: u32,
        sizes in prop::collection::vec(1usize..9_000, 1..50),
        late in prop::collection::vec((prop::bool::weighted(0.4), 1usize..40), 1..60),
        lost in prop::collection::vec(prop::bool::weighted(0.05), 1..100),
    ) {
        let stream = encode(&frames, masked, seed);
        let (mut state, mut buffer) = (Replay::default(), Buffer::default());
        state.inbound = 1;
        state.connection.cookie = seed;
        state.rcv_nxt = start;
        tracker::start(&mut state.connection.received, start, masked);
        let mut tcp = Arrived::default();
        for ((at, len), unseen) in arrivals(&segments(stream.len(), &sizes), &late).into_iter().zip(lost.iter().cycle()) {
            // A packet that TCP got and the program did not (another CPU had the direction).
            if !unseen {
                let seq = start.wrapping_add(at as u32);
                simulate::packet(&mut state, &mut buffer, seq, 40, &stream[at..at + len]);
            }
            state.rcv_nxt = start.wrapping_add(tcp.take(at, len) as u32);
        }
        let (received, truth) = (&state.connection.received, oracle(&stream));
        if received.parse == Parse::Exact as u8 && received.counters.unparsed_bytes == 0 {
            for (found, sent) in received.counters.frames.iter().zip(truth.frames) {
                prop_assert!(*found <= sent);
            }
        }
        let reached = received.next_seq.wrapping_sub(start);
        prop_assert_eq!(check_sum(&received.counters) + u64::from(received.held), u64::from(reached));
        prop_assert!(u64::from(reached) <= stream.len() as u64);
    }

    #[test]
    fn any_bytes_at_all_are_survived(
        packets in prop::collection::vec((any::<i16>(), prop::collection::vec(any::<u8>(), 0..300)), 0..50),
        masked: bool,
    ) {
        let (mut direction, mut totals) = (Direction::default(), Counters::default());
        tracker::start(&mut direction, 0, masked);
        for (shift, bytes) in packets {
            let seq = direction.next_seq.wrapping_add(shift as u32);
            packet(&mut direction, &mut totals, seq, &bytes);
        }
        prop_assert_eq!(totals, direction.counters);
    }
}

/// A second, in which nothing is said.
const SECOND: u64 = 1_000_000_000;

/// After a gap, pings with silence between them bring the tracker back, and it says so.
#[test]
fn a_lost_boundary_is_found_again_from_evidence() {
    let (mut direction, mut totals) = (Direction::default(), Counters::default());
    tracker::start(&mut direction, 100, false);
    let ping = [0x89, 4, b'p', b'i', b'n', b'g'];
    packet(&mut direction, &mut totals, 100, &ping);
    let mut seq = 100 + 6 + 1_000;
    for second in 1..=5 {
        packet_at(&mut direction, &mut totals, seq, &ping, second * SECOND);
        seq += 6;
    }
    assert_eq!(direction.parse, Parse::Adopted as u8);
    // One before the gap; of the five behind it the first two are only evidence: they fit, and end with their packets.
    assert_eq!(direction.counters.frames[frame_slot(9)], 4);
    assert_eq!(direction.counters.unparsed_bytes, 1_000 + 2 * 6);
}

/// The same pings without a silence between them may be any payload that repeats.
#[test]
fn repetition_is_no_evidence() {
    let (mut direction, mut totals) = (Direction::default(), Counters::default());
    tracker::start(&mut direction, 0, false);
    for number in 1..1_000 {
        packet(&mut direction, &mut totals, number * 6, &[0x89, 4, b'p', b'i', b'n', b'g']);
    }
    assert_eq!((direction.parse, direction.counters.unparsed_bytes), (Parse::Unsynced as u8, 6_000));
}

/// Frames of different lengths in packets of their own need no silence.
#[test]
fn frames_of_different_lengths_are_evidence() {
    let (mut direction, mut totals) = (Direction::default(), Counters::default());
    tracker::start(&mut direction, 0, false);
    let mut seq = 500;
    for len in [3, 300, 20, 7, 90] {
        let bytes = encode(&[Sent { opcode: OpCode::Data(Data::Text), fin: true, len }], false, 1);
        packet(&mut direction, &mut totals, seq, &bytes);
        seq += bytes.len() as u32;
    }
    assert_eq!((direction.parse, direction.counters.frames[frame_slot(1)]), (Parse::Adopted as u8, 1));
}

/// Noise that looks like the header of an enormous frame does not swallow what follows.
#[test]
fn a_false_candidate_does_not_end_the_search() {
    let (mut direction, mut totals) = (Direction::default(), Counters::default());
    tracker::start(&mut direction, 0, false);
    // A binary frame of 2^60 bytes, as chance would have it, behind a gap.
    let noise = [0x82, 127, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7];
    packet(&mut direction, &mut totals, 500, &noise);
    let mut seq = 500 + noise.len() as u32;
    for second in 1..=5 {
        packet_at(&mut direction, &mut totals, seq, &[0x89, 0], second * SECOND);
        seq += 2;
    }
    assert_eq!(direction.parse, Parse::Adopted as u8);
    assert_eq!(direction.counters.frames[frame_slot(9)], 3);
}

/// A sender that is behind fills its segments: no packet begins where a frame does, and the boundary is found inside one.
#[test]
fn a_boundary_is_found_inside_full_segments() {
    let frames: Vec<_> = (0..400)
        .map(|n| Sent { opcode: OpCode::Data(Data::Binary), fin: true, len: 90 + n * 7 % 20 })
        .collect();
    let stream = encode(&frames, true, 7);
    let (mut direction, mut totals) = (Direction::default(), Counters::default());
    tracker::start(&mut direction, 0, true);
    // The first segment is lost, 1,448 bytes of frames of a hundred.
    for (index, segment) in stream.chunks(1_448).enumerate().skip(1) {
        packet(&mut direction, &mut totals, index as u32 * 1_448, segment);
    }
    let found = direction.counters.frames[frame_slot(2)];
    assert_eq!(direction.parse, Parse::Adopted as u8);
    // 14 frames begin in the lost segment; some more are evidence, and one header was cut.
    assert!((340..=375).contains(&found), "{found} of 400");
    assert_eq!(check_sum(&direction.counters), stream.len() as u64);
}

/// A hole inside a payload whose end is known costs nothing but the sight of it.
#[test]
fn a_hole_inside_a_payload_is_bridged() {
    let (mut direction, mut totals) = (Direction::default(), Counters::default());
    tracker::start(&mut direction, 0, false);
    let mut stream = vec![0x82, 126, 0x10, 0x00];
    stream.extend(vec![0xff; 4096]);
    stream.extend([0x89, 0]);
    packet(&mut direction, &mut totals, 0, &stream[..1000]);
    packet(&mut direction, &mut totals, 3000, &stream[3000..]);
    assert_eq!(direction.parse, Parse::Exact as u8);
    assert_eq!(direction.counters.payload_bytes, 4096);
    assert_eq!(direction.counters.frames[frame_slot(9)], 1);
}

/// Times in units of the marks' resolution.
const UNIT: u64 = 512;

/// A packet in order.
fn say(direction: &mut Direction, other: &Direction, totals: &mut Counters, bytes: &[u8], at: u64) {
    let (seq, len) = (direction.next_seq, bytes.len() as u32);
    let mut tracker = Tracker::new(direction, other, totals, Bytes(bytes, At(at)));
    assert!(tracker.begin(seq, len));
    while tracker.step() {}
}

const PING: &[u8] = &[0x89, 1, b'a'];
const PONG: &[u8] = &[0x8a, 0x81, 0, 0, 0, 0, b'a'];
/// Opcode 3 is reserved.
const NO_FRAME: &[u8] = &[0x83, 0, 0, 0];

/// A server's direction and its client's, of a connection older than the agent, at a boundary that is known.
fn adopted() -> [Direction; 2] {
    let [mut sent, mut received] = [Direction::default(); 2];
    for (direction, masked) in [(&mut sent, false), (&mut received, true)] {
        tracker::adopt(direction, 1_000, masked, None);
        direction.parse = Parse::Adopted as u8;
    }
    [sent, received]
}

/// Pongs may answer pings that passed before the boundary was known: as many as are remembered at all.
#[test]
fn pong_after_adoption_is_not_unsolicited() {
    let ([mut sent, mut received], mut totals) = (adopted(), Counters::default());
    for unsolicited in [0, 0, 1, 2] {
        say(&mut received, &sent, &mut totals, PONG, 1);
        assert_eq!((received.pongs_unsolicited, received.rtt_ns), (unsolicited, 0));
    }
    // A ping that is seen is answered as ever.
    say(&mut sent, &received, &mut totals, PING, 10 * UNIT);
    assert_eq!((sent.ping_interval_ns, sent.pings_missed), (0, 0), "nobody knows when the one before was");
    say(&mut received, &sent, &mut totals, PONG, 30 * UNIT);
    assert_eq!((received.rtt_ns, received.pongs_unsolicited), (20 * UNIT, 2));
}

/// Two pings that were seen push out those that may have been, as they do any other.
#[test]
fn pings_from_before_adoption_are_forgotten_like_others() {
    let ([mut sent, mut received], mut totals) = (adopted(), Counters::default());
    for second in 1..=2 {
        say(&mut sent, &received, &mut totals, PING, second * SECOND);
        say(&mut received, &sent, &mut totals, PONG, second * SECOND + UNIT);
    }
    say(&mut received, &sent, &mut totals, PONG, 3 * SECOND);
    assert_eq!((received.pongs_unsolicited, sent.pings_missed), (1, 0));
}

/// Pings pass unseen while the boundary of their direction is lost, and so do pongs while theirs is.
#[test]
fn what_passes_without_a_boundary_is_not_blamed_on_the_peer() {
    let ([mut sent, mut received], mut totals) = (adopted(), Counters::default());
    say(&mut sent, &received, &mut totals, PING, SECOND);
    say(&mut received, &sent, &mut totals, PONG, SECOND + UNIT);
    say(&mut sent, &received, &mut totals, PING, 2 * SECOND);
    // No frame: the pings behind it are not seen, and their pongs are.
    say(&mut sent, &received, &mut totals, NO_FRAME, 2 * SECOND);
    assert_eq!(sent.parse, Parse::Unsynced as u8);
    for _ in 0..5 {
        say(&mut received, &sent, &mut totals, PONG, 3 * SECOND);
    }
    assert_eq!(received.pongs_unsolicited, 0);
    for second in 4..=6 {
        say(&mut sent, &received, &mut totals, PING, second * SECOND);
    }
    assert_eq!((sent.parse, sent.pings_missed), (Parse::Adopted as u8, 0), "the third ping proves it");
    // The pong of the last ping passes where pongs have no boundary.
    say(&mut received, &sent, &mut totals, NO_FRAME, 7 * SECOND);
    say(&mut received, &sent, &mut totals, PONG, 7 * SECOND);
    for second in 8..=9 {
        say(&mut received, &sent, &mut totals, &[0x81, 0x80, 1, 2, 3, 4], second * SECOND);
    }
    assert_eq!(received.parse, Parse::Adopted as u8);
    say(&mut sent, &received, &mut totals, PING, 10 * SECOND);
    assert_eq!(sent.pings_missed, 0);
    say(&mut sent, &received, &mut totals, PING, 11 * SECOND);
    assert_eq!(sent.pings_missed, 1, "this one was seen, and no pong to it");
}

/// Pongs answer the other direction's ping; a ping that follows an unanswered one counts that one as missed.
#[test]
fn pings_are_matched_with_pongs() {
    let (mut sent, mut received, mut totals) =
        (Direction::default(), Direction::default(), Counters::default());
    tracker::start(&mut sent, 0, false);
    tracker::start(&mut received, 0, true);
    let mut run = |direction: &mut Direction, other: &Direction, bytes: &[u8], at: u64| {
        say(direction, other, &mut totals, bytes, at);
    };
    let (ping, pong) = ([0x89, 0], [0x8a, 0x80, 1, 2, 3, 4]);
    run(&mut sent, &received, &ping, 1_000 * UNIT);
    run(&mut received, &sent, &pong, 1_250 * UNIT);
    assert_eq!(received.rtt_ns, 250 * UNIT);
    run(&mut sent, &received, &ping, 2_000 * UNIT);
    run(&mut sent, &received, &ping, 3_000 * UNIT);
    assert_eq!((sent.ping_interval_ns, sent.pings_missed), (1_000 * UNIT, 1));
    // Two pings with the same payload are open: whichever this answers, nobody knows how long it took.
    run(&mut received, &sent, &pong, 3_100 * UNIT);
    assert_eq!((received.rtt_ns, received.pongs_unsolicited), (250 * UNIT, 0));
    run(&mut received, &sent, &pong, 3_200 * UNIT);
    assert_eq!((received.rtt_ns, received.pongs_late), (250 * UNIT, 1), "the other one of the two");
    run(&mut received, &sent, &pong, 3_900 * UNIT);
    assert_eq!(
        (received.rtt_ns, received.pongs_unsolicited),
        (250 * UNIT, 1),
        "an unsolicited one measures nothing"
    );
    // Payloads tell pings apart.
    run(&mut sent, &received, &[0x89, 1, b'a'], 5_000 * UNIT);
    run(&mut sent, &received, &[0x89, 1, b'b'], 6_000 * UNIT);
    run(&mut received, &sent, &[0x8a, 0x81, 9, 9, 9, 9, b'b' ^ 9], 6_100 * UNIT);
    assert_eq!(received.rtt_ns, 100 * UNIT);
    run(&mut received, &sent, &[0x8a, 0x81, 7, 7, 7, 7, b'a' ^ 7], 6_500 * UNIT);
    assert_eq!((received.rtt_ns, received.pongs_late, sent.pings_missed), (1_500 * UNIT, 2, 2));
    run(&mut received, &sent, &[0x8a, 0x81, 7, 7, 7, 7, b'c' ^ 7], 6_600 * UNIT);
    assert_eq!(received.pongs_unsolicited, 2);
}
