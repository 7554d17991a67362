//! An HTTP/2 stream as the byte stream of a WebSocket.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::{RecvStream, SendStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Bytes;

use super::super::accept::LINGER;
use super::super::carrier::{Carrier, Refused};
use super::super::table::{Beat, Idle};
use super::super::{Shared, Slot};
use super::hub::Hub;
use super::parked::Resting;
use crate::link::Transport;

/// Dropped, it resets the stream (CANCEL) unless both sides have ended it, and gives its place back.
pub(super) struct Stream {
    /// There until it is parked.
    halves: Option<Halves>,
    hub: Arc<Hub>,
    place: u32,
    /// Received, not yet read.
    received: Bytes,
    /// The peer has ended its direction.
    ended: bool,
    /// The peer gives no window for what is to be written.
    stalled: bool,
}

struct Halves {
    send: SendStream<Bytes>,
    recv: RecvStream,
}

impl Stream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, hub: Arc<Hub>, place: u32) -> Self {
        let halves = Some(Halves { send, recv });
        Self { halves, hub, place, received: Bytes::new(), ended: false, stalled: false }
    }

    fn set_stalled(&mut self, stalled: bool) {
        if self.stalled != stalled {
            self.stalled = stalled;
            self.hub.stall(stalled);
        }
    }

    /// Ends our direction.
    fn finish(&mut self) {
        if let Some(halves) = &mut self.halves {
            // A stream that is gone needs no end.
            let _ = halves.send.send_data(Bytes::new(), true);
        }
    }

    /// Waits for the peer to end its direction.
    async fn ended(mut self) {
        let Some(Halves { recv, .. }) = &mut self.halves else { return };
        let end = async {
            while let Some(Ok(data)) = recv.data().await {
                // The connection's window is shared: what nobody reads must not use it up.
                let _ = recv.flow_control().release_capacity(data.len());
            }
        };
        // Whether it did or not, the stream goes now.
        let _ = timeout(LINGER, end).await;
    }
}

impl Transport for Stream {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(halves) = self.halves.as_mut().filter(|_| !self.received.is_empty()) else {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        };
        let count = self.received.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.received.split_to(count));
        halves.recv.flow_control().release_capacity(count).map_err(broken)?;
        self.hub.count_read(count);
        if self.received.is_empty() {
            // An empty rest would keep the whole read buffer of the connection.
            self.received = Bytes::new();
        }
        Ok(count)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(Halves { send, .. }) = &mut self.halves else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if !self.hub.unsent.has_room() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        send.reserve_capacity(bytes.len());
        let count = send.capacity().min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        send.send_data(self.hub.unsent.frame(bytes[..count].to_vec()), false).map_err(broken)?;
        Ok(count)
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Halves { recv, .. }) = &mut self.halves else { return Poll::Ready(Ok(())) };
        while self.received.is_empty() && !self.ended {
            match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => self.received = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Halves { send, .. }) = &mut self.halves else { return Poll::Ready(Ok(())) };
        if !self.hub.unsent.has_room_or_wakes(self.place, cx.waker()) {
            // That the stream is gone, it must hear all the same. It is not stalled: reading the others on would help none of
            // them, as they cannot write either.
            let gone = ready!(send.poll_reset(cx));
            return Poll::Ready(Err(gone.map_or_else(broken, |_| io::ErrorKind::ConnectionReset.into())));
        }
        if send.capacity() == 0 {
            let Some(outcome) = (match send.poll_capacity(cx) {
                Poll::Ready(outcome) => outcome,
                // It may have come between the two looks.
                Poll::Pending if send.capacity() > 0 => Some(Ok(0)),
                Poll::Pending => {
                    self.set_stalled(true);
                    return Poll::Pending;
                }
            }) else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            outcome.map_err(broken)?;
        }
        self.set_stalled(false);
        Poll::Ready(Ok(()))
    }
}

impl Carrier for Stream {
    fn park(
        mut self,
        shared: &Shared,
        beat: &Beat,
        idle: Idle,
        history: Box<[u8]>,
    ) -> Result<(), Refused<Self>> {
        let Some(Halves { send, recv }) = self.halves.take() else { return Ok(()) };
        let (hub, place) = (self.hub.clone(), self.place);
        let mut resting = Some(Resting { send, recv, idle });
        let deliver = || hub.give_back(place, resting.take());
        let Err(history) = shared.roster.park_stream(&hub, place, beat, &idle, history, deliver) else {
            return Ok(());
        };
        self.halves = resting.map(|Resting { send, recv, .. }| Halves { send, recv });
        Err(Refused { carrier: Ok(self), history })
    }

    fn end(mut self, slot: Slot) {
        self.finish();
        tokio::spawn(async move {
            self.ended().await;
            drop(slot);
        });
    }

    async fn abandon(mut self) {
        self.finish();
        self.ended().await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.set_stalled(false);
        // Parked, its place is taken.
        if self.halves.take().is_some() {
            self.hub.give_back(self.place, None);
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
