//! What it takes to open every connection, as after a restart of the server.
//!
//! Round trips until a client has its first message: TCP 1; TLS 1.3 without resumption 1 (RFC 8446 section 2); HTTP/2, whose client
//! must see the server's SETTINGS before it may ask for a WebSocket (RFC 8441 section 3), 1; and the upgrade or the
//! extended CONNECT 1, whose answer the first message can follow at once.

use super::Question;
use crate::document::PlannedHandshakes;

pub(super) fn all(question: &Question) -> PlannedHandshakes {
    let tcp = question.tcp_connections();
    let settings = question.streams_per_connection.is_some();
    let round_trips = 2 + u32::from(question.tls) + u32::from(settings);
    PlannedHandshakes {
        tcp,
        tls: if question.tls { tcp } else { 0 },
        upgrades: question.planned(),
        descriptors: tcp,
        round_trips,
        first_message_seconds: question.rtt.map(|rtt| rtt.as_secs_f64() * f64::from(round_trips)),
        tcp_per_second: question.reconnect_within.map(|time| tcp as f64 / time.as_secs_f64()),
    }
}
