//! The adapter against an independent implementation of deflate: any messages in any frames cut anywhere, both roles.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::codec::TAIL;
use super::frame::{BINARY, CONTINUATION, FIN, Header, MAX_HEADER, RSV1, TEXT, apply_mask, write_before};
use super::*;

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// Bytes that repeat themselves at all distances, or do not.
    fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(size);
        let noise = self.chance(4);
        while bytes.len() < size {
            if noise || bytes.len() < 4 || self.chance(3) {
                bytes.push(b' ' + self.below(90) as u8);
            } else {
                let start = self.below(bytes.len());
                let end = (start + self.below(300)).min(bytes.len());
                bytes.extend_from_within(start..end);
            }
        }
        bytes.truncate(size);
        bytes
    }

    fn message(&mut self) -> Message {
        let most = [1, 40, 300, 5_000, 70_000][self.below(5)];
        let size = self.below(most);
        let bytes = self.bytes(size);
        match self.below(8) {
            0 => Message::Ping(bytes[..size.min(125)].to_vec().into()),
            1 => Message::Pong(bytes[..size.min(125)].to_vec().into()),
            2..5 => Message::text(String::from_utf8(bytes).unwrap()),
            _ => Message::binary(bytes),
        }
    }
}

/// A peer that compresses and decompresses with Rust's miniz_oxide.
struct Peer {
    masks: bool,
    compressor: Compress,
    decompressor: Decompress,
    /// How it compresses, and how we do.
    own: Direction,
    ours: Direction,
}

impl Peer {
    fn new(role: Role, agreed: Agreed) -> Self {
        let ours = if role == Role::Server { agreed.client() } else { agreed.server() };
        Self {
            masks: role == Role::Client,
            compressor: Compress::new(Compression::new(6), false),
            decompressor: Decompress::new(false),
            own: agreed.of(role),
            ours,
        }
    }

    fn deflate(&mut self, plain: &[u8]) -> Vec<u8> {
        if !self.own.takeover {
            self.compressor.reset();
        }
        if plain.is_empty() {
            return vec![0];
        }
        let mut out = Vec::with_capacity(plain.len() * 2 + 100);
        let before = self.compressor.total_in();
        self.compressor.compress_vec(plain, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!((self.compressor.total_in() - before) as usize, plain.len());
        assert!(out.ends_with(&TAIL) && out.len() < out.capacity());
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn inflate(&mut self, compressed: &[u8]) -> Vec<u8> {
        if !self.ours.takeover {
            self.decompressor.reset(false);
        }
        let input = [compressed, &TAIL].concat();
        let mut out = Vec::with_capacity(1 << 20);
        let before = self.decompressor.total_in();
        let status = self.decompressor.decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
        assert_eq!(status, Status::Ok);
        assert_eq!((self.decompressor.total_in() - before) as usize, input.len());
        out
    }

    fn frame(&self, rng: &mut Rng, first: u8, payload: &[u8], to: &mut Vec<u8>) {
        let mask = self.masks.then(|| [(); 4].map(|()| rng.below(256) as u8));
        let mut bytes = vec![0; MAX_HEADER];
        let start = write_before(&mut bytes, first, mask, payload.len());
        bytes.extend(payload);
        apply_mask(&mut bytes[MAX_HEADER..], mask.unwrap_or_default(), 0);
        to.extend(&bytes[start..]);
    }

    /// `message` on the wire, in fragments, compressed or not, with pongs in between.
    fn say(&mut self, rng: &mut Rng, message: &Message, to: &mut Vec<u8>, pongs: &mut usize) {
        let (opcode, bytes) = match message {
            Message::Text(text) => (TEXT, text.as_bytes().to_vec()),
            Message::Binary(bytes) => (BINARY, bytes.to_vec()),
            Message::Ping(bytes) => return self.frame(rng, FIN | 9, bytes, to),
            Message::Pong(bytes) => return self.frame(rng, FIN | 10, bytes, to),
            _ => unreachable!(),
        };
        let compressed = !rng.chance(3);
        let payload = if compressed { self.deflate(&bytes) } else { bytes };
        let mut first = if compressed { opcode | RSV1 } else { opcode };
        let mut rest = &payload[..];
        while rng.chance(3) {
            let at = rng.below(rest.len() + 1);
            self.frame(rng, first, &rest[..at], to);
            rest = &rest[at..];
            first = CONTINUATION;
            if rng.chance(3) {
                self.frame(rng, FIN | 10, b"between", to);
                *pongs += 1;
            }
        }
        self.frame(rng, first | FIN, rest, to);
    }

    /// The messages in `wire`, and how many were compressed.
    fn hear(&mut self, mut wire: &[u8]) -> (Vec<Message>, usize) {
        let (mut messages, mut compressed) = (Vec::new(), 0);
        while let Some(header) = Header::parse(wire) {
            assert_eq!(header.mask.is_some(), !self.masks);
            let mut payload = wire[header.size..header.whole() as usize].to_vec();
            apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
            let first = wire[0];
            wire = &wire[header.whole() as usize..];
            assert!(header.is_final(), "the engine does not fragment");
            if header.reserved() == RSV1 {
                payload = self.inflate(&payload);
                compressed += 1;
            }
            messages.push(match first & 0x0F {
                TEXT => Message::text(String::from_utf8(payload).unwrap()),
                BINARY => Message::binary(payload),
                9 => Message::Ping(payload.into()),
                10 => Message::Pong(payload.into()),
                other => panic!("opcode {other}"),
            });
        }
        assert!(wire.is_empty());
        (messages, compressed)
    }
}

/// An engine over an adapter over a stream that gives and takes as it likes.
struct Endpoint {
    engine: WebSocketContext,
    stream: Stream,
}

struct Stream {
    adapter: Adapter,
    rng: Rng,
    incoming: Vec<u8>,
    at: usize,
    outgoing: Vec<u8>,
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { adapter, rng, incoming, at, .. } = self;
        adapter.read(buffer, |buffer| {
            let left = &incoming[*at..];
            if left.is_empty() || rng.chance(5) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let most = [1, 3, 50, 5_000][rng.below(4)];
            let count = (1 + rng.below(most)).min(left.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&left[..count]);
            *at += count;
            Ok(count)
        })
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { adapter, rng, outgoing, .. } = self;
        adapter.write(bytes, |bytes| take(rng, outgoing, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { adapter, rng, outgoing, .. } = self;
        adapter.settle(|bytes| take(rng, outgoing, bytes))
    }
}

fn take(rng: &mut Rng, outgoing: &mut Vec<u8>, bytes: &[u8]) -> io::Result<usize> {
    if rng.chance(4) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let most = [1, 100, 100_000][rng.below(3)];
    let count = (1 + rng.below(most)).min(bytes.len());
    outgoing.extend(&bytes[..count]);
    Ok(count)
}

impl Endpoint {
    fn new(role: Role, kept: Kept, settings: &Settings, seed: u64) -> Self {
        let stream = Stream {
            adapter: Adapter::new(role, kept, settings),
            rng: Rng::new(seed),
            incoming: Vec::new(),
            at: 0,
            outgoing: Vec::new(),
        };
        Self { engine: engine(role), stream }
    }

    fn read(&mut self) -> Result<Message, Error> {
        loop {
            match self.engine.read(&mut self.stream) {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.at == self.stream.incoming.len() {
                        return Err(error.into());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn write(&mut self, message: Message) {
        match self.engine.write(&mut self.stream, message) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => outcome.unwrap(),
        }
    }

    fn flush(&mut self) {
        while let Err(error) = self.engine.flush(&mut self.stream) {
            assert!(matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock));
        }
    }

    /// Set aside and brought back: another adapter and engine.
    fn renew(&mut self, role: Role, settings: &Settings) {
        self.stream.adapter.rest();
        let seed =
            Agreed::new(Direction { bits: 15, takeover: true }, Direction { bits: 15, takeover: true });
        let blank = Adapter::new(role, seed.into(), settings);
        let kept = std::mem::replace(&mut self.stream.adapter, blank).into_kept();
        self.stream.adapter = Adapter::new(role, kept, settings);
        self.engine = engine(role);
    }
}

fn engine(role: Role) -> WebSocketContext {
    WebSocketContext::new(role, Some(WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0)))
}

fn other(role: Role) -> Role {
    if role == Role::Server { Role::Client } else { Role::Server }
}

fn directions() -> impl Iterator<Item = Direction> {
    [9, 10, 12, 15].into_iter().flat_map(|bits| [false, true].map(|takeover| Direction { bits, takeover }))
}

fn settings(rng: &mut Rng) -> Settings {
    Settings {
        mem_level: 1 + rng.below(9) as u8,
        level: rng.below(10) as u8,
        min_size: [0, 1, 100][rng.below(3)],
        content: if rng.chance(5) { Content::Text } else { Content::All },
        ..Settings::default()
    }
}

/// What a peer sends, whatever its frames and wherever they are cut, reaches the engine whole and in order. The peer's
/// window is of 15 bits, as miniz_oxide has no other.
#[test]
fn every_message_comes_in() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let role = [Role::Server, Role::Client][rng.below(2)];
        let direction = Direction { bits: 15, takeover: rng.chance(2) };
        let agreed = Agreed::new(direction, direction);
        let settings = settings(&mut rng);
        let mut peer = Peer::new(other(role), agreed);
        let mut endpoint = Endpoint::new(role, agreed.into(), &settings, seed);
        for _ in 0..6 {
            let messages: Vec<Message> = (0..rng.below(6)).map(|_| rng.message()).collect();
            let (mut wire, mut pongs) = (Vec::new(), 0);
            messages.iter().for_each(|message| peer.say(&mut rng, message, &mut wire, &mut pongs));
            endpoint.stream.incoming = wire;
            endpoint.stream.at = 0;
            if rng.chance(4) {
                // Some of it was read by somebody else, like what comes with the handshake.
                let fed = rng.below(endpoint.stream.incoming.len() + 1);
                let rest = endpoint.stream.incoming.split_off(fed);
                let fed = std::mem::replace(&mut endpoint.stream.incoming, rest);
                endpoint.stream.adapter.feed(fed);
            }
            let mut heard = Vec::new();
            for _ in 0..messages.len() + pongs {
                heard.push(endpoint.read().unwrap());
                endpoint.flush();
            }
            assert!(endpoint.read().is_err(), "nothing more");
            heard.retain(|message| *message != Message::Pong("between".into()));
            assert_eq!(heard, messages, "seed {seed}");
            if rng.chance(2) {
                endpoint.renew(role, &settings);
            }
        }
    }
}

/// What the engine writes reaches the peer whole and in order, whatever the stream takes at once.
#[test]
fn every_message_goes_out() {
    let mut seed = 0;
    for direction in directions() {
        for role in [Role::Server, Role::Client] {
            for _ in 0..12 {
                seed += 1;
                let mut rng = Rng::new(seed);
                let agreed = Agreed::new(direction, direction);
                let settings = settings(&mut rng);
                let mut peer = Peer::new(other(role), agreed);
                peer.ours = direction;
                let mut endpoint = Endpoint::new(role, agreed.into(), &settings, seed);
                for _ in 0..4 {
                    let messages: Vec<Message> = (0..1 + rng.below(6)).map(|_| rng.message()).collect();
                    for message in &messages {
                        endpoint.write(message.clone());
                        if rng.chance(3) || !message.is_text() {
                            endpoint.flush();
                        }
                    }
                    endpoint.flush();
                    let (heard, compressed) = peer.hear(&std::mem::take(&mut endpoint.stream.outgoing));
                    assert_eq!(heard, messages, "seed {seed}");
                    let large = |message: &&Message| message.is_text() && message.len() > 2_000;
                    let least = messages.iter().filter(large).count();
                    assert!(!direction.takeover || compressed >= least, "nothing is compressed");
                    if rng.chance(3) {
                        endpoint.renew(role, &settings);
                    }
                }
            }
        }
    }
}

/// Two of ours, so that windows of every size are decompressed with no more than that.
#[test]
fn no_reference_goes_beyond_the_window() {
    let mut seed = 0;
    for direction in directions() {
        seed += 1;
        let agreed = Agreed::new(direction, direction);
        let settings = Settings { min_size: 0, mem_level: 9, level: 9, ..Settings::default() };
        let mut client = Endpoint::new(Role::Client, agreed.into(), &settings, seed);
        let mut server = Endpoint::new(Role::Server, agreed.into(), &settings, seed);
        let mut rng = Rng::new(seed);
        for _ in 0..40 {
            let message = Message::binary(rng.bytes(9_000));
            client.write(message.clone());
            client.flush();
            server.stream.incoming = std::mem::take(&mut client.stream.outgoing);
            server.stream.at = 0;
            assert_eq!(server.read().unwrap(), message);
            if rng.chance(3) {
                server.renew(Role::Server, &settings);
            }
        }
    }
}

/// `frames` to a server with a limit on messages of 100,000 bytes.
fn receive(frames: &[u8]) -> Result<Message, Error> {
    let agreed = Agreed::new(Direction { bits: 15, takeover: false }, Direction { bits: 15, takeover: true });
    let mut endpoint = Endpoint::new(Role::Server, agreed.into(), &Settings::default(), 1);
    let config = WebSocketConfig::default().max_message_size(Some(100_000)).max_frame_size(Some(100_000));
    endpoint.engine = WebSocketContext::new(Role::Server, Some(config.read_buffer_size(4096)));
    endpoint.stream.incoming = frames.to_vec();
    endpoint.read()
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let peer = Peer::new(Role::Client, Settings::default_agreement());
    let mut bytes = Vec::new();
    peer.frame(&mut Rng::new(7), first, payload, &mut bytes);
    bytes
}

impl Settings {
    fn default_agreement() -> Agreed {
        let direction = Direction { bits: 15, takeover: false };
        Agreed::new(direction, direction)
    }
}

fn corrupt(outcome: Result<Message, Error>) -> bool {
    matches!(outcome, Err(Error::Io(error)) if Failure::of(&error) == Some(Failure::Corrupt))
}

#[test]
fn the_examples_of_the_rfc() {
    // RFC 7692 section 7.2.3: one block, in fragments, from the window, not compressed, a last block, two blocks.
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let text = Message::text("Hello");
    assert_eq!(receive(&masked(0xC1, &hello)).unwrap(), text);
    let parts = [masked(0x41, &hello[..3]), masked(0x80, &hello[3..])].concat();
    assert_eq!(receive(&parts).unwrap(), text);
    let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    assert_eq!(receive(&masked(0xC1, &stored)).unwrap(), text);
    assert_eq!(receive(&masked(0xC1, &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00])).unwrap(), text);
    let two = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    assert_eq!(receive(&masked(0xC1, &two)).unwrap(), text);
    let agreed = Agreed::new(Direction { bits: 9, takeover: true }, Direction { bits: 9, takeover: true });
    let mut endpoint = Endpoint::new(Role::Server, agreed.into(), &Settings::default(), 1);
    // The last block of the first message does not end the window.
    let last = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    endpoint.stream.incoming =
        [masked(0xC1, &last), masked(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00]), masked(0xC1, &[0])].concat();
    assert_eq!(endpoint.read().unwrap(), text);
    assert_eq!(endpoint.read().unwrap(), text);
    assert_eq!(endpoint.read().unwrap(), Message::text(""));
}

#[test]
fn corrupt_data_is_said_to_be_corrupt() {
    // A reserved block type; a reference beyond the beginning; cut off within a block; nothing at all.
    assert!(corrupt(receive(&masked(0xC1, &[0x07, 0xFF]))));
    assert!(corrupt(receive(&masked(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00]))));
    assert!(corrupt(receive(&masked(0xC1, &[0xF2, 0x48, 0xCD]))));
    assert!(corrupt(receive(&masked(0xC1, &[]))));
    // Valid data, but not text.
    let not_text = [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0x00];
    assert!(matches!(receive(&masked(0xC1, &not_text)), Err(Error::Utf8(_))));
}

#[test]
fn reserved_bits_where_they_mean_nothing_are_the_engines_to_refuse() {
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let start = masked(0x41, &hello[..3]);
    for frames in [
        masked(0xC9, b""),
        masked(0xA1, b"x"),
        masked(0x91, b"x"),
        masked(0xE1, &hello),
        [start.clone(), masked(0xC0, &hello[3..])].concat(),
        [start.clone(), masked(0xC1, &hello)].concat(),
        [masked(0x01, b"plain"), masked(0xC0, b"x")].concat(),
        [masked(0x01, b"plain"), masked(0xC1, b"x")].concat(),
        masked(0xC0, b"x"),
        [start.clone(), masked(0x81, b"x")].concat(),
        vec![0xC1, 0x01, 0x00],
    ] {
        assert!(matches!(receive(&frames), Err(Error::Protocol(_))), "{frames:x?}");
    }
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let mut peer = Peer::new(Role::Client, Settings::default_agreement());
    let small = peer.deflate(&vec![0; 100_000]);
    assert_eq!(receive(&masked(0xC2, &small)).unwrap().len(), 100_000);
    let bomb = peer.deflate(&vec![0; 50_000_000]);
    assert!(matches!(receive(&masked(0xC2, &bomb)), Err(Error::Capacity(_))));
}
