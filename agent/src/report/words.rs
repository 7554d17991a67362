//! The documents' enumerations in the words the documents use.

use crate::document::{Level, Parse, Role, Transport};

/// How near a ceiling is.
pub const fn level(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Near => "near",
        Level::Critical => "critical",
        Level::Unknown => "unknown",
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

/// What carries a WebSocket.
pub const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Http1 => "http1",
        Transport::Http2 => "http2",
        Transport::Http3 => "http3",
        Transport::Webtransport => "webtransport",
    }
}
