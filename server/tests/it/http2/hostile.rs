//! Peers that give windows and do not read, and what that costs.

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::bytes::{self, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE, frame};
use super::client::Peer;
use crate::raw::{self, FIN, PING, PONG, Raw, TEXT};
use crate::support::{PATIENCE, TestServer, bounded};

/// What the server's memory may grow by, in bytes.
const GROWTH: usize = 12 << 20;

/// A connection whose peer's socket takes little, and which grants all the windows there are.
async fn open(address: &str, streams: u32, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    // The server's buffer is a multiple of the segments' size: loopback's would hide what waits behind it for long.
    let size: libc::c_int = 536;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the option is read from an integer of the length given.
    let set = unsafe {
        let (descriptor, value) = (socket.as_raw_fd(), (&raw const size).cast());
        libc::setsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_MAXSEG, value, length)
    };
    assert_eq!(set, 0);
    let mut tcp = socket.connect(address.parse().unwrap()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let most = u32::MAX >> 1;
    let initial = [&[0, 4][..], &most.to_be_bytes()].concat();
    let begin = [
        bytes::PREFACE,
        &frame(SETTINGS, 0, 0, &initial),
        &frame(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes()),
    ];
    tcp.write_all(&begin.concat()).await.unwrap();
    for stream in 0..streams {
        let fields = bytes::websocket_at(path);
        tcp.write_all(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &fields)).await.unwrap();
        while bytes::next(&mut tcp).await.expect("an answer").0 != HEADERS {}
    }
    tcp
}

#[test]
fn members_of_a_room_that_do_not_read_lose_messages_and_cost_little() {
    const MEMBERS: u32 = 300;
    const MESSAGES: u32 = 2_400;
    bounded(async {
        let server = TestServer::start(&["--idle-after", "50ms", "--ping-interval", "0s"]);
        let mut deaf = open(server.address(), MEMBERS, "/broadcast").await;
        let mut listener = Raw::connect(server.address(), "/broadcast").await;
        let mut speaker = Raw::connect(server.address(), "/broadcast").await;
        sleep(Duration::from_millis(300)).await;
        let before = server.process.peak();
        // Never more on their way than a room keeps.
        for _ in 0..MESSAGES / 30 {
            speaker.write_all(&raw::frame(FIN | TEXT, b"x").repeat(30)).await;
            for _ in 0..30 {
                assert_eq!(listener.frame().await, Some((FIN | TEXT, b"x".to_vec())));
            }
            // Slow enough for the others too, if they read.
            sleep(Duration::from_millis(30)).await;
        }
        let growth = server.process.peak().saturating_sub(before);
        assert!(growth < GROWTH, "{growth} bytes");
        // As the members take what there is, they find out what they have missed.
        let mut scratch = vec![0; 64 << 10];
        let pause = Duration::from_secs(1);
        while let Ok(Ok(1..)) = timeout(pause, deaf.read(&mut scratch)).await {}
        drop((deaf, listener, speaker));
        server.process.signal(Signal::TERM);
        let ended = server.process.end();
        let lost = ended.stderr.split("relay_dropped=").nth(1).expect("how many were lost");
        let lost: u32 = lost.split_whitespace().next().unwrap().parse().unwrap();
        assert!(lost > MEMBERS * MESSAGES / 4, "{lost} lost");
        assert!(lost < MEMBERS * MESSAGES);
    });
}

#[test]
fn idle_streams_beside_a_busy_room_cost_nothing_and_are_heard() {
    const IDLE: usize = 900;
    bounded(async {
        let server = TestServer::start(&["--idle-after", "30ms", "--ping-interval", "0s"]);
        let peer = Peer::connect(server.address()).await;
        let mut idle = Vec::new();
        for at in 0..IDLE {
            idle.push(peer.open(&format!("/broadcast/{at}")).await);
        }
        let _busy = peer.open("/broadcast/busy").await;
        let mut speaker = Raw::connect(server.address(), "/broadcast/busy").await;
        sleep(Duration::from_millis(400)).await;
        let before = server.process.peak();
        let end = Instant::now() + Duration::from_secs(4);
        let mut count = 0;
        while Instant::now() < end {
            speaker.write_all(&raw::frame(FIN | TEXT, b"x")).await;
            count += 1;
        }
        let asked = Instant::now();
        idle[IDLE / 2].frame(PING, b"there");
        assert_eq!(idle[IDLE / 2].next().await, Some((FIN | PONG, b"there".to_vec())));
        let waited = asked.elapsed();
        let growth = server.process.peak().saturating_sub(before);
        assert!(growth < 1 << 20, "{growth} bytes after {count} messages");
        assert!(waited < Duration::from_millis(500), "a ping was answered after {waited:?}");
    });
}

#[test]
fn a_request_whose_answer_is_not_taken_does_not_keep_the_connection() {
    bounded(async {
        let server = TestServer::start(&["--http2-idle-timeout", "800ms"]);
        let mut tcp = TcpStream::connect(server.address()).await.unwrap();
        let no_window = [0, 4, 0, 0, 0, 0];
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/test"), (":authority", "x")];
        let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| bytes::field(name, value)).collect();
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
        let all = [bytes::PREFACE, &frame(SETTINGS, 0, 0, &no_window), &ask].concat();
        tcp.write_all(&all).await.unwrap();
        let started = Instant::now();
        let mut scratch = [0; 512];
        while timeout(PATIENCE, tcp.read(&mut scratch)).await.expect("an end").is_ok_and(|count| count > 0) {}
        let kept = started.elapsed().as_millis();
        assert!((700..6_000).contains(&kept), "{kept} ms");
    });
}

#[test]
fn a_peer_without_streams_that_does_not_answer_cannot_delay_the_end() {
    bounded(async {
        let server = TestServer::start(&["--drain-timeout", "15s"]);
        let mut tcp = bytes::begun(server.address()).await;
        while bytes::next(&mut tcp).await.expect("settings").0 != SETTINGS {}
        server.process.signal(Signal::TERM);
        let asked = Instant::now();
        assert_eq!(server.process.end().status.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
        drop(tcp);
    });
}
