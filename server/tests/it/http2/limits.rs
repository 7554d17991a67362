//! What a hostile peer gets, and what it costs.

use std::time::{Duration, Instant};

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::bytes::{
    self, CONTINUATION, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, RST_STREAM, begun, field, frame, goaway,
    websocket,
};
use super::client::Peer;
use crate::raw::TEXT;
use crate::support::{PATIENCE, TestServer, bounded};

/// Writes `bytes` as often as the server takes them, at most `times`; whether it took all.
async fn flood(tcp: &mut TcpStream, times: u32, mut bytes: impl FnMut(u32) -> Vec<u8>) -> bool {
    for number in 0..times {
        match timeout(PATIENCE, tcp.write_all(&bytes(number))).await.expect("the server reads or closes") {
            Ok(()) => {}
            Err(_) => return false,
        }
    }
    true
}

async fn still_serves(server: &TestServer) {
    Peer::connect(server.address()).await.open("/").await.echo(TEXT, b"served").await;
}

#[test]
fn rapid_reset_ends_the_connection() {
    bounded(async {
        let server = TestServer::start(&[]);
        let mut tcp = begun(server.address()).await;
        let cancel = Reason::CANCEL;
        let pair = |number: u32| {
            let stream = 2 * number + 1;
            let open = frame(HEADERS, END_HEADERS, stream, &websocket());
            [open, frame(RST_STREAM, 0, stream, &u32::from(cancel).to_be_bytes())].concat()
        };
        // In one go, so that resets overtake the answers.
        let burst: Vec<u8> = (0..2_000).flat_map(pair).collect();
        flood(&mut tcp, 1, |_| burst.clone()).await;
        assert_eq!(goaway(&mut tcp).await, Some(ENHANCE_YOUR_CALM));
        still_serves(&server).await;
    });
}

#[test]
fn a_flood_of_continuations_ends_the_connection() {
    bounded(async {
        let server = TestServer::start(&[]);
        let mut tcp = begun(server.address()).await;
        tcp.write_all(&frame(HEADERS, 0, 1, &websocket())).await.unwrap();
        let part = field("x-flood", &"x".repeat(100));
        let started = Instant::now();
        // 100 MB, were they read.
        let part: Vec<u8> = part.repeat(100);
        let taken = flood(&mut tcp, 10_000, |_| frame(CONTINUATION, 0, 1, &part)).await;
        assert!(!taken, "all of it was taken");
        assert!(started.elapsed() < PATIENCE);
        still_serves(&server).await;
    });
}

#[test]
fn fields_beyond_the_limit_are_431_and_the_connection_goes_on() {
    bounded(async {
        let server = TestServer::start(&[]);
        let mut tcp = begun(server.address()).await;
        let fields: Vec<u8> = [websocket(), field("x-large", &"x".repeat(100)).repeat(120)].concat();
        tcp.write_all(&frame(HEADERS, 0, 1, &fields)).await.unwrap();
        let rest: Vec<u8> = field("x-large", &"x".repeat(100)).repeat(60);
        tcp.write_all(&frame(CONTINUATION, END_HEADERS, 1, &rest)).await.unwrap();
        let answer = loop {
            let (kind, _, stream, payload) = bytes::next(&mut tcp).await.expect("an answer");
            if kind == HEADERS {
                break (stream, payload);
            }
        };
        // ":status", by its index, with a value of its own, "431": as it is or in Huffman's code.
        assert_eq!((answer.0, answer.1[0]), (1, 0x48));
        assert!([&b"\x03431"[..], &[0x83, 0x69, 0x90, 0xFF]].contains(&&answer.1[1..5]), "{answer:x?}");
        still_serves(&server).await;
    });
}

#[test]
fn streams_beyond_the_limit_are_refused_one_by_one() {
    bounded(async {
        let server = TestServer::start(&["--http2-max-streams", "3"]);
        let mut tcp = begun(server.address()).await;
        for number in 0..5 {
            tcp.write_all(&frame(HEADERS, END_HEADERS, 2 * number + 1, &websocket())).await.unwrap();
        }
        let (mut answered, mut refused) = (Vec::new(), Vec::new());
        while answered.len() + refused.len() < 5 {
            match bytes::next(&mut tcp).await.expect("an answer to each") {
                (HEADERS, _, stream, _) => answered.push(stream),
                (RST_STREAM, _, stream, code) => {
                    assert_eq!(code, u32::from(Reason::REFUSED_STREAM).to_be_bytes());
                    refused.push(stream);
                }
                _ => {}
            }
        }
        answered.sort_unstable();
        refused.sort_unstable();
        assert_eq!((answered, refused), (vec![1, 3, 5], vec![7, 9]));
    });
}

/// How long the server keeps a connection on which `bytes` were sent.
async fn kept(address: &str, bytes: &[u8]) -> Duration {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let started = Instant::now();
    let mut scratch = [0; 512];
    while timeout(PATIENCE, tcp.read(&mut scratch)).await.expect("an end").is_ok_and(|count| count > 0) {}
    started.elapsed()
}

#[test]
fn slow_handshakes_and_connections_without_streams_do_not_stay() {
    bounded(async {
        let server = TestServer::start(&["--handshake-timeout", "400ms", "--http2-idle-timeout", "1500ms"]);
        let settings = [bytes::PREFACE, &frame(bytes::SETTINGS, 0, 0, &[])].concat();
        for bytes in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", bytes::PREFACE, &settings] {
            let kept = kept(server.address(), bytes).await;
            assert!((350..3_000).contains(&kept.as_millis()), "{kept:?} after {} bytes", bytes.len());
        }
        // One request, and it may stay for longer.
        let mut peer = Peer::connect(server.address()).await;
        assert_eq!(peer.get("/healthz").await.0, 200);
        let started = Instant::now();
        timeout(PATIENCE, &mut peer.driver).await.expect("the end").unwrap().unwrap();
        assert!((1_300..6_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        // With a stream, as long as it likes.
        let peer = Peer::connect(server.address()).await;
        let mut stream = peer.open("/").await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        stream.echo(TEXT, b"here").await;
    });
}
