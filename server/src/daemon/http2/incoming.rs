//! What a request on an HTTP/2 connection asks for.

use h2::ext::Protocol;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response};
use tokio_tungstenite::tungstenite::Bytes;

use super::super::pages;
use super::super::upgrade::{Grant, Refusal, grant};
use super::super::{Options, Shared};

/// The protocol that this server speaks in an extended CONNECT.
const WEBSOCKET: &str = "websocket";

/// Decides on an extended CONNECT (RFC 8441 section 4).
///
/// # Errors
/// What it is refused with.
pub(super) fn judge<B>(request: &Request<B>, options: &Options, full: bool) -> Result<Grant, Refusal> {
    match request.extensions().get::<Protocol>().map(Protocol::as_str) {
        Some(WEBSOCKET) => {}
        Some(_) => return Err(Refusal::UNKNOWN_PROTOCOL),
        // A proxy's CONNECT.
        None => return Err(Refusal::BAD_METHOD),
    }
    let fields = request.headers();
    if fields.get("sec-websocket-version").is_none_or(|version| version != "13") {
        return Err(Refusal::BAD_VERSION);
    }
    if full {
        return Err(Refusal::DRAINING);
    }
    grant(options, request.uri(), fields)
}

/// Answers an ordinary request.
pub(super) fn answer<B>(request: &Request<B>, shared: &Shared, mut respond: SendResponse<Bytes>) {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(Refusal::BAD_METHOD, respond);
    }
    let path = request.uri().path();
    let page = match pages::find(path, shared) {
        Some(page) => page,
        None => return refuse(Refusal::NOT_FOUND, respond),
    };
    let bodiless = *request.method() == Method::HEAD;
    // A stream that is gone gets no answer.
    let Ok(mut body) = respond.send_response(page.head(), bodiless) else { return };
    if !bodiless {
        let _ = body.send_data(page.body, true);
    }
}

/// Says no.
pub(super) fn refuse(refusal: Refusal, mut respond: SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = refusal.status;
    for (name, value) in refusal.fields {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    // A stream that is gone gets no answer.
    let _ = respond.send_response(response, true);
}

/// Says yes.
pub(super) fn accept(grant: Grant, mut respond: SendResponse<Bytes>) -> Option<h2::SendStream<Bytes>> {
    let mut response = Response::new(());
    response.headers_mut().extend(grant.fields);
    respond.send_response(response, false).ok()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::super::policy::Route;
    use super::*;

    fn judged(
        path: &str,
        protocol: Option<&'static str>,
        version: Option<&str>,
        full: bool,
    ) -> Result<Route, u16> {
        let mut request = Request::builder().method("CONNECT").uri(format!("http://x{path}"));
        if let Some(version) = version {
            request = request.header("sec-websocket-version", version);
        }
        let mut request = request.body(()).unwrap();
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        judge(&request, &Options::default(), full)
            .map(|grant| grant.route)
            .map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn extended_connect() {
        let websocket = Some(WEBSOCKET);
        assert_eq!(judged("/", websocket, Some("13"), false), Ok(Route::Echo));
        assert_eq!(judged("/echo?x", websocket, Some("13"), false), Ok(Route::Echo));
        assert_eq!(judged("/broadcast", websocket, Some("13"), false), Ok(Route::Room(String::new())));
        assert_eq!(judged("/other", websocket, Some("13"), false), Err(404));
        assert_eq!(judged("/", websocket, Some("13"), true), Err(503));
        assert_eq!(judged("/", websocket, Some("8"), false), Err(400));
        assert_eq!(judged("/", websocket, None, false), Err(400));
        assert_eq!(judged("/", Some("connect-udp"), Some("13"), false), Err(501));
        assert_eq!(judged("/", None, Some("13"), false), Err(StatusCode::METHOD_NOT_ALLOWED.as_u16()));
    }
}
