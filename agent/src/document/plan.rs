//! Ceilings for numbers given by hand.

use serde::{Deserialize, Serialize};

use super::Ceiling;

/// What a number of connections takes of limits that were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: String,
    /// WebSocket connections that are planned; 0 where the question is only how many fit.
    pub connections: u64,
    /// The ceilings, the first to be hit first, those whose limit or cost was not given last. Their scope is `plan`.
    pub ceilings: Vec<Ceiling>,
    /// The memory there is, divided by the connections, in bytes; null where either was not given.
    pub memory_per_connection: Option<f64>,
    /// Compression, if planned.
    pub compression: Option<PlannedCompression>,
    /// Pings, if planned.
    pub keepalive: Option<PlannedTraffic>,
    /// Messages, if planned.
    pub application: Option<PlannedTraffic>,
    /// What it takes to open all connections, or to open them again.
    pub handshakes: PlannedHandshakes,
}

/// Compression contexts of one connection, in bytes (zlib's formulas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCompression {
    /// The compressor.
    pub deflate_bytes: u64,
    /// The decompressor.
    pub inflate_bytes: u64,
    /// Whether all connections of a thread share them (no context takeover), so that none costs a connection anything.
    pub shared: bool,
}

/// What all planned connections together carry of something.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlannedTraffic {
    /// Pings, or messages, a second.
    pub per_second: f64,
    /// Their payload alone, in bytes a second: no headers, pongs or acknowledgements.
    pub payload_bytes_per_second: f64,
    /// From the server, bits a second on the wire.
    pub sent_bits_per_second: f64,
    /// From the clients, likewise.
    pub received_bits_per_second: f64,
    /// From the server.
    pub sent_packets_per_second: f64,
    /// From the clients.
    pub received_packets_per_second: f64,
}

/// What it takes to open all planned connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlannedHandshakes {
    /// TCP handshakes, one for each TCP connection.
    pub tcp: u64,
    /// TLS handshakes; 0 without TLS.
    pub tls: u64,
    /// Upgrades (HTTP/1.1) or extended CONNECTs (HTTP/2), one for each WebSocket.
    pub upgrades: u64,
    /// Descriptors of the server.
    pub descriptors: u64,
    /// Round trips until a client has the first message.
    pub round_trips: u32,
    /// The time they take; null where no round trip time was given.
    pub first_message_seconds: Option<f64>,
    /// TCP handshakes a second if all connections are opened again within the time given; null where none was.
    pub tcp_per_second: Option<f64>,
}
