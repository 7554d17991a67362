//! A client made of the h2 crate and frames written by hand.

use h2::client::{Builder, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Bytes;

use crate::raw::{CLOSE, FIN, frame};
use crate::support::PATIENCE;

/// One HTTP/2 connection.
pub(crate) struct Peer {
    requests: SendRequest<Bytes>,
    authority: String,
    /// Ends with the connection.
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

/// One WebSocket on it.
pub(crate) struct Stream {
    pub(crate) send: SendStream<Bytes>,
    recv: RecvStream,
    received: Vec<u8>,
    /// Bytes are given back to the server's window as they are read.
    pub(crate) greedy: bool,
}

impl Peer {
    pub(crate) async fn connect(address: &str) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(tcp, address).await
    }

    pub(crate) async fn over<S>(io: S, authority: &str) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        // The connection's window is never what a stream waits for.
        builder.initial_connection_window_size(64 << 20);
        let (requests, connection) = builder.handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        let allowed = async {
            while !requests.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, allowed).await.expect("SETTINGS_ENABLE_CONNECT_PROTOCOL");
        Self { requests, authority: authority.to_owned(), driver }
    }

    /// Sends a request and awaits the head of the answer.
    pub(crate) async fn ask(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let mut requests = timeout(PATIENCE, self.requests.clone().ready()).await.expect("room")?;
        let (response, send) = requests.send_request(request, end)?;
        let response = timeout(PATIENCE, response).await.expect("an answer")?;
        Ok((response, send))
    }

    /// An extended CONNECT.
    pub(crate) async fn extended(
        &self,
        path: &str,
        protocol: Option<&'static str>,
        version: Option<&str>,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let mut request = Request::builder().method(Method::CONNECT);
        request = match protocol {
            Some(protocol) => request
                .uri(format!("http://{}{path}", self.authority))
                .extension(Protocol::from_static(protocol)),
            None => request.uri(self.authority.as_str()),
        };
        if let Some(version) = version {
            request = request.header("sec-websocket-version", version);
        }
        self.ask(request.body(()).unwrap(), false).await
    }

    pub(crate) async fn try_open(&self, path: &str) -> Result<Stream, u16> {
        let (response, send) = self.extended(path, Some("websocket"), Some("13")).await.unwrap();
        match response.status().as_u16() {
            200 => Ok(Stream { send, recv: response.into_body(), received: Vec::new(), greedy: true }),
            status => Err(status),
        }
    }

    pub(crate) async fn open(&self, path: &str) -> Stream {
        self.try_open(path).await.unwrap()
    }

    /// An ordinary request: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(format!("http://{}{path}", self.authority)).body(()).unwrap();
        let (response, _) = self.ask(request, true).await.unwrap();
        let (status, mut body) = (response.status().as_u16(), response.into_body());
        let mut text = Vec::new();
        while let Some(data) = timeout(PATIENCE, body.data()).await.expect("a body") {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            text.extend(data);
        }
        (status, String::from_utf8(text).unwrap())
    }
}

impl Stream {
    pub(crate) fn write(&mut self, bytes: impl Into<Bytes>) {
        self.send.send_data(bytes.into(), false).unwrap();
    }

    pub(crate) fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.write(frame(FIN | opcode, payload));
    }

    /// The server's next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        self.try_next().await.expect("no reset")
    }

    /// The same, where the server may reset the stream.
    pub(crate) async fn try_next(&mut self) -> Result<Option<(u8, Vec<u8>)>, Reason> {
        loop {
            if let Some((first, payload, rest)) = parse(&self.received) {
                self.received = rest;
                return Ok(Some((first, payload)));
            }
            match timeout(PATIENCE, self.recv.data()).await.expect("a frame or the end") {
                Some(Ok(data)) => {
                    if self.greedy {
                        self.recv.flow_control().release_capacity(data.len()).unwrap();
                    }
                    self.received.extend(data);
                }
                Some(Err(error)) => return Err(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
                None => return Ok(None),
            }
        }
    }

    /// Sends a message and expects it back.
    pub(crate) async fn echo(&mut self, opcode: u8, payload: &[u8]) {
        self.frame(opcode, payload);
        let (first, echoed) = self.next().await.expect("an echo");
        assert_eq!((first, echoed.len()), (FIN | opcode, payload.len()));
        assert!(echoed == payload);
    }

    /// The closing handshake, begun here, and the end of both directions.
    pub(crate) async fn close(mut self) {
        self.frame(CLOSE, &1000_u16.to_be_bytes());
        assert_eq!(self.next().await, Some((FIN | CLOSE, 1000_u16.to_be_bytes().to_vec())));
        assert_eq!(self.next().await, None);
        self.send.send_data(Bytes::new(), true).unwrap();
    }
}

/// The frame that `bytes` begin with, and what follows it.
fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, Vec<u8>)> {
    let (&first, &short) = (bytes.first()?, bytes.get(1)?);
    assert!(short < 128, "a server's frame is not masked");
    let (start, length) = match short {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into()),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(start..start + length)?.to_vec();
    Some((first, payload, bytes[start + length..].to_vec()))
}
