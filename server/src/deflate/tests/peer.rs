//! Random messages, and a peer whose deflate is Rust's miniz_oxide.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::deflate::codec::TAIL;
use crate::deflate::frame::{
    BINARY, CONTINUATION, FIN, Header, MAX_HEADER, RSV1, TEXT, apply_mask, write_before,
};
use crate::deflate::{Agreed, Direction};

/// xorshift64*.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    pub(super) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// Bytes that repeat themselves at all distances, or do not.
    pub(super) fn bytes(&mut self, size: usize) -> Vec<u8> {
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

    pub(super) fn message(&mut self) -> Message {
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
pub(super) struct Peer {
    masks: bool,
    compressor: Compress,
    decompressor: Decompress,
    /// How it compresses, and how we do.
    own: Direction,
    pub(super) ours: Direction,
}

impl Peer {
    pub(super) fn new(role: Role, agreed: Agreed) -> Self {
        let ours = if role == Role::Server { agreed.client() } else { agreed.server() };
        Self {
            masks: role == Role::Client,
            compressor: Compress::new(Compression::new(6), false),
            decompressor: Decompress::new(false),
            own: agreed.of(role),
            ours,
        }
    }

    pub(super) fn deflate(&mut self, plain: &[u8]) -> Vec<u8> {
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

    pub(super) fn inflate(&mut self, compressed: &[u8]) -> Vec<u8> {
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

    pub(super) fn frame(&self, rng: &mut Rng, first: u8, payload: &[u8], to: &mut Vec<u8>) {
        let mask = self.masks.then(|| [(); 4].map(|()| rng.below(256) as u8));
        let mut bytes = vec![0; MAX_HEADER];
        let start = write_before(&mut bytes, first, mask, payload.len());
        bytes.extend(payload);
        apply_mask(&mut bytes[MAX_HEADER..], mask.unwrap_or_default(), 0);
        to.extend(&bytes[start..]);
    }

    /// `message` on the wire, in fragments, compressed or not, with pongs in between.
    pub(super) fn say(&mut self, rng: &mut Rng, message: &Message, to: &mut Vec<u8>, pongs: &mut usize) {
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
    pub(super) fn hear(&mut self, mut wire: &[u8]) -> (Vec<Message>, usize) {
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
