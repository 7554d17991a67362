//! The tracker as the kernel runs it against the same code compiled for this host, bit for bit: random frames, cut at
//! random, repeated, reordered and lost, one packet at a time through `BPF_PROG_TEST_RUN`.

use agent::kernel::Replayer;
use agent_ebpf::abi::Replay;
use agent_ebpf::reorder::before;
use agent_ebpf::simulate::Buffer;
use agent_ebpf::{simulate, tracker};
use anyhow::{Context as _, anyhow, ensure};

use crate::runner::Skip;

/// Fewer than there are first choices of a reorder buffer, as a stream may end with its own in use.
const STREAMS: u64 = 63;
const PACKETS: usize = 120;
/// The most that a test run takes as packet data: a page, less room for headers.
const LONGEST: usize = 3_000;
/// Ethernet, IPv4 and TCP headers without options.
const HEADERS: usize = 14 + 40;

pub(crate) fn the_kernels_tracker_is_this_hosts_bit_for_bit() -> anyhow::Result<()> {
    let mut kernel = Replayer::load().map_err(|error| match &error {
        agent::kernel::LoadError::Privilege(_) => Skip(error.to_string()).into(),
        _ => anyhow!(error),
    })?;
    let mut seen = Seen::default();
    for seed in 1..=STREAMS {
        stream(&mut kernel, seed, &mut seen)?;
    }
    // A comparison of nothing with nothing would succeed as well.
    ensure!(
        seen.exact > 0 && seen.unsynced > 0 && seen.adopted > STREAMS,
        "every state of the parser: {seen:?}"
    );
    ensure!(seen.stalls > 0 && seen.round_trips > 0 && seen.closes > 0, "every kind of event: {seen:?}");
    Ok(())
}

/// What the streams together went through.
#[derive(Debug, Default)]
struct Seen {
    exact: u64,
    adopted: u64,
    unsynced: u64,
    stalls: u64,
    round_trips: u64,
    closes: u64,
}

fn stream(kernel: &mut Replayer, seed: u64, seen: &mut Seen) -> anyhow::Result<()> {
    let mut dice = Dice(seed);
    let mut state = Replay::default();
    state.connection.cookie = seed;
    let start = dice.next() as u32;
    tracker::start(&mut state.connection.received, start, true);
    tracker::start(&mut state.connection.sent, start, false);
    let mut buffer = Buffer::default();
    let mut streams = [frames(&mut dice, false), frames(&mut dice, true)];
    let (mut sent, mut received) = (0, 0);
    let (mut late, mut lost): (Vec<(u32, Vec<u8>)>, bool) = (Vec::new(), false);
    state.rcv_nxt = start;
    for number in 0..PACKETS {
        state.now_ns += 1 + dice.below(5_000_000);
        state.inbound = u32::from(dice.below(3) > 0);
        let inbound = state.inbound == 1;
        let at = if inbound { &mut received } else { &mut sent };
        let bytes = &mut streams[usize::from(inbound)];
        let most = if dice.below(4) == 0 { LONGEST as u64 } else { 200 };
        let len = 1 + dice.below(most) as usize;
        let (mut seq, mut payload) = (start.wrapping_add(*at as u32), bytes[*at..*at + len].to_vec());
        *at += len;
        match dice.below(10) {
            // Never comes, and TCP does not care.
            0 if inbound && seed.is_multiple_of(3) => {
                state.rcv_nxt = start.wrapping_add(received as u32);
                continue;
            }
            // The same once, and there is time to find back.
            _ if inbound && seed % 3 == 1 && !lost && number > 20 => {
                lost = true;
                state.rcv_nxt = start.wrapping_add(received as u32);
                continue;
            }
            // Comes later.
            1 | 2 if inbound => {
                late.push((seq, payload));
                continue;
            }
            // What was late comes now, if anything is.
            3 | 4 if inbound && !late.is_empty() => {
                let index = dice.below(late.len() as u64) as usize;
                let other = std::mem::replace(&mut late[index], (seq, payload));
                (seq, payload) = other;
            }
            // Reaches back.
            5 if *at > len => {
                let back = dice.below(200.min(*at as u64 - len as u64)) as u32;
                let from = *at - len - back as usize;
                seq = seq.wrapping_sub(back);
                payload = bytes[from..from + (len + back as usize).min(LONGEST)].to_vec();
            }
            _ => {}
        }
        both(kernel, &mut state, &mut buffer, seq, &payload)
            .with_context(|| format!("stream {seed}, packet {number}"))?;
        let edge = state.connection.received.next_seq;
        if state.connection.received.reorder == 0 && before(state.rcv_nxt, edge) {
            state.rcv_nxt = edge;
        }
    }
    for direction in [&state.connection.received, &state.connection.sent] {
        seen.exact += u64::from(direction.parse == 0);
    }
    // Both boundaries are lost, and found: the client's in full segments, the server's in a conversation.
    for direction in [&mut state.connection.received, &mut state.connection.sent] {
        direction.next_seq = direction.next_seq.wrapping_add(9);
        direction.parse = 2;
        (direction.remaining, direction.held, direction.flags) = (0, 0, direction.flags & 2);
    }
    let upload: Vec<u8> = (0..60).flat_map(|n| data_frame(20 + n * 7 % 90, true, &mut dice)).collect();
    let answers = (0..20).map(|n| data_frame(n % 3, false, &mut dice));
    for (inbound, answer) in
        upload.chunks(701).map(|segment| (1, segment.to_vec())).chain(answers.map(|answer| (0, answer)))
    {
        state.inbound = inbound;
        state.now_ns += 2_000_000;
        let direction = if inbound == 1 { &state.connection.received } else { &state.connection.sent };
        let seq = direction.next_seq;
        state.rcv_nxt = state.connection.received.next_seq;
        both(kernel, &mut state, &mut buffer, seq, &answer)
            .with_context(|| format!("stream {seed}, behind its end"))?;
    }
    for direction in [&state.connection.received, &state.connection.sent] {
        seen.adopted += u64::from(direction.parse == 1);
        seen.unsynced += u64::from(direction.counters.unparsed_bytes > 0);
        seen.closes += u64::from(direction.close_code != 0);
        seen.stalls += u64::from(direction.stalls);
    }
    let rtt = [&state.totals.received, &state.totals.sent].map(|totals| totals.rtt.iter().sum::<u64>());
    seen.round_trips += rtt.iter().sum::<u64>();
    Ok(())
}

/// Has the kernel and this host follow a packet, and compares what they make of it.
fn both(
    kernel: &mut Replayer,
    state: &mut Replay,
    buffer: &mut Buffer,
    seq: u32,
    payload: &[u8],
) -> anyhow::Result<()> {
    let before = *state;
    simulate::packet(state, buffer, seq, 40, payload);
    let kernel = kernel.run(&before, &packet(seq, payload)).map_err(|error| anyhow!(error))?;
    ensure!(kernel == *state, "the kernel has {kernel:?}, the host {state:?}");
    Ok(())
}

/// A text message of less than 126 bytes.
fn data_frame(len: u64, masked: bool, dice: &mut Dice) -> Vec<u8> {
    let mut frame = vec![0x81, len as u8 | if masked { 0x80 } else { 0 }];
    let rest = len + if masked { 4 } else { 0 };
    frame.extend((0..rest).map(|_| dice.next() as u8));
    frame
}

/// Frames of all kinds, small ones mostly, as bytes.
fn frames(dice: &mut Dice, masked: bool) -> Vec<u8> {
    const OPCODES: [u8; 8] = [0, 1, 2, 8, 9, 9, 10, 10];
    let mut bytes = Vec::new();
    while bytes.len() < PACKETS * LONGEST {
        let opcode = OPCODES[dice.below(8) as usize];
        let most = if opcode >= 8 { 126 } else { [1, 20, 130, 70_000][dice.below(4) as usize] };
        // Few payloads, so that pongs answer pings.
        let len = if opcode >= 9 { [0, 2, 125][dice.below(3) as usize] } else { dice.below(most) as usize };
        bytes.push(opcode | if opcode < 8 && dice.below(2) == 0 { 0 } else { 0x80 });
        let mask = if masked { 0x80 } else { 0 };
        match len {
            0..=125 => bytes.push(mask | len as u8),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let key = if masked { (dice.next() as u32).to_le_bytes() } else { [0; 4] };
        if masked {
            bytes.extend(key);
        }
        let plain = |at: usize, dice: &mut Dice| if opcode >= 9 { at as u8 } else { dice.next() as u8 };
        for at in 0..len {
            let byte = plain(at, dice);
            bytes.push(byte ^ key[at % 4]);
        }
    }
    bytes
}

/// An Ethernet frame with an IPv4 TCP segment.
fn packet(seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0u8; HEADERS];
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut frame[14..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = 6;
    ip[12..16].copy_from_slice(&[127, 0, 0, 1]);
    ip[16..20].copy_from_slice(&[127, 0, 0, 1]);
    ip[24..28].copy_from_slice(&seq.to_be_bytes());
    ip[32] = 5 << 4;
    frame.extend(payload);
    frame
}

/// xorshift64: the same dice for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }
}
