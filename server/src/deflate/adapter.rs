//! Both directions of one connection.

use std::fmt;
use std::io;

use tokio_tungstenite::tungstenite::protocol::Role;

use super::inbound::Inbound;
use super::outbound::Outbound;
use super::{Agreed, Settings};

/// Sits between the byte stream and the engine of a connection that negotiated permessage-deflate.
pub struct Adapter {
    agreed: Agreed,
    inbound: Inbound,
    outbound: Outbound,
}

/// What must be kept of a connection while it is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was negotiated.
    pub agreed: Agreed,
    /// The end of what the peer has sent, as far as it may still refer to it; empty unless it may.
    pub history: Box<[u8]>,
}

impl From<Agreed> for Kept {
    /// A connection that has not carried a message yet.
    fn from(agreed: Agreed) -> Self {
        Self { agreed, history: Box::default() }
    }
}

impl Adapter {
    /// For the endpoint in `role`, from the start of a connection or where it was set aside between two messages. Of
    /// `settings`, only what the negotiation has not settled counts.
    pub fn new(role: Role, kept: Kept, settings: &Settings) -> Self {
        let (ours, theirs) = match role {
            Role::Server => (kept.agreed.server(), kept.agreed.client()),
            Role::Client => (kept.agreed.client(), kept.agreed.server()),
        };
        Self {
            agreed: kept.agreed,
            inbound: Inbound::new(theirs, role == Role::Server, kept.history),
            outbound: Outbound::new(ours, settings),
        }
    }

    /// What is to be kept where nothing is half way. Our compressor is not: a new one refers to nothing earlier, which is
    /// always allowed.
    pub fn into_kept(self) -> Kept {
        Kept { agreed: self.agreed, history: self.inbound.into_history() }
    }

    /// Takes over what was read already, before anything else is read.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        self.inbound.feed(bytes);
    }

    /// Reads plain frames into `buffer`; `read` reads the stream. 0 is the end of the stream.
    ///
    /// # Errors
    /// Those of `read`, and a [`Failure`](super::Failure).
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.inbound.read(buffer, read)
    }

    /// Takes plain frames, beginning with a whole one or where the last call stopped, and says how many bytes; `write`
    /// writes the stream. What it does not take may be kept for [`Adapter::settle`].
    ///
    /// # Errors
    /// Those of `write`, and a [`Failure`](super::Failure).
    pub fn write(
        &mut self,
        bytes: &[u8],
        write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.outbound.write(bytes, write)
    }

    /// Writes what was taken and is still here.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn settle(&mut self, write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        self.outbound.settle(write)
    }

    /// Frees what is of use only while bytes pass. To be called where nothing is half way.
    pub fn rest(&mut self) {
        self.inbound.rest();
        self.outbound.rest();
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Adapter").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}
