//! Idle streams and active ones: order, rooms, pings, windows.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::client::Peer;
use crate::raw::{BINARY, CLOSE, FIN, PING, PONG, Rng, TEXT, frame};
use crate::support::{TestServer, bounded};

#[test]
fn no_message_is_lost_or_reordered_by_streams_that_come_and_go() {
    bounded(async {
        let server =
            TestServer::start(&["--idle-after", "20ms", "--ping-interval", "200ms", "--pong-timeout", "1m"]);
        let mut tasks = Vec::new();
        for connection in 0..3_u64 {
            let peer = Peer::connect(server.address()).await;
            for number in 0..20 {
                let mut stream = peer.open("/").await;
                tasks.push(tokio::spawn(async move {
                    let mut rng = Rng::new(connection * 100 + number);
                    for round in 0..25_u32 {
                        let pause = [0, 5, 20, 40, 45, 60, 100, 200][rng.below(8)];
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                        let size = [0, 4, 130, 5_000, 20_000][rng.below(5)];
                        let mut payload = round.to_be_bytes().to_vec();
                        payload.resize(4 + size, number as u8);
                        let bytes = frame(FIN | BINARY, &payload);
                        // Cut anywhere, with or without a pause.
                        let cut = rng.below(bytes.len());
                        stream.write(bytes[..cut].to_vec());
                        tokio::time::sleep(Duration::from_millis([0, 0, 50][rng.below(3)])).await;
                        stream.write(bytes[cut..].to_vec());
                        loop {
                            match stream.next().await.expect("an echo") {
                                (first, payload) if first == FIN | PING => stream.frame(PONG, &payload),
                                (first, echoed) => {
                                    assert_eq!(first, FIN | BINARY);
                                    assert!(echoed == payload, "round {round}");
                                    break;
                                }
                            }
                        }
                    }
                    stream
                }));
            }
        }
        for task in tasks {
            drop(task.await.unwrap());
        }
        server.process.signal(Signal::TERM);
        let ended = server.process.end();
        let parkings = ended.stderr.split("parkings=").nth(1).unwrap();
        let parkings: u32 = parkings.split_whitespace().next().unwrap().parse().unwrap();
        assert!(parkings > 100, "{parkings} parkings");
    });
}

#[test]
fn one_room_for_both_versions_idle_or_not() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", "50ms"]);
        let (one, two) = (Peer::connect(server.address()).await, Peer::connect(server.address()).await);
        let mut streams =
            [one.open("/broadcast").await, one.open("/broadcast").await, two.open("/broadcast").await];
        let mut outside = one.open("/echo").await;
        let mut socket = server.connect("/broadcast").await;
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis([0, 400, 0][round])).await;
            let count = [1, 3, 12][round];
            for number in 0..count {
                streams[0].frame(TEXT, format!("{round} {number}").as_bytes());
            }
            for number in 0..count {
                let text = format!("{round} {number}");
                for stream in &mut streams[1..] {
                    assert_eq!(stream.next().await, Some((FIN | TEXT, text.clone().into_bytes())));
                }
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
            }
            socket.send(Message::text("by 1.1")).await.unwrap();
            for stream in &mut streams {
                assert_eq!(stream.next().await, Some((FIN | TEXT, b"by 1.1".to_vec())));
            }
        }
        outside.echo(TEXT, b"nothing of that").await;
    });
}

#[test]
fn idle_streams_are_pinged_in_turn_and_dropped_when_they_do_not_answer() {
    bounded(async {
        let arguments = ["--idle-after", "30ms", "--ping-interval", "320ms", "--ping-payload", "8B"];
        let server = TestServer::start(&arguments);
        let peer = Peer::connect(server.address()).await;
        let mut streams = Vec::new();
        for _ in 0..32 {
            streams.push(peer.open("/").await);
        }
        let mut deaf = streams.pop().unwrap();
        let mut times = Vec::new();
        for number in 1..=4_u64 {
            for (at, stream) in streams.iter_mut().enumerate() {
                // Nothing is lost or counted twice, whoever sends it.
                assert_eq!(
                    stream.next().await,
                    Some((FIN | PING, number.to_be_bytes().to_vec())),
                    "stream {at}"
                );
                times.push(tokio::time::Instant::now());
                stream.frame(PONG, &number.to_be_bytes());
            }
        }
        for number in 1..=2_u64 {
            assert_eq!(deaf.next().await, Some((FIN | PING, number.to_be_bytes().to_vec())));
        }
        let (first, reason) = deaf.next().await.unwrap();
        assert_eq!((first, &reason[2..]), (FIN | CLOSE, &b"ping timeout"[..]));
        assert_eq!(deaf.next().await, None);
        streams[0].echo(TEXT, b"others go on").await;
    });
}

#[test]
fn pings_of_clients_are_answered_on_idle_streams_without_waking_them() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", "30ms"]);
        let peer = Peer::connect(server.address()).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(peer.open("/").await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for stream in &mut streams {
            stream.write([frame(FIN | PING, b"one"), frame(FIN | PING, b"two")].concat());
        }
        for stream in &mut streams {
            assert_eq!(stream.next().await, Some((FIN | PONG, b"one".to_vec())));
            assert_eq!(stream.next().await, Some((FIN | PONG, b"two".to_vec())));
        }
        drop(streams);
        drop(peer);
        server.process.signal(Signal::TERM);
        let ended = server.process.end();
        assert!(ended.stderr.contains("parkings=20"), "{}", ended.stderr);
    });
}

#[test]
fn streams_whose_peer_takes_nothing_stop_nobody_else() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", "50ms"]);
        let peer = Peer::connect(server.address()).await;
        let mut stuck = Vec::new();
        for _ in 0..10 {
            let mut stream = peer.open("/").await;
            stream.greedy = false;
            // Twice what its window takes in either direction.
            for _ in 0..32 {
                stream.frame(BINARY, &[1; 8_192]);
            }
            stuck.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut free = peer.open("/").await;
        for _ in 0..20 {
            free.echo(BINARY, &[2; 20_000]).await;
        }
        // When it takes them after all, everything is there.
        let mut late = stuck.pop().unwrap();
        late.greedy = true;
        for _ in 0..32 {
            assert_eq!(late.next().await, Some((FIN | BINARY, vec![1; 8_192])));
        }
        late.echo(TEXT, b"and on").await;
    });
}
