//! The state that socket storage keeps for each tracked connection.

use super::Counters;
use crate::evidence::Evidence;
use crate::handshake::Scanner;

/// Which end of the connection this host's socket is.
#[repr(u16)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It sent the 101.
    Server = 1,
    /// It received the 101.
    Client = 2,
}

impl Role {
    /// From the number stored in a record.
    pub const fn from_u16(value: u16) -> Option<Self> {
        match value {
            1 => Some(Role::Server),
            2 => Some(Role::Client),
            _ => None,
        }
    }
}

/// How well a direction's counts can be trusted.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parse {
    /// Every byte since the 101 was parsed.
    Exact = 0,
    /// Frame boundaries were found again from evidence, after a gap or on a connection older than the agent.
    Adopted = 1,
    /// Boundaries are not known at present.
    Unsynced = 2,
    /// The stream is TLS: there are no frames to be seen.
    Encrypted = 3,
}

impl Parse {
    /// From the number stored in a record; anything unknown is the least trusted state.
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Parse::Exact,
            1 => Parse::Adopted,
            3 => Parse::Encrypted,
            _ => Parse::Unsynced,
        }
    }
}

/// One direction of a connection: its counters and where the parser stands in the byte stream.
///
/// Written by one hook only: ingress writes `received`, egress `sent`, and each merely reads the other's.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Direction {
    /// What went by.
    pub counters: Counters,
    /// Payload bytes of the current frame still to come.
    pub remaining: u64,
    /// `bpf_ktime_get_ns` of the last ping in this direction; 0 before the first.
    pub last_ping_ns: u64,
    /// Time between the last two pings in this direction; 0 before the second.
    pub ping_interval_ns: u64,
    /// The last two pings in this direction, the newest first, as marks: a hash of the payload in the upper half, the
    /// time in units of 256 ns in the lower; 0 for none. One word each, so that the other direction's hook reads a mark
    /// whole while this one writes it.
    pub pings: [u64; 2],
    /// The marks of the other direction's pings that pongs in this direction answered last, the newest first.
    pub answered: [u64; 2],
    /// Round trip of the ping that was answered last; 0 before the first.
    pub rtt_ns: u64,
    /// Digest of the current control frame's payload so far.
    pub digest: u64,
    /// Total time the stream waited for a lost or late segment (received only).
    pub stalled_ns: u64,
    /// Since when it waits; 0 where it does not.
    pub stalled_since_ns: u64,
    /// First bytes of a frame header that is split over packets.
    pub header: [u8; 16],
    /// TCP sequence number of the next byte to parse.
    pub next_seq: u32,
    /// Masking key of the current control frame, the first byte lowest.
    pub key: u32,
    /// Pings of this direction that were followed by another before a pong came back.
    pub pings_missed: u32,
    /// Pongs of this direction that answered a ping counted as missed.
    pub pongs_late: u32,
    /// Pongs of this direction that answered no ping (RFC 6455 section 5.5.3 allows them as a heartbeat).
    pub pongs_unsolicited: u32,
    /// Times the stream waited for a lost or late segment (received only).
    pub stalls: u32,
    /// 1 while a packet is being parsed, so that a second CPU keeps off.
    pub busy: u32,
    /// Status code of the close frame; 0 before it, or where it has none.
    pub close_code: u16,
    /// Place in the table of reorder buffers, plus 1; 0 for none (received only).
    pub reorder: u16,
    /// [`Parse`] as a number.
    pub parse: u8,
    /// Bit field, private to the [`tracker`](crate::tracker).
    pub flags: u8,
    /// Bytes of `header` in use.
    pub held: u8,
    /// Payload length of the current control frame.
    pub control_len: u8,
    /// 1 while packets may be parked: they found the direction in use (received only).
    pub parked: u8,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: [u8; 7],
    /// What speaks for the present guess at a boundary, where none is known.
    pub evidence: Evidence,
}

/// Stages of a connection's life, which one program begins and another ends, on two CPUs at the same moment if need be: each swaps its
/// own in, and who comes second knows what the other one did.
pub mod stage {
    /// It is counted and announced.
    pub const REGISTERED: u32 = 1;
    /// Its socket was destroyed.
    pub const DESTROYED: u32 = 2;
}

/// A tracked connection, keyed by its socket and freed with it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// From the peer.
    pub received: Direction,
    /// To the peer.
    pub sent: Direction,
    /// `bpf_ktime_get_ns` at the 101.
    pub opened_ns: u64,
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// Interface of the 101's packet.
    pub ifindex: u32,
    /// Slot in the listener totals.
    pub listener: u32,
    /// Process that holds the socket, by the last sweep of iter/task_file; 0 unknown.
    pub pid: u32,
    /// Its descriptor there; -1 unknown.
    pub fd: i32,
    /// [`Role`] as a number; 0 while the response head is still being scanned.
    pub role: u16,
    /// What permessage-deflate negotiated, encoded as in [`Deflate`](crate::handshake::Deflate).
    pub deflate: u16,
    /// `total_retrans` when the agent last counted this socket's retransmissions.
    pub retransmitted: u32,
    /// One of [`stage`]; 0 before the first.
    pub stage: u32,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: u32,
    /// The scan of the response head. Here and not on the stack, because a head may come in several packets, and
    /// because the verifier takes memory in a map for unknown and so need not follow the scan byte by byte.
    pub head: Scanner,
}
