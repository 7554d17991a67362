//! What carries the bytes of one connection: a bare socket, TLS over one, a stream of an HTTP/2 connection; slowed down
//! or not.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt::set_socket_linger};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::client::TlsStream;

use super::http2::Stream;
use crate::link::Transport;

/// How often a slow reader reads.
const SLOW_TICK: Duration = Duration::from_millis(50);

/// Small, because that is what an idle connection is.
pub(super) enum Carrier {
    Tcp(Socket),
    Tls(Box<Tls>),
    Stream(Box<Stream>),
    Slow(Box<Slow>),
}

/// A socket in the bundle's own epoll set, which says what it is ready for: edge-triggered, so a flag stands until
/// the kernel says `EAGAIN`, or gives less than was asked for.
pub(super) struct Socket {
    pub(super) socket: OwnedFd,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Its end has come, which no other edge will tell: it is read up to there.
    pub(super) ended: bool,
}

/// TLS keeps its socket with the runtime, which wakes the slot.
pub(super) struct Tls {
    pub(super) stream: TlsStream<TcpStream>,
    /// Decrypted, not yet taken.
    plain: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// Reads no more than so many bytes a second.
pub(super) struct Slow {
    inner: Carrier,
    /// Bytes a second.
    rate: f64,
    allowance: f64,
    counted: Instant,
    sleep: Pin<Box<Sleep>>,
    sleeping: bool,
}

impl Carrier {
    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Tls { stream, plain: Vec::new(), taken: 0, ended: false }))
    }

    /// From now on reads at most `rate` bytes a second.
    pub(super) fn slow(self, rate: f64) -> Self {
        Self::Slow(Box::new(Slow {
            inner: self,
            rate,
            allowance: 0.0,
            counted: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            sleeping: false,
        }))
    }

    /// Lets a slow reader read as fast as any.
    pub(super) fn hurry(&mut self) {
        if let Self::Slow(slow) = self {
            slow.rate = f64::INFINITY;
        }
    }

    /// The socket, where the bundle's epoll set watches it.
    pub(super) fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Slow(slow) => slow.inner.socket(),
            Self::Tls(_) | Self::Stream(_) => None,
        }
    }

    pub(super) fn socket_mut(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Slow(slow) => slow.inner.socket_mut(),
            Self::Tls(_) | Self::Stream(_) => None,
        }
    }

    /// Whether somebody else than the bundle's epoll set tells when it is ready.
    pub(super) fn wakes(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// Says that nothing more comes from us, where the peer has to be told.
    pub(super) fn finish(self) {
        match self {
            Self::Stream(stream) => stream.finish(),
            Self::Slow(slow) => slow.inner.finish(),
            Self::Tcp(_) | Self::Tls(_) => {}
        }
    }

    /// Ends it without a word: a TCP reset, or RST_STREAM.
    pub(super) fn abort(self) {
        match self {
            Self::Tcp(socket) => reset(&socket.socket),
            Self::Tls(tls) => reset(tls.stream.get_ref().0),
            Self::Stream(stream) => stream.reset(),
            Self::Slow(slow) => slow.inner.abort(),
        }
    }
}

/// Has closing the socket reset the connection.
pub(super) fn reset(socket: impl std::os::fd::AsFd) {
    // A socket that cannot be set so is closed in the usual way, and the peer sees the end all the same.
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}

impl Transport for Carrier {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
            Self::Stream(stream) => stream.try_read(buffer),
            Self::Slow(slow) => slow.try_read(buffer),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Tls(tls) => no_wait(|cx| Pin::new(&mut tls.stream).poll_write(cx, bytes)),
            Self::Stream(stream) => stream.try_write(bytes),
            Self::Slow(slow) => slow.inner.try_write(bytes),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => no_wait(|cx| Pin::new(&mut tls.stream).poll_flush(cx)),
            Self::Slow(slow) => slow.inner.try_flush(),
            Self::Tcp(_) | Self::Stream(_) => Ok(()),
        }
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) if socket.readable => Poll::Ready(Ok(())),
            Self::Tcp(_) => Poll::Pending,
            Self::Tls(tls) => tls.poll_read_ready(cx),
            Self::Stream(stream) => stream.poll_read_ready(cx),
            Self::Slow(slow) => slow.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) if socket.writable => Poll::Ready(Ok(())),
            Self::Tcp(_) => Poll::Pending,
            // Anything may be written to TLS once its own output is out.
            Self::Tls(tls) => {
                ready!(Pin::new(&mut tls.stream).poll_flush(cx))?;
                tls.stream.get_ref().0.poll_write_ready(cx)
            }
            Self::Stream(stream) => stream.poll_write_ready(cx),
            Self::Slow(slow) => slow.inner.poll_write_ready(cx),
        }
    }
}

impl Socket {
    /// A socket of which nothing is known yet.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, readable: false, writable: true, ended: false }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        match recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((_, count)) => {
                self.readable = count == room || self.ended;
                Ok(count)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN) => {
                self.writable = false;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Tls {
    /// One TLS record.
    const CHUNK: usize = 16 * 1024;

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.plain[self.taken..];
        if left.is_empty() {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        if self.taken == self.plain.len() {
            // An idle connection keeps no buffer.
            (self.plain, self.taken) = (Vec::new(), 0);
        }
        Ok(count)
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.taken < self.plain.len() || self.ended {
            return Poll::Ready(Ok(()));
        }
        let mut chunk = [0; Self::CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
            Ok(()) => {}
            // Ending TCP without ending TLS first is common, and the WebSocket has its own end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        self.plain = buffer.filled().to_vec();
        self.ended = self.plain.is_empty();
        Poll::Ready(Ok(()))
    }
}

impl Slow {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let now = Instant::now();
        let earned = self.rate * now.duration_since(self.counted).as_secs_f64();
        // What was not read in time is lost: a slow reader does not catch up.
        self.allowance = (self.allowance + earned).min((self.rate * SLOW_TICK.as_secs_f64()).max(1.0));
        self.counted = now;
        // `as` saturates.
        let size = buffer.len().min(self.allowance as usize);
        if size == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.inner.try_read(&mut buffer[..size])?;
        if self.rate.is_finite() {
            self.allowance -= count as f64;
        }
        Ok(count)
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.rate.is_finite() && self.allowance < 1.0 {
            let wait = SLOW_TICK.max(Duration::try_from_secs_f64(1.0 / self.rate).unwrap_or(SLOW_TICK));
            if !self.sleeping {
                self.sleep.as_mut().reset(tokio::time::Instant::now() + wait);
                self.sleeping = true;
            }
            ready!(self.sleep.as_mut().poll(cx));
            self.sleeping = false;
            self.allowance = 1.0;
        }
        self.inner.poll_read_ready(cx)
    }
}

/// Does now what can be done now. Whoever wants to know when there will be more asks a `poll_` method with its own waker.
fn no_wait<T>(work: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
    match work(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// What a slot of an idle connection holds; growth should be deliberate.
const _: () = assert!(size_of::<Carrier>() == 16);
