//! Requests, refusals and the end.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use h2::Reason;
use http::Request;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::bytes;
use super::client::Peer;
use crate::raw::{BINARY, CLOSE, FIN, PING, PONG, TEXT};
use crate::support::{PATIENCE, TestServer, bounded};

#[test]
fn echoes_on_many_streams_and_both_directions_end() {
    bounded(async {
        let server = TestServer::start(&[]);
        let peer = Peer::connect(server.address()).await;
        let mut streams = Vec::new();
        for path in ["/", "/echo", "/echo?x=1"] {
            streams.push(peer.open(path).await);
        }
        for size in [0, 1, 125, 126, 4_087, 8_192, 65_535] {
            for stream in &mut streams {
                stream.echo(BINARY, &vec![7; size]).await;
                stream.echo(TEXT, "x".repeat(size).as_bytes()).await;
            }
        }
        for stream in streams {
            stream.close().await;
        }
        // A clean end of all streams leaves the connection as it was.
        peer.open("/").await.echo(TEXT, b"again").await;
    });
}

#[test]
fn the_preface_may_come_in_any_pieces_and_http1_is_still_told_from_it() {
    bounded(async {
        let server = TestServer::start(&[]);
        for size in [1, 2, 13, 14, 15, 24] {
            let mut tcp = TcpStream::connect(server.address()).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            for piece in bytes::PREFACE.chunks(size) {
                tcp.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tcp.write_all(&bytes::frame(bytes::SETTINGS, 0, 0, &[])).await.unwrap();
            let (kind, _, _, payload) = bytes::next(&mut tcp).await.unwrap();
            assert_eq!(kind, bytes::SETTINGS);
            // SETTINGS_ENABLE_CONNECT_PROTOCOL, 1.
            assert!(payload.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "{payload:?}");
        }
        let mut client = server.connect("/").await;
        client.send(Message::text("1.1")).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("1.1"));
    });
}

#[test]
fn what_is_refused_and_how() {
    bounded(async {
        let server = TestServer::start(&["--max-connections", "2"]);
        let peer = Peer::connect(server.address()).await;
        let websocket = Some("websocket");
        for (path, protocol, version, status) in [
            ("/nothing", websocket, Some("13"), 404),
            ("/", websocket, Some("8"), 400),
            ("/", websocket, None, 400),
            ("/", Some("connect-udp"), Some("13"), 501),
            ("/", None, None, 405),
        ] {
            let (response, _) = peer.extended(path, protocol, version).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path} {protocol:?} {version:?}");
            if status == 400 {
                assert_eq!(response.headers()["sec-websocket-version"], "13");
            }
        }
        // The connection has one of the two places.
        let mut first = peer.open("/").await;
        let (response, _) = peer.extended("/", websocket, Some("13")).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
            (503, "1")
        );
        first.echo(TEXT, b"still here").await;
        first.close().await;
        let deadline = Instant::now() + PATIENCE;
        while peer.try_open("/").await.is_err() {
            assert!(Instant::now() < deadline, "the place stays taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn ordinary_requests_beside_websockets_and_by_http1() {
    bounded(async {
        let server = TestServer::start(&[]);
        let peer = Peer::connect(server.address()).await;
        let mut stream = peer.open("/").await;
        let _first = server.connect("/").await;
        stream.echo(TEXT, b"before").await;
        assert_eq!(peer.get("/healthz").await, (200, "ok\n".into()));
        assert_eq!(peer.get("/nothing").await.0, 404);
        let (status, page) = peer.get("/test").await;
        assert!(status == 200 && page.contains("new WebSocket("));
        let (status, page) = peer.get("/").await;
        assert_eq!(status, 200);
        for row in ["<th>HTTP/1.1<td>1<td>1", "<th>HTTP/2<td>1<td>1", "<th>HTTP/2 over TLS<td>0<td>0"] {
            assert!(page.contains(row), "no {row} in {page}");
        }
        let post = Request::post(format!("http://{}/", server.address())).body(()).unwrap();
        let (response, _) = peer.ask(post, true).await.unwrap();
        assert_eq!(response.status().as_u16(), 405);
        let head = Request::head(format!("http://{}/", server.address())).body(()).unwrap();
        let (response, _) = peer.ask(head, true).await.unwrap();
        assert!(response.status().as_u16() == 200 && response.body().is_end_stream());
        stream.echo(TEXT, b"after").await;
        // The same pages by HTTP/1.1, and a path of WebSockets alone asks for the upgrade.
        for (path, status, text) in
            [("/healthz", 200, "\r\n\r\nok\n"), ("/", 200, "<th>HTTP/2<td>1<td>1"), ("/echo", 426, "")]
        {
            let answer = get1(server.address(), path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{answer}");
        }
    });
}

async fn get1(address: &str, path: &str) -> String {
    use tokio::io::AsyncReadExt;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn sigterm_is_goaway_and_close_1001_on_every_stream_idle_or_not() {
    bounded(async {
        let server = TestServer::start(&["--drain-timeout", "10s", "--idle-after", "50ms"]);
        let peer = Peer::connect(server.address()).await;
        let mut streams = Vec::new();
        for path in ["/", "/broadcast", "/echo"] {
            streams.push(peer.open(path).await);
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        streams.push(peer.open("/").await);
        let asked = Instant::now();
        server.process.signal(Signal::TERM);
        for stream in &mut streams {
            let (first, reason) = stream.next().await.unwrap();
            assert_eq!((first, &reason[..2]), (FIN | CLOSE, &1001_u16.to_be_bytes()[..]));
        }
        let late = peer.extended("/", Some("websocket"), Some("13")).await;
        assert!(late.is_err_and(|error| error.is_go_away() && error.is_remote()), "no stream after GOAWAY");
        for stream in &mut streams {
            stream.frame(CLOSE, &1001_u16.to_be_bytes());
            assert_eq!(stream.next().await, None);
            stream.send.send_data(Bytes::new(), true).unwrap();
        }
        let ended = server.process.end();
        assert_eq!(ended.status.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5), "{}", ended.stderr);
        assert!(ended.stderr.contains("parkings=3"), "{}", ended.stderr);
    });
}

#[test]
fn what_crosses_the_goaway_is_told_that_the_server_is_going_away() {
    bounded(async {
        let server = TestServer::start(&["--drain-timeout", "10s"]);
        let mut tcp = bytes::begun(server.address()).await;
        let ask = |stream, fields: &[u8]| bytes::frame(bytes::HEADERS, bytes::END_HEADERS, stream, fields);
        tcp.write_all(&ask(1, &bytes::websocket())).await.unwrap();
        let mut half = TcpStream::connect(server.address()).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        while bytes::next(&mut tcp).await.expect("an answer").0 != bytes::HEADERS {}
        server.process.signal(Signal::TERM);
        while bytes::next(&mut tcp).await.expect("GOAWAY").0 != bytes::GOAWAY {}
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/healthz"), (":authority", "x")];
        let health: Vec<u8> = fields.iter().flat_map(|(name, value)| bytes::field(name, value)).collect();
        tcp.write_all(&[ask(3, &health), ask(5, &bytes::websocket())].concat()).await.unwrap();
        let mut answered = Vec::new();
        while answered.len() < 2 {
            let (kind, _, stream, payload) = bytes::next(&mut tcp).await.expect("answers");
            if kind == bytes::HEADERS {
                // ":status", always first: "503" as it is or in Huffman's code, or again as it was before.
                let busy = |part: &[u8]| part == b"503" || part == [0x6C, 0x0C, 0xFF];
                let again = !answered.is_empty() && payload[0] > 0x80 + 61;
                assert!(again || payload.windows(3).any(busy), "stream {stream}: {payload:x?}");
                answered.push(stream);
            }
        }
        assert_eq!(answered, [3, 5]);
        half.write_all(b"\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut half, &mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        drop(tcp);
        assert_eq!(server.process.end().status.code(), Some(0));
    });
}

#[test]
fn peers_that_do_not_answer_cannot_delay_the_end() {
    bounded(async {
        let server = TestServer::start(&["--drain-timeout", "300ms"]);
        let peer = Peer::connect(server.address()).await;
        let _stream = peer.open("/").await;
        server.process.signal(Signal::TERM);
        let asked = Instant::now();
        assert_eq!(server.process.end().status.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn streams_and_connections_that_are_dropped_leave_nothing() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", "50ms"]);
        let peer = Peer::connect(server.address()).await;
        let other = Peer::connect(server.address()).await;
        // Idle and active, in a room and not, reset one by one and with their connection.
        for dropped in [false, true] {
            let lost = Peer::connect(server.address()).await;
            let mut streams = Vec::new();
            for path in ["/", "/broadcast", "/", "/broadcast"] {
                streams.push(if dropped { lost.open(path).await } else { peer.open(path).await });
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            streams[2].echo(TEXT, b"active").await;
            streams[3].frame(PING, b"");
            assert_eq!(streams[3].next().await, Some((FIN | PONG, Vec::new())));
            match dropped {
                true => lost.driver.abort(),
                false => streams.iter_mut().for_each(|stream| stream.send.send_reset(Reason::CANCEL)),
            }
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (_, page) = other.get("/").await;
                let row = format!("<th>HTTP/2<td>0<td>{}\n", if dropped { 8 } else { 4 });
                if page.contains(&row) && page.contains("<th>Rooms with members<td>0\n") {
                    break;
                }
                assert!(Instant::now() < deadline, "{page}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let (mut a, mut b) = (peer.open("/broadcast").await, other.open("/broadcast").await);
        a.frame(TEXT, b"hello");
        assert_eq!(b.next().await, Some((FIN | TEXT, b"hello".to_vec())));
    });
}

#[test]
fn a_protocol_error_is_1002_and_a_stream_that_ends_without_a_close_is_reset() {
    bounded(async {
        let server = TestServer::start(&[]);
        let peer = Peer::connect(server.address()).await;
        let mut wrong = peer.open("/").await;
        wrong.write(&b"\x81\x02hi"[..]);
        let (first, reason) = wrong.next().await.unwrap();
        assert_eq!((first, &reason[..2]), (FIN | CLOSE, &1002_u16.to_be_bytes()[..]));
        assert_eq!(wrong.next().await, None);
        let mut cut = peer.open("/").await;
        cut.send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(cut.try_next().await, Err(Reason::CANCEL));
        peer.open("/").await.echo(TEXT, b"others go on").await;
    });
}
