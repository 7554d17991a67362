//! What a session needs of its byte stream besides reading and writing: where it goes when it is idle, and how it ends.

use std::io;
use std::net::TcpStream as IdleStream;
use std::os::fd::OwnedFd;

use tokio::net::TcpStream;

use super::accept::linger;
use super::table::{Beat, Idle, Parked, Stage};
use super::{Shared, Slot};
use crate::link::Transport;

/// A byte stream to a peer, as [`super::session::Session`] holds it.
pub(super) trait Carrier: Transport + Send + Sized + Unpin + 'static {
    /// Whether it has anywhere to go while it is idle.
    const PARKS: bool = true;

    /// Gives itself, `idle` and the `history` of its compression, all there is of the connection, into other hands,
    /// under the roster's lock.
    ///
    /// # Errors
    /// Comes back when something is waiting for the connection.
    fn park(self, shared: &Shared, beat: &Beat, idle: Idle, history: Box<[u8]>) -> Result<(), Refused<Self>>;

    /// Ends after a complete closing handshake; `slot` is given back when nothing is left.
    fn end(self, slot: Slot);

    /// Ends by our decision: what was written last is to be read by the peer, for [`super::accept::LINGER`] at most.
    fn abandon(self) -> impl Future<Output = ()> + Send;
}

/// What comes back where parking is refused.
pub(super) struct Refused<C> {
    /// An error says that it broke.
    pub(super) carrier: io::Result<C>,
    pub(super) history: Box<[u8]>,
}

impl Carrier for TcpStream {
    fn park(self, shared: &Shared, beat: &Beat, idle: Idle, history: Box<[u8]>) -> Result<(), Refused<Self>> {
        let socket = match self.into_std() {
            Ok(socket) => OwnedFd::from(socket),
            Err(error) => return Err(Refused { carrier: Err(error), history }),
        };
        shared.roster.park(beat, Parked { socket, idle, stage: Stage::Open }, history).map_err(
            |(socket, history)| Refused { carrier: Self::from_std(IdleStream::from(socket)), history },
        )
    }

    fn end(self, slot: Slot) {
        drop(self);
        drop(slot);
    }

    async fn abandon(self) {
        linger(self).await;
    }
}
