//! Metrics, scraped and read by a parser that is not ours; the log as objects.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::parking::{PARKED, SOON, next};
use crate::raw::{FIN, PONG, Raw, frame};
use crate::support::{PATIENCE, Process, SERVER, TestServer, bounded};

/// Debian's Python reads OpenMetrics strictly, where `python3-prometheus-client` is installed.
const READ: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
samples = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    for sample in family.samples:
        labels = ','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()) if k != 'listener')
        samples[sample.name + ('{' + labels + '}' if labels else '')] = sample.value
json.dump(samples, sys.stdout)
";

/// Every name that is promised, without labels.
const NAMES: [&str; 24] = [
    "headroom_server_connections",
    "headroom_server_connections_accepted_total",
    "headroom_server_connections_refused_total",
    "headroom_server_draining",
    "headroom_server_handshakes_failed_total",
    "headroom_server_message_payload_bytes_total",
    "headroom_server_messages_total",
    "headroom_server_parkings_total",
    "headroom_server_ping_round_trip_seconds_bucket",
    "headroom_server_ping_round_trip_seconds_count",
    "headroom_server_ping_round_trip_seconds_sum",
    "headroom_server_ping_timeouts_total",
    "headroom_server_pings_missed_total",
    "headroom_server_pings_sent_total",
    "headroom_server_pongs_received_total",
    "headroom_server_relay_dropped_total",
    "headroom_server_rooms",
    "headroom_server_slow_consumers_closed_total",
    "headroom_server_websockets_active",
    "headroom_server_websockets_opened_total",
    "headroom_server_websockets_parked",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
];

struct Measured {
    server: TestServer,
    metrics: String,
}

impl Measured {
    fn start(arguments: &[&str]) -> Self {
        let server = TestServer::start(&[&["--metrics", "127.0.0.1:0"], arguments].concat());
        let line = server.process.line();
        let metrics =
            line.strip_prefix("metrics on http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
        Self { server, metrics }
    }

    /// The metrics as the foreign parser reads them.
    fn scrape(&self) -> BTreeMap<String, f64> {
        let (head, body) = get(&self.metrics, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", READ]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().expect("Debian's Python; `cargo xtask test` installs what is needed");
        python.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let read = python.wait_with_output().unwrap();
        assert!(read.status.success(), "the foreign parser refuses:\n{body}");
        serde_json::from_slice(&read.stdout).unwrap()
    }

    /// Scrapes until `name` is `value`.
    async fn until(&self, name: &str, value: f64) -> BTreeMap<String, f64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let samples = self.scrape();
            if samples[name] == value {
                return samples;
            }
            assert!(Instant::now() < deadline, "{name} is {}, not {value}", samples[name]);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Head and body of an answer.
fn get(address: &str, path: &str) -> (String, String) {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(tcp, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_foreign_parser_reads_every_name_and_the_counts_are_right() {
    bounded(async {
        let measured = Measured::start(&["--idle-after", SOON, "--ping-interval", "0"]);
        let before = measured.scrape();
        let mut names: Vec<&str> = before.keys().map(|key| key.split('{').next().unwrap()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, NAMES);
        assert!(before["process_resident_memory_bytes"] > 1e6 && before["process_open_fds"] > 3.0);
        let mut client = measured.server.connect("/echo").await;
        for size in [10, 1_000] {
            client.send(Message::binary(vec![0; size])).await.unwrap();
            next(&mut client).await;
        }
        let mut quiet = measured.server.connect("/sink").await;
        quiet.send(Message::text("abc")).await.unwrap();
        let _member = measured.server.connect("/broadcast/a").await;
        assert!(measured.server.try_connect("/nothing").await.is_err());
        let samples = measured.until("headroom_server_websockets_parked", 3.0).await;
        for (name, value) in [
            ("headroom_server_websockets_active", 0.0),
            ("headroom_server_websockets_opened_total", 3.0),
            ("headroom_server_connections_accepted_total", 4.0),
            ("headroom_server_handshakes_failed_total{reason=not_found}", 1.0),
            ("headroom_server_handshakes_failed_total{reason=malformed}", 0.0),
            ("headroom_server_messages_total{direction=received}", 3.0),
            ("headroom_server_message_payload_bytes_total{direction=received}", 1_013.0),
            ("headroom_server_messages_total{direction=sent}", 2.0),
            ("headroom_server_message_payload_bytes_total{direction=sent}", 1_010.0),
            ("headroom_server_rooms", 1.0),
            ("headroom_server_draining", 0.0),
        ] {
            assert_eq!(samples[name], value, "{name}");
        }
        drop((client, quiet, _member));
        for name in
            ["headroom_server_rooms", "headroom_server_websockets_parked", "headroom_server_connections"]
        {
            measured.until(name, 0.0).await;
        }
        // Where WebSockets come in, nobody reads them.
        assert!(get(measured.server.address(), "/metrics").0.starts_with("HTTP/1.1 4"));
    });
}

#[test]
fn pings_of_parked_connections_are_counted_with_their_round_trips() {
    bounded(async {
        let measured =
            Measured::start(&["--idle-after", SOON, "--ping-interval", "400ms", "--pong-timeout", "1m"]);
        let mut answering = Raw::connect(measured.server.address(), "/echo").await;
        let _silent = Raw::connect(measured.server.address(), "/echo").await;
        sleep(PARKED).await;
        for _ in 0..3 {
            answering.frame().await.unwrap();
            answering.write_all(&frame(FIN | PONG, b"")).await;
        }
        let samples = measured.until("headroom_server_pongs_received_total", 3.0).await;
        assert!(samples["headroom_server_pings_sent_total"] >= 5.0);
        assert!(samples["headroom_server_pings_missed_total"] >= 1.0);
        assert_eq!(samples["headroom_server_ping_round_trip_seconds_count"], 3.0);
        let sum = samples["headroom_server_ping_round_trip_seconds_sum"];
        assert!((0.0..1.0).contains(&sum), "{sum}");
        assert_eq!(samples["headroom_server_websockets_parked"], 2.0);
    });
}

#[test]
fn each_process_has_its_own_metrics_and_a_listener_its_own_figures() {
    bounded(async {
        let arguments =
            ["--listen", "ws://127.0.0.1:0", "--listen", "ws://127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let process = Process::start(SERVER, &[&arguments[..], &["--processes", "2"]].concat());
        let urls = [process.line(), process.line()]
            .map(|line| line.strip_prefix("listening on ").unwrap().to_owned());
        let metrics = [process.line(), process.line()].map(|line| {
            let (_, rest) = line.split_once("metrics on http://").unwrap();
            rest.strip_suffix("/metrics").unwrap().to_owned()
        });
        assert_ne!(metrics[0], metrics[1]);
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(tokio_tungstenite::connect_async(&urls[1]).await.unwrap().0);
        }
        let opened = |metrics: &str, url: &str| -> f64 {
            let (_, body) = get(metrics, "/metrics");
            let start = format!("headroom_server_websockets_opened_total{{listener=\"{url}\"}} ");
            body.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
        };
        let sum = |url: &str| metrics.iter().map(|metrics| opened(metrics, url)).sum::<f64>();
        assert_eq!((sum(&urls[0]), sum(&urls[1])), (0.0, 20.0));
    });
}

#[test]
fn the_log_is_an_object_a_line() {
    bounded(async {
        let server = TestServer::start(&["--log-format", "json", "--max-connections", "1"]);
        let mut client = server.connect("/").await;
        for _ in 0..50 {
            assert!(server.try_connect("/").await.is_err());
        }
        server.process.signal(Signal::HUP);
        sleep(Duration::from_millis(100)).await;
        server.process.signal(Signal::TERM);
        while client.next().await.is_some() {}
        let ended = server.process.end();
        let lines: Vec<Value> =
            ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (seq, line) in lines.iter().enumerate() {
            assert_eq!((&line["schema"], &line["seq"]), (&"headroom-server/1".into(), &seq.into()));
            assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
            let name = line["event"].as_str().unwrap();
            assert_ne!(name, "log", "{line}");
            assert!(line[name].is_object(), "{line}");
        }
        let find = |name: &str| lines.iter().filter(|line| line["event"] == name).collect::<Vec<_>>();
        assert_eq!(
            (find("reload").len(), find("closing")[0]["closing"]["reason"].as_str()),
            (1, Some("SIGTERM"))
        );
        // However many were refused, there is one line.
        let trouble = find("trouble");
        assert_eq!(trouble.len(), 1);
        assert_eq!(trouble[0]["trouble"]["refused_connections"], 50);
        assert_eq!(trouble[0]["severity_number"], 13);
        assert_eq!(find("closed")[0]["closed"]["refused"], 50);
    });
}

#[test]
fn who_is_slow_to_go_after_the_answer_has_not_failed() {
    bounded(async {
        let measured = Measured::start(&["--handshake-timeout", "300ms"]);
        let timeouts = "headroom_server_handshakes_failed_total{reason=timeout}";
        let mut answered = TcpStream::connect(measured.server.address()).unwrap();
        answered.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        answered.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // Its place is kept until it goes, or for a second.
        sleep(Duration::from_millis(600)).await;
        assert_eq!(measured.scrape()["headroom_server_connections"], 1.0);
        let silent = TcpStream::connect(measured.server.address()).unwrap();
        let samples = measured.until(timeouts, 1.0).await;
        assert_eq!(samples["headroom_server_handshakes_failed_total{reason=malformed}"], 0.0);
        drop((answered, silent));
        measured.until("headroom_server_connections", 0.0).await;
        assert_eq!(measured.scrape()[timeouts], 1.0);
    });
}
