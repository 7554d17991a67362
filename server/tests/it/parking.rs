//! Connections that are parked and come back: nothing is lost, reordered or answered twice, whatever arrives when.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, Rng, TEXT, frame};
use crate::support::{Client, Ended, PATIENCE, TestServer, bounded};

/// A quiet period short enough for thousands of parkings in a test.
pub(crate) const SOON: &str = "2ms";
/// Long enough for any connection to be parked with it.
pub(crate) const PARKED: Duration = Duration::from_millis(400);

/// How often the server parked a connection, by its log.
pub(crate) fn parkings(ended: &Ended) -> u64 {
    let (_, rest) = ended.stderr.rsplit_once("parkings=").expect("the last line of the log");
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

pub(crate) fn stop(server: TestServer) -> Ended {
    server.process.signal(Signal::TERM);
    let ended = server.process.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended
}

pub(crate) async fn next(client: &mut Client) -> Message {
    timeout(PATIENCE, client.next()).await.expect("a message").expect("no end").unwrap()
}

/// A pause around the quiet period, whatever the connection's patience has made of it.
pub(crate) fn gap(rng: &mut Rng) -> Duration {
    let most = [300, 3_000, 5_000, 9_000, 17_000, 34_000, 66_000, 90_000][rng.below(8)];
    Duration::from_micros(rng.below(most) as u64)
}

#[test]
fn echoes_come_whole_and_in_order_when_messages_race_with_parking() {
    bounded(async {
        let server =
            TestServer::start(&["--idle-after", SOON, "--ping-interval", "70ms", "--pong-timeout", "1m"]);
        let talk = (0..150_u64).map(|seed| {
            let connecting = server.connect("/echo");
            async move {
                let (mut rng, client) = (Rng::new(seed), connecting.await);
                let (mut sink, mut stream) = client.split();
                let sent = Cell::new(None);
                let speak = async {
                    let (end, mut count) = (Instant::now() + Duration::from_secs(8), 0_u32);
                    while Instant::now() < end {
                        for _ in 0..=rng.below(3) {
                            let size = [8, 8, 100, 5_000, 20_000][rng.below(5)];
                            let sending = sink.send(numbered(count, size));
                            timeout(PATIENCE, sending).await.expect("the server reads").unwrap();
                            count += 1;
                        }
                        sleep(gap(&mut rng)).await;
                    }
                    sent.set(Some(count));
                    sink.send(Message::Close(None)).await.unwrap();
                    count
                };
                let listen = async {
                    let mut echoed = 0;
                    loop {
                        match timeout(PATIENCE, stream.next()).await.expect("a message or the end") {
                            Some(Ok(Message::Close(_))) | None => break,
                            Some(message) => check(message.unwrap(), &mut echoed),
                        }
                    }
                    assert_eq!(sent.get(), Some(echoed), "the server closed early or lost something");
                };
                tokio::join!(speak, listen).0
            }
        });
        let sent: u32 = join_all(talk).await.iter().sum();
        let parkings = parkings(&stop(server));
        assert!(parkings > 3_000, "{parkings} parkings in {sent} messages prove little");
    });
}

pub(crate) fn numbered(number: u32, size: usize) -> Message {
    let mut bytes = vec![b'.'; size];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Message::binary(bytes)
}

pub(crate) fn check(message: Message, echoed: &mut u32) {
    match message {
        Message::Binary(bytes) => {
            assert_eq!(bytes[..4], echoed.to_be_bytes());
            *echoed += 1;
        }
        Message::Ping(_) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_cut_anywhere_are_put_together_across_parking() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--ping-interval", "0"]);
        let talk = (0..80_u64).map(|seed| {
            let address = server.address();
            async move {
                let mut rng = Rng::new(seed);
                let (mut reader, mut writer) = Raw::connect(address, "/echo").await.split();
                let (mut bytes, mut expected, mut ends) = (Vec::new(), Vec::new(), Vec::new());
                for number in 0..80_u32 {
                    conversation(&mut rng, number, &mut bytes, &mut expected);
                    ends.push(bytes.len());
                }
                let write = async {
                    let mut at = 0;
                    while at < bytes.len() {
                        // Most cuts are where a connection may be parked, the others anywhere.
                        let anywhere = (at + 1 + rng.below(200)).min(bytes.len());
                        let end = ends.iter().copied().find(|end| *end > at).unwrap_or(anywhere);
                        let cut = if rng.below(3) == 0 { anywhere } else { end };
                        writer.write_all(&bytes[at..cut]).await.unwrap();
                        at = cut;
                        sleep(gap(&mut rng)).await;
                    }
                };
                let read = async {
                    for frame in &expected {
                        assert_eq!(reader.frame().await.as_ref(), Some(frame));
                    }
                };
                tokio::join!(write, read);
            }
        });
        join_all(talk).await;
        let parkings = parkings(&stop(server));
        assert!(parkings > 600, "{parkings} parkings prove little");
    });
}

/// One exchange of some kind: what the client says and what the server must answer.
fn conversation(rng: &mut Rng, number: u32, said: &mut Vec<u8>, answered: &mut Vec<(u8, Vec<u8>)>) {
    let payload = format!("{number:08}{}", "x".repeat(rng.below(150))).into_bytes();
    let heartbeat = vec![7; [0, 7, 8, 125][rng.below(4)]];
    match rng.below(5) {
        0 => said.extend(frame(FIN | PONG, &heartbeat)),
        1 => {
            said.extend(frame(FIN | PING, &heartbeat));
            answered.push((FIN | PONG, heartbeat));
        }
        2 => {
            // In fragments, with a pong between them that must not end the message.
            let (first, second) = payload.split_at(5);
            said.extend(frame(BINARY, first));
            said.extend(frame(FIN | PONG, &heartbeat));
            said.extend(frame(FIN | CONTINUATION, second));
            answered.push((FIN | BINARY, payload));
        }
        _ => {
            said.extend(frame(FIN | TEXT, &payload));
            answered.push((FIN | TEXT, payload));
        }
    }
}

#[test]
fn a_message_behind_heartbeats_in_one_segment_is_answered_in_order() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--ping-interval", "0"]);
        let mut raw = Raw::connect(server.address(), "/echo").await;
        for size in [0, 7, 8, 125] {
            sleep(PARKED).await;
            let payload = vec![b'p'; size];
            let said =
                [frame(FIN | PONG, &payload), frame(FIN | PING, &payload), frame(FIN | TEXT, b"hello")];
            raw.write_all(&said.concat()).await;
            assert_eq!(raw.frame().await, Some((FIN | PONG, payload)));
            assert_eq!(raw.frame().await, Some((FIN | TEXT, b"hello".to_vec())));
        }
        drop(raw);
        // One more if it was quick.
        assert!(matches!(parkings(&stop(server)), 4 | 5));
    });
}

#[test]
fn pings_and_pongs_pass_without_waking() {
    bounded(async {
        for size in [0, 7, 8, 125] {
            let payload = format!("{size}B");
            let arguments = ["--idle-after", SOON, "--ping-interval", "60ms", "--ping-payload", &payload];
            let server = TestServer::start(&arguments);
            let mut raw = Raw::connect(server.address(), "/echo").await;
            for number in 1..=12_u64 {
                let (first, payload) = raw.frame().await.unwrap();
                assert_eq!((first, payload.len()), (FIN | PING, size));
                if size >= 8 {
                    assert_eq!(payload[..8], number.to_be_bytes());
                }
                raw.write_all(&frame(FIN | PONG, &payload)).await;
            }
            // Its own pings are answered without waking it either.
            raw.write_all(&frame(FIN | PING, b"?")).await;
            while raw.frame().await.unwrap() != (FIN | PONG, b"?".to_vec()) {}
            drop(raw);
            assert_eq!(parkings(&stop(server)), 1, "{size}");
        }
    });
}

#[test]
fn illegal_frames_to_a_parked_connection_are_judged_by_the_engine() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON]);
        // Reserved bit, not final, unmasked, reserved opcode, a continuation of nothing.
        let unmasked = vec![FIN | PONG, 0];
        for bytes in
            [frame(0xC0 | PONG, b""), frame(PING, b""), unmasked, frame(0x8B, b""), frame(0x80, b"x")]
        {
            let mut raw = Raw::connect(server.address(), "/").await;
            sleep(PARKED).await;
            raw.write_all(&bytes).await;
            let (first, payload) = raw.frame().await.unwrap();
            assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1002_u16.to_be_bytes()[..]), "{bytes:?}");
            assert_eq!(raw.frame().await, None);
        }
    });
}

#[test]
fn a_parked_peer_may_close_end_or_reset_and_its_place_is_free() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--max-connections", "2"]);
        for how in ["close", "end", "reset", "half a frame, then the end", "half a frame, then reset"] {
            let mut raws = [
                Raw::connect(server.address(), "/echo").await,
                Raw::connect(server.address(), "/broadcast").await,
            ];
            sleep(PARKED).await;
            assert!(Raw::try_connect(server.address(), "/").await.is_none(), "parked connections count");
            for raw in &mut raws {
                if how.starts_with("half") {
                    raw.write_all(&frame(FIN | TEXT, b"never finished")[..9]).await;
                    sleep(PARKED / 4).await;
                }
                if how == "close" {
                    raw.write_all(&frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await;
                    assert_eq!(raw.frame().await, Some((FIN | CLOSE, 1000_u16.to_be_bytes().to_vec())));
                } else if how.ends_with("reset") {
                    raw.reset();
                    continue;
                } else {
                    raw.end().await;
                }
                assert_eq!(raw.frame().await, None, "{how}");
            }
            drop(raws);
            free_places(&server, 2).await;
        }
    });
}

/// Waits until the server has room for `count` connections.
async fn free_places(server: &TestServer, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let attempts = join_all((0..count).map(|_| Raw::try_connect(server.address(), "/"))).await;
        if attempts.iter().all(Option::is_some) {
            for raw in attempts.into_iter().flatten() {
                raw.reset();
            }
            break;
        }
        assert!(Instant::now() < deadline, "a place stays taken");
        sleep(Duration::from_millis(20)).await;
    }
    // Until those have gone too.
    sleep(Duration::from_millis(100)).await;
}

#[test]
fn going_away_reaches_parked_connections() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--drain-timeout", "10s"]);
        let mut clients = Vec::new();
        for index in 0..100 {
            clients.push(server.connect(if index % 2 == 0 { "/echo" } else { "/broadcast" }).await);
        }
        sleep(PARKED).await;
        let asked = Instant::now();
        server.process.signal(Signal::TERM);
        for client in &mut clients {
            let Message::Close(Some(frame)) = next(client).await else { panic!("no close") };
            assert_eq!(frame.code, CloseCode::Away);
            assert!(client.next().await.is_none());
        }
        let ended = server.process.end();
        assert_eq!((ended.status.code(), parkings(&ended)), (Some(0), 100));
        assert!(asked.elapsed() < Duration::from_secs(5), "peers that answer are not waited for");
    });
}

#[test]
fn a_connection_that_talks_regularly_is_not_parked_between_its_messages() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", "10ms"]);
        let mut client = server.connect("/").await;
        // Each gap is longer than the quiet period, but shorter than the longest patience makes it.
        for number in 0..60 {
            client.send(numbered(number, 8)).await.unwrap();
            check(next(&mut client).await, &mut number.clone());
            sleep(Duration::from_millis(40)).await;
        }
        drop(client);
        let parkings = parkings(&stop(server));
        assert!((1..20).contains(&parkings), "{parkings}");
    });
}

#[test]
fn an_idle_connection_is_not_among_the_runtimes_sockets() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--ping-interval", "0"]);
        let before = server.process.watched();
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(server.connect("/").await);
        }
        sleep(PARKED).await;
        let idle = server.process.watched();
        // Its sockets moved from the runtime's set to another.
        assert_eq!(idle.iter().sum::<usize>() - before.iter().sum::<usize>(), 50);
        assert_eq!(idle.iter().max(), Some(&50), "{before:?} {idle:?}");
        for client in &mut clients {
            client.send(Message::text("x")).await.unwrap();
            assert_eq!(next(client).await, Message::text("x"));
        }
        sleep(PARKED).await;
        assert_eq!(server.process.watched(), idle);
    });
}

#[test]
fn a_crowd_of_parked_connections_is_closed_in_place_and_over_some_time() {
    bounded(async {
        let count = 1_200;
        let server =
            TestServer::start(&["--idle-after", SOON, "--ping-interval", "0", "--drain-timeout", "10s"]);
        let mut crowd = Vec::new();
        for _ in 0..count {
            crowd.push(Raw::connect(server.address(), "/echo").await);
        }
        sleep(PARKED).await;
        let watched: usize = server.process.watched().into_iter().max().unwrap();
        assert!(watched >= count, "only {watched} are parked");
        let asked = Instant::now();
        server.process.signal(Signal::TERM);
        let close = frame(FIN | CLOSE, &1001_u16.to_be_bytes());
        let hear = async |raw: &mut Raw| {
            let (first, payload) = raw.frame().await.expect("a Close");
            assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1001_u16.to_be_bytes()[..]));
            asked.elapsed()
        };
        // These two before the test is busy with the others. At 10,000 a second they are 120 ms apart.
        let (mut oldest, mut youngest) = (crowd.remove(0), crowd.pop().unwrap());
        let (first, last) = tokio::join!(hear(&mut oldest), hear(&mut youngest));
        assert!(last > first + Duration::from_millis(80), "{first:?} and {last:?}");
        drop((oldest, youngest));
        let ends = crowd.into_iter().enumerate().map(|(at, mut raw)| {
            let close = close.clone();
            async move {
                hear(&mut raw).await;
                match at % 4 {
                    // Something was on its way; it is too late for an answer.
                    0 => raw.write_all(&[frame(FIN | TEXT, b"late"), close].concat()).await,
                    1 => raw.end().await,
                    _ => raw.write_all(&close).await,
                }
                assert_eq!(raw.frame().await, None);
            }
        });
        join_all(ends).await;
        let ended = server.process.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("in time"), "{}", ended.stderr);
        assert!(asked.elapsed() < Duration::from_secs(8), "those that answer are not waited for");
    });
}
