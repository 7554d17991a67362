//! `/broadcast` to members that are parked: each hears everything in order, the slow ones later.

use futures_util::SinkExt;
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::parking::{PARKED, SOON, check, gap, next, numbered, parkings, stop};
use crate::raw::{BINARY, CLOSE, FIN, Raw, Rng, TEXT, frame};
use crate::support::{TestServer, bounded};

#[test]
fn a_room_of_parked_members_hears_everything_in_order() {
    bounded(async {
        let server =
            TestServer::start(&["--idle-after", SOON, "--ping-interval", "90ms", "--pong-timeout", "1m"]);
        let count = 400_u32;
        let mut speaker = server.connect("/broadcast").await;
        let listen = (0..40_u64).map(|seed| {
            let connecting = server.connect("/broadcast");
            async move {
                let (mut rng, mut client, mut heard) = (Rng::new(seed), connecting.await, 0);
                while heard < count {
                    check(next(&mut client).await, &mut heard);
                    // Some are slow now and then.
                    if rng.below(50) == 0 {
                        sleep(gap(&mut rng)).await;
                    }
                }
            }
        });
        let speak = async {
            sleep(PARKED).await;
            let mut rng = Rng::new(99);
            for number in 0..count {
                speaker.send(numbered(number, [8, 300, 9_000][rng.below(3)])).await.unwrap();
                sleep(gap(&mut rng) / 2).await;
            }
        };
        tokio::join!(join_all(listen), speak);
        drop(speaker);
        let ended = stop(server);
        assert!(ended.stderr.contains("relay_dropped=0"), "{}", ended.stderr);
        assert!(parkings(&ended) > 100);
    });
}

#[test]
fn what_a_parked_member_cannot_take_at_once_follows_when_it_can() {
    bounded(async {
        let server = TestServer::start(&["--idle-after", SOON, "--max-message-size", "8MiB"]);
        let mut speaker = server.connect("/broadcast").await;
        let mut slow = Raw::connect(server.address(), "/broadcast").await;
        sleep(PARKED).await;
        // More than socket buffers hold, so the first goes out in part; the others wait behind it.
        let large: Vec<u8> = (0..7_000_000_u32).map(|at| (at % 251) as u8).collect();
        speaker.send(Message::binary(large.clone())).await.unwrap();
        speaker.send(Message::text("second")).await.unwrap();
        sleep(PARKED).await;
        speaker.send(Message::text("third")).await.unwrap();
        sleep(PARKED).await;
        assert!(slow.frame().await == Some((FIN | BINARY, large)), "the large message is damaged");
        assert_eq!(slow.frame().await, Some((FIN | TEXT, b"second".to_vec())));
        assert_eq!(slow.frame().await, Some((FIN | TEXT, b"third".to_vec())));
        slow.write_all(&frame(FIN | TEXT, b"thanks")).await;
        assert_eq!(next(&mut speaker).await, Message::text("thanks"));
    });
}

#[test]
fn our_close_waits_for_the_frame_that_was_begun() {
    bounded(async {
        let arguments = ["--idle-after", SOON, "--max-message-size", "8MiB", "--drain-timeout", "10s"];
        let server = TestServer::start(&arguments);
        let mut speaker = server.connect("/broadcast").await;
        let mut slow = Raw::connect(server.address(), "/broadcast").await;
        sleep(PARKED).await;
        let large = vec![b'x'; 7_000_000];
        speaker.send(Message::binary(large.clone())).await.unwrap();
        sleep(PARKED).await;
        server.process.signal(Signal::TERM);
        sleep(PARKED).await;
        assert!(slow.frame().await == Some((FIN | BINARY, large)), "the large message is damaged");
        let (first, payload) = slow.frame().await.unwrap();
        assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1001_u16.to_be_bytes()[..]));
    });
}
