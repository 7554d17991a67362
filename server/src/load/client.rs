//! The client's half of opening a connection: TCP, TLS where the URL says so, then the HTTP/1.1 upgrade (RFC 6455 section
//! 4.1). What comes after TLS over HTTP/2 is in [`super::http2`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;

use super::carrier::{Carrier, Socket};
use super::compression;
use super::target::Target;
use super::tls::Tls;
use crate::deflate::{Agreed, Settings};

/// A server that takes longer than this to accept is as good as down.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest response header accepted, in bytes.
const MAX_RESPONSE: usize = 16 * 1024;

/// An upgraded connection.
pub(super) struct Opened {
    pub(super) carrier: Carrier,
    /// Bytes that came after the response.
    pub(super) tail: Vec<u8>,
    /// Of compression.
    pub(super) agreed: Option<Agreed>,
    /// How long TCP and TLS took, and the upgrade.
    pub(super) times: (Duration, Duration),
}

#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("HTTP status {0}")]
    Status(u16),
    #[error(transparent)]
    Handshake(#[from] WsError),
    #[error("the answer does not fit the key")]
    Key,
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the server does not speak RFC 8441")]
    NoExtendedConnect,
    #[error("the server does not permit so many streams on a connection")]
    TooManyStreams,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("the server chose another protocol")]
    Alpn,
    #[error("compression was not agreed upon as offered")]
    Compression,
    #[error("we dropped everything meanwhile")]
    Severed,
    #[error("no answer in time")]
    TimedOut,
}

impl OpenError {
    /// Whether the server said no, as opposed to nothing or nonsense.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            OpenError::Status(_) | OpenError::NoExtendedConnect | OpenError::TooManyStreams => true,
            OpenError::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            OpenError::Http2(error) => error.reason() == Some(h2::Reason::REFUSED_STREAM),
            _ => false,
        }
    }

    /// Name in the report's `errors`.
    pub(super) fn kind(&self) -> String {
        match self {
            OpenError::Io(error) => io_kind(error).into(),
            OpenError::Status(status) => format!("http_{status}"),
            OpenError::Handshake(_) | OpenError::Key => "bad_handshake".into(),
            OpenError::Http2(error) => http2_kind(error),
            OpenError::NoExtendedConnect => "no_extended_connect".into(),
            OpenError::TooManyStreams => "too_many_streams".into(),
            OpenError::Tls(_) => "tls".into(),
            OpenError::Alpn => "alpn".into(),
            OpenError::Compression => "bad_compression_answer".into(),
            OpenError::Severed => "severed".into(),
            OpenError::TimedOut => "connect_timeout".into(),
        }
    }
}

/// Name of an I/O error in the report's `errors`.
pub(super) fn io_kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection_refused",
        io::ErrorKind::ConnectionReset => "connection_reset",
        io::ErrorKind::BrokenPipe => "broken_pipe",
        io::ErrorKind::TimedOut => "timed_out",
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => "no_free_port",
        io::ErrorKind::UnexpectedEof => "closed_within_handshake",
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => "no_free_descriptor",
        _ => "io",
    }
}

/// Name of an HTTP/2 error in the report's `errors`.
pub(super) fn http2_kind(error: &h2::Error) -> String {
    match (error.reason(), error.get_io()) {
        (Some(reason), _) => format!("http2_{reason:?}").to_lowercase(),
        (None, Some(error)) => io_kind(error).into(),
        (None, None) => "http2".into(),
    }
}

/// A byte stream to the server before it is known what will be spoken on it.
pub(super) enum Connected {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection from `block`'s address and upgrades it.
pub(super) async fn open(
    target: &Target,
    tls: Option<&Tls>,
    deflate: Option<&Settings>,
    block: u32,
) -> Result<Opened, OpenError> {
    let opening = async {
        let began = Instant::now();
        let mut bytes = connect(target, tls, block).await?;
        let connected = Instant::now();
        let (tail, agreed) = upgrade(&mut bytes, target, deflate).await?;
        let carrier = match bytes {
            Connected::Tcp(tcp) => Carrier::Tcp(Socket::new(OwnedFd::from(tcp.into_std()?))),
            Connected::Tls(stream) => Carrier::tls(*stream),
        };
        Ok(Opened { carrier, tail, agreed, times: (connected - began, connected.elapsed()) })
    };
    match timeout(OPEN_TIMEOUT, opening).await {
        Ok(outcome) => outcome,
        Err(_) => Err(OpenError::TimedOut),
    }
}

/// TCP, and TLS where the URL says so.
pub(super) async fn connect(target: &Target, tls: Option<&Tls>, block: u32) -> Result<Connected, OpenError> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = target.source(block) {
        port_when_connecting(&socket);
        socket.bind(source)?;
    }
    let tcp = socket.connect(target.address).await?;
    tcp.set_nodelay(true)?;
    match tls {
        Some(tls) if target.tls => Ok(Connected::Tls(Box::new(tls.connect(target, tcp).await?))),
        _ => Ok(Connected::Tcp(tcp)),
    }
}

/// Has the kernel choose the port when it knows the destination: otherwise all connections from an address share its
/// ports, wherever they go.
fn port_when_connecting(socket: &TcpSocket) {
    let yes: libc::c_int = 1;
    // SAFETY: the descriptor is open, the option takes an int, and the pointer and size are those of one.
    unsafe {
        // A kernel without the option chooses earlier.
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        );
    }
}

/// The upgrade; what was read beyond it, and what was agreed about compression.
async fn upgrade(
    bytes: &mut Connected,
    target: &Target,
    deflate: Option<&Settings>,
) -> Result<(Vec<u8>, Option<Agreed>), OpenError> {
    let mut request = (&target.uri).into_client_request()?;
    if let Some(offer) = compression::offer(deflate) {
        request.headers_mut().insert(compression::FIELD, offer);
    }
    let (request, key) = generate_request(request)?;
    bytes.write_all(&request).await?;
    bytes.flush().await?;
    let mut received = Vec::with_capacity(512);
    loop {
        if bytes.read_buf(&mut received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match Response::try_parse(&received)? {
            Some((size, response)) => {
                check(&response, &key)?;
                let agreed = compression::judge(response.headers(), deflate)?;
                return Ok((received.split_off(size), agreed));
            }
            None if received.len() > MAX_RESPONSE => {
                return Err(OpenError::Handshake(WsError::AttackAttempt));
            }
            None => {}
        }
    }
}

fn check(response: &Response, key: &str) -> Result<(), OpenError> {
    if response.status().as_u16() != 101 {
        return Err(OpenError::Status(response.status().as_u16()));
    }
    let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let upgraded = field("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    if !upgraded || field("Sec-WebSocket-Accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(OpenError::Key);
    }
    Ok(())
}

impl Connected {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Connected {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connected {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
