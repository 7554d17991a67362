//! What a session needs of its byte stream besides reading and writing: where it goes when it is idle, and how it ends.

use std::io;
use std::net::TcpStream as IdleStream;
use std::os::fd::OwnedFd;

use tokio::net::TcpStream;

use super::accept::linger;
use super::roster::Roster;
use super::table::{Beat, Idle, Parked};
use super::{Shared, Slot};
use crate::link::Transport;

/// A byte stream to a peer, as [`super::session::Session`] holds it.
pub(super) trait Carrier: Transport + Send + Sized + Unpin + 'static {
    /// Whether it has anywhere to go while it is idle.
    const PARKS: bool = true;

    /// Gives itself and `idle`, all there is of the connection, into other hands, under the roster's lock.
    ///
    /// # Errors
    /// Comes back when something is waiting for the connection; the inner error says that it broke.
    fn park(self, shared: &Shared, beat: &Beat, idle: Idle) -> Result<(), io::Result<Self>>;

    /// Ends after a complete closing handshake; `slot` is given back when nothing is left.
    fn end(self, slot: Slot);

    /// Ends by our decision: what was written last is to be read by the peer, for [`super::accept::LINGER`] at most.
    fn abandon(self) -> impl Future<Output = ()> + Send;
}

impl Carrier for TcpStream {
    fn park(self, shared: &Shared, beat: &Beat, idle: Idle) -> Result<(), io::Result<Self>> {
        let socket = self.into_std().map_err(Err)?;
        let parked = Parked { socket: OwnedFd::from(socket), idle };
        let roster: &Roster = &shared.roster;
        roster.park(beat, parked).map_err(|socket| Self::from_std(IdleStream::from(socket)))
    }

    fn end(self, slot: Slot) {
        drop(self);
        drop(slot);
    }

    async fn abandon(self) {
        linger(self).await;
    }
}
