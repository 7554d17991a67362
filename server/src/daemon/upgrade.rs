//! The server's half of the HTTP/1.1 upgrade (RFC 6455 section 4.2).

use std::io;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::deflate::{Agreed, Settings, negotiate};

/// Longest request header accepted, in bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// What the path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Echo,
    Broadcast,
}

/// A finished handshake.
pub(super) struct Upgraded {
    pub(super) path: Path,
    /// The compression negotiated, if any.
    pub(super) deflate: Option<Agreed>,
    /// Bytes that came after the request.
    pub(super) tail: Vec<u8>,
}

/// Why there is no WebSocket. The peer has been told, where it could be.
#[derive(Debug, Error)]
pub(super) enum UpgradeError {
    #[error("the connection ended within the request")]
    Ended,
    #[error("answered {0}")]
    Refused(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A refusal: status line and the header fields that help the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    status: &'static str,
    fields: &'static str,
}

const BUSY: Refusal = Refusal { status: "503 Service Unavailable", fields: "Retry-After: 1\r\n" };
const NOT_FOUND: Refusal = Refusal { status: "404 Not Found", fields: "" };
const BAD_REQUEST: Refusal = Refusal { status: "400 Bad Request", fields: "" };
const TOO_LARGE: Refusal = Refusal { status: "431 Request Header Fields Too Large", fields: "" };
const BAD_METHOD: Refusal = Refusal { status: "405 Method Not Allowed", fields: "Allow: GET\r\n" };
const UPGRADE_REQUIRED: Refusal =
    Refusal { status: "426 Upgrade Required", fields: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" };

/// Reads one request and answers it: 101, or the status that says what is wrong. `full` is asked once the request is
/// complete and makes it 503. Compression is negotiated by `deflate`, or not at all.
///
/// # Errors
/// When there is no WebSocket at the end.
pub(super) async fn answer(
    tcp: &mut TcpStream,
    full: impl Fn() -> bool,
    deflate: Option<&Settings>,
) -> Result<Upgraded, UpgradeError> {
    let mut received = Vec::with_capacity(1024);
    let parsed = loop {
        if tcp.read_buf(&mut received).await? == 0 {
            return Err(UpgradeError::Ended);
        }
        match Request::try_parse(&received) {
            Ok(None) if received.len() < MAX_REQUEST => {}
            Ok(None) => break Err(TOO_LARGE),
            Ok(Some((size, request))) => break judge(&request, full(), deflate).map(|found| (size, found)),
            Err(error) => break Err(malformed(&error)),
        }
    };
    match parsed {
        Ok((size, Accepted { path, deflate, response })) => {
            tcp.write_all(&response).await?;
            Ok(Upgraded { path, deflate, tail: received.split_off(size) })
        }
        Err(refusal) => {
            tcp.write_all(refusal.to_bytes().as_slice()).await?;
            Err(UpgradeError::Refused(refusal.status))
        }
    }
}

/// What a proper request gets.
#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    path: Path,
    deflate: Option<Agreed>,
    /// The 101 response.
    response: Vec<u8>,
}

fn judge(request: &Request, full: bool, deflate: Option<&Settings>) -> Result<Accepted, Refusal> {
    if full {
        return Err(BUSY);
    }
    let path = match request.uri().path() {
        "/" | "/echo" => Path::Echo,
        "/broadcast" => Path::Broadcast,
        _ => return Err(NOT_FOUND),
    };
    let mut accepted = Accepted { path, deflate: None, response: Vec::with_capacity(256) };
    let mut response = create_response(request).map_err(|error| malformed(&error))?;
    let offers = request.headers().get_all(negotiate::FIELD).iter().filter_map(|value| value.to_str().ok());
    if let Some((agreed, field)) = deflate.and_then(|settings| negotiate::answer(offers, settings)) {
        let field = HeaderValue::try_from(field).map_err(|_| BAD_REQUEST)?;
        response.headers_mut().insert(negotiate::FIELD, field);
        accepted.deflate = Some(agreed);
    }
    write_response(&mut accepted.response, &response).map_err(|error| malformed(&error))?;
    Ok(accepted)
}

fn malformed(error: &WsError) -> Refusal {
    match error {
        WsError::Protocol(ProtocolError::WrongHttpMethod) => BAD_METHOD,
        WsError::Protocol(
            ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => UPGRADE_REQUIRED,
        _ => BAD_REQUEST,
    }
}

impl Refusal {
    fn to_bytes(self) -> Vec<u8> {
        let Self { status, fields } = self;
        format!(
            "HTTP/1.1 {status}\r\n{fields}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{status}\n",
            status.len() + 1
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Result<Accepted, Refusal> {
        let (_, request) = Request::try_parse(head.as_bytes()).unwrap().unwrap();
        judge(&request, false, Some(&Settings::default()))
    }

    const FIELDS: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn paths() {
        for (path, found) in [
            ("/", Ok(Path::Echo)),
            ("/echo?x=1", Ok(Path::Echo)),
            ("/broadcast", Ok(Path::Broadcast)),
            ("/other", Err(NOT_FOUND)),
        ] {
            let outcome = request(&format!("GET {path} HTTP/1.1\r\n{FIELDS}"));
            assert_eq!(outcome.map(|accepted| accepted.path), found, "{path}");
        }
    }

    #[test]
    fn the_rfc_example_key() {
        let Accepted { response, deflate, .. } = request(&format!("GET / HTTP/1.1\r\n{FIELDS}")).unwrap();
        assert_eq!(deflate, None);
        let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
        assert!(response.starts_with("http/1.1 101 "));
        assert!(response.contains("s3pplmbitxaq9kygzzhzrbk+xoo="));
    }

    #[test]
    fn a_plain_request_is_told_to_upgrade() {
        assert_eq!(request("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Err(UPGRADE_REQUIRED));
    }
}
