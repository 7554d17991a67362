//! The result of a run: one JSON object for programs, a table for people. Both come from [`Report`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Name and version of the JSON object.
pub const SCHEMA: &str = "headroom-load/1";

/// What a run did and saw, from the client's point of view, all connections together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The URL loaded.
    pub url: String,
    /// What became of the connections.
    pub connections: Connections,
    /// Seconds from the moment all connections were open (or had failed) until sending ended. Linger is not in it.
    pub duration_seconds: f64,
    /// Frames the kernel took from us.
    pub sent: Traffic,
    /// Frames read from the peer.
    pub received: Traffic,
    /// Time for TCP and upgrade together.
    pub connect_seconds: Option<Percentiles>,
    /// Why `connect_seconds` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_seconds_reason: Option<String>,
    /// Round trip of an echoed message, from the moment it was due.
    pub echo_seconds: Option<Percentiles>,
    /// Why `echo_seconds` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo_seconds_reason: Option<String>,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
}

/// Connections by outcome. Unless a signal cut the run short, `requested = opened + failed + refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Asked for.
    pub requested: u64,
    /// Upgraded.
    pub opened: u64,
    /// Neither upgraded nor refused: timeouts, resets, no free port or descriptor.
    pub failed: u64,
    /// Refused: by TCP, or by an HTTP status other than 101.
    pub refused: u64,
    /// Opened, then ended by the peer before we closed them.
    pub closed_by_peer: u64,
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
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
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
    pub(super) fn new(url: String, connections: Connections, duration: Duration) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            url,
            connections,
            duration_seconds: duration.as_secs_f64(),
            sent: Traffic::default(),
            received: Traffic::default(),
            connect_seconds: None,
            connect_seconds_reason: None,
            echo_seconds: None,
            echo_seconds_reason: None,
            errors: BTreeMap::new(),
        }
    }

    pub(super) fn connect(&mut self, times: &Histogram<u64>) {
        self.connect_seconds = Percentiles::of(times);
        self.connect_seconds_reason =
            self.connect_seconds.is_none().then(|| "no connection was opened".to_owned());
    }

    pub(super) fn echo(&mut self, times: &Histogram<u64>, missing: &str) {
        self.echo_seconds = Percentiles::of(times);
        self.echo_seconds_reason = self.echo_seconds.is_none().then(|| missing.to_owned());
    }
}

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connections { requested, opened, failed, refused, closed_by_peer } = self.connections;
        writeln!(f, "{} for {:.1} s", self.url, self.duration_seconds)?;
        writeln!(f)?;
        writeln!(f, "connections  {opened} of {requested} opened, {failed} failed, {refused} refused")?;
        writeln!(f, "             {closed_by_peer} closed by the peer")?;
        writeln!(f)?;
        writeln!(f, "frames       {:>12} {:>12}", "sent", "received")?;
        let (sent, received) = (&self.sent, &self.received);
        for (name, sent, received) in [
            ("all", sent.frames, received.frames),
            ("text", sent.text, received.text),
            ("binary", sent.binary, received.binary),
            ("continuation", sent.continuation, received.continuation),
            ("ping", sent.ping, received.ping),
            ("pong", sent.pong, received.pong),
            ("close", sent.close, received.close),
            ("payload B", sent.payload_bytes, received.payload_bytes),
            ("control B", sent.control_bytes, received.control_bytes),
        ] {
            writeln!(f, "{name:<12} {sent:>12} {received:>12}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "milliseconds {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        times(f, "connect", self.connect_seconds, self.connect_seconds_reason.as_deref())?;
        times(f, "echo", self.echo_seconds, self.echo_seconds_reason.as_deref())?;
        if !self.errors.is_empty() {
            writeln!(f)?;
            for (kind, count) in &self.errors {
                writeln!(f, "error        {kind}: {count}")?;
            }
        }
        Ok(())
    }
}

fn times(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    times: Option<Percentiles>,
    reason: Option<&str>,
) -> fmt::Result {
    let Some(t) = times else {
        return writeln!(f, "{name:<12} {}", reason.unwrap_or("not measured"));
    };
    write!(f, "{name:<12} {:>9}", t.count)?;
    for seconds in [t.p50, t.p90, t.p99, t.p999, t.max] {
        write!(f, " {:>9.3}", seconds * 1e3)?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_is_null_with_a_reason() {
        let connections = Connections { requested: 1, opened: 0, failed: 1, refused: 0, closed_by_peer: 0 };
        let mut report = Report::new("ws://x/".into(), connections, Duration::from_secs(1));
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
