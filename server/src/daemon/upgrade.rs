//! The server's half of the HTTP/1.1 upgrade (RFC 6455 section 4.2), and what HTTP/2 has in common with it.

use std::io;

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};

use super::Shared;
use super::pages::{self, Page};
use crate::deflate::{Agreed, Settings, negotiate};

/// Longest request header accepted, in bytes.
pub(super) const MAX_REQUEST: usize = 16 * 1024;

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
    Answered(StatusCode),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A refusal: the status and the header fields that help the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) fields: &'static [(&'static str, &'static str)],
}

impl Refusal {
    pub(super) const BUSY: Self =
        Self { status: StatusCode::SERVICE_UNAVAILABLE, fields: &[("retry-after", "1")] };
    pub(super) const NOT_FOUND: Self = Self { status: StatusCode::NOT_FOUND, fields: &[] };
    pub(super) const BAD_REQUEST: Self = Self { status: StatusCode::BAD_REQUEST, fields: &[] };
    pub(super) const BAD_METHOD: Self =
        Self { status: StatusCode::METHOD_NOT_ALLOWED, fields: &[("allow", "GET, HEAD, CONNECT")] };
    /// RFC 8441 section 4: a `:protocol` that is not known here.
    pub(super) const UNKNOWN_PROTOCOL: Self = Self { status: StatusCode::NOT_IMPLEMENTED, fields: &[] };
    /// RFC 6455 section 4.4, as HTTP/2 has no 426.
    pub(super) const BAD_VERSION: Self =
        Self { status: StatusCode::BAD_REQUEST, fields: &[("sec-websocket-version", "13")] };
    const TOO_LARGE: Self = Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, fields: &[] };
    const ONLY_GET: Self = Self { status: StatusCode::METHOD_NOT_ALLOWED, fields: &[("allow", "GET")] };
    const UPGRADE_REQUIRED: Self = Self {
        status: StatusCode::UPGRADE_REQUIRED,
        fields: &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
    };
}

/// A WebSocket that may be, whatever HTTP it is asked for in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) path: Path,
    /// The compression negotiated, if any.
    pub(super) deflate: Option<Agreed>,
    /// What the answer says besides the handshake itself.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
}

/// How a request of HTTP/1.1 is answered.
enum Answer {
    /// With the 101 response.
    WebSocket(Grant, Vec<u8>),
    Page(Page),
}

/// Decides on a WebSocket by what does not depend on the version of HTTP.
///
/// # Errors
/// What it is refused with.
pub(super) fn grant(
    uri: &Uri,
    fields: &HeaderMap,
    deflate: Option<&Settings>,
    full: bool,
) -> Result<Grant, Refusal> {
    if full {
        return Err(Refusal::BUSY);
    }
    let path = match uri.path() {
        "/" | "/echo" => Path::Echo,
        "/broadcast" => Path::Broadcast,
        _ => return Err(Refusal::NOT_FOUND),
    };
    let mut grant = Grant { path, deflate: None, fields: Vec::new() };
    let offers = fields.get_all(&SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    if let Some((agreed, answer)) = deflate.and_then(|settings| negotiate::answer(offers, settings)) {
        grant.deflate = Some(agreed);
        grant.fields.push((
            SEC_WEBSOCKET_EXTENSIONS,
            HeaderValue::try_from(answer).map_err(|_| Refusal::BAD_REQUEST)?,
        ));
    }
    Ok(grant)
}

/// Reads one request, which begins with what was `received` already, and answers it: 101, a page, or the status that says
/// what is wrong. `full` is asked once the request is complete and makes it 503.
///
/// # Errors
/// When there is no WebSocket at the end.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    mut received: Vec<u8>,
    shared: &Shared,
    full: impl Fn() -> bool,
) -> Result<Upgraded, UpgradeError> {
    let answer = loop {
        // Whole requests may have been received already.
        match Request::try_parse(&received) {
            Ok(None) if received.len() < MAX_REQUEST => {}
            Ok(None) => break Err(Refusal::TOO_LARGE),
            Ok(Some((size, request))) => break judge(&request, shared, full()).map(|found| (size, found)),
            Err(error) => break Err(malformed(&error)),
        }
        if io.read_buf(&mut received).await? == 0 {
            return Err(UpgradeError::Ended);
        }
    };
    let (status, bytes) = match answer {
        Ok((size, Answer::WebSocket(Grant { path, deflate, .. }, response))) => {
            io.write_all(&response).await?;
            io.flush().await?;
            return Ok(Upgraded { path, deflate, tail: received.split_off(size) });
        }
        Ok((_, Answer::Page(page))) => (page.status, page.to_http1()),
        Err(refusal) => (refusal.status, refusal.to_http1()),
    };
    io.write_all(&bytes).await?;
    io.flush().await?;
    Err(UpgradeError::Answered(status))
}

fn judge(request: &Request, shared: &Shared, full: bool) -> Result<Answer, Refusal> {
    if !request.headers().contains_key("upgrade")
        && let Some(page) = pages::find(request.uri().path(), shared).filter(|_| !full)
    {
        return Ok(Answer::Page(page));
    }
    let (grant, response) = accept(request, shared.options.deflate.as_ref(), full)?;
    Ok(Answer::WebSocket(grant, response))
}

/// What is granted, and the 101 response.
fn accept(request: &Request, deflate: Option<&Settings>, full: bool) -> Result<(Grant, Vec<u8>), Refusal> {
    let grant = grant(request.uri(), request.headers(), deflate, full)?;
    let mut bytes = Vec::with_capacity(256);
    create_response(request)
        .and_then(|mut response| {
            response.headers_mut().extend(grant.fields.iter().cloned());
            write_response(&mut bytes, &response)
        })
        .map_err(|error| malformed(&error))?;
    Ok((grant, bytes))
}

fn malformed(error: &WsError) -> Refusal {
    match error {
        WsError::Protocol(ProtocolError::WrongHttpMethod) => Refusal::ONLY_GET,
        WsError::Protocol(
            ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => Refusal::UPGRADE_REQUIRED,
        _ => Refusal::BAD_REQUEST,
    }
}

impl Refusal {
    fn to_http1(self) -> Vec<u8> {
        let body = format!("{}\n", self.status);
        pages::http1(self.status, self.fields, "text/plain", body.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Result<(Grant, Vec<u8>), Refusal> {
        let (_, request) = Request::try_parse(head.as_bytes()).unwrap().unwrap();
        accept(&request, Some(&Settings::default()), false)
    }

    const FIELDS: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn paths() {
        for (path, found) in [
            ("/", Ok(Path::Echo)),
            ("/echo?x=1", Ok(Path::Echo)),
            ("/broadcast", Ok(Path::Broadcast)),
            ("/other", Err(Refusal::NOT_FOUND)),
        ] {
            let outcome = request(&format!("GET {path} HTTP/1.1\r\n{FIELDS}"));
            assert_eq!(outcome.map(|(grant, _)| grant.path), found, "{path}");
        }
    }

    #[test]
    fn the_rfc_example_key() {
        let (grant, response) = request(&format!("GET / HTTP/1.1\r\n{FIELDS}")).unwrap();
        assert_eq!(grant.deflate, None);
        let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
        assert!(response.starts_with("http/1.1 101 "));
        assert!(response.contains("s3pplmbitxaq9kygzzhzrbk+xoo="));
    }

    #[test]
    fn a_plain_request_is_told_to_upgrade() {
        assert_eq!(request("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"), Err(Refusal::UPGRADE_REQUIRED));
    }
}
