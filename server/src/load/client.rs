//! The client's half of opening a connection: TCP, then the HTTP/1.1 upgrade (RFC 6455 section 4.1).

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;

use super::target::Target;

/// A server that takes longer than this to accept is as good as down.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest response header accepted, in bytes.
const MAX_RESPONSE: usize = 16 * 1024;

/// An upgraded connection.
pub(super) struct Opened {
    pub(super) tcp: TcpStream,
    /// Bytes that came after the response.
    pub(super) tail: Vec<u8>,
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
    #[error("no answer in time")]
    TimedOut,
}

impl OpenError {
    /// Whether the server said no, as opposed to nothing or nonsense.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            OpenError::Status(_) => true,
            OpenError::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        }
    }

    /// Name in the report's `errors`.
    pub(super) fn kind(&self) -> String {
        match self {
            OpenError::Io(error) => io_kind(error).into(),
            OpenError::Status(status) => format!("http_{status}"),
            OpenError::Handshake(_) | OpenError::Key => "bad_handshake".into(),
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

/// Opens connection `index`.
pub(super) async fn open(target: &Target, index: u32) -> Result<Opened, OpenError> {
    match timeout(OPEN_TIMEOUT, connect(target, index)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(OpenError::TimedOut),
    }
}

async fn connect(target: &Target, index: u32) -> Result<Opened, OpenError> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = target.source(index) {
        socket.bind(source)?;
    }
    let mut tcp = socket.connect(target.address).await?;
    tcp.set_nodelay(true)?;

    let (request, key) = generate_request((&target.uri).into_client_request()?)?;
    tcp.write_all(&request).await?;
    let mut received = Vec::with_capacity(512);
    loop {
        if tcp.read_buf(&mut received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match Response::try_parse(&received)? {
            Some((size, response)) => {
                check(&response, &key)?;
                return Ok(Opened { tcp, tail: received.split_off(size) });
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
