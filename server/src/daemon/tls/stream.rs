//! An HTTP/1.1 WebSocket's byte stream inside TLS.

use std::io::{self, Read, Write};
use std::mem;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;

use super::super::accept::{LINGER, linger};
use super::super::carrier::{Carrier, Refused};
use super::super::table::{Beat, Idle};
use super::super::{Shared, Slot};
use crate::link::Transport;

/// Ciphertext kept for a peer that takes none. What exceeds it waits in the engine, from which nothing more is read then.
const BUFFER: usize = 64 * 1024;

/// A TCP connection and its TLS session.
///
/// It cannot be parked: the session's keys and counters are in rustls. What it costs while idle is in docs/server.md.
#[derive(Debug)]
pub(in super::super) struct Sealed {
    tcp: TcpStream,
    session: Box<ServerConnection>,
    /// Decrypted, not yet read.
    readable: usize,
    /// The peer has closed its direction, or the socket has ended.
    ended: bool,
}

impl Sealed {
    /// Goes on after the handshake.
    pub(in super::super) fn new(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let (tcp, mut session) = stream.into_inner();
        session.set_buffer_limit(Some(BUFFER));
        // Of what arrived with the handshake.
        let state = session.process_new_packets().map_err(broken)?;
        let (readable, ended) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
        Ok(Self { tcp, session: Box::new(session), readable, ended })
    }

    /// Writes ciphertext for as long as the socket takes it.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Ready(&self.tcp))?;
        }
        Ok(())
    }

    /// Waits until the socket has taken all ciphertext, or does not within [`LINGER`].
    async fn drained(&mut self) {
        let drain = async {
            while self.push().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                if self.tcp.writable().await.is_err() {
                    break;
                }
            }
        };
        // Whether it has or not, the socket goes now.
        let _ = timeout(LINGER, drain).await;
    }

    /// Says that nothing more follows, as far as the socket takes that now.
    fn farewell(&mut self) {
        self.session.send_close_notify();
        // A peer that takes nothing does not need it.
        let _ = self.push();
    }
}

impl Transport for Sealed {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.readable == 0 && !self.ended {
            if self.session.read_tls(&mut Ready(&self.tcp))? == 0 {
                self.ended = true;
            }
            let state = self.session.process_new_packets().map_err(broken);
            if state.is_err() || self.session.wants_write() {
                // An alert, or an answer to a change of keys; what does not go now goes with the next output.
                let _ = self.push();
            }
            let state = state?;
            self.readable = state.plaintext_bytes_to_read();
            self.ended |= state.peer_has_closed();
        }
        if self.readable == 0 {
            return Ok(0);
        }
        let count = self.session.reader().read(buffer)?;
        self.readable -= count;
        Ok(count)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.session.writer().write(bytes)?;
        let pushed = self.push();
        if taken == 0 && !bytes.is_empty() && pushed.is_ok() {
            taken = self.session.writer().write(bytes)?;
        }
        match pushed {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Err(error) if taken == 0 => Err(error),
            _ => Ok(taken),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        self.push()
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.readable > 0 || self.ended {
            return Poll::Ready(Ok(()));
        }
        self.tcp.poll_read_ready(cx)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.tcp.poll_write_ready(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Carrier for Sealed {
    const PARKS: bool = false;

    fn park(self, _: &Shared, _: &Beat, _: Idle, history: Box<[u8]>) -> Result<(), Refused<Self>> {
        Err(Refused { carrier: Ok(self), history })
    }

    fn end(mut self, slot: Slot) {
        self.farewell();
        if !self.session.wants_write() {
            drop(self);
            return drop(slot);
        }
        // The peer has not taken all of it yet.
        tokio::spawn(async move {
            self.drained().await;
            drop(slot);
        });
    }

    async fn abandon(mut self) {
        self.farewell();
        self.drained().await;
        linger(self.tcp).await;
    }
}

/// The socket as rustls wants it.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(error: tokio_rustls::rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What every TLS connection holds; growth should be deliberate.
const _: () = assert!(mem::size_of::<Sealed>() <= 64);
