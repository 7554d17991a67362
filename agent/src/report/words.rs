//! Words: enumerations as the documents spell them, counts as people say them.

use super::format::count;
use crate::document::{Level, Listener, Parse, Part, Pinger, Role, Transport};

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

/// How many connections are open; where both of their ends are on this host, or it is a proxy, how many as which end.
pub fn open_connections(open: u64, listeners: &[Listener]) -> String {
    let as_end = |role: Role| -> u64 {
        listeners.iter().filter(|listener| listener.role == role).map(|listener| listener.connections).sum()
    };
    let (server, client) = (as_end(Role::Server), as_end(Role::Client));
    if server > 0 && client > 0 {
        format!("{} connections ({} as server, {} as client)", count(open), count(server), count(client))
    } else {
        format!("{} connections", count(open))
    }
}
