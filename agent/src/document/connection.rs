//! Connections and the sums over them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which end of a connection this host's socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It accepted the WebSocket.
    Server,
    /// It opened the WebSocket.
    Client,
}

/// What carries the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A TCP connection of its own (RFC 6455).
    Http1,
    /// A stream of an HTTP/2 connection (RFC 8441).
    Http2,
    /// A stream of an HTTP/3 connection (RFC 9220).
    Http3,
    /// A WebTransport session.
    Webtransport,
}

/// How far the counts can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parse {
    /// Every byte since the handshake was parsed.
    Exact,
    /// Frame boundaries were found from evidence; what came before is in `unparsed_bytes`.
    Adopted,
    /// Frame boundaries are not known at present.
    Unsynced,
    /// The content cannot be seen.
    Encrypted,
}

/// How a connection is known to be a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Its 101 was seen.
    Handshake,
    /// It is older than the agent, and its frames were recognised.
    Frames,
    /// It carries TLS on a port that was named; nothing in it can be seen.
    Tls,
    /// A probe in the process that holds it says so.
    Probe,
    /// It is older than the agent and has not shown what it is. Its port is named, or others like it were recognised.
    Presumed,
}

/// What one direction carried. What is said of frames is null where they cannot be seen (inside TLS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// All frames.
    pub frames: Option<u64>,
    /// Text frames (first frames of text messages).
    pub text: Option<u64>,
    /// Binary frames.
    pub binary: Option<u64>,
    /// Continuation frames.
    pub continuation: Option<u64>,
    /// Pings.
    pub ping: Option<u64>,
    /// Pongs.
    pub pong: Option<u64>,
    /// Closes.
    pub close: Option<u64>,
    /// Payload bytes of data frames.
    pub payload_bytes: Option<u64>,
    /// Payload bytes of control frames.
    pub control_bytes: Option<u64>,
    /// Frame header bytes, masking keys included.
    pub header_bytes: Option<u64>,
    /// Data frames with RSV1 set (compressed).
    pub compressed_frames: Option<u64>,
    /// Bytes of the TCP stream behind the handshake, each counted once however often it was sent.
    pub stream_bytes: u64,
    /// IP packets, pure ACKs and retransmissions included.
    pub packets: u64,
    /// Bytes of those packets, IP and TCP headers included.
    pub packet_bytes: u64,
}

/// Which end of a connection sends pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pinger {
    /// The server.
    Server,
    /// The client.
    Client,
    /// Both.
    Both,
}

/// Keepalive as observed. Null fields: nothing was seen of it, or nothing can be seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Time between the last two pings; null before the second.
    pub interval_seconds: Option<f64>,
    /// Round trip of the last ping that was answered by a pong with its payload; null before the first.
    pub rtt_seconds: Option<f64>,
    /// Pings that were followed by another before a pong came back, and were not answered later either.
    pub missed: Option<u64>,
    /// Pongs that answered no ping.
    pub unsolicited: Option<u64>,
    /// Who pings; null where nobody did.
    pub sent_by: Option<Pinger>,
}

/// The handshake (RFC 6455 section 4). Null fields: the head does not say, or was not seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Path of the request, without its query.
    pub path: Option<String>,
    /// The query: `[redacted]` unless the agent was told to show it; null where there is none.
    pub query: Option<String>,
    /// `Host`.
    pub host: Option<String>,
    /// `Origin`.
    pub origin: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Sec-WebSocket-Protocol` of the response: the subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// `Sec-WebSocket-Extensions` of the response: the extensions that were agreed on, with their parameters.
    pub extensions: Option<String>,
    /// From the first byte of the request to the end of the 101, at this host.
    pub latency_seconds: Option<f64>,
    /// Round trip of the TCP handshake, as the kernel measured it; null where it did not.
    pub tcp_handshake_seconds: Option<f64>,
}

/// What loss and reordering cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// Segments this host sent again; null for a listener where the kernel lets nobody watch retransmissions.
    pub retransmitted_segments: Option<u64>,
    /// Times the receiving side waited for a lost or late segment with later ones at hand (head-of-line blocking).
    pub count: u64,
    /// How long those waits were together; of a connection, one that goes on included.
    pub seconds: f64,
}

/// Kernel memory of one socket. Null fields: no sweep has visited the socket yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of the below together, without double counting.
    pub kernel_bytes: Option<u64>,
    /// Receive queue, truesize (`sk_rmem_alloc`).
    pub receive_bytes: Option<u64>,
    /// Write queue, truesize (`sk_wmem_queued`).
    pub send_bytes: Option<u64>,
    /// Charged to TCP and not used (`sk_forward_alloc`).
    pub forward_alloc_bytes: Option<u64>,
    /// Slab objects every TCP connection costs.
    pub fixed_bytes: Option<u64>,
    /// Truesize handed to the device (`sk_wmem_alloc`).
    pub transmit_bytes: Option<u64>,
    /// Options, filters and socket storage (`sk_omem_alloc`), this agent's own state included.
    pub option_bytes: Option<u64>,
    /// Backlog while the socket is locked (`sk_backlog.len`).
    pub backlog_bytes: Option<u64>,
    /// Limit of the receive buffer (`sk_rcvbuf`).
    pub receive_limit_bytes: Option<u64>,
    /// Limit of the send buffer (`sk_sndbuf`).
    pub send_limit_bytes: Option<u64>,
    /// Stream bytes the application has not read.
    pub receive_queue_bytes: Option<u64>,
    /// Stream bytes the peer has not acknowledged.
    pub send_queue_bytes: Option<u64>,
}

/// permessage-deflate as negotiated (RFC 7692).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deflate {
    /// Base-two logarithm of the server's window.
    pub server_max_window_bits: u8,
    /// Base-two logarithm of the client's window.
    pub client_max_window_bits: u8,
    /// The server forgets its window after each message.
    pub server_no_context_takeover: bool,
    /// The client forgets its window after each message.
    pub client_no_context_takeover: bool,
    /// What zlib keeps for these parameters at memLevel 8: 2^(bits+2) + 2^17 to deflate, 2^bits + 7 KiB to inflate.
    pub estimated_bytes: u64,
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Socket cookie.
    pub id: String,
    /// `address:port` of this host's socket.
    pub local: String,
    /// `address:port` of the peer.
    pub remote: String,
    /// Which end this host's socket is.
    pub role: Role,
    /// What carries it.
    pub transport: Transport,
    /// Process that holds the socket; null while no sweep has found it.
    pub pid: Option<u32>,
    /// Its descriptor there.
    pub fd: Option<u32>,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Time of the upgrade; null on connections older than the agent.
    pub opened: Option<Timestamp>,
    /// How far the counts can be trusted: the worse of the two directions.
    pub parse: Parse,
    /// How it is known to be a WebSocket; null in documents of agents that did not say.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// Bytes of both directions that passed unparsed.
    pub unparsed_bytes: u64,
    /// From the peer; null where the connection is only presumed to be a WebSocket: its frames, if it has any, were not seen.
    pub received: Option<Traffic>,
    /// To the peer; null likewise.
    pub sent: Option<Traffic>,
    /// Keepalive of the side that pings.
    pub ping: Ping,
    /// Kernel memory.
    pub memory: Memory,
    /// Compression, if negotiated.
    pub deflate: Option<Deflate>,
    /// The handshake; null where it was not seen.
    pub upgrade: Option<Upgrade>,
    /// Loss and reordering; null before a sweep has visited the socket.
    pub stalls: Option<Stalls>,
    /// Status code of the close frame, ours before the peer's; null while open or where none was seen.
    pub close_code: Option<u16>,
}

/// Sums over all connections of one listener (or, as a client, of one remote port).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Local port of a server, remote port of a client; 0 for those beyond the listeners that can be told apart.
    pub port: u16,
    /// Which end this host's sockets are.
    pub role: Role,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Open now and recognised.
    pub connections: u64,
    /// Older than the agent and not judged yet, presumed to be WebSockets; not in `connections`. Mixed with them may be other
    /// protocols that share the port.
    #[serde(default)]
    pub presumed: u64,
    /// Upgrades since the agent attached.
    pub opened: u64,
    /// Connections older than the agent that were recognised by their frames, or as TLS on a port that was named.
    pub adopted: u64,
    /// Closed since the agent attached.
    pub closed: u64,
    /// From the peers.
    pub received: Traffic,
    /// To the peers.
    pub sent: Traffic,
    /// Bytes of both directions that passed unparsed.
    pub unparsed_bytes: u64,
    /// Upgrades that were refused, by HTTP status.
    pub refused: BTreeMap<String, u64>,
    /// Round trips of the pings that left this host. Buckets that hold none are left out.
    pub ping_rtt: Vec<Bucket>,
    /// How long this host took to answer the peers' pings, likewise.
    pub pong_delay: Vec<Bucket>,
    /// Loss and reordering.
    pub stalls: Stalls,
}

/// A bucket of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Holds what was shorter than this and fits into no smaller bucket; null for the last one, which has no bound. Bounds
    /// are powers of two times 1.024 µs.
    pub below_seconds: Option<f64>,
    /// How many.
    pub count: u64,
}
