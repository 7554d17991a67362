//! Records that leave the kernel: an iterator sweep's and the ring buffer's.
//!
//! iter/tcp writes a [`SocketHeader`] directly followed by the [`Connection`](super::Connection) or, where its kind is
//! [`event::CANDIDATE`], by an [`Unjudged`]; iter/task writes a [`Task`]. A ring buffer entry begins with its kind ([`event`]), then an [`Opened`] with the heads of the handshake, or a [`SocketHeader`] and a
//! `Connection`.

/// Kinds of ring buffer entries: the first 8 bytes of each.
pub mod event {
    /// A connection is tracked from now on: [`Opened`](super::Opened), then the first
    /// [`RESPONSE_BYTES`](super::RESPONSE_BYTES) bytes of the response head and as many of the request head as were kept.
    pub const OPENED: u64 = 1;
    /// A tracked socket was destroyed: [`SocketHeader`](super::SocketHeader), then `Connection` with the final counts.
    pub const CLOSED: u64 = 2;
    /// In a sweep: a connection older than the agent that is not judged yet, [`SocketHeader`](super::SocketHeader), then
    /// [`Unjudged`](super::Unjudged).
    pub const CANDIDATE: u64 = 3;
}

/// Why a connection that is not judged yet is shown in a sweep: bits of [`Unjudged::grounds`](super::Unjudged::grounds).
pub mod grounds {
    /// Its local port was named.
    pub const LOCAL_PORT_NAMED: u32 = 1;
    /// Its remote port was named.
    pub const REMOTE_PORT_NAMED: u32 = 2;
    /// Its local port has accepted WebSockets, in its network namespace.
    pub const SERVER_KNOWN: u32 = 4;
    /// WebSockets have been opened to its remote port, from its network namespace.
    pub const CLIENT_KNOWN: u32 = 8;
}

/// Where a connection's ends are.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Local address, network byte order; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Remote address, likewise.
    pub remote: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// `TCP_ESTABLISHED` (1), ….
    pub state: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: u32,
}

/// A socket's memory, the same set as `INET_DIAG_SKMEMINFO` (`sk_get_meminfo` in net/core/sock.c), and its queues.
/// Bytes, as the kernel's own signed integers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SocketMemory {
    /// `sk_rmem_alloc`: truesize of the receive queue, out-of-order bytes included.
    pub rmem_alloc: i32,
    /// `sk_rcvbuf`: its limit.
    pub rcvbuf: i32,
    /// `sk_wmem_alloc` - 1: truesize handed to the device and not yet freed.
    pub wmem_alloc: i32,
    /// `sk_sndbuf`: limit of the send buffer.
    pub sndbuf: i32,
    /// `sk_forward_alloc`: charged to the protocol, not yet used.
    pub forward_alloc: i32,
    /// `sk_wmem_queued`: truesize of the write queue.
    pub wmem_queued: i32,
    /// `sk_omem_alloc`: options, filters and socket storage.
    pub omem_alloc: i32,
    /// `sk_backlog.len`.
    pub backlog: i32,
    /// `sk_drops`; -1 where this kernel does not keep it in the socket.
    pub drops: i32,
    /// `rcv_nxt - copied_seq`: stream bytes the application has not read.
    pub receive_queue: u32,
    /// `write_seq - snd_una`: stream bytes the peer has not acknowledged.
    pub send_queue: u32,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: u32,
}

/// The part of a record that comes from the kernel's socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketHeader {
    /// [`event::CLOSED`] in the ring buffer; in a sweep 0, or [`event::CANDIDATE`].
    pub kind: u64,
    /// `bpf_ktime_get_ns` when the record was made.
    pub time_ns: u64,
    /// Where its ends are.
    pub endpoints: Endpoints,
    /// Its memory.
    pub memory: SocketMemory,
    /// `total_retrans`: segments it sent again in its life.
    pub retransmitted: u32,
    /// TCP's own edge, read before the connection's state: what it has beyond `received.next_seq` was never seen.
    pub rcv_nxt: u32,
}

/// The part of a record about a connection that is not judged yet.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unjudged {
    /// Socket cookie.
    pub cookie: u64,
    /// Bytes of the TCP stream, both directions, since it became a candidate; each direction modulo 2^32.
    pub unparsed_bytes: u64,
    /// Process that holds the socket; 0 unknown.
    pub pid: u32,
    /// Its descriptor there; meaningless where the process is unknown.
    pub fd: i32,
    /// Why it is shown: bits of [`grounds`]; never 0.
    pub grounds: u32,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: u32,
}

/// Bytes of a response head that are kept.
pub const RESPONSE_BYTES: usize = 512;
/// Bytes of a request head that are kept.
pub const REQUEST_BYTES: usize = 1024;

/// Words that hold twice as many.
pub const REQUEST_WORDS: usize = 2 * REQUEST_BYTES / 8;

/// A connection that is tracked from now on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opened {
    /// [`event::OPENED`].
    pub kind: u64,
    /// `bpf_ktime_get_ns` at the 101, or when the connection was recognised.
    pub time_ns: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Where its ends are.
    pub endpoints: Endpoints,
    /// `bpf_ktime_get_ns` at the first byte of the request; 0 where that was not seen.
    pub requested_ns: u64,
    /// Round trip of the TCP handshake in microseconds, as the kernel measured it; 0 where it did not, or where later
    /// round trips are mixed into it.
    pub handshake_us: u32,
    /// [`Role`](super::Role) as a number.
    pub role: u16,
    /// [`Parse`](super::Parse) as a number.
    pub parse: u16,
    /// What permessage-deflate negotiated, encoded as in [`Deflate`](crate::handshake::Deflate).
    pub deflate: u16,
    /// Bytes kept of the response head; 0 where it came in pieces.
    pub response_len: u16,
    /// Bytes kept of the request head; 0 where it was not seen.
    pub request_len: u16,
    /// 1 where the connection is older than the agent.
    pub older: u16,
}

/// The heads of a handshake while it goes on, in a table by flow. Its front is the ring buffer entry.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What is known so far.
    pub opened: Opened,
    /// The response head.
    pub response: [u8; RESPONSE_BYTES],
    /// The request head, its first byte in the lowest of the first word; twice its size lets the verifier see that a piece
    /// fits wherever it begins.
    pub request: [u64; REQUEST_WORDS],
    /// Flow it belongs to.
    pub tag: u64,
    /// TCP sequence number of the request's first byte.
    pub start_seq: u32,
    /// TCP sequence number behind its last byte so far.
    pub next_seq: u32,
    /// What is known of the request so far.
    pub request_state: UpgradeRequest,
    /// Its last four bytes so far, the last one lowest.
    pub tail: u32,
    /// 1 where it is the first request of its connection.
    pub first: u16,
    /// 1 where the packet at hand lies beyond a hole in the request, and is not kept.
    pub is_late: u16,
}

/// A request for an upgrade, in storage of its socket until the answer: what makes a 101 its answer, and where frames begin.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// TCP sequence number of the first byte.
    pub start_seq: u32,
    /// TCP sequence number behind the head, where the client's frames begin; only with [`UpgradeRequest::ENDED`].
    pub frames_seq: u32,
    /// [`UpgradeRequest::ASKS`] and the other flags.
    pub flags: u32,
    /// TCP sequence number behind a piece that came before its time and ended like a head; only with
    /// [`UpgradeRequest::ENDED_LATE`].
    pub late_seq: u32,
}

impl UpgradeRequest {
    /// It asks for a WebSocket (RFC 6455 section 4.1).
    pub const ASKS: u32 = 1;
    /// The end of its head was seen.
    pub const ENDED: u32 = 2;
    /// It is a TLS ClientHello, on a port that was named.
    pub const CLIENT_HELLO: u32 = 4;
    /// A piece beyond a hole ended like a head: where TCP has everything up to there and nothing more, the head ended there.
    pub const ENDED_LATE: u32 = 8;
    /// Such a piece was the first that came: the beginning is still missing.
    pub const HEADLESS: u32 = 16;
    /// It came in: only what goes out can answer it.
    pub const INBOUND: u32 = 32;

    /// Whether a packet in this direction may answer it.
    #[inline(always)]
    pub const fn is_answered_by(&self, inbound: bool) -> bool {
        (self.flags & Self::INBOUND != 0) != inbound
    }

    /// Where frames begin, if that is known. `edge` is where TCP stands when the answer goes out.
    #[inline(always)]
    pub const fn frames_seq(&self, edge: u32) -> Option<u32> {
        if self.flags & Self::ENDED != 0 {
            Some(self.frames_seq)
        } else if self.flags & Self::ENDED_LATE != 0 && self.late_seq == edge {
            Some(edge)
        } else {
            None
        }
    }
}

/// Upgrades that were refused: what they have in common.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Refusal {
    /// Where.
    pub listener: super::ListenerKey,
    /// HTTP status.
    pub status: u32,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: u32,
}

/// What a process and its user take of limits that no file tells of, or only at the price of a lock.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Task {
    /// Process id, in the first pid namespace.
    pub pid: u32,
    /// Its real user, in the first user namespace.
    pub uid: u32,
    /// The shared part of that user's `epoll_watches`, a `percpu_counter`: each CPU may hold back fewer than
    /// max(32, 2 × CPUs) more, or as many less. Negative for a moment where so much is held back.
    pub watches: i64,
    /// The process's memory mappings (`map_count`); 0 for kernel threads.
    pub mappings: u64,
}
