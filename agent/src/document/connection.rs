//! Connections and the sums over them.

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

/// What one direction carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// All frames.
    pub frames: u64,
    /// Text frames (first frames of text messages).
    pub text: u64,
    /// Binary frames.
    pub binary: u64,
    /// Continuation frames.
    pub continuation: u64,
    /// Pings.
    pub ping: u64,
    /// Pongs.
    pub pong: u64,
    /// Closes.
    pub close: u64,
    /// Payload bytes of data frames.
    pub payload_bytes: u64,
    /// Payload bytes of control frames.
    pub control_bytes: u64,
    /// Frame header bytes, masking keys included.
    pub header_bytes: u64,
    /// Data frames with RSV1 set (compressed).
    pub compressed_frames: u64,
    /// IP packets, pure ACKs and retransmissions included.
    pub packets: u64,
    /// Bytes of those packets, IP and TCP headers included.
    pub packet_bytes: u64,
}

/// Keepalive as observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Time between the last two pings; null before the second.
    pub interval_seconds: Option<f64>,
    /// Round trip of the last answered ping; null before the first.
    pub rtt_seconds: Option<f64>,
    /// Pings that were followed by another before a pong came back.
    pub missed: u64,
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
    /// Time of the upgrade; null on connections older than the agent.
    pub opened: Option<Timestamp>,
    /// How far the counts can be trusted: the worse of the two directions.
    pub parse: Parse,
    /// Bytes of both directions that passed unparsed.
    pub unparsed_bytes: u64,
    /// From the peer; null where frames cannot be seen.
    pub received: Option<Traffic>,
    /// To the peer; likewise.
    pub sent: Option<Traffic>,
    /// Keepalive of the side that pings.
    pub ping: Ping,
    /// Kernel memory.
    pub memory: Memory,
    /// Compression, if negotiated.
    pub deflate: Option<Deflate>,
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
    /// Open now.
    pub connections: u64,
    /// Upgrades since the agent attached.
    pub opened: u64,
    /// Closed since the agent attached.
    pub closed: u64,
    /// From the peers.
    pub received: Traffic,
    /// To the peers.
    pub sent: Traffic,
    /// Bytes of both directions that passed unparsed.
    pub unparsed_bytes: u64,
}
