//! The load generator over TLS, HTTP/2 and with compression, held against what the other side saw.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use h2::RecvStream;
use h2::SendStream;
use rustix::process::Signal;
use server::load::report::Report;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::support::{LOAD, Process, TestServer};
use crate::witness::{Seen, frame, reply};

fn run(url: &str, arguments: &str) -> crate::support::Ended {
    let arguments: Vec<&str> = ["--url", url, "--json"].into_iter().chain(arguments.split(' ')).collect();
    Process::start(LOAD, &arguments).end()
}

fn load(url: &str, arguments: &str) -> Report {
    run(url, arguments).report()
}

/// Certificates in a folder that goes with it.
struct Certificates(PathBuf);

impl Certificates {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("headroom-load-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.join("certificate.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.join("other.pem"), other.cert.pem()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A headroom-server behind TLS and its URL.
fn behind_tls(certificates: &Certificates) -> (Process, String) {
    let (certificate, key) = (certificates.path("certificate.pem"), certificates.path("key.pem"));
    let arguments = ["--listen", "wss://127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
    let server = Process::start(crate::support::SERVER, &arguments);
    let url = server.line().strip_prefix("listening on ").unwrap().to_owned();
    (server, url)
}

#[test]
fn tls_carries_both_and_trusts_only_whom_it_is_told_to() {
    let certificates = Certificates::new("tls");
    let (_server, url) = behind_tls(&certificates);
    let shape = "--connections 20 --duration 500ms --message-rate 20 --ping-all";
    let trusted = format!("--tls-ca {}", certificates.path("certificate.pem"));
    for (flags, http2) in [
        (trusted.as_str(), None),
        ("--tls-insecure", None),
        (&format!("{trusted} --transport http2 --streams-per-connection 10"), Some(2)),
    ] {
        let mut report = load(&url, &format!("{shape} {flags}"));
        assert_eq!((report.connections.opened, report.http2_connections), (20, http2), "{flags}");
        // A busy machine may not get to all 200 in time; none is lost.
        assert!((1..=200).contains(&report.sent.text), "{flags}: {:?}", report.sent);
        assert_eq!(report.received.text, report.sent.text, "{flags}");
        assert_eq!((report.ping_all.unwrap().answered, report.received.close), (20, 20), "{flags}");
        let unsent = report.errors.remove("messages_not_sent").unwrap_or_default();
        assert_eq!(unsent, 200 - report.sent.text, "{flags}");
        assert!(report.errors.is_empty(), "{flags}: {:?}", report.errors);
    }
    let ended =
        run(&url, &format!("--connections 3 --duration 0 --tls-ca {}", certificates.path("other.pem")));
    assert_eq!(ended.status.code(), Some(69));
    assert!(ended.stdout.contains("\"errors\":{\"tls\":3}"), "{}", ended.stdout);
}

#[test]
fn trust_is_asked_for_and_not_given_beyond_this_host() {
    for (url, flags, code, why) in [
        ("wss://127.0.0.1:9/", "", 64, "needs --tls-ca or --tls-insecure"),
        ("wss://192.0.2.1:9/", " --allow-remote --tls-insecure", 64, "on loopback"),
        ("wss://127.0.0.1:9/", " --tls-ca /dev/null", 69, "no certificates"),
    ] {
        run(url, &format!("--connections 1{flags}")).expect_failure(code, why);
    }
}

#[test]
fn http2_against_headroom_server() {
    let server = TestServer::start(&["--ping-interval", "300ms"]);
    let shape = "--connections 250 --duration 1s --message-rate 4 --message-size 16..3KiB --transport http2";
    let report = load(&server.url, &format!("{shape} --ping-all --message-all"));
    assert_eq!((report.connections.opened, report.http2_connections), (250, Some(3)));
    assert_eq!((report.connect_seconds.unwrap().count, report.handshake_seconds.unwrap().count), (3, 250));
    assert_eq!((report.sent.text, report.received.text), (1250, 1250));
    assert_eq!(report.sent.payload_bytes, report.received.payload_bytes);
    assert_eq!((report.sent.close, report.received.close), (250, 250));
    assert!(report.received.ping >= 250, "{:?}", report.received);
    assert_eq!(report.ping_all.unwrap().answered, 250);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn http2_counts_equal_an_independent_count() {
    let peer = Peer::start(true, 100);
    let shape = "--connections 40 --duration 1s --message-rate 10 --message-size 16..70KB --ping-all";
    let report = load(&peer.url, &format!("{shape} --transport http2 --streams-per-connection 20"));
    let seen = peer.seen();
    assert_eq!((report.connections.opened, seen.accepted), (40, 40));
    assert_eq!((report.sent.text, report.sent.payload_bytes), (400, seen.sizes.iter().sum::<usize>() as u64));
    assert_eq!((seen.sizes.len(), seen.pings, seen.closes), (400, 40, 40));
    assert_eq!(report.received, { server::load::report::Traffic { ping: 0, pong: 40, ..report.sent } });
    assert_eq!((seen.ends, seen.resets), (40, 0));
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn http2_streams_are_reset_churned_and_stormed() {
    let peer = Peer::start(true, 100);
    let shape = "--connections 60 --duration 1s --churn 40 --abort 0.5 --storm";
    let report = load(&peer.url, &format!("{shape} --transport http2 --streams-per-connection 20"));
    let (seen, connections) = (peer.seen(), report.connections);
    assert_eq!((connections.failed, connections.opened), (0, 120 + connections.recycled));
    assert!((30..=41).contains(&connections.recycled), "{connections:?}");
    let storm = report.storm.unwrap();
    assert_eq!((storm.dropped, storm.returned, report.http2_connections), (60, 60, Some(6)));
    assert_eq!((seen.accepted, seen.closes), (connections.opened, report.sent.close));
    assert_eq!(seen.accepted, connections.aborted + report.sent.close);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn http2_without_extended_connect_or_with_too_few_streams_is_refused() {
    for (extended, streams, kind) in [(false, 100, "no_extended_connect"), (true, 5, "too_many_streams")] {
        let peer = Peer::start(extended, streams);
        let ended = run(&peer.url, "--connections 20 --duration 0 --transport http2");
        assert_eq!(ended.status.code(), Some(69));
        assert!(ended.stdout.contains("\"refused\":20"), "{}", ended.stdout);
        assert!(ended.stdout.contains(&format!("\"{kind}\":20")), "{}", ended.stdout);
        assert_eq!(peer.seen().accepted, 0);
    }
}

#[test]
fn an_http2_connection_that_dies_takes_its_streams_along() {
    let server = TestServer::start(&[]);
    let arguments = ["--url", &server.url, "--connections", "30", "--transport", "http2", "--duration", "0"];
    let arguments = [&arguments[..], &["--linger", "1h", "--announce", "--json"]].concat();
    let load = Process::start(LOAD, &arguments);
    load.error_line();
    server.process.signal(Signal::KILL);
    thread::sleep(Duration::from_millis(500));
    load.signal(Signal::INT);
    let report = load.end().report();
    assert_eq!((report.connections.opened, report.connections.closed_by_peer), (30, 30));
    assert_eq!(report.errors.values().sum::<u64>(), 30, "{:?}", report.errors);
}

#[test]
fn compression_is_offered_and_shrinks_what_can_be_shrunk() {
    let server = TestServer::start(&["--deflate-takeover", "both"]);
    let without = TestServer::start(&["--deflate", "off"]);
    let shape = "--connections 10 --duration 500ms --message-rate 20 --message-size 2KiB --ping-all";
    let bytes = |url: &str, flags: &str| {
        let report = load(url, &format!("{shape} {flags}"));
        assert_eq!((report.sent.text, report.received.text), (100, 100), "{flags}");
        assert_eq!(report.echo_seconds.unwrap().count, 100, "{flags}");
        assert!(report.errors.is_empty(), "{flags}: {:?}", report.errors);
        (report.sent.payload_bytes, report.received.payload_bytes)
    };
    const PLAIN: u64 = 100 * 2048;
    assert_eq!(bytes(&server.url, "--payload text"), (PLAIN, PLAIN));
    assert_eq!(bytes(&without.url, "--payload text --deflate"), (PLAIN, PLAIN));
    let (zeros, _) = bytes(&server.url, "--payload zeros --deflate");
    let (text, text_back) = bytes(&server.url, "--payload text --deflate");
    let (alone, _) = bytes(&server.url, "--payload text --deflate --deflate-client-no-takeover");
    let (random, _) = bytes(&server.url, "--payload random --deflate");
    assert!(zeros < PLAIN / 20 && alone < PLAIN / 5 && text_back < PLAIN / 5, "{zeros} {alone} {text_back}");
    assert!(
        zeros < text && text < alone && alone < random && random < PLAIN,
        "{zeros} {text} {alone} {random}"
    );
    let (http2, _) = bytes(&server.url, "--payload text --deflate --transport http2");
    assert!(http2 < PLAIN / 5, "{http2}");
    let (window, _) = bytes(&server.url, "--payload text --deflate --deflate-client-window-bits 9");
    assert!(window < PLAIN / 5, "{window}");
}

/// An HTTP/2 server that echoes on streams opened by an extended CONNECT.
struct Peer {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Peer {
    fn start(extended: bool, streams: u32) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("ws://{}/path?query", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    tokio::spawn(connection(tcp, extended, streams, shared.clone()));
                }
            });
        });
        Self { url, seen }
    }

    /// What it saw; what is still under way is given a moment.
    fn seen(&self) -> Seen {
        thread::sleep(Duration::from_millis(200));
        self.seen.lock().unwrap().clone()
    }
}

async fn connection(tcp: TcpStream, extended: bool, streams: u32, seen: Arc<Mutex<Seen>>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    if extended {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let protocol = request.extensions().get::<h2::ext::Protocol>().expect("an extended CONNECT");
        assert_eq!(
            (protocol.as_str(), request.uri().path_and_query().unwrap().as_str()),
            ("websocket", "/path?query")
        );
        assert_eq!(request.headers()["sec-websocket-version"], "13");
        seen.lock().unwrap().accepted += 1;
        let response = http::Response::new(());
        let send = respond.send_response(response, false).unwrap();
        tokio::spawn(stream(request.into_body(), send, seen.clone()));
    }
}

async fn stream(mut recv: RecvStream, mut send: SendStream<Bytes>, seen: Arc<Mutex<Seen>>) {
    let mut bytes = Vec::new();
    while let Some(data) = recv.data().await {
        let Ok(data) = data else {
            seen.lock().unwrap().resets += 1;
            return;
        };
        let _ = recv.flow_control().release_capacity(data.len());
        bytes.extend(&data);
        while let Some((opcode, payload, size)) = frame(&bytes) {
            bytes.drain(..size);
            let mut out = Vec::new();
            let mut seen = seen.lock().unwrap();
            match opcode {
                OpCode::Data(Data::Text) => {
                    seen.sizes.push(payload.len());
                    reply(&mut out, opcode, &payload);
                }
                OpCode::Control(Control::Ping) => {
                    seen.pings += 1;
                    reply(&mut out, OpCode::Control(Control::Pong), &payload);
                }
                OpCode::Control(Control::Close) => {
                    seen.closes += 1;
                    reply(&mut out, opcode, &payload);
                }
                other => panic!("{other:?}"),
            }
            let closed = opcode == OpCode::Control(Control::Close);
            // h2 keeps what the window does not take yet.
            let _ = send.send_data(out.into(), closed);
        }
    }
    seen.lock().unwrap().ends += 1;
}
