//! Kernel records to documents.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_ebpf::abi::{self, Counters, Opened};
use agent_ebpf::handshake;
use jiff::{SignedDuration, Timestamp};

use super::SlabCost;
use super::traffic::{ping, traffic};
use super::zlib;
use crate::document::{Connection, Deflate, Evidence, Memory, Parse, Ping, Role, Stalls, Transport, Upgrade};
use crate::kernel::{CandidateSocket, Socket};

/// Relates the kernel's monotonic clock to wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Wall time.
    pub wall: Timestamp,
    /// `CLOCK_MONOTONIC` at the same moment, in nanoseconds.
    pub monotonic_ns: u64,
}

impl Clock {
    /// Wall time of a kernel timestamp.
    fn timestamp(&self, monotonic_ns: u64) -> Timestamp {
        let age = self.monotonic_ns as i64 - monotonic_ns as i64;
        self.wall.checked_sub(SignedDuration::from_nanos(age)).unwrap_or(self.wall)
    }
}

/// A tracked socket as a document.
pub fn connection(
    socket: &Socket,
    clock: &Clock,
    slab: Option<SlabCost>,
    upgrade: Option<Upgrade>,
) -> Connection {
    let (header, connection) = (&socket.header, &socket.connection);
    let (received, sent) = (&connection.received, &connection.sent);
    let unseen = unseen_bytes(socket);
    let mut parse = parse(received).max(parse(sent));
    if unseen > 0 && parse < Parse::Unsynced {
        parse = Parse::Unsynced;
    }
    let visible = parse != Parse::Encrypted;
    let mut from_peer = traffic(&received.counters, visible);
    from_peer.stream_bytes += unseen;
    let waiting = received.stalled_since_ns;
    let waits_ns = if waiting == 0 { 0 } else { clock.monotonic_ns.saturating_sub(waiting) };
    Connection {
        id: connection.cookie.to_string(),
        local: address(&header.endpoints, true).to_string(),
        remote: address(&header.endpoints, false).to_string(),
        role: role(connection.role),
        transport: Transport::Http1,
        pid: (connection.pid != 0).then_some(connection.pid),
        fd: u32::try_from(connection.fd).ok(),
        netns: header.endpoints.netns,
        opened: (connection.opened_ns != 0).then(|| clock.timestamp(connection.opened_ns)),
        parse,
        evidence: Some(evidence(parse, connection.opened_ns == 0)),
        unparsed_bytes: received.counters.unparsed_bytes + sent.counters.unparsed_bytes + unseen,
        received: Some(from_peer),
        sent: Some(traffic(&sent.counters, visible)),
        ping: if visible { ping(connection, parse == Parse::Unsynced) } else { Ping::default() },
        memory: memory(header, slab),
        deflate: deflate(handshake::Deflate(connection.deflate)),
        upgrade,
        stalls: Some(Stalls {
            retransmitted_segments: Some(u64::from(header.retransmitted)),
            count: u64::from(received.stalls),
            seconds: (received.stalled_ns + waits_ns) as f64 / 1e9,
        }),
        close_code: [sent.close_code, received.close_code].into_iter().find(|code| *code != 0),
    }
}

/// A connection that is not judged yet, and presumed to be a WebSocket as this end. Nothing is known of its frames.
pub fn presumed_connection(candidate: &CandidateSocket, end: Role, slab: Option<SlabCost>) -> Connection {
    let CandidateSocket { header, unjudged } = candidate;
    let held = unjudged.pid != 0;
    Connection {
        id: unjudged.cookie.to_string(),
        local: address(&header.endpoints, true).to_string(),
        remote: address(&header.endpoints, false).to_string(),
        role: end,
        transport: Transport::Http1,
        pid: held.then_some(unjudged.pid),
        fd: u32::try_from(unjudged.fd).ok().filter(|_| held),
        netns: header.endpoints.netns,
        opened: None,
        parse: Parse::Unsynced,
        evidence: Some(Evidence::Presumed),
        unparsed_bytes: unjudged.unparsed_bytes,
        received: None,
        sent: None,
        ping: Ping::default(),
        memory: memory(header, slab),
        deflate: None,
        upgrade: None,
        stalls: None,
        close_code: None,
    }
}

fn evidence(parse: Parse, older: bool) -> Evidence {
    match parse {
        Parse::Encrypted => Evidence::Tls,
        _ if older => Evidence::Frames,
        _ => Evidence::Handshake,
    }
}

/// Bytes that TCP has from the peer and the packet programs never saw. A FIN takes a sequence number of its own, so one is
/// none. What is seen is seen before TCP has it: otherwise the two agree, or TCP is behind.
fn unseen_bytes(socket: &Socket) -> u64 {
    let behind = socket.header.rcv_nxt.wrapping_sub(socket.connection.received.next_seq) as i32;
    u64::try_from(behind).unwrap_or(0).saturating_sub(1)
}

/// How far a direction can be trusted. One that was silent since the agent came has nothing to be mistrusted.
fn parse(direction: &abi::Direction) -> Parse {
    let counters = &direction.counters;
    match abi::Parse::from_u8(direction.parse) {
        abi::Parse::Exact => Parse::Exact,
        abi::Parse::Unsynced if counters.unparsed_bytes > 0 || counters.header_bytes > 0 => Parse::Unsynced,
        abi::Parse::Adopted | abi::Parse::Unsynced => Parse::Adopted,
        abi::Parse::Encrypted => Parse::Encrypted,
    }
}

/// A connection that is tracked from now on: no sweep has visited its socket yet.
pub fn opened(opened: &Opened, clock: &Clock, upgrade: Option<Upgrade>) -> Connection {
    let parse = match abi::Parse::from_u8(opened.parse as u8) {
        abi::Parse::Exact => Parse::Exact,
        abi::Parse::Encrypted => Parse::Encrypted,
        abi::Parse::Adopted | abi::Parse::Unsynced => Parse::Adopted,
    };
    let nothing = traffic(&Counters::default(), parse != Parse::Encrypted);
    Connection {
        id: opened.cookie.to_string(),
        local: address(&opened.endpoints, true).to_string(),
        remote: address(&opened.endpoints, false).to_string(),
        role: role(opened.role),
        transport: Transport::Http1,
        pid: None,
        fd: None,
        netns: opened.endpoints.netns,
        opened: (opened.older == 0).then(|| clock.timestamp(opened.time_ns)),
        parse,
        evidence: Some(evidence(parse, opened.older != 0)),
        unparsed_bytes: 0,
        received: Some(nothing),
        sent: Some(nothing),
        ping: Ping::default(),
        memory: Memory::default(),
        deflate: deflate(handshake::Deflate(opened.deflate)),
        upgrade,
        stalls: None,
        close_code: None,
    }
}

pub(crate) fn role(number: u16) -> Role {
    match abi::Role::from_u16(number) {
        Some(abi::Role::Client) => Role::Client,
        _ => Role::Server,
    }
}

/// What the socket's memory sums up to without counting a byte twice: `sk_wmem_alloc` holds clones of what
/// `sk_wmem_queued` counts.
pub(crate) fn buffer_bytes(memory: &abi::SocketMemory) -> u64 {
    [memory.rmem_alloc, memory.wmem_queued, memory.forward_alloc, memory.backlog].into_iter().map(bytes).sum()
}

fn memory(header: &abi::SocketHeader, slab: Option<SlabCost>) -> Memory {
    let memory = &header.memory;
    let fixed = slab.map(|slab| slab.of(header.endpoints.family));
    Memory {
        kernel_bytes: fixed.map(|fixed| fixed + buffer_bytes(memory) + bytes(memory.omem_alloc)),
        receive_bytes: Some(bytes(memory.rmem_alloc)),
        send_bytes: Some(bytes(memory.wmem_queued)),
        forward_alloc_bytes: Some(bytes(memory.forward_alloc)),
        fixed_bytes: fixed,
        transmit_bytes: Some(bytes(memory.wmem_alloc)),
        option_bytes: Some(bytes(memory.omem_alloc)),
        backlog_bytes: Some(bytes(memory.backlog)),
        receive_limit_bytes: Some(bytes(memory.rcvbuf)),
        send_limit_bytes: Some(bytes(memory.sndbuf)),
        receive_queue_bytes: Some(u64::from(memory.receive_queue)),
        send_queue_bytes: Some(u64::from(memory.send_queue)),
    }
}

/// The kernel's counters are signed and may dip below zero for a moment.
fn bytes(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn deflate(negotiated: handshake::Deflate) -> Option<Deflate> {
    negotiated.negotiated().then(|| Deflate {
        server_max_window_bits: negotiated.server_max_window_bits(),
        client_max_window_bits: negotiated.client_max_window_bits(),
        server_no_context_takeover: negotiated.server_no_context_takeover(),
        client_no_context_takeover: negotiated.client_no_context_takeover(),
        estimated_bytes: estimated_bytes(negotiated),
    })
}

/// By zlib's own formulas, at its default memLevel, which is not negotiated. A side that forgets its window between messages
/// can share one state among its connections, so it is not counted here.
pub(crate) fn estimated_bytes(negotiated: handshake::Deflate) -> u64 {
    if !negotiated.negotiated() {
        return 0;
    }
    let compressor = zlib::deflate_bytes(negotiated.server_max_window_bits(), zlib::DEFAULT_MEM_LEVEL);
    let decompressor = zlib::inflate_bytes(negotiated.client_max_window_bits());
    let kept = |forgets: bool, bytes: u64| if forgets { 0 } else { bytes };
    kept(negotiated.server_no_context_takeover(), compressor)
        + kept(negotiated.client_no_context_takeover(), decompressor)
}

/// Of one end.
pub(crate) fn address(endpoints: &abi::Endpoints, local: bool) -> SocketAddr {
    let (bytes, port) = if local {
        (endpoints.local, endpoints.local_port)
    } else {
        (endpoints.remote, endpoints.remote_port)
    };
    SocketAddr::new(ip(endpoints.family, bytes), port)
}

fn ip(family: u16, bytes: [u8; 16]) -> IpAddr {
    const AF_INET: u16 = 2;
    if family == AF_INET {
        IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
    }
}

impl SlabCost {
    /// Bytes of a connection of this address family.
    pub(crate) fn of(&self, family: u16) -> u64 {
        const AF_INET6: u16 = 10;
        if family == AF_INET6 { self.ipv6 } else { self.ipv4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let mut endpoints = abi::Endpoints { family: 2, local_port: 80, ..abi::Endpoints::default() };
        endpoints.local[..4].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(address(&endpoints, true).to_string(), "127.0.0.1:80");
        endpoints.family = 10;
        endpoints.local = "::ffff:192.0.2.1".parse::<Ipv6Addr>().expect("address").octets();
        assert_eq!(address(&endpoints, true).to_string(), "192.0.2.1:80", "v4-mapped reads as IPv4");
        endpoints.local = "2001:db8::1".parse::<Ipv6Addr>().expect("address").octets();
        assert_eq!(address(&endpoints, true).to_string(), "[2001:db8::1]:80");
    }

    #[test]
    fn compression_is_estimated_by_zlibs_formula() {
        // Negotiated, nothing limited: 2^17 + 2^17 to deflate, 2^15 + 7 KiB to inflate.
        assert_eq!(estimated_bytes(handshake::Deflate(1 << 15)), 262_144 + 32_768 + 7_168);
        assert_eq!(estimated_bytes(handshake::Deflate(0)), 0);
        assert_eq!(estimated_bytes(handshake::Deflate(0b111 << 13)), 0, "no side keeps a window");
    }
}
