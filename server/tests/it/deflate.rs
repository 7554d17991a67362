//! Compression end to end, with a client whose deflate is Rust's miniz_oxide.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::parking::{SOON, gap, parkings, stop};
use crate::raw::{BINARY, CLOSE, CONTINUATION, FIN, PONG, RSV1, Raw, Rng, TEXT, frame};
use crate::support::{TestServer, bounded};

const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// A client's contexts.
struct Contexts {
    compressor: Compress,
    decompressor: Decompress,
    takeover: bool,
}

impl Contexts {
    fn new(takeover: bool) -> Self {
        let compressor = Compress::new(Compression::new(6), false);
        Self { compressor, decompressor: Decompress::new(false), takeover }
    }

    fn deflate(&mut self, plain: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.compressor.reset();
        }
        let mut out = Vec::with_capacity(plain.len() * 2 + 100);
        self.compressor.compress_vec(plain, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        out
    }

    /// What the server sent.
    fn payload(&mut self, (first, payload): (u8, Vec<u8>)) -> Vec<u8> {
        if first & RSV1 == 0 {
            return payload;
        }
        if !self.takeover {
            self.decompressor.reset(false);
        }
        let mut out = Vec::with_capacity(1 << 20);
        let input = [&payload[..], &TAIL].concat();
        let status = self.decompressor.decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
        assert_eq!(status, Status::Ok);
        out
    }
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// Message `number`: most of it is in the messages before.
fn text(rng: &mut Rng, number: u32) -> Vec<u8> {
    let mut text = format!("{number:08} ").into_bytes();
    for _ in 0..rng.below(40) {
        let at = rng.below(30);
        text.extend(format!("{{\"sensor\": {at}, \"value\": {}}}, ", at * at * 7_919).bytes());
    }
    text
}

#[test]
fn messages_that_refer_to_earlier_ones_survive_parking() {
    bounded(async {
        let window = ["--deflate-client-window-bits", "15", "--deflate-server-window-bits", "15"];
        let takeover = ["--deflate-takeover", "both", "--deflate-min-size", "0B"];
        let timing = ["--idle-after", SOON, "--ping-interval", "70ms", "--pong-timeout", "1m"];
        let server = TestServer::start(&[&window[..], &takeover, &timing].concat());
        let talk = (0..100_u64).map(|seed| {
            let address = server.address();
            async move {
                let mut rng = Rng::new(seed);
                let (raw, head) = Raw::negotiate(address, "/echo", OFFER).await.unwrap();
                assert!(head.contains("permessage-deflate") && !head.contains("no_context_takeover"));
                let (mut reader, mut writer) = raw.split();
                let contexts = RefCell::new(Contexts::new(true));
                let said = RefCell::new(Vec::new());
                let over = Cell::new(false);
                let speak = async {
                    let (end, mut number) = (Instant::now() + Duration::from_secs(8), 0);
                    while Instant::now() < end {
                        let mut bytes = Vec::new();
                        for _ in 0..=rng.below(3) {
                            let message = text(&mut rng, number);
                            // Some uncompressed: those are not part of what later ones may refer to.
                            if rng.below(5) == 0 {
                                bytes.extend(frame(FIN | TEXT, &message));
                            } else {
                                let compressed = contexts.borrow_mut().deflate(&message);
                                let (one, two) = compressed.split_at(rng.below(compressed.len()));
                                bytes.extend(frame(RSV1 | TEXT, one));
                                if rng.below(3) == 0 {
                                    bytes.extend(frame(FIN | PONG, b""));
                                }
                                bytes.extend(frame(FIN | CONTINUATION, two));
                            }
                            said.borrow_mut().push(message);
                            number += 1;
                        }
                        // Sometimes the connection is quiet in the middle of a message.
                        let (one, two) = bytes.split_at(rng.below(bytes.len()));
                        writer.write_all(one).await.unwrap();
                        if rng.below(3) == 0 {
                            sleep(gap(&mut rng)).await;
                        }
                        writer.write_all(two).await.unwrap();
                        sleep(gap(&mut rng)).await;
                    }
                    over.set(true);
                    writer.write_all(&frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
                };
                let listen = async {
                    let (mut echoed, mut compressed) = (0, 0);
                    while let Some((first, payload)) = reader.frame().await {
                        match first & 0x0F {
                            TEXT => {
                                compressed += usize::from(first & RSV1 != 0);
                                let echo = contexts.borrow_mut().payload((first, payload));
                                assert_eq!(echo, said.borrow()[echoed], "seed {seed}, message {echoed}");
                                echoed += 1;
                            }
                            CLOSE => break,
                            _ => {}
                        }
                    }
                    assert!(over.get(), "the server closed early");
                    assert_eq!((echoed, compressed), (said.borrow().len(), echoed));
                    echoed
                };
                tokio::join!(speak, listen).1
            }
        });
        let echoed: usize = join_all(talk).await.iter().sum();
        let parkings = parkings(&stop(server));
        assert!(parkings > 3_000, "{parkings} parkings in {echoed} messages prove little");
    });
}

/// A message that inflates to `copies` times 1 MiB, in one frame.
fn bomb(copies: usize) -> Vec<u8> {
    let mut compressor = Compress::new(Compression::new(9), false);
    let mut mebibyte = Vec::with_capacity(10_000);
    compressor.compress_vec(&vec![0; 1 << 20], &mut mebibyte, FlushCompress::Full).unwrap();
    let payload = mebibyte.repeat(copies);
    let payload = &payload[..payload.len() - TAIL.len()];
    let mut bytes = vec![FIN | RSV1 | BINARY, 0x80 | 127];
    bytes.extend((payload.len() as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A connection that negotiated compression.
async fn open(server: &TestServer, path: &str) -> Raw {
    let (raw, head) = Raw::negotiate(server.address(), path, OFFER).await.unwrap();
    assert!(head.contains("permessage-deflate"), "{head}");
    raw
}

async fn expect_close(raw: &mut Raw, code: u16) {
    let (first, payload) = raw.frame().await.unwrap();
    assert_eq!((first, &payload[..2]), (FIN | CLOSE, &code.to_be_bytes()[..]));
    assert_eq!(raw.frame().await, None);
}

#[test]
fn a_bomb_is_refused_within_bounded_memory_and_time() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--deflate-takeover", "both"]);
        // What inflates to just as much as a message may have is none.
        let mut raw = open(&server, "/echo").await;
        raw.write_all(&bomb(1)).await;
        let echo = raw.frame().await.unwrap();
        assert_eq!(Contexts::new(true).payload(echo), vec![0; 1 << 20]);
        let (before, start, bomb) = (server.process.peak(), Instant::now(), bomb(1 << 10));
        let attacks = (0..8).map(|_| async {
            let (mut reader, mut writer) = open(&server, "/echo").await.split();
            // The server may stop reading before the end.
            let (_, closed) = tokio::join!(writer.write_all(&bomb), reader.frame());
            let (first, payload) = closed.unwrap();
            assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1009_u16.to_be_bytes()[..]));
        });
        join_all(attacks).await;
        let grown = server.process.peak() - before;
        assert!(grown < 24 << 20, "8 GiB of zeros took {grown} bytes");
        assert!(start.elapsed() < Duration::from_secs(5));
        stop(server);
    });
}

#[test]
fn what_is_wrong_with_compressed_messages_is_told() {
    bounded(async {
        let server = TestServer::start(&[]);
        let text = Contexts::new(false).deflate(b"text and text and text");
        for (bytes, code) in [
            // Corrupt: a block of no known type; cut off; a reference beyond the beginning.
            (frame(FIN | RSV1 | TEXT, &[0x07, 0xFF]), 1007),
            (frame(FIN | RSV1 | TEXT, &text[..text.len() - 3]), 1007),
            (frame(FIN | RSV1 | TEXT, &[0xF2, 0x00, 0x11, 0x00, 0x00]), 1007),
            // Not UTF-8 inside.
            (frame(FIN | RSV1 | TEXT, &Contexts::new(false).deflate(&[0xFF; 50])), 1007),
            // The bit where it means nothing, and a message within another.
            (frame(FIN | RSV1 | PONG, b""), 1002),
            ([frame(RSV1 | TEXT, &text[..4]), frame(FIN | RSV1 | CONTINUATION, &text[4..])].concat(), 1002),
            ([frame(RSV1 | TEXT, &text[..4]), frame(FIN | TEXT, b"x")].concat(), 1002),
        ] {
            let mut raw = open(&server, "/echo").await;
            raw.write_all(&bytes).await;
            expect_close(&mut raw, code).await;
        }
        // Without the extension it means nothing anywhere.
        let mut raw = Raw::connect(server.address(), "/echo").await;
        raw.write_all(&frame(FIN | RSV1 | TEXT, &text)).await;
        expect_close(&mut raw, 1002).await;
    });
}

/// Whether the server answers `message` compressed; it must echo it either way.
async fn compresses(raw: &mut Raw, contexts: &mut Contexts, opcode: u8, message: &[u8]) -> bool {
    raw.write_all(&frame(FIN | opcode, message)).await;
    let (first, payload) = raw.frame().await.unwrap();
    assert_eq!(contexts.payload((first, payload)), message);
    first & RSV1 != 0
}

#[test]
fn what_is_compressed_is_a_matter_of_size_and_content() {
    bounded(async {
        let (short, long) = ([b'x'; 99], [b'x'; 100]);
        for (content, binary) in [("text", false), ("all", true)] {
            let server = TestServer::start(&["--deflate-min-size", "100B", "--deflate-content", content]);
            let mut raw = open(&server, "/echo").await;
            let mut contexts = Contexts::new(false);
            assert!(!compresses(&mut raw, &mut contexts, TEXT, &short).await);
            assert!(compresses(&mut raw, &mut contexts, TEXT, &long).await);
            assert!(!compresses(&mut raw, &mut contexts, BINARY, &short).await);
            assert_eq!(compresses(&mut raw, &mut contexts, BINARY, &long).await, binary);
            // What does not get smaller is sent as it is.
            let noise: Vec<u8> =
                (0..100_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            assert!(!compresses(&mut raw, &mut contexts, BINARY, &noise).await);
        }
        let server = TestServer::start(&["--deflate", "off"]);
        let (_, head) = Raw::negotiate(server.address(), "/echo", OFFER).await.unwrap();
        assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
    });
}

#[test]
fn members_of_the_room_get_what_they_can_read_parked_or_not() {
    bounded(async {
        let takeover = ["--deflate-takeover", "both", "--deflate-min-size", "0B"];
        let timing = ["--idle-after", SOON, "--ping-interval", "0"];
        let windows = ["--deflate-server-window-bits", "10", "--deflate-client-window-bits", "15"];
        let server = TestServer::start(&[&takeover[..], &timing, &windows].concat());
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push((open(&server, "/broadcast").await, Contexts::new(true)));
        }
        let (mut rng, mut ways) = (Rng::new(5), [0, 0]);
        for number in 0..300 {
            sleep(gap(&mut rng)).await;
            let (from, message) = (rng.below(3), text(&mut rng, number));
            let (raw, contexts) = &mut members[from];
            raw.write_all(&frame(FIN | RSV1 | TEXT, &contexts.deflate(&message))).await;
            for (at, (raw, contexts)) in members.iter_mut().enumerate() {
                if at != from {
                    let (first, payload) = raw.frame().await.unwrap();
                    ways[usize::from(first & RSV1 != 0)] += 1;
                    assert_eq!(contexts.payload((first, payload)), message);
                }
            }
        }
        assert!(ways.iter().all(|count| *count > 20), "uncompressed and compressed: {ways:?}");
        stop(server);
    });
}
