//! The server's half of the HTTP/1.1 upgrade (RFC 6455 section 4.2), and what HTTP/2 has in common with it.

use std::io;
use std::sync::Arc;

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};

use super::door::Full;
use super::figures::{Failed, Figures};
use super::member::Member;
use super::pages::{self, Page};
use super::policy::{Denial, Route};
use super::seat::Seat;
use super::{Options, Shared};
use crate::deflate::{Agreed, negotiate};

/// Longest request header accepted, in bytes.
pub(super) const MAX_REQUEST: usize = 16 * 1024;

/// A finished handshake.
pub(super) struct Upgraded {
    pub(super) seat: Seat,
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
    /// A page has been sent.
    #[error("answered with a page")]
    Page,
    #[error("answered {}", .0.status)]
    Refused(Refusal),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UpgradeError {
    /// What it counts as; `None` where nothing failed.
    pub(super) fn why(&self) -> Option<Failed> {
        match self {
            Self::Page => None,
            Self::Refused(refusal) => Some(refusal.why),
            Self::Ended | Self::Io(_) => Some(Failed::Gone),
        }
    }
}

/// What a connection has to pass before it is a WebSocket.
pub(super) struct Gate<'a> {
    pub(super) shared: &'a Arc<Shared>,
    /// Who comes.
    pub(super) member: Member,
    /// Where failures are counted; `None` where the connection has been counted already.
    pub(super) figures: Option<&'a Figures>,
    /// What every request gets, whatever it asks for.
    pub(super) refusal: Option<Refusal>,
}

impl Gate<'_> {
    /// Counts a failure.
    pub(super) fn failed(&self, why: Failed) {
        self.figures.into_iter().for_each(|figures| figures.fail(why));
    }

    fn refusal(&self) -> Option<Refusal> {
        self.refusal.or_else(|| self.shared.roster.draining().then_some(Refusal::DRAINING))
    }
}

/// A refusal: the status and the header fields that help the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// What it counts as.
    pub(super) why: Failed,
}

impl Refusal {
    const fn new(status: StatusCode, why: Failed) -> Self {
        Self { status, fields: &[], why }
    }

    const fn with(self, fields: &'static [(&'static str, &'static str)]) -> Self {
        Self { fields, ..self }
    }

    /// As many connections as there may be. What it counts as is counted elsewhere.
    pub(super) const FULL: Self = Self::DRAINING;
    /// As many from the peer's address.
    pub(super) const FULL_ADDRESS: Self =
        Self::new(StatusCode::TOO_MANY_REQUESTS, Failed::Draining).with(RETRY);
    pub(super) const DRAINING: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Failed::Draining).with(RETRY);
    pub(super) const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND, Failed::NotFound);
    pub(super) const BAD_REQUEST: Self = Self::new(StatusCode::BAD_REQUEST, Failed::Malformed);
    pub(super) const BAD_METHOD: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Failed::Method).with(&[("allow", "GET, HEAD, CONNECT")]);
    /// RFC 8441 section 4: a `:protocol` that is not known here.
    pub(super) const UNKNOWN_PROTOCOL: Self = Self::new(StatusCode::NOT_IMPLEMENTED, Failed::NoUpgrade);
    /// RFC 6455 section 4.4, as HTTP/2 has no 426.
    pub(super) const BAD_VERSION: Self =
        Self::new(StatusCode::BAD_REQUEST, Failed::NoUpgrade).with(&[("sec-websocket-version", "13")]);
    const BAD_HTTP: Self = Self::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, Failed::Malformed);
    const FORBIDDEN: Self = Self::new(StatusCode::FORBIDDEN, Failed::Origin);
    pub(super) const NO_ROOM: Self = Self::new(StatusCode::SERVICE_UNAVAILABLE, Failed::Rooms).with(RETRY);
    const TOO_LARGE: Self = Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Failed::TooLarge);
    const ONLY_GET: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Failed::Method).with(&[("allow", "GET")]);
    const UPGRADE_REQUIRED: Self = Self::new(StatusCode::UPGRADE_REQUIRED, Failed::NoUpgrade)
        .with(&[("upgrade", "websocket"), ("sec-websocket-version", "13")]);
}

const RETRY: &[(&str, &str)] = &[("retry-after", "1")];

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NotFound => Self::NOT_FOUND,
            Denial::Origin => Self::FORBIDDEN,
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Connections => Self::FULL,
            Full::Address => Self::FULL_ADDRESS,
        }
    }
}

/// A WebSocket that may be, whatever HTTP it is asked for in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) route: Route,
    /// The compression negotiated, if any.
    pub(super) deflate: Option<Agreed>,
    /// What the answer says besides the handshake itself.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
}

/// How a request of HTTP/1.1 is answered.
enum Answer {
    /// With the 101 response.
    WebSocket {
        seat: Seat,
        deflate: Option<Agreed>,
        response: Vec<u8>,
    },
    Page(Page),
}

/// Decides on a WebSocket by what does not depend on the version of HTTP.
///
/// # Errors
/// What it is refused with.
pub(super) fn grant(options: &Options, uri: &Uri, fields: &HeaderMap) -> Result<Grant, Refusal> {
    let origins = fields.get_all("origin").iter().map(HeaderValue::as_bytes);
    let route = options.policy.admit(uri.path(), origins)?;
    let mut grant = Grant { route, deflate: None, fields: Vec::new() };
    let offers = fields.get_all(&SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let settings = options.deflate.as_ref();
    if let Some((agreed, answer)) = settings.and_then(|settings| negotiate::answer(offers, settings)) {
        let answer = HeaderValue::try_from(answer).map_err(|_| Refusal::BAD_REQUEST)?;
        grant.deflate = Some(agreed);
        grant.fields.push((SEC_WEBSOCKET_EXTENSIONS, answer));
    }
    Ok(grant)
}

/// Reads one request, which begins with what was `received` already, and answers it: 101, a page, or the status that says
/// what is wrong.
///
/// # Errors
/// When there is no WebSocket at the end.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    mut received: Vec<u8>,
    gate: &Gate<'_>,
) -> Result<Upgraded, UpgradeError> {
    let answer = loop {
        // Whole requests may have been received already.
        match Request::try_parse(&received) {
            Ok(None) if received.len() < MAX_REQUEST => {}
            Ok(None) => break Err(Refusal::TOO_LARGE),
            Ok(Some((size, request))) => break judge(&request, gate).map(|found| (size, found)),
            Err(error) => break Err(malformed(&error)),
        }
        if io.read_buf(&mut received).await? == 0 {
            return Err(UpgradeError::Ended);
        }
    };
    let (error, bytes) = match answer {
        Ok((size, Answer::WebSocket { seat, deflate, response })) => {
            io.write_all(&response).await?;
            io.flush().await?;
            return Ok(Upgraded { seat, deflate, tail: received.split_off(size) });
        }
        Ok((_, Answer::Page(page))) => (UpgradeError::Page, page.to_http1()),
        Err(refusal) => (UpgradeError::Refused(refusal), refusal.to_http1()),
    };
    io.write_all(&bytes).await?;
    io.flush().await?;
    Err(error)
}

fn judge(request: &Request, gate: &Gate<'_>) -> Result<Answer, Refusal> {
    let refusal = gate.refusal();
    if !request.headers().contains_key("upgrade")
        && let Some(page) = pages::find(request.uri().path(), gate.shared).filter(|_| refusal.is_none())
    {
        return Ok(Answer::Page(page));
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let (granted, response) = accept(request, &gate.shared.options)?;
    let deflate = granted.deflate;
    let seat = Seat::take(gate.shared, gate.member, granted.route).ok_or(Refusal::NO_ROOM)?;
    Ok(Answer::WebSocket { seat, deflate, response })
}

/// What is granted, and the 101 response.
fn accept(request: &Request, options: &Options) -> Result<(Grant, Vec<u8>), Refusal> {
    check(request.headers())?;
    let granted = grant(options, request.uri(), request.headers())?;
    let mut bytes = Vec::with_capacity(256);
    create_response(request)
        .and_then(|mut response| {
            response.headers_mut().extend(granted.fields.iter().cloned());
            write_response(&mut bytes, &response)
        })
        .map_err(|error| malformed(&error))?;
    Ok((granted, bytes))
}

/// What the engine does not look at: fields that must be there once, and a body, whose bytes would be taken for frames.
fn check(fields: &HeaderMap) -> Result<(), Refusal> {
    let once = |name: &str| {
        let mut values = fields.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    let host = once("host").is_some_and(|host| Authority::try_from(host).is_ok());
    let body = fields.contains_key("transfer-encoding")
        || fields.get_all("content-length").iter().any(|length| length.as_bytes() != b"0");
    // Where it is missing or wrong, the engine has a better answer.
    let version = fields.get_all("sec-websocket-version").iter().count() <= 1;
    let key = !fields.contains_key("sec-websocket-key") || once("sec-websocket-key").is_some_and(is_key);
    if host && !body && version && key { Ok(()) } else { Err(Refusal::BAD_REQUEST) }
}

/// Whether these are 16 bytes in base64.
fn is_key(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    value.len() == 24 && value.ends_with(b"==") && value[..22].iter().all(plain)
}

fn malformed(error: &WsError) -> Refusal {
    match error {
        WsError::Protocol(ProtocolError::WrongHttpMethod) => Refusal::ONLY_GET,
        WsError::Protocol(ProtocolError::WrongHttpVersion) => Refusal::BAD_HTTP,
        WsError::Capacity(CapacityError::TooManyHeaders) => Refusal::TOO_LARGE,
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
        accept(&request, &Options::default())
    }

    const FIELDS: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn paths() {
        for (path, found) in [
            ("/", Ok(Route::Echo)),
            ("/echo?x=1", Ok(Route::Echo)),
            ("http://x/sink", Ok(Route::Sink)),
            ("/broadcast", Ok(Route::Room(String::new()))),
            ("/other", Err(Refusal::NOT_FOUND)),
        ] {
            let outcome = request(&format!("GET {path} HTTP/1.1\r\n{FIELDS}"));
            assert_eq!(outcome.map(|(granted, _)| granted.route), found, "{path}");
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
