//! The model on numbers given by hand, with no host at all.
//!
//! | ceiling | what N connections take | limit |
//! |---|---|---|
//! | memory | N × (kernel / K + own + compression) | `--memory` |
//! | descriptors | N / K | `--fd-limit` |
//! | bandwidth | N × 8 × wire bytes of the busier direction a second | `--nic-speed` |
//! | packets | N × packets of the busier direction a second | `--packet-rate` |
//!
//! K is 1 for HTTP/1.1 (RFC 6455), and for HTTP/2 (RFC 8441) the WebSockets that share a TCP connection. Of these, kernel memory
//! and descriptors belong to the TCP connection, the rest to each WebSocket. Wire bytes are those of [`wire`](super::wire),
//! compression those of [`zlib`](super::zlib). All costs are linear, so which ceiling is hit first does not depend on N; whether it
//! is hit does.
//!
//! Kernel memory is [`KERNEL_BYTES`] unless told otherwise: what Linux 6.18 takes for an accepted, idle, watched socket
//! (/proc/slabinfo: TCP 2,368 + sock_inode_cache 832 + filp 192 + dentry 192 + epitem 128 + pwq 64 + LSM 56 + ep_head 16, together
//! about 3,850) and 8 of the descriptor table. Idle sockets hold no buffers. Buffers of busy ones, handshake state of TLS and what the
//! server keeps for an HTTP/2 connection itself are not priced: they belong into the bytes per connection that are given.

mod ceiling;
mod handshakes;
mod memory;
mod traffic;

use std::num::NonZeroU64;
use std::time::Duration;

use thiserror::Error;

use super::wire::Path;
use crate::document::{Plan, SCHEMA};

/// Kernel memory of an idle TCP connection in bytes.
pub const KERNEL_BYTES: u64 = 3_850 + 8;

/// What is planned. What is `None` was not given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Question {
    /// WebSocket connections.
    pub connections: Option<NonZeroU64>,
    /// Memory that connections may take, in bytes.
    pub memory: Option<NonZeroU64>,
    /// What the server itself keeps for a connection, in bytes, compression left out.
    pub bytes_per_connection: Option<NonZeroU64>,
    /// Kernel memory of a TCP connection in bytes; [`KERNEL_BYTES`] if not given.
    pub kernel_bytes_per_connection: Option<u64>,
    /// Compression, if connections negotiate it.
    pub compression: Option<Compression>,
    /// Pings, if the server sends them.
    pub pings: Option<Pings>,
    /// Messages, if the server sends them.
    pub messages: Option<Messages>,
    /// WebSockets on an HTTP/2 connection; HTTP/1.1 if not given.
    pub streams_per_connection: Option<NonZeroU64>,
    /// Bits a second of the interface, each direction.
    pub nic_speed: Option<NonZeroU64>,
    /// Packets a second that the interface can carry, each direction.
    pub packet_rate: Option<NonZeroU64>,
    /// Descriptors that the server may open.
    pub fd_limit: Option<NonZeroU64>,
    /// Round trip time between server and clients.
    pub rtt: Option<Duration>,
    /// How long all clients together take to come back after they lost their connections.
    pub reconnect_within: Option<Duration>,
    /// TLS 1.3.
    pub tls: bool,
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
}

/// Compression, the same parameters both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// Base-two logarithm of the window.
    pub window_bits: u8,
    /// Size of the compressor's hash table.
    pub mem_level: u8,
    /// Neither side keeps its window between messages.
    pub no_context_takeover: bool,
}

/// Pings of the server to each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// Time between two of them; more than nothing.
    pub interval: Duration,
    /// Their payload in bytes, 125 at most.
    pub payload: u64,
}

/// Messages of the server to each connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Messages {
    /// How many a second; more than nothing.
    pub per_second: f64,
    /// Their payload in bytes.
    pub payload: u64,
}

/// Why a plan cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{connections} connections would take more {what} than can be counted")]
pub struct PlanError {
    connections: u64,
    what: &'static str,
}

/// Answers the question.
pub fn plan(question: &Question) -> Result<Plan, PlanError> {
    let ceilings = ceiling::ordered(vec![
        memory::ceiling(question)?,
        ceiling::descriptors(question)?,
        traffic::bandwidth(question)?,
        traffic::packets(question)?,
    ]);
    Ok(Plan {
        schema: SCHEMA.into(),
        connections: question.planned(),
        ceilings,
        memory_per_connection: question
            .memory
            .zip(question.connections)
            .map(|(memory, connections)| memory.get() as f64 / connections.get() as f64),
        compression: question.compression.map(memory::compression),
        keepalive: traffic::keepalive(question),
        application: traffic::application(question),
        handshakes: handshakes::all(question),
    })
}

impl Question {
    fn planned(&self) -> u64 {
        self.connections.map_or(0, NonZeroU64::get)
    }

    /// WebSockets that share a TCP connection.
    fn streams(&self) -> NonZeroU64 {
        self.streams_per_connection.unwrap_or(NonZeroU64::MIN)
    }

    /// TCP connections.
    fn tcp_connections(&self) -> u64 {
        self.planned().div_ceil(self.streams().get())
    }

    fn path(&self) -> Path {
        Path { ipv6: self.ipv6, tls: self.tls, http2: self.streams_per_connection.is_some() }
    }
}

#[cfg(test)]
mod tests;
