//! Who may come in and where to: origins, rooms by name, the sink, limits.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, client_async};

use crate::parking::{PARKED, SOON, next};
use crate::raw::{BINARY, CLOSE, FIN, Raw, TEXT};
use crate::support::{Client, PATIENCE, TestServer, bounded};

/// Connects to `path` from `from`, with these header fields; or the status that refuses it.
async fn connect(
    server: &TestServer,
    from: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Client, u16> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    let tcp = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let mut request = format!("{}{path}", server.url).into_client_request().unwrap();
    for (name, value) in fields {
        let name: tokio_tungstenite::tungstenite::http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    match timeout(PATIENCE, client_async(request, MaybeTlsStream::Plain(tcp))).await.expect("an answer") {
        Ok((client, _)) => Ok(client),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn origins_that_are_not_allowed_get_403() {
    bounded(async {
        let rules = ["--allow-origin", "https://example.org", "--allow-origin", "*.example.net"];
        let server = TestServer::start(&rules);
        let strict = TestServer::start(&[&rules[..], &["--require-origin"]].concat());
        for (origins, path, usual, requiring) in [
            (&["https://example.org"][..], "/", None, None),
            (&["http://a.example.net:81"], "/broadcast/x", None, None),
            (&["https://evil.test"], "/", Some(403), Some(403)),
            (&["https://evil.test"], "/nothing", Some(403), Some(403)),
            (&["https://example.org", "https://evil.test"], "/", Some(403), Some(403)),
            (&["null"], "/", Some(403), Some(403)),
            (&[], "/", None, Some(403)),
            (&["https://example.org"], "/nothing", Some(404), Some(404)),
        ] {
            let fields: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
            for (server, expected) in [(&server, usual), (&strict, requiring)] {
                let outcome = connect(server, "127.0.0.1", path, &fields).await;
                assert_eq!(outcome.err(), expected, "{origins:?} {path}");
            }
        }
    });
}

#[test]
fn the_sink_answers_nothing_but_control_frames() {
    bounded(async {
        let server = TestServer::start(&["--ping-interval", "0", "--idle-after", SOON]);
        let mut client = server.connect("/sink").await;
        for round in 0..3_u8 {
            client.send(Message::text("into the void")).await.unwrap();
            client.send(Message::binary(vec![0; 100_000])).await.unwrap();
            client.send(Message::Ping(vec![round].into())).await.unwrap();
            assert_eq!(next(&mut client).await, Message::Pong(vec![round].into()));
            sleep(PARKED).await;
        }
        client.close(None).await.unwrap();
        assert!(next(&mut client).await.is_close());
    });
}

#[test]
fn rooms_are_apart_whether_their_members_are_parked_or_not() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--ping-interval", "0"]);
        let paths = ["/broadcast", "/broadcast/a", "/broadcast/b"];
        let mut rooms = Vec::new();
        for path in paths {
            rooms.push([server.connect(path).await, server.connect(path).await]);
        }
        for round in 0..3 {
            for (room, path) in rooms.iter_mut().zip(paths) {
                room[round % 2].send(Message::text(format!("{round} in {path}"))).await.unwrap();
            }
            for (room, path) in rooms.iter_mut().zip(paths) {
                // Had anything else come, it would be first.
                assert_eq!(next(&mut room[1 - round % 2]).await, Message::text(format!("{round} in {path}")));
            }
            sleep(PARKED).await;
        }
    });
}

#[test]
fn one_room_too_many_gets_503_until_one_is_left_by_all() {
    bounded(async {
        let server = TestServer::start(&["--max-rooms", "2", "--idle-after", SOON]);
        let from = "127.0.0.1";
        let mut first = connect(&server, from, "/broadcast/a", &[]).await.unwrap();
        let _second = connect(&server, from, "/broadcast/b", &[]).await.unwrap();
        assert_eq!(connect(&server, from, "/broadcast/c", &[]).await.err(), Some(503));
        connect(&server, from, "/broadcast/b", &[]).await.unwrap();
        connect(&server, from, "/echo", &[]).await.unwrap();
        sleep(PARKED).await;
        first.close(None).await.unwrap();
        while first.next().await.is_some() {}
        until(|| async { connect(&server, from, "/broadcast/c", &[]).await.is_ok() }).await;
    });
}

/// Waits for `condition`, which is bound to come.
async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it does not come to be");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn an_address_has_so_many_places_and_gets_them_back_from_parked_connections_too() {
    bounded(async {
        let server = TestServer::start(&["--max-per-address", "3", "--idle-after", SOON]);
        let (mut closed, mut dropped, mut reset) = (
            connect(&server, "127.0.0.2", "/", &[]).await.unwrap(),
            connect(&server, "127.0.0.2", "/sink", &[]).await.unwrap(),
            Raw::connect_from("127.0.0.2", server.address(), "/broadcast").await,
        );
        sleep(PARKED).await;
        assert_eq!(connect(&server, "127.0.0.2", "/", &[]).await.err(), Some(429));
        let _other = connect(&server, "127.0.0.3", "/", &[]).await.unwrap();
        // One place after the other, each taken again; a reset socket has forgotten who its peer was.
        let free = || async { connect(&server, "127.0.0.2", "/", &[]).await.is_ok() };
        let mut held = Vec::new();
        let taken = |held: &mut Vec<Client>, client: Client| held.push(client);
        for end in 0..3 {
            match end {
                0 => {
                    closed.close(None).await.unwrap();
                    while closed.next().await.is_some() {}
                }
                1 => {
                    let MaybeTlsStream::Plain(tcp) = dropped.get_mut() else { panic!("plain") };
                    rustix::net::shutdown(&*tcp, rustix::net::Shutdown::Write).unwrap();
                }
                _ => {
                    reset.reset();
                    drop(reset);
                    reset = Raw::connect_from("127.0.0.9", server.address(), "/").await;
                }
            }
            until(free).await;
            // What `free` had is over; this one stays.
            let deadline = Instant::now() + PATIENCE;
            let client = loop {
                match connect(&server, "127.0.0.2", "/", &[]).await {
                    Ok(client) => break client,
                    Err(status) => assert!(status == 429 && Instant::now() < deadline, "{status}"),
                }
            };
            taken(&mut held, client);
            sleep(PARKED).await;
            assert_eq!(connect(&server, "127.0.0.2", "/", &[]).await.err(), Some(429), "after end {end}");
        }
        drop(reset);
    });
}

/// A member that reads nothing while 40 large messages are said, with the policy; then what it has.
async fn slow_member(policy: &str, parked: bool) -> (Vec<(u8, Vec<u8>)>, String) {
    let idle = if parked { SOON } else { "10s" };
    let arguments =
        ["--slow-consumer", policy, "--room-messages", "8", "--idle-after", idle, "--ping-interval", "0"];
    let server = TestServer::start(
        &[&arguments[..], &["--max-message-size", "8MiB", "--room-bytes", "1GiB"]].concat(),
    );
    let mut speaker = server.connect("/broadcast/r").await;
    let mut quick = server.connect("/broadcast/r").await;
    let mut slow = Raw::connect(server.address(), "/broadcast/r").await;
    sleep(PARKED).await;
    for number in 0..40_u8 {
        speaker.send(Message::binary(vec![number; 1_000_000])).await.unwrap();
        // Whoever reads gets everything, whatever the others do.
        assert_eq!(next(&mut quick).await, Message::binary(vec![number; 1_000_000]));
    }
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = timeout(Duration::from_secs(2), slow.frame()).await {
        frames.push(frame);
    }
    server.process.signal(rustix::process::Signal::TERM);
    drop((speaker, quick, slow));
    (frames, server.process.end().stderr)
}

#[test]
fn a_slow_consumer_loses_the_oldest_or_its_connection() {
    bounded(async {
        for parked in [false, true] {
            let (frames, log) = slow_member("drop", parked).await;
            let numbers: Vec<u8> = frames.iter().map(|(_, payload)| payload[0]).collect();
            assert!(
                frames.iter().all(|(first, payload)| *first == FIN | BINARY && payload.len() == 1_000_000)
            );
            assert!(numbers.is_sorted() && numbers.last() == Some(&39), "{numbers:?}");
            assert!(numbers.len() < 40, "it was not slow enough to prove anything");
            let lost = format!("relay_dropped={}", 40 - numbers.len());
            assert!(log.contains(&lost), "{lost}: {log}");

            let (frames, log) = slow_member("close", parked).await;
            let whole = frames.iter().filter(|(first, _)| *first == FIN | BINARY).count();
            assert!(whole < 40 && log.contains("slow_consumers_closed=1"), "{whole}: {log}");
            // The Close comes, if the peer reads in time, behind what had been begun.
            if let Some((first, payload)) = frames.last().filter(|(first, _)| *first != FIN | BINARY) {
                assert_eq!(
                    (*first, &payload[..2]),
                    (FIN | CLOSE, &u16::from(CloseCode::Policy).to_be_bytes()[..])
                );
            }
        }
    });
}

#[test]
fn a_room_holds_no_more_than_its_bytes() {
    bounded(async {
        let arguments = ["--room-bytes", "100KiB", "--ping-interval", "0", "--max-message-size", "8MiB"];
        let server = TestServer::start(&arguments);
        let mut speaker = server.connect("/broadcast/r").await;
        let mut slow = Raw::connect(server.address(), "/broadcast/r").await;
        // Fills the socket's buffers, so that what follows waits in the room.
        speaker.send(Message::binary(vec![0; 7_000_000])).await.unwrap();
        sleep(PARKED).await;
        for number in 1..=20_u8 {
            speaker.send(Message::binary(vec![number; 20_000])).await.unwrap();
        }
        speaker.send(Message::text("last")).await.unwrap();
        sleep(PARKED).await;
        assert_eq!(slow.frame().await.unwrap().1.len(), 7_000_000);
        let mut numbers = Vec::new();
        loop {
            let (first, payload) = slow.frame().await.unwrap();
            if first == FIN | TEXT {
                break;
            }
            numbers.push(payload[0]);
        }
        // 102,400 bytes hold five of them, and one may have been on its way.
        assert!(numbers.is_sorted() && (1..=6).contains(&numbers.len()), "{numbers:?}");
        assert_eq!(numbers.last(), Some(&20));
    });
}
