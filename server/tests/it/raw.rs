//! A client that writes bytes, so that a test decides where they are cut.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::support::PATIENCE;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A client's frame with at most 65,535 bytes.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// An upgraded connection.
pub(crate) struct Raw {
    reader: Reader,
    writer: OwnedWriteHalf,
}

pub(crate) struct Reader {
    half: OwnedReadHalf,
}

impl Raw {
    pub(crate) async fn connect(address: &str, path: &str) -> Self {
        Self::try_connect(address, path).await.expect("an upgrade")
    }

    /// From an address of this host's own.
    pub(crate) async fn connect_from(from: &str, address: &str, path: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from.parse::<std::net::IpAddr>().unwrap(), 0).into()).unwrap();
        let tcp = socket.connect(address.parse().unwrap()).await.unwrap();
        Self::upgrade(tcp, address, path, "").await.expect("an upgrade").0
    }

    /// `None` when the server refuses.
    pub(crate) async fn try_connect(address: &str, path: &str) -> Option<Self> {
        Self::negotiate(address, path, "").await.map(|(raw, _)| raw)
    }

    /// The connection and the head of the answer to a request with more header `fields`. `None` when the server refuses.
    pub(crate) async fn negotiate(address: &str, path: &str, fields: &str) -> Option<(Self, String)> {
        Self::upgrade(TcpStream::connect(address).await.unwrap(), address, path, fields).await
    }

    async fn upgrade(mut tcp: TcpStream, address: &str, path: &str, fields: &str) -> Option<(Self, String)> {
        tcp.set_nodelay(true).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, tcp.read_u8()).await.expect("an answer").ok()?);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return None;
        }
        let (half, writer) = tcp.into_split();
        Some((Self { reader: Reader { half }, writer }, String::from_utf8(head).unwrap()))
    }

    pub(crate) fn split(self) -> (Reader, OwnedWriteHalf) {
        (self.reader, self.writer)
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    /// Ends our direction.
    pub(crate) async fn end(&mut self) {
        self.writer.shutdown().await.unwrap();
    }

    /// Resets the connection.
    pub(crate) fn reset(&self) {
        let tcp: &TcpStream = self.writer.as_ref();
        rustix::net::sockopt::set_socket_linger(tcp, Some(std::time::Duration::ZERO)).unwrap();
    }

    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.reader.frame().await
    }
}

impl Reader {
    /// The server's next frame: its first byte and its payload. `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, self.read()).await.expect("a frame or the end")
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.half.read_u8().await.ok()?;
        let length = match self.half.read_u8().await.unwrap() {
            126 => u64::from(self.half.read_u16().await.unwrap()),
            127 => self.half.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        assert!(length < 100_000_000, "no frame of a server's: masked, or out of step");
        let mut payload = vec![0; length as usize];
        self.half.read_exact(&mut payload).await.unwrap();
        Some((first, payload))
    }
}

/// xorshift64*: the same sequence for the same seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}
