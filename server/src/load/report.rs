//! The result of a run: one JSON object for programs, a table for people. Both come from [`Report`].

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

mod table;

/// Name and version of the JSON object.
pub const SCHEMA: &str = "headroom-load/2";

/// What a run did and saw, from the client's point of view, all connections together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The URLs loaded.
    pub urls: Vec<String>,
    /// What became of the connections.
    pub connections: Connections,
    /// HTTP/2 connections opened below them; null over HTTP/1.1, where each has its own.
    pub http2_connections: Option<u64>,
    /// Seconds from the moment all connections were open (or had failed) until sending ended. Linger is not in it.
    pub duration_seconds: f64,
    /// Frames the kernel took from us.
    pub sent: Traffic,
    /// Frames read from the peer.
    pub received: Traffic,
    /// Time to make a TCP connection, and TLS over it where the URL says so.
    pub connect_seconds: Option<Percentiles>,
    /// Why `connect_seconds` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_seconds_reason: Option<String>,
    /// Time from the request for a WebSocket to its acceptance.
    pub handshake_seconds: Option<Percentiles>,
    /// Why `handshake_seconds` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_seconds_reason: Option<String>,
    /// Round trip of an echoed message, from the moment it was due.
    pub echo_seconds: Option<Percentiles>,
    /// Why `echo_seconds` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo_seconds_reason: Option<String>,
    /// Echoes that came within `duration_seconds`, by them; null when none came.
    pub echoes_per_second: Option<f64>,
    /// What `--storm` found; null when it was not asked for.
    pub storm: Option<Storm>,
    /// What `--ping-all` found; null when it was not asked for.
    pub ping_all: Option<Probe>,
    /// What `--message-all` found; null when it was not asked for.
    pub message_all: Option<Probe>,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
}

/// Connections by outcome. Unless a signal cut the run short, `requested = opened + failed + refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Asked for, those to come back included.
    pub requested: u64,
    /// Upgraded.
    pub opened: u64,
    /// Neither upgraded nor refused: timeouts, resets, no free port or descriptor.
    pub failed: u64,
    /// Refused: by TCP, or by an HTTP status other than 101.
    pub refused: u64,
    /// Opened, then ended by the peer before we closed them.
    pub closed_by_peer: u64,
    /// Opened, then ended by us with a TCP reset or RST_STREAM.
    pub aborted: u64,
    /// Ended by us to be opened again: the churn's, not the storm's.
    pub recycled: u64,
}

/// All connections dropped at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Open before.
    pub dropped: u64,
    /// Open again afterwards.
    pub returned: u64,
    /// From the drop until each had come back or failed; null when none came back.
    pub seconds: Option<f64>,
    /// From the drop, which is when each was due, until it was open again.
    pub return_seconds: Option<Percentiles>,
}

/// One ping or message on every open connection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Connections asked.
    pub asked: u64,
    /// Connections that answered.
    pub answered: u64,
    /// From the first question to the last answer; null when there was none.
    pub seconds: Option<f64>,
    /// From each question to its answer.
    pub round_trip_seconds: Option<Percentiles>,
}

/// One direction's frames and bytes. Headers are in no byte count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// All frames.
    pub frames: u64,
    /// Text frames, opcode 0x1.
    pub text: u64,
    /// Binary frames, opcode 0x2.
    pub binary: u64,
    /// Continuation frames, opcode 0x0.
    pub continuation: u64,
    /// Ping frames, opcode 0x9.
    pub ping: u64,
    /// Pong frames, opcode 0xA.
    pub pong: u64,
    /// Close frames, opcode 0x8.
    pub close: u64,
    /// Payload of data frames, in bytes.
    pub payload_bytes: u64,
    /// Payload of control frames, in bytes; of a Close the two bytes of its code and the reason.
    pub control_bytes: u64,
}

/// A distribution of times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Measurements.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl Percentiles {
    /// From a histogram of nanoseconds; `None` when it is empty.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let at = |quantile| seconds(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: seconds(histogram.max()),
        })
    }
}

impl Report {
    pub(super) fn new(urls: Vec<String>, connections: Connections, duration: Duration) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            urls,
            connections,
            http2_connections: None,
            duration_seconds: duration.as_secs_f64(),
            sent: Traffic::default(),
            received: Traffic::default(),
            connect_seconds: None,
            connect_seconds_reason: None,
            handshake_seconds: None,
            handshake_seconds_reason: None,
            echo_seconds: None,
            echo_seconds_reason: None,
            echoes_per_second: None,
            storm: None,
            ping_all: None,
            message_all: None,
            errors: BTreeMap::new(),
        }
    }

    pub(super) fn connect(&mut self, times: &Histogram<u64>) {
        self.connect_seconds = Percentiles::of(times);
        self.connect_seconds_reason =
            self.connect_seconds.is_none().then(|| "no connection was made".to_owned());
    }

    pub(super) fn handshake(&mut self, times: &Histogram<u64>) {
        self.handshake_seconds = Percentiles::of(times);
        self.handshake_seconds_reason =
            self.handshake_seconds.is_none().then(|| "no connection was opened".to_owned());
    }

    pub(super) fn echo(&mut self, times: &Histogram<u64>, missing: &str) {
        self.echo_seconds = Percentiles::of(times);
        self.echo_seconds_reason = self.echo_seconds.is_none().then(|| missing.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_is_null_with_a_reason() {
        let connections = Connections {
            requested: 1,
            opened: 0,
            failed: 1,
            refused: 0,
            closed_by_peer: 0,
            aborted: 0,
            recycled: 0,
        };
        let mut report = Report::new(vec!["ws://x/".into()], connections, Duration::from_secs(1));
        let mut times = Histogram::new(3).unwrap();
        report.echo(&times, "why");
        times.record(2_000_000).unwrap();
        report.connect(&times);
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert!(json["echo_seconds"].is_null());
        assert_eq!(json["echo_seconds_reason"], "why");
        assert_eq!(json["connect_seconds"]["count"], 1);
        assert!((json["connect_seconds"]["p50"].as_f64().unwrap() - 0.002).abs() < 1e-5);
        assert!(json.get("connect_seconds_reason").is_none());
        assert!(report.to_string().contains("echo         why"));
    }
}
