//! Words: enumerations as the documents spell them, counts as people say them.

use super::format::{UNKNOWN, count, span, span_range};
use crate::document::{
    Ceiling, Connection, Evidence, Level, Listener, Parse, Part, Pinger, Role, Transport, Trend,
};

/// How near a ceiling is.
pub const fn level(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Near => "near",
        Level::Critical => "critical",
        Level::Unknown => "unknown",
    }
}

/// What a cost is for.
pub const fn part(part: Part) -> &'static str {
    match part {
        Part::KernelFixed => "kernel objects",
        Part::KernelBuffers => "socket buffers",
        Part::Process => "the server itself",
        Part::Compression => "compression",
        Part::Keepalive => "keepalive",
        Part::Application => "messages",
    }
}

/// When a ceiling is hit, with the interval where it reads otherwise: `4 min (3–6 min)`; or why there is no such time.
pub fn full_in(ceiling: &Ceiling) -> String {
    match (ceiling.trend, ceiling.seconds_left) {
        (Trend::Growing, Some(seconds)) => {
            let text = span(seconds);
            match ceiling.seconds_left_range.map(span_range).filter(|range| *range != text) {
                Some(range) => format!("{text} ({range})"),
                None => text,
            }
        }
        (Trend::Growing, None) | (Trend::Unknown, _) => UNKNOWN.to_owned(),
        (Trend::Steady, _) => "not growing".to_owned(),
        (Trend::Recovering, _) => "recovering".to_owned(),
    }
}

/// Which end of a connection.
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Server => "server",
        Role::Client => "client",
    }
}

/// How far counts can be trusted.
pub const fn parse(parse: Parse) -> &'static str {
    match parse {
        Parse::Exact => "exact",
        Parse::Adopted => "adopted",
        Parse::Unsynced => "unsynced",
        Parse::Encrypted => "encrypted",
    }
}

/// How far a connection's counts can be trusted, or that it is only presumed to be a WebSocket.
pub fn trust(connection: &Connection) -> &'static str {
    match connection.evidence {
        Some(Evidence::Presumed) => PRESUMED,
        _ => parse(connection.parse),
    }
}

/// Stands where a connection is only presumed to be a WebSocket.
pub const PRESUMED: &str = "presumed";

/// Who pings.
pub const fn pinger(pinger: Pinger) -> &'static str {
    match pinger {
        Pinger::Server => "server",
        Pinger::Client => "client",
        Pinger::Both => "both",
    }
}

/// What carries a WebSocket.
pub const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Http1 => "http1",
        Transport::Http2 => "http2",
        Transport::Http3 => "http3",
        Transport::Webtransport => "webtransport",
    }
}

/// How many connections are open; where both of their ends are on this host, or it is a proxy, how many as which end; and how many
/// more are only presumed to be WebSockets.
pub fn open_connections(open: u64, listeners: &[Listener]) -> String {
    let as_end = |role: Role| -> u64 {
        listeners.iter().filter(|listener| listener.role == role).map(|listener| listener.connections).sum()
    };
    let (server, client) = (as_end(Role::Server), as_end(Role::Client));
    let mut text = format!("{} connections", count(open));
    if server > 0 && client > 0 {
        text.push_str(&format!(" ({} as server, {} as client)", count(server), count(client)));
    }
    let presumed: u64 = listeners.iter().map(|listener| listener.presumed).sum();
    if presumed > 0 {
        text.push_str(&format!(", {} more {PRESUMED}", count(presumed)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Kind, Range, Unit};

    #[test]
    fn a_time_left_comes_with_its_interval_and_its_absence_with_a_reason() {
        let ceiling = Ceiling {
            kind: Kind::Descriptors,
            scope: "process:7".into(),
            used: None,
            limit: None,
            unit: Unit::Descriptors,
            utilization: None,
            level: Level::Ok,
            connections: 0,
            cost_per_connection: None,
            cost_range: None,
            cost_samples: None,
            parts: Vec::new(),
            connections_left: None,
            connections_left_range: None,
            connections_max: None,
            seconds_left: Some(240.0),
            seconds_left_range: Some(Range { least: 180.0, most: Some(360.0) }),
            trend: Trend::Growing,
            first: false,
            basis: String::new(),
        };
        assert_eq!(full_in(&ceiling), "4 min (3–6 min)");
        let exact = Some(Range { least: 239.0, most: Some(241.0) });
        assert_eq!(full_in(&Ceiling { seconds_left_range: exact, ..ceiling.clone() }), "4 min");
        let with = |trend| {
            full_in(&Ceiling { trend, seconds_left: None, seconds_left_range: None, ..ceiling.clone() })
        };
        assert_eq!(
            [Trend::Unknown, Trend::Steady, Trend::Growing, Trend::Recovering].map(with),
            [UNKNOWN, "not growing", UNKNOWN, "recovering"]
        );
    }
}
