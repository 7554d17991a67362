//! WebSockets over HTTP/2 (RFC 8441): one connection, many streams, each opened by an extended CONNECT.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Ping, Reason, RecvStream, SendStream};
use http::{Method, Request, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use tokio_tungstenite::tungstenite::Bytes;

use super::bundle::{Bundle, Slot};
use super::carrier::{Carrier, reset};
use super::client::{Connected, OPEN_TIMEOUT, OpenError, connect};
use super::compression;
use super::run::{Run, count};
use super::target::Target;

/// Of received data: on a stream, and on the whole connection.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Besides what all streams may hold: one that is not read must not stop the others.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What a stream may have waiting to be written.
const SEND_BUFFER: usize = 64 * 1024;

/// The connection below a bundle's streams.
pub(super) struct Http2 {
    connection: Connection<Cut, Bytes>,
    /// Gone once no stream will be opened any more: that lets the connection end.
    requests: Option<SendRequest<Bytes>>,
    request: Request<()>,
    to_open: VecDeque<u32>,
    opening: usize,
    /// When those being opened have taken too long.
    deadline: Pin<Box<Sleep>>,
    /// Held until all streams have been opened for the first time.
    permit: Option<OwnedSemaphorePermit>,
    /// Shared with the socket.
    reset: Arc<AtomicBool>,
    ended: bool,
}

/// A stream that has not been answered.
pub(super) struct Opening {
    response: ResponseFuture,
    send: SendStream<Bytes>,
    began: Instant,
}

/// A WebSocket's byte stream.
pub(super) struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received, not yet read.
    received: Bytes,
    ended: bool,
}

/// The socket, which can be told to end by a reset.
struct Cut {
    socket: Connected,
    reset: Arc<AtomicBool>,
}

/// Opens HTTP/2 connection `index` and starts a bundle that opens a stream for each of `slots`.
pub(super) async fn open(run: Arc<Run>, index: u32, slots: Vec<u32>, permit: OwnedSemaphorePermit) {
    match timeout(OPEN_TIMEOUT, Http2::open(&run, index, slots.len())).await {
        Ok(Ok(mut http2)) => {
            count(&run.fates.http2_connections);
            http2.to_open = slots.into();
            http2.permit = Some(permit);
            let mailbox = run.mailbox(index as usize);
            tokio::spawn(Bundle::of_streams(&run, mailbox, index, Some(Box::new(http2))));
        }
        Ok(Err(error)) => slots.iter().for_each(|_| run.not_opened(&error)),
        Err(_) => slots.iter().for_each(|_| run.not_opened(&OpenError::TimedOut)),
    }
}

impl Http2 {
    /// Returns when the server has said that it speaks RFC 8441.
    async fn open(run: &Run, index: u32, streams: usize) -> Result<Self, OpenError> {
        let target = run.target(index);
        let began = Instant::now();
        let socket = connect(target, run.tls.as_ref(), run.block(index)).await?;
        run.connect_times.record(began.elapsed());
        let held = STREAM_WINDOW.saturating_mul(u32::try_from(streams).unwrap_or(u32::MAX));
        // HTTP/2 knows no larger one (RFC 9113 section 6.9.1).
        let window = CONNECTION_WINDOW.saturating_add(held).min(u32::MAX >> 1);
        let mut builder = Builder::new();
        builder.enable_push(false).initial_window_size(STREAM_WINDOW);
        builder.initial_connection_window_size(window).max_send_buffer_size(SEND_BUFFER);
        let reset = Arc::new(AtomicBool::new(false));
        let cut = Cut { socket, reset: reset.clone() };
        let (requests, mut connection) = builder.handshake::<_, Bytes>(cut).await?;
        // The server's settings are the first thing it sends: once it has answered a ping, they are known.
        if let Some(mut pings) = connection.ping_pong() {
            pings.send_ping(Ping::opaque())?;
            poll_fn(|cx| {
                if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
                    let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(outcome.err().map_or(ended.into(), OpenError::from)));
                }
                pings.poll_pong(cx).map(|outcome| outcome.map(drop).map_err(OpenError::from))
            })
            .await?;
        }
        if !requests.is_extended_connect_protocol_enabled() {
            return Err(OpenError::NoExtendedConnect);
        }
        if connection.max_concurrent_send_streams() < streams {
            return Err(OpenError::TooManyStreams);
        }
        Ok(Self {
            connection,
            requests: Some(requests),
            request: request(target, run)?,
            to_open: VecDeque::new(),
            opening: 0,
            deadline: Box::pin(sleep(OPEN_TIMEOUT)),
            permit: None,
            reset,
            ended: false,
        })
    }

    /// Has a stream opened again.
    pub(super) fn open_again(&mut self, slot: u32) {
        self.to_open.push_back(slot);
    }

    /// Resets the TCP connection. How many streams will not be opened.
    pub(super) fn sever(&mut self) -> usize {
        let waiting = std::mem::take(&mut self.to_open).len();
        self.opening = 0;
        self.permit = None;
        self.reset.store(true, Ordering::Relaxed);
        self.ended = true;
        waiting
    }
}

/// An extended CONNECT. It carries no key: the stream is the WebSocket's alone.
fn request(target: &Target, run: &Run) -> Result<Request<()>, OpenError> {
    let wrong = |_| OpenError::from(io::Error::from(io::ErrorKind::InvalidInput));
    let authority = target.uri.authority().map_or("", |authority| authority.as_str());
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = if target.tls { "https" } else { "http" };
    let uri =
        Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().map_err(wrong)?;
    let mut builder = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(uri)
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    if let Some(offer) = compression::offer(run.options.deflate.as_ref()) {
        builder = builder.header(compression::FIELD, offer);
    }
    builder.body(()).map_err(wrong)
}

impl Bundle {
    /// Opens streams and moves the connection's bytes. Ready when it has ended and nothing is left on it.
    pub(super) fn drive(&mut self, http2: &mut Http2, cx: &mut Context<'_>) -> Poll<()> {
        self.open_streams(http2, cx);
        if http2.opening > 0 && http2.deadline.as_mut().poll(cx).is_ready() {
            self.give_up(http2);
        }
        if http2.opening == 0 && http2.to_open.is_empty() {
            http2.permit = None;
        }
        if self.run.closing() && self.is_empty(http2) {
            http2.requests = None;
        }
        if !http2.ended {
            // Why it ended is told by its streams.
            http2.ended = Pin::new(&mut http2.connection).poll(cx).is_ready();
            if http2.ended {
                // Those on the way fail at the next look.
                self.look_at_all();
                cx.waker().wake_by_ref();
            }
        }
        if http2.ended && self.is_empty(http2) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_empty(&self, http2: &Http2) -> bool {
        let vacant = |slot: &Slot| matches!(slot, Slot::Vacant);
        http2.opening == 0 && http2.to_open.is_empty() && self.slots.iter().all(vacant)
    }

    fn open_streams(&mut self, http2: &mut Http2, cx: &mut Context<'_>) {
        while let (Some(slot), Some(requests)) = (http2.to_open.front().copied(), &mut http2.requests) {
            let outcome = match requests.poll_ready(cx) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return,
            };
            http2.to_open.pop_front();
            match outcome.and_then(|()| requests.send_request(http2.request.clone(), false)) {
                Ok((response, send)) => {
                    if http2.opening == 0 {
                        http2.deadline.as_mut().reset(tokio::time::Instant::now() + OPEN_TIMEOUT);
                    }
                    http2.opening += 1;
                    let opening = Opening { response, send, began: Instant::now() };
                    self.put(slot, Slot::Opening(Box::new(opening)));
                    self.look_at(slot);
                    // So that its response is asked for at once.
                    cx.waker().wake_by_ref();
                }
                Err(error) => self.run.not_opened(&error.into()),
            }
        }
    }

    /// Looks whether the stream in `slot` has been answered.
    pub(super) fn answered(&mut self, slot: u32, mut opening: Box<Opening>) {
        let waker = self.waker(slot);
        let outcome = match pin!(&mut opening.response).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => return self.put(slot, Slot::Opening(opening)),
            Poll::Ready(outcome) => outcome,
        };
        if let Some(http2) = self.http2_mut() {
            http2.opening = http2.opening.saturating_sub(1);
        }
        let response = match outcome {
            Ok(response) if response.status().as_u16() == 200 => response,
            Ok(response) => return self.run.not_opened(&OpenError::Status(response.status().as_u16())),
            Err(error) => return self.run.not_opened(&error.into()),
        };
        let agreed = match compression::judge(response.headers(), self.run.options.deflate.as_ref()) {
            Ok(agreed) => agreed,
            Err(error) => return self.run.not_opened(&error),
        };
        let rank = self.rank(slot);
        let Opening { send, began, .. } = *opening;
        self.run.opened(rank, began.elapsed());
        let recv = response.into_body();
        let stream = Stream { send, recv, received: Bytes::new(), ended: false };
        self.join(slot, Carrier::Stream(Box::new(stream)), Vec::new(), agreed);
        self.look_at(slot);
    }

    /// Fails what has waited too long for its answer.
    fn give_up(&mut self, http2: &mut Http2) {
        for slot in &mut self.slots {
            if matches!(slot, Slot::Opening(_)) {
                *slot = Slot::Vacant;
                self.run.not_opened(&OpenError::TimedOut);
            }
        }
        http2.opening = 0;
    }
}

impl Stream {
    /// Ends our direction.
    pub(super) fn finish(mut self) {
        // A stream that is gone needs no end.
        let _ = self.send.send_data(Bytes::new(), true);
    }

    pub(super) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_empty() {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = self.received.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.received.split_to(count));
        if self.received.is_empty() {
            // An empty rest would keep the connection's whole read buffer.
            self.received = Bytes::new();
        }
        self.recv.flow_control().release_capacity(count).map_err(broken)?;
        Ok(count)
    }

    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send.reserve_capacity(bytes.len());
        let count = self.send.capacity().min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.send.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(broken)?;
        Ok(count)
    }

    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.received.is_empty() && !self.ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.received = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match self.send.poll_capacity(cx) {
            Poll::Ready(Some(outcome)) => Poll::Ready(outcome.map(drop).map_err(broken)),
            Poll::Ready(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            reset(self.socket.tcp());
        }
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
