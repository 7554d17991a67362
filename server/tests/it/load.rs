//! headroom-load against headroom-server: results, phases, refusals, exit codes.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{LOAD, Process, TestServer};

#[test]
fn what_is_sent_comes_back_and_is_timed() {
    let server = TestServer::start(&["--ping-interval", "200ms", "--ping-payload", "8B"]);
    let url = format!("{}/echo", server.url);
    let report = Process::start(
        LOAD,
        &[
            "--url",
            &url,
            "--connections",
            "20",
            "--duration",
            "1s",
            "--message-rate",
            "50",
            "--message-size",
            "64B",
            "--json",
        ],
    )
    .end()
    .report();
    assert_eq!((report.schema.as_str(), report.urls), ("headroom-load/2", vec![url]));
    assert_eq!((report.connections.opened, report.connections.closed_by_peer), (20, 0));
    assert_eq!((report.sent.text, report.received.text), (1000, 1000));
    assert_eq!((report.sent.payload_bytes, report.received.payload_bytes), (64_000, 64_000));
    assert_eq!((report.sent.close, report.received.close), (20, 20));
    assert!(report.received.ping >= 60, "{:?}", report.received);
    assert_eq!(report.received.control_bytes, 8 * report.received.ping + 40);
    let echo = report.echo_seconds.unwrap();
    assert_eq!(echo.count, 1000);
    assert!(echo.p50 > 1e-6 && echo.p50 <= echo.p99 && echo.p99 <= echo.max && echo.max < 10.0, "{echo:?}");
    assert_eq!((report.connect_seconds.unwrap().count, report.handshake_seconds.unwrap().count), (20, 20));
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn what_was_not_measured_is_null_with_a_reason() {
    let server = TestServer::start(&[]);
    let ended =
        Process::start(LOAD, &["--url", &server.url, "--connections", "1", "--duration", "0", "--json"])
            .end();
    let report = ended.report();
    assert!(ended.stdout.contains("\"echo_seconds\":null") && report.echo_seconds_reason.is_some());
}

#[test]
fn a_signal_ends_the_linger_and_the_result_is_still_printed() {
    let server = TestServer::start(&["--ping-interval", "100ms"]);
    let load = Process::start(
        LOAD,
        &["--url", &server.url, "--connections", "3", "--duration", "0", "--linger", "1h", "--json"],
    );
    // Longer than the server would bear without pongs.
    std::thread::sleep(Duration::from_millis(1000));
    load.signal(Signal::INT);
    let report = load.end().report();
    assert_eq!(report.connections.closed_by_peer, 0);
    assert!(report.sent.pong >= 15 && report.sent.pong <= report.received.ping, "{report:?}");
    assert_eq!(report.sent.close, 3);
}

#[test]
fn a_stopped_server_cannot_hold_it() {
    let server = TestServer::start(&[]);
    let load = Process::start(
        LOAD,
        &["--url", &server.url, "--connections", "3", "--duration", "0", "--linger", "1h", "--json"],
    );
    std::thread::sleep(Duration::from_millis(500));
    server.process.signal(Signal::STOP);
    load.signal(Signal::TERM);
    let asked = Instant::now();
    let report = load.end().report();
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!((report.sent.close, report.received.close), (3, 0));
    assert_eq!(report.errors.get("close_timeout"), Some(&3));
}

#[test]
fn refusals_and_closes_by_the_peer_are_told_apart() {
    let server = TestServer::start(&["--max-connections", "2"]);
    let load = Process::start(
        LOAD,
        &["--url", &server.url, "--connections", "5", "--duration", "0", "--linger", "1h", "--json"],
    );
    std::thread::sleep(Duration::from_millis(700));
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.end().status.code(), Some(0));
    load.signal(Signal::INT);
    let report = load.end().report();
    assert_eq!((report.connections.opened, report.connections.refused), (2, 3));
    assert_eq!(report.connections.closed_by_peer, 2);
    assert_eq!(report.errors.get("http_503"), Some(&3));
    assert_eq!((report.sent.close, report.received.close), (2, 2));
}

#[test]
fn nobody_listening_is_69_after_the_result() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}/");
    let ended =
        Process::start(LOAD, &["--url", &url, "--connections", "2", "--duration", "0", "--json"]).end();
    assert_eq!(ended.status.code(), Some(69));
    assert_eq!(ended.stderr.lines().count(), 1);
    assert!(ended.stdout.contains("\"refused\":2"), "{}", ended.stdout);
}

#[test]
fn only_loopback_is_loaded() {
    for (url, why) in [
        ("ws://192.0.2.1:9/", "not loopback"),
        ("ws://[2001:db8::1]:9/", "not loopback"),
        ("wss://127.0.0.1:9/", "needs --tls-ca or --tls-insecure"),
        ("http://127.0.0.1:9/", "not a ws:// or wss:// URL"),
        ("nonsense", "not a URL"),
    ] {
        Process::start(LOAD, &["--url", url, "--connections", "1"]).end().expect_failure(64, why);
    }
    Process::start(LOAD, &["--url", "ws://127.0.0.1:9/", "--connections", "0"])
        .end()
        .expect_failure(64, "error: ");
}

#[test]
fn too_few_descriptors_is_69_before_anything_is_opened() {
    let server = TestServer::start(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" --url \"$1\" --connections 60", LOAD, &server.url]);
    Process::spawn(command).end().expect_failure(69, "do not fit");
    server.process.signal(Signal::TERM);
    assert!(server.process.end().stderr.contains("accepted=0"));
}
