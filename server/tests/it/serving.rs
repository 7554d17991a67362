//! headroom-server: paths, refusals, shutdown, exit codes.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::raw::{CLOSE, FIN, Raw, TEXT, frame};
use crate::support::{Client, PATIENCE, Process, SERVER, TestServer, bounded};

async fn next(client: &mut Client) -> Message {
    tokio::time::timeout(PATIENCE, client.next()).await.expect("a message").expect("no end").unwrap()
}

async fn status(server: &TestServer, path: &str) -> (u16, Option<String>) {
    match server.try_connect(path).await {
        Err(Error::Http(response)) => {
            let retry = response.headers().get("Retry-After").map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), retry)
        }
        other => panic!("{:?}", other.map(|_| "a connection")),
    }
}

#[test]
fn echoes_text_and_binary_of_any_size() {
    bounded(async {
        let server = TestServer::start(&[]);
        for path in ["/", "/echo"] {
            let mut client = server.connect(path).await;
            for size in [0, 1, 125, 126, 4096, 65_535, 65_536, 1 << 20] {
                for message in [Message::text("x".repeat(size)), Message::binary(vec![7; size])] {
                    client.send(message.clone()).await.unwrap();
                    assert_eq!(next(&mut client).await, message, "{size}");
                }
            }
            client.close(None).await.unwrap();
            assert!(next(&mut client).await.is_close());
            assert!(client.next().await.is_none());
        }
    });
}

#[test]
fn a_message_too_big_ends_with_1009() {
    bounded(async {
        let server = TestServer::start(&["--max-message-size", "1KiB"]);
        let mut client = server.connect("/").await;
        client.send(Message::binary(vec![0; 1025])).await.unwrap();
        let Message::Close(Some(frame)) = next(&mut client).await else { panic!("no close") };
        assert_eq!(frame.code, CloseCode::Size);
    });
}

#[test]
fn text_that_cannot_become_valid_ends_with_1007_before_its_frame_is_complete() {
    bounded(async {
        let server = TestServer::start(&[]);
        let mut client = Raw::connect(server.address(), "/").await;
        let good = frame(TEXT | FIN, b"before");
        let bad = frame(TEXT | FIN, &[b"valid, then not \xF4\x90".as_slice(), &[b'x'; 1000]].concat());
        // The rest never comes.
        client.write_all(&[good, bad[..8 + 18].to_vec()].concat()).await;
        assert_eq!(client.frame().await, Some((TEXT | FIN, b"before".to_vec())));
        let (first, payload) = client.frame().await.expect("a Close");
        assert_eq!((first, &payload[..2]), (CLOSE | FIN, 1007_u16.to_be_bytes().as_slice()));
        assert_eq!(client.frame().await, None);
    });
}

#[test]
fn broadcast_reaches_all_others_and_nobody_else() {
    bounded(async {
        let server = TestServer::start(&[]);
        let mut room = [
            server.connect("/broadcast").await,
            server.connect("/broadcast").await,
            server.connect("/broadcast").await,
        ];
        let mut outside = server.connect("/echo").await;
        room[0].send(Message::text("from 0")).await.unwrap();
        assert_eq!(next(&mut room[1]).await, Message::text("from 0"));
        assert_eq!(next(&mut room[2]).await, Message::text("from 0"));
        room[1].send(Message::text("from 1")).await.unwrap();
        // Had its own message come back to 0, it would be first.
        assert_eq!(next(&mut room[0]).await, Message::text("from 1"));
        outside.send(Message::text("echo")).await.unwrap();
        assert_eq!(next(&mut outside).await, Message::text("echo"));
    });
}

#[test]
fn an_unknown_path_is_404() {
    bounded(async {
        let server = TestServer::start(&[]);
        assert_eq!(status(&server, "/nothing").await, (404, None));
    });
}

#[test]
fn one_too_many_gets_503_until_a_slot_is_free() {
    bounded(async {
        let server = TestServer::start(&["--max-connections", "2"]);
        let mut first = server.connect("/").await;
        let _second = server.connect("/").await;
        for _ in 0..5 {
            assert_eq!(status(&server, "/").await, (503, Some("1".into())));
        }
        first.close(None).await.unwrap();
        while first.next().await.is_some() {}
        let deadline = Instant::now() + PATIENCE;
        let mut third = loop {
            match server.try_connect("/").await {
                Ok(client) => break client,
                Err(_) => assert!(Instant::now() < deadline, "the slot stays taken"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        third.send(Message::text("in")).await.unwrap();
        assert_eq!(next(&mut third).await, Message::text("in"));
    });
}

#[test]
fn sigterm_closes_with_1001_and_exits_0() {
    bounded(async {
        let server = TestServer::start(&["--drain-timeout", "10s"]);
        let mut clients = [server.connect("/").await, server.connect("/broadcast").await];
        let asked = Instant::now();
        server.process.signal(Signal::TERM);
        for client in &mut clients {
            let Message::Close(Some(frame)) = next(client).await else { panic!("no close") };
            assert_eq!(frame.code, CloseCode::Away);
            assert!(client.next().await.is_none());
        }
        let ended = server.process.end();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(ended.stdout, "");
        assert!(asked.elapsed() < Duration::from_secs(5), "peers that answer are not waited for");
    });
}

#[test]
fn peers_that_do_not_answer_cannot_delay_the_end() {
    bounded(async {
        let server = TestServer::start(&["--drain-timeout", "300ms"]);
        // Never polled, so it answers nothing.
        let _client = server.connect("/").await;
        server.process.signal(Signal::INT);
        let asked = Instant::now();
        assert_eq!(server.process.end().status.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_port_in_use_is_69() {
    let server = TestServer::start(&[]);
    Process::start(SERVER, &["--listen", &server.url]).end().expect_failure(69, server.address());
}

#[test]
fn bad_flags_are_64() {
    for arguments in [
        &["--listen", "ws://127.0.0.1:0", "--nonsense"][..],
        &["--listen", "http://127.0.0.1:0"],
        &["--listen", "ws://127.0.0.1:0", "--ping-payload", "126B"],
        &["--listen", "ws://127.0.0.1:0", "--ping-interval", "30"],
        &["--listen", "ws://127.0.0.1:0", "--processes", "0"],
        &["--listen", "ws://127.0.0.1:0", "--shard", "0"],
    ] {
        Process::start(SERVER, arguments).end().expect_failure(64, "error: ");
    }
    Process::start(SERVER, &["--listen", "wss://127.0.0.1:0"]).end().expect_failure(64, "wss needs");
    Process::start(SERVER, &[]).end().expect_failure(64, "nowhere to listen");
    Process::start(SERVER, &["--processes", "2"]).end().expect_failure(64, "nowhere to listen");
}

#[test]
fn running_out_of_descriptors_is_survived() {
    bounded(async {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 24; exec \"$0\" --listen ws://127.0.0.1:0", SERVER]);
        let process = Process::spawn(command);
        let address = process.line().trim_start_matches("listening on ws://").to_owned();
        let crowd: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
        tokio::time::sleep(Duration::from_millis(1300)).await;
        drop(crowd);
        let server = TestServer { process, url: format!("ws://{address}") };
        let mut client = server.connect("/").await;
        client.send(Message::text("still here")).await.unwrap();
        assert_eq!(next(&mut client).await, Message::text("still here"));
        // Nobody will poll it below, and the server would wait for its Close.
        drop(client);
        server.process.signal(Signal::TERM);
        let ended = server.process.end();
        assert_eq!(ended.status.code(), Some(0));
        let warnings = ended.stderr.matches("cannot accept").count();
        assert!((1..=4).contains(&warnings), "logged {warnings} times: {}", ended.stderr);
    });
}
