//! One WebSocket (RFC 6455) over one byte stream: a TCP socket, or whatever is a [`Transport`].
//!
//! An idle connection must cost a descriptor and a few bytes: tungstenite's engine, with its buffers, exists only
//! while there is a byte to work on. Between messages it is dropped and only the transport and two frame meters stay.
//! That is sound because the meters know when nothing is half way: no partial frame, no unfinished message, nothing
//! left to write, no closing handshake under way. The transport itself may then be taken elsewhere ([`Link::is_bare`]) and
//! come back in a new link, with what was read meanwhile ([`Link::new`]) and a frame begun meanwhile ([`Link::owe`]).
//!
//! A connection that negotiated permessage-deflate has a [`deflate::Adapter`](crate::deflate::Adapter) between engine and
//! meters ([`Link::compressed`]): the meters see the frames of the wire, the engine plain ones.

use std::io::{self, Read, Write};
use std::mem;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::deflate::{Adapter, Kept};
use crate::meter::{FrameMeter, SeenFrame};
use crate::text::TextWatch;

/// Read buffer of the engine, zero-filled on every read: large enough for a usual message in one read, small enough
/// that a peer which stops in the middle of a frame pins little.
const READ_BUFFER: usize = 4096;

/// Read in one [`Link::poll_read`] without a message, at most: a peer may send frames that come to nothing for ever.
const TURN: u32 = 256 * 1024;

/// The byte stream below a [`Link`]: a socket, or what carries bytes to the peer in its stead.
///
/// The `try_` methods never wait: what cannot be done now fails with [`io::ErrorKind::WouldBlock`], and the matching
/// `poll_` method then tells when to try again.
pub trait Transport {
    /// Reads into `buffer`; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock`, or that the stream is broken.
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes over some of `bytes` and says how many.
    ///
    /// # Errors
    /// As for [`Transport::try_read`].
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Hands everything taken over to the kernel. A transport that keeps nothing back has nothing to do.
    ///
    /// # Errors
    /// As for [`Transport::try_read`].
    fn try_flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Ready when reading is worth a try.
    ///
    /// # Errors
    /// When the stream is broken.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when writing or flushing is worth a try.
    ///
    /// # Errors
    /// When the stream is broken.
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Transport for TcpStream {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        TcpStream::try_read(self, buffer)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TcpStream::try_write(self, bytes)
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_write_ready(self, cx)
    }
}

/// Told about every frame that really crossed the transport.
pub trait Observer {
    /// The kernel took the frame's last byte.
    fn sent(&self, frame: SeenFrame);
    /// The frame's last byte was read.
    fn received(&self, frame: SeenFrame);
}

/// Observes nothing.
impl Observer for () {
    fn sent(&self, _: SeenFrame) {}
    fn received(&self, _: SeenFrame) {}
}

/// A frame that was begun without an engine and must be finished before anything else is written.
#[derive(Debug)]
pub struct Backlog {
    frame: Vec<u8>,
    /// Bytes of it that the kernel has taken.
    sent: usize,
}

impl Backlog {
    /// The whole frame, and how many of its bytes the kernel has taken.
    pub fn new(frame: Vec<u8>, sent: usize) -> Self {
        Self { frame, sent }
    }

    /// What the kernel has not taken.
    pub fn rest(&self) -> &[u8] {
        self.frame.get(self.sent..).unwrap_or_default()
    }

    /// Whether the kernel has taken nothing: the frame may be forgotten.
    pub fn untouched(&self) -> bool {
        self.sent == 0
    }
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Link<T, O> {
    transport: T,
    engine: Option<Box<WebSocketContext>>,
    deflate: Option<Box<Adapter>>,
    backlog: Option<Box<Backlog>>,
    received: FrameMeter,
    sent: FrameMeter,
    text: TextWatch,
    observer: O,
    max_message: usize,
    role: Role,
    /// What may still be read in this turn.
    allowance: u32,
    /// The engine may hold output: a message, or a pong or close reply it queued by itself.
    dirty: bool,
}

impl<T: Transport, O: Observer> Link<T, O> {
    /// Takes over `transport` after the upgrade. `tail` is what was read beyond the upgrade's last byte; `max_message`
    /// limits an incoming message, in bytes.
    pub fn new(transport: T, role: Role, max_message: usize, tail: Vec<u8>, observer: O) -> Self {
        Self::compressed(transport, role, max_message, tail, observer, None)
    }

    /// The same, where permessage-deflate may have been negotiated: `deflate` is an adapter for the same role then.
    pub fn compressed(
        transport: T,
        role: Role,
        max_message: usize,
        tail: Vec<u8>,
        observer: O,
        deflate: Option<Adapter>,
    ) -> Self {
        let mut link = Self {
            transport,
            engine: None,
            deflate: deflate.map(Box::new),
            backlog: None,
            received: FrameMeter::default(),
            sent: FrameMeter::default(),
            text: TextWatch::default(),
            observer,
            max_message,
            role,
            allowance: TURN,
            dirty: false,
        };
        if !tail.is_empty() {
            let (text, observer) = (&mut link.text, &link.observer);
            link.received.advance_through(&tail, |piece| text.watch(piece), |frame| observer.received(frame));
            let config = Some(link.config());
            let engine = match &mut link.deflate {
                Some(deflate) => {
                    deflate.feed(tail);
                    WebSocketContext::new(role, config)
                }
                None => WebSocketContext::from_partially_read(tail, role, config),
            };
            link.engine = Some(Box::new(engine));
        }
        link
    }

    /// Writes the rest of `backlog` before anything else.
    pub fn owe(&mut self, backlog: Backlog) {
        let begun = backlog.frame.get(..backlog.sent).unwrap_or(&backlog.frame);
        self.sent.advance(begun, |frame| self.observer.sent(frame));
        self.backlog = Some(Box::new(backlog));
        self.dirty = true;
    }

    /// The next message, control frames included. Replies to ping and close are queued: flush before reading on.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] after a complete closing handshake; anything else is the end of the connection too.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        self.allowance = TURN;
        loop {
            if self.engine.is_none() {
                ready!(self.transport.poll_read_ready(cx))?;
            }
            match self.with_engine(|engine, io| engine.read(io)) {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.allowance == 0 {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    ready!(self.transport.poll_read_ready(cx))?;
                }
                Err(Error::Io(_)) if self.text.is_invalid() => {
                    self.dirty = true;
                    return Poll::Ready(Err(Error::Utf8("in an unfinished frame".into())));
                }
                outcome => {
                    self.dirty = true;
                    return Poll::Ready(outcome);
                }
            }
        }
    }

    /// Queues a message and writes what the socket takes at once; [`Link::poll_flush`] writes the rest.
    ///
    /// # Errors
    /// When the connection is closing or broken.
    pub fn send(&mut self, message: Message) -> Result<(), Error> {
        self.dirty = true;
        match self.with_engine(|engine, io| engine.write(io, message)) {
            // The engine has kept the frame and will go on where it stopped.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            outcome => outcome,
        }
    }

    /// Ready once everything queued has been handed to the kernel.
    ///
    /// # Errors
    /// As for [`Link::poll_read`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.dirty {
            match self.with_engine(|engine, io| engine.flush(io)) {
                Ok(()) => self.dirty = false,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.transport.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the engine's memory back if nothing is half way. To be called when there is nothing to read.
    pub fn park(&mut self) {
        let closing = self.engine.as_ref().is_some_and(|engine| !engine.can_write());
        if !self.dirty && !closing && self.received.at_message_boundary() {
            self.engine = None;
            self.deflate.iter_mut().for_each(|deflate| deflate.rest());
        }
    }

    /// Whether nothing is half way: the transport is all there is, and may go elsewhere and come back in a new link. To
    /// be asked after [`Link::park`].
    pub fn is_bare(&self) -> bool {
        self.engine.is_none() && !self.dirty
    }

    /// What carries the bytes.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The same, to change how it reads.
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Gives the transport up as it is.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Gives up the transport of a link that is bare, with what a new adapter must know where there was one.
    pub fn set_aside(self) -> (T, Option<Kept>) {
        (self.transport, self.deflate.map(|deflate| deflate.into_kept()))
    }

    fn config(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // Frames go to the kernel one by one: nothing lingers in a buffer nobody counts.
            .write_buffer_size(0)
            .max_message_size(Some(self.max_message))
            .max_frame_size(Some(self.max_message))
    }

    fn with_engine<R>(&mut self, work: impl FnOnce(&mut WebSocketContext, &mut Metered<'_, T, O>) -> R) -> R {
        let config = self.config();
        let engine =
            self.engine.get_or_insert_with(|| Box::new(WebSocketContext::new(self.role, Some(config))));
        let mut io = Metered {
            deflate: self.deflate.as_deref_mut(),
            wire: Wire {
                transport: &mut self.transport,
                backlog: &mut self.backlog,
                received: &mut self.received,
                sent: &mut self.sent,
                text: &mut self.text,
                allowance: &mut self.allowance,
                observer: &self.observer,
            },
        };
        work(engine, &mut io)
    }
}

/// The transport as the engine sees it: never blocks, every byte of the wire passes a meter, a backlog goes first, and
/// compression is not seen.
struct Metered<'a, T, O> {
    deflate: Option<&'a mut Adapter>,
    wire: Wire<'a, T, O>,
}

/// The metered transport.
struct Wire<'a, T, O> {
    transport: &'a mut T,
    backlog: &'a mut Option<Box<Backlog>>,
    received: &'a mut FrameMeter,
    sent: &'a mut FrameMeter,
    text: &'a mut TextWatch,
    allowance: &'a mut u32,
    observer: &'a O,
}

impl<T: Transport, O: Observer> Wire<'_, T, O> {
    fn get(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Only now: the engine has worked through what came before.
        if self.text.is_invalid() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if *self.allowance == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.transport.try_read(buffer)?;
        *self.allowance = self.allowance.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        let (text, observer) = (&mut *self.text, self.observer);
        self.received.advance_through(
            &buffer[..count],
            |piece| text.watch(piece),
            |frame| observer.received(frame),
        );
        Ok(count)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.transport.try_write(bytes)?;
        self.sent.advance(&bytes[..count], |frame| self.observer.sent(frame));
        Ok(count)
    }

    fn settle(&mut self) -> io::Result<()> {
        while let Some(mut backlog) = self.backlog.take() {
            if let Some(left) = backlog.frame.get(backlog.sent..).filter(|left| !left.is_empty()) {
                let outcome = self.put(left);
                backlog.sent += *outcome.as_ref().unwrap_or(&0);
                *self.backlog = Some(backlog);
                outcome?;
            }
        }
        Ok(())
    }
}

impl<T: Transport, O: Observer> Read for Metered<'_, T, O> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.deflate {
            Some(deflate) => deflate.read(buffer, |buffer| self.wire.get(buffer)),
            None => self.wire.get(buffer),
        }
    }
}

impl<T: Transport, O: Observer> Write for Metered<'_, T, O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.settle()?;
        match &mut self.deflate {
            Some(deflate) => deflate.write(bytes, |bytes| self.wire.put(bytes)),
            None => self.wire.put(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.settle()?;
        if let Some(deflate) = &mut self.deflate {
            deflate.settle(|bytes| self.wire.put(bytes))?;
        }
        self.wire.transport.try_flush()
    }
}

/// An idle connection holds this and nothing else of the link; growth should be deliberate.
const _: () = assert!(mem::size_of::<Link<TcpStream, ()>>() <= 160);
