//! What is refused before there is a WebSocket, or as soon as there is one: with which status, and at what cost.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::raw::{BINARY, CLOSE, FIN, Raw, frame};
use crate::support::{PATIENCE, TestServer, bounded};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const HOST: &str = "Host: x\r\n";

/// Sends `bytes` and reads to the end: what comes back.
async fn exchange(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(server.address()).await.unwrap();
    // The server may have had enough before the last byte.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("an end").ok();
    answer
}

/// The status of the answer to `request`; 0 where there is none.
async fn status(server: &TestServer, request: &str) -> u16 {
    let answer = exchange(server, request.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer);
    text.strip_prefix("HTTP/1.1 ").map_or(0, |rest| rest[..3].parse().unwrap())
}

/// What the process has resident, in bytes.
fn resident(server: &TestServer) -> i64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", server.process.id())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

#[test]
fn malformed_handshakes() {
    bounded(async {
        let server = TestServer::start(&[]);
        let with = |line: &str, fields: &[&str]| format!("{line}\r\n{}\r\n", fields.concat());
        let get = "GET /echo HTTP/1.1";
        for (what, request, expected) in [
            ("method", with("POST /echo HTTP/1.1", &[HOST, UPGRADE, VERSION, KEY]), 405),
            ("no method", with("BREW /echo HTTP/1.1", &[HOST, UPGRADE, VERSION, KEY]), 405),
            ("HTTP/1.0", with("GET /echo HTTP/1.0", &[HOST, UPGRADE, VERSION, KEY]), 505),
            ("HTTP/1.2", with("GET /echo HTTP/1.2", &[HOST, UPGRADE, VERSION, KEY]), 400),
            ("no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into(), 400),
            ("no path", with("GET  HTTP/1.1", &[HOST, UPGRADE, VERSION, KEY]), 400),
            ("no version", with(get, &[HOST, UPGRADE, KEY]), 426),
            ("version 8", with(get, &[HOST, UPGRADE, "Sec-WebSocket-Version: 8\r\n", KEY]), 426),
            ("two versions", with(get, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Version: 8\r\n", KEY]), 400),
            ("no key", with(get, &[HOST, UPGRADE, VERSION]), 400),
            ("two keys", with(get, &[HOST, UPGRADE, VERSION, KEY, KEY]), 400),
            ("short key", with(get, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnQ=\r\n"]), 400),
            (
                "long key",
                with(get, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEy\r\n"]),
                400,
            ),
            (
                "key of signs",
                with(get, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n"]),
                400,
            ),
            (
                "short padded key",
                with(get, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnRlcg==\r\n"]),
                400,
            ),
            ("empty key", with(get, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key:\r\n"]), 400),
            ("no upgrade", with(get, &[HOST, VERSION, KEY]), 426),
            (
                "upgrade to h2c",
                with(get, &[HOST, "Connection: Upgrade\r\nUpgrade: h2c\r\n", VERSION, KEY]),
                426,
            ),
            ("no connection", with(get, &[HOST, "Upgrade: websocket\r\n", VERSION, KEY]), 426),
            ("no host", with(get, &[UPGRADE, VERSION, KEY]), 400),
            ("two hosts", with(get, &[HOST, HOST, UPGRADE, VERSION, KEY]), 400),
            ("bad host", with(get, &["Host: a b\r\n", UPGRADE, VERSION, KEY]), 400),
            ("a path for a host", with(get, &["Host: x/y\r\n", UPGRADE, VERSION, KEY]), 400),
            ("folded field", with(get, &[HOST, UPGRADE, VERSION, KEY, "X-Folded: a\r\n b\r\n"]), 400),
            ("space before colon", with(get, &[HOST, UPGRADE, VERSION, KEY, "X : a\r\n"]), 400),
            ("no colon", with(get, &[HOST, UPGRADE, VERSION, KEY, "nonsense\r\n"]), 400),
            ("NUL", with(get, &[HOST, UPGRADE, VERSION, KEY, "X: a\0b\r\n"]), 400),
            ("body", with(get, &[HOST, UPGRADE, VERSION, KEY, "Content-Length: 5\r\n"]) + "hello", 400),
            (
                "chunked",
                with(get, &[HOST, UPGRADE, VERSION, KEY, "Transfer-Encoding: chunked\r\n"]) + "0\r\n\r\n",
                400,
            ),
            ("path", with("GET /nothing HTTP/1.1", &[HOST, UPGRADE, VERSION, KEY]), 404),
        ] {
            assert_eq!(status(&server, &request).await, expected, "{what}");
        }
        // These are as they should be, and are let in.
        for (what, line, fields) in [
            ("plain", get, &[HOST, UPGRADE, VERSION, KEY][..]),
            ("absolute form", "GET http://x/echo HTTP/1.1", &[HOST, UPGRADE, VERSION, KEY]),
            ("no body", get, &[HOST, UPGRADE, VERSION, KEY, "Content-Length: 0\r\n"]),
            (
                "lists",
                get,
                &[HOST, "connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n", VERSION, KEY],
            ),
        ] {
            let mut raw = TcpStream::connect(server.address()).await.unwrap();
            raw.write_all(with(line, fields).as_bytes()).await.unwrap();
            let mut start = [0; 13];
            timeout(PATIENCE, raw.read_exact(&mut start)).await.expect("an answer").unwrap();
            assert_eq!(&start, b"HTTP/1.1 101 ", "{what}");
        }
    });
}

#[test]
fn what_follows_a_request_at_once_is_taken_for_frames() {
    bounded(async {
        let server = TestServer::start(&[]);
        let request = format!("GET / HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}\r\n");
        // A second request is none: 'G' has reserved bits set.
        let answer = exchange(&server, request.repeat(2).as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer[end] & 0x0F, CLOSE);
        assert_eq!(answer[end + 2..end + 4], 1002_u16.to_be_bytes());
        // A frame is a frame.
        let mut tcp = TcpStream::connect(server.address()).await.unwrap();
        tcp.write_all(&[request.as_bytes(), &frame(FIN | BINARY, b"early")].concat()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\x82\x05early") {
            got.push(timeout(PATIENCE, tcp.read_u8()).await.expect("the echo").unwrap());
        }
    });
}

#[test]
fn a_flood_of_header_is_cut_off_with_431() {
    bounded(async {
        let server = TestServer::start(&["--handshake-timeout", "5s"]);
        // Warm: what the first of everything costs is not the flood's.
        for _ in 0..50 {
            assert_eq!(status(&server, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await, 404);
        }
        let before = resident(&server);
        let many = format!("GET / HTTP/1.1\r\n{}", "X-Y: z\r\n".repeat(200));
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
        let path = format!("GET /{}", "x".repeat(1 << 20));
        for request in [&many, &long, &path] {
            assert_eq!(status(&server, request).await, 431);
        }
        // 200 at once that would send for ever.
        let floods = join_all((0..200).map(|_| exchange(&server, long.as_bytes()))).await;
        assert!(floods.iter().all(|answer| answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 ")));
        let grown = resident(&server) - before;
        // 200 MiB were sent; 16 KiB each may be kept, and that is 3.2 MiB.
        assert!(grown < 12 << 20, "{grown} bytes");
    });
}

#[test]
fn slow_handshakes_in_bulk_cost_little_and_end_in_time() {
    bounded(async {
        let server = TestServer::start(&["--handshake-timeout", "3s"]);
        assert_eq!(status(&server, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await, 404);
        let (before, start) = (resident(&server), Instant::now());
        let request = format!("GET / HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}\r\n");
        let slow = (0..500).map(|_| async {
            let mut tcp = TcpStream::connect(server.address()).await.unwrap();
            for byte in request.bytes() {
                if tcp.write_all(&[byte]).await.is_err() {
                    break;
                }
                match timeout(Duration::from_millis(200), tcp.read_u8()).await {
                    Err(_) => {}
                    Ok(Err(_)) => return start.elapsed(),
                    Ok(Ok(_)) => panic!("it was too quick to prove anything"),
                }
            }
            start.elapsed()
        });
        let meanwhile = async {
            sleep(Duration::from_millis(1_500)).await;
            // Whoever is quick is served as ever.
            let mut raw = Raw::connect(server.address(), "/").await;
            raw.write_all(&frame(FIN | BINARY, b"x")).await;
            assert_eq!(raw.frame().await, Some((FIN | BINARY, b"x".to_vec())));
            resident(&server) - before
        };
        let (ends, grown) = tokio::join!(join_all(slow), meanwhile);
        let last = ends.into_iter().max().unwrap();
        assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&last), "{last:?}");
        assert!(grown < 10 << 20, "{grown} bytes for 500 handshakes");
    });
}

#[test]
fn a_frame_that_claims_too_much_is_refused_by_its_header() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", "2ms"]);
        let mut warm = Raw::connect(server.address(), "/").await;
        warm.write_all(&frame(FIN | BINARY, &[0; 60_000])).await;
        warm.frame().await.unwrap();
        let before = resident(&server);
        for parked in [false, true] {
            for size in [1 << 62, 1 << 40, (1 << 20) + 1] {
                let mut raw = Raw::connect(server.address(), "/").await;
                if parked {
                    sleep(Duration::from_millis(100)).await;
                }
                let mut header = vec![FIN | BINARY, 0x80 | 127];
                header.extend(u64::to_be_bytes(size));
                header.extend([0; 4]);
                raw.write_all(&header).await;
                // Not one byte of payload was sent.
                let (first, payload) = raw.frame().await.expect("a Close");
                assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1009_u16.to_be_bytes()[..]), "{size}");
            }
        }
        // In fragments it is the sum that counts.
        let mut raw = Raw::connect(server.address(), "/").await;
        raw.write_all(&frame(BINARY, &[0; 65_535])).await;
        for _ in 0..15 {
            raw.write_all(&frame(0, &[0; 65_535])).await;
        }
        raw.write_all(&frame(0, &[0; 100])).await;
        assert_eq!(
            raw.frame().await.map(|(first, payload)| (first, payload[..2].to_vec())),
            Some((FIN | CLOSE, vec![3, 0xF1]))
        );
        let grown = resident(&server) - before;
        assert!(grown < 6 << 20, "{grown} bytes");
    });
}

#[test]
fn too_many_connections_are_refused_in_bulk_at_little_cost() {
    bounded(async {
        let server = TestServer::start(&["--max-connections", "5"]);
        let mut inside = Vec::new();
        for _ in 0..5 {
            inside.push(Raw::connect(server.address(), "/").await);
        }
        let before = resident(&server);
        let request = format!("GET / HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}\r\n");
        let answers = join_all((0..400).map(|_| exchange(&server, request.as_bytes()))).await;
        let told = answers.iter().filter(|answer| answer.starts_with(b"HTTP/1.1 503 ")).count();
        // The others were dropped without an answer; nobody was let in.
        assert!(told >= 200 && answers.iter().all(|answer| !answer.starts_with(b"HTTP/1.1 101")), "{told}");
        let grown = resident(&server) - before;
        assert!(grown < 10 << 20, "{grown} bytes");
        for raw in &mut inside {
            raw.write_all(&frame(FIN | BINARY, b"x")).await;
            assert_eq!(raw.frame().await, Some((FIN | BINARY, b"x".to_vec())));
        }
    });
}
