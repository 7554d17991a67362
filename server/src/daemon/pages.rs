//! Ordinary requests: what a GET that asks for no WebSocket gets, in either version of HTTP.

use std::fmt::Write as _;

use http::{HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::Bytes;

use super::Shared;
use super::census::Over;
use super::figures::Figures;

/// Opens a WebSocket to where it came from, exchanges messages, and says on the page how that went.
const TEST_PAGE: &str = include_str!("pages/test.html");

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    kind: &'static str,
    pub(super) body: Bytes,
}

/// The page at `path`, if there is one.
pub(super) fn find(path: &str, shared: &Shared) -> Option<Page> {
    let page = |kind, body| Page { status: StatusCode::OK, kind, body };
    Some(match path {
        "/" => page(HTML, status(shared).into()),
        "/test" => page(HTML, Bytes::from_static(TEST_PAGE.as_bytes())),
        "/healthz" if shared.roster.draining() => Page {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: TEXT,
            body: Bytes::from_static(b"going away\n"),
        },
        "/healthz" => page(TEXT, Bytes::from_static(b"ok\n")),
        _ => return None,
    })
}

/// What the server is doing.
fn status(shared: &Shared) -> String {
    let mut rows = String::new();
    for over in Over::ALL {
        let (name, open, opened) = (over.name(), shared.census.open(over), shared.census.opened(over));
        // Writing to a string does not fail.
        let _ = writeln!(rows, "<tr><th>{name}<td>{open}<td>{opened}");
    }
    let open = shared.porter.open();
    let counts = [
        ("Places taken, connections of HTTP/2 included", open as u64),
        ("Connections accepted", shared.sum(|figures| figures.accepted.get())),
        ("Connections refused", shared.sum(Figures::all_refused)),
        ("Peers that answered no ping", shared.sum(|figures| figures.ping_timeouts.get())),
        ("Rooms with members", shared.roster.rooms() as u64),
        ("Messages lost to slow consumers", shared.sum(|figures| figures.relay_dropped.get())),
    ];
    let mut rest = String::new();
    for (name, count) in counts {
        let _ = writeln!(rest, "<tr><th>{name}<td>{count}");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>headroom-server</title>\n\
         <style>body{{font:16px sans-serif;margin:2em}}th{{text-align:left;font-weight:normal}}\
         th,td{{padding:.2em 1em .2em 0}}td{{text-align:right}}</style>\n\
         <h1>headroom-server</h1>\n<table>\n<tr><th>WebSockets<td>open<td>since the start\n{rows}</table>\n\
         <table>\n{rest}</table>\n\
         <p>WebSockets: /echo returns messages, /broadcast relays them. <a href=\"/test\">/test</a> tries one from this browser; \
         <a href=\"/healthz\">/healthz</a> is for load balancers.\n</html>\n"
    )
}

impl Page {
    /// As HTTP/1.1 has it.
    pub(super) fn to_http1(&self) -> Vec<u8> {
        http1(self.status, &[], self.kind, &self.body)
    }

    /// The head of the answer in HTTP/2.
    pub(super) fn head(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert("content-type", HeaderValue::from_static(self.kind));
        fields.insert("content-length", self.body.len().into());
        fields.insert("cache-control", HeaderValue::from_static("no-store"));
        response
    }
}

/// A whole answer of HTTP/1.1, after which the connection ends.
pub(super) fn http1(status: StatusCode, fields: &[(&str, &str)], kind: &str, body: &[u8]) -> Vec<u8> {
    // `Display` has the reason, where the code has one.
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(
        head,
        "connection: close\r\ncache-control: no-store\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
