//! Compression end to end, with a client whose deflate is Rust's miniz_oxide.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::parking::{SOON, gap, parkings, stop};
use crate::raw::{CLOSE, CONTINUATION, FIN, PONG, Raw, Rng, TEXT, frame};
use crate::support::{TestServer, bounded};

const RSV1: u8 = 0x40;
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
