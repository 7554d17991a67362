//! The result as a table for people.

use std::fmt;

use super::{Connections, Percentiles, Probe, Report, Storm};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connections { requested, opened, failed, refused, closed_by_peer, aborted, recycled } =
            self.connections;
        writeln!(f, "{} for {:.1} s", self.urls.join(" "), self.duration_seconds)?;
        writeln!(f)?;
        writeln!(f, "connections  {opened} of {requested} opened, {failed} failed, {refused} refused")?;
        writeln!(
            f,
            "             {closed_by_peer} closed by the peer, {aborted} aborted, {recycled} recycled"
        )?;
        if let Some(count) = self.http2_connections {
            writeln!(f, "             over {count} HTTP/2 connections")?;
        }
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
        times(f, "handshake", self.handshake_seconds, self.handshake_seconds_reason.as_deref())?;
        times(f, "echo", self.echo_seconds, self.echo_seconds_reason.as_deref())?;
        self.phases(f)?;
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

impl Report {
    /// What was done besides.
    fn phases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Storm { return_seconds, .. }) = self.storm {
            times(f, "storm", return_seconds, Some("no connection came back"))?;
        }
        for (name, probe) in [("ping all", self.ping_all), ("message all", self.message_all)] {
            if let Some(Probe { round_trip_seconds, .. }) = probe {
                times(f, name, round_trip_seconds, Some("nobody answered"))?;
            }
        }
        if let Some(rate) = self.echoes_per_second {
            writeln!(f, "\nechoes       {rate:.0}/s")?;
        }
        if let Some(Storm { dropped, returned, seconds, .. }) = self.storm {
            writeln!(f, "storm        {returned} of {dropped} came back{}", within(seconds))?;
        }
        for (name, probe) in [("ping all", self.ping_all), ("message all", self.message_all)] {
            if let Some(Probe { asked, answered, seconds, .. }) = probe {
                writeln!(f, "{name:<12} {answered} of {asked} answered{}", within(seconds))?;
            }
        }
        Ok(())
    }
}

fn within(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(" within {seconds:.3} s"))
}
