//! permessage-deflate (RFC 7692): compressed messages under an engine that knows nothing of compression.
//!
//! - [`negotiate`]: what is offered and answered in the handshake, for either role.
//! - [`Adapter`]: sits between the byte stream and the engine. Compressed messages come out of it as plain frames, a piece
//!   at a time, and plain frames come out as compressed messages. It does no I/O: whoever lends it the stream does.
//! - [`codec`]: C zlib, because window and memLevel can be chosen and so a context's memory.
//!
//! Where a side forgets its window between messages (no context takeover) it takes a context for the length of a message
//! from those that its thread keeps. Where it does not, contexts are made at first use; what an idle connection
//! then must keep is the bytes that the peer may still refer to, [`Kept`], and nothing else.

mod adapter;
pub mod codec;
mod flags;
mod frame;
mod inbound;
pub mod negotiate;
mod outbound;
mod pool;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroU8;

use thiserror::Error;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

pub use adapter::{Adapter, Kept};
pub use codec::allocated;
pub use flags::Flags;
pub use pool::tidy;

/// What an endpoint is willing to do, and how it compresses. The window sizes are logarithms, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Largest window of what the server compresses: 9 to 15.
    pub server_bits: u8,
    /// Largest window of what the client compresses: 9 to 15.
    pub client_bits: u8,
    /// Whether the server's messages may refer to its earlier ones.
    pub server_takeover: bool,
    /// Whether the client's messages may refer to its earlier ones.
    pub client_takeover: bool,
    /// zlib's memLevel of our compressor, 1 to 9.
    pub mem_level: u8,
    /// zlib's level, 0 (stored) to 9 (slowest).
    pub level: u8,
    /// Smaller messages are sent as they are, in bytes.
    pub min_size: usize,
    /// What is compressed at all.
    pub content: Content,
}

/// Which messages are worth compressing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Content {
    /// Text only: binary messages are often compressed already.
    Text,
    /// Text and binary.
    All,
}

impl Default for Settings {
    /// Nobody keeps a context; a compressor takes 38 KiB for the length of a message.
    fn default() -> Self {
        Self {
            server_bits: 12,
            client_bits: 12,
            server_takeover: false,
            client_takeover: false,
            mem_level: 5,
            level: 1,
            min_size: 128,
            content: Content::All,
        }
    }
}

/// What was negotiated for one connection, in a byte: idle connections keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed(NonZeroU8);

const SERVER_TAKEOVER: u8 = 1 << 6;
const CLIENT_TAKEOVER: u8 = 1 << 7;

impl Agreed {
    /// Window sizes beyond what RFC 7692 knows are cut to it; a server's window of 8 bits, which only matters to a
    /// decompressor, becomes 9, which can do more.
    pub fn new(server: Direction, client: Direction) -> Self {
        let size = |direction: Direction, least| direction.bits.clamp(least, 15) - 8;
        let takeover = |direction: Direction, bit| if direction.takeover { bit } else { 0 };
        // At least 1, by the clamp.
        let server_size = NonZeroU8::MIN.saturating_add(size(server, 9) - 1);
        Self(
            server_size
                | size(client, 8) << 3
                | takeover(server, SERVER_TAKEOVER)
                | takeover(client, CLIENT_TAKEOVER),
        )
    }

    /// How the server compresses.
    pub fn server(self) -> Direction {
        Direction { bits: 8 + (self.0.get() & 7), takeover: self.0.get() & SERVER_TAKEOVER != 0 }
    }

    /// How the client compresses.
    pub fn client(self) -> Direction {
        Direction { bits: 8 + (self.0.get() >> 3 & 7), takeover: self.0.get() & CLIENT_TAKEOVER != 0 }
    }

    /// How the side in `role` compresses.
    pub fn of(self, role: Role) -> Direction {
        match role {
            Role::Server => self.server(),
            Role::Client => self.client(),
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Window, as a logarithm: no reference goes further back.
    pub bits: u8,
    /// Whether a message may refer to earlier ones.
    pub takeover: bool,
}

/// Why a compressed message cannot be read or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// What the peer sent is not what RFC 7692 describes.
    #[error("corrupt compressed data")]
    Corrupt,
    /// There is no memory for a context.
    #[error("no memory for a compression context")]
    Memory,
}

impl Failure {
    /// The failure inside an error that came through the engine.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// What to tell the peer (RFC 6455 section 7.4.1).
    pub fn blame(self) -> (CloseCode, &'static str) {
        match self {
            Failure::Corrupt => (CloseCode::Invalid, "corrupt compressed data"),
            Failure::Memory => (CloseCode::Error, "out of memory"),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Corrupt => io::ErrorKind::InvalidData,
            Failure::Memory => io::ErrorKind::OutOfMemory,
        };
        io::Error::new(kind, failure)
    }
}
