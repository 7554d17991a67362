//! Where connections come from: several sockets, sockets handed over, several processes on one port.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::parking::next;
use crate::support::{PATIENCE, Process, SERVER, TestServer, bounded};

/// The processes that process `pid` has started.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Sockets that the kernel says process `pid` has open.
fn sockets(pid: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn url(line: &str) -> String {
    line.strip_prefix("listening on ").expect("the line that says where").to_owned()
}

async fn echoes(url: &str) {
    let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut client).await, Message::text("hello"));
}

#[test]
fn several_sockets_are_served_at_once() {
    bounded(async {
        let listen =
            ["--listen", "ws://127.0.0.1:0", "--listen", "ws://[::1]:0", "--listen", "ws://127.0.0.2:0"];
        let process = Process::start(SERVER, &listen);
        let urls: Vec<String> = (0..3).map(|_| url(&process.line())).collect();
        assert!(urls[1].starts_with("ws://[::1]:") && urls[2].starts_with("ws://127.0.0.2:"), "{urls:?}");
        for url in &urls {
            echoes(url).await;
        }
        process.signal(Signal::TERM);
        assert_eq!(process.end().status.code(), Some(0));
    });
}

#[test]
fn connections_are_spread_over_the_processes_and_a_signal_reaches_all() {
    bounded(async {
        let server = TestServer::start(&["--processes", "3", "--drain-timeout", "10s"]);
        let processes = children(server.process.id());
        assert_eq!(processes.len(), 3);
        let before: Vec<usize> = processes.iter().map(|pid| sockets(*pid)).collect();
        let mut clients = Vec::new();
        for _ in 0..60 {
            clients.push(server.connect("/").await);
        }
        let spread: Vec<usize> =
            processes.iter().zip(&before).map(|(pid, before)| sockets(*pid) - before).collect();
        assert_eq!(spread.iter().sum::<usize>(), 60);
        // By chance fewer than 4 would come once in a million runs.
        assert!(spread.iter().all(|count| *count >= 4), "{spread:?}");
        server.process.signal(Signal::HUP);
        for client in &mut clients {
            client.send(Message::text("still")).await.unwrap();
            assert_eq!(next(client).await, Message::text("still"));
        }
        server.process.signal(Signal::TERM);
        for client in &mut clients {
            let Message::Close(Some(frame)) = next(client).await else { panic!("no close") };
            assert_eq!(frame.code, CloseCode::Away);
            assert!(client.next().await.is_none());
        }
        assert_eq!(server.process.end().status.code(), Some(0));
    });
}

#[test]
fn when_one_process_ends_they_all_do_and_the_parent_says_so() {
    let server = TestServer::start(&["--processes", "2"]);
    let processes = children(server.process.id());
    kill(processes[1], Signal::KILL);
    let ended = server.process.end();
    assert_eq!(ended.status.code(), Some(70), "{}", ended.stderr);
    assert!(ended.stderr.contains("process 1 ended unasked (signal: 9"), "{}", ended.stderr);
    assert!(processes.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap()));
}

#[test]
fn when_the_parent_is_killed_nothing_stays() {
    let server = TestServer::start(&["--processes", "2"]);
    let processes = children(server.process.id());
    drop(server);
    let deadline = std::time::Instant::now() + PATIENCE;
    while processes.iter().any(|pid| {
        // Whoever inherits it may be in no hurry to reap it.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }) {
        assert!(std::time::Instant::now() < deadline, "{processes:?} stay");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_port_is_shared_with_those_only_who_ask() {
    let server = TestServer::start(&["--processes", "2"]);
    let listen = ["--listen", &server.url];
    Process::start(SERVER, &listen).end().expect_failure(69, server.address());
    Process::start(SERVER, &[&listen[..], &["--processes", "2"]].concat())
        .end()
        .expect_failure(69, server.address());
    let beside = Process::start(SERVER, &[&listen[..], &["--reuse-port"]].concat());
    assert_eq!(url(&beside.line()), server.url);
}

#[test]
fn systemd_hands_sockets_over() {
    bounded(async {
        // A free port: systemd-socket-activate does not say which it took.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--listen", &address, SERVER, "--ping-interval", "0"]);
        let process = Process::spawn(command);
        // It starts the server at the first connection, which waits in the queue.
        let mut client = crate::support::connect_when_possible(&format!("ws://{address}/echo")).await;
        client.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut client).await, Message::text("hello"));
        assert_eq!(process.line(), format!("listening on ws://{address}"));
    });
}

#[test]
fn what_is_handed_over_must_be_a_socket_that_listens() {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\"", SERVER]);
    Process::spawn(command).end().expect_failure(69, "descriptor 3: is not a TCP socket that listens");
}
