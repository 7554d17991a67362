//! The heads of a handshake, as the kernel side kept them, to what a document says of it.
//!
//! A head is what strangers sent: it may be cut short, malformed, or not text. What can be read is read, and the rest is
//! null. Only the fields named here leave the agent; cookies and credentials do not.

use crate::document::Upgrade;

/// Header fields looked at; a head with more is not parsed.
const FIELDS: usize = 96;
/// Longest value kept, in bytes.
const LONGEST: usize = 256;
/// Stands for a query that is not shown.
const REDACTED: &str = "[redacted]";

/// What the heads say. `request` may be cut at its end; both may be empty where nothing was kept.
pub fn upgrade(request: &[u8], response: &[u8], show_query: bool) -> Upgrade {
    let mut upgrade = Upgrade::default();
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let whole = completed(without_proxy_header(request));
    if parsed.parse(&whole).is_ok_and(|status| status.is_complete()) {
        if let Some((path, query)) = parsed
            .path
            .map(|target| target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query))))
        {
            upgrade.path = Some(clip(path));
            upgrade.query = query.map(|query| if show_query { clip(query) } else { REDACTED.to_owned() });
        }
        upgrade.host = field(parsed.headers, "host");
        upgrade.origin = field(parsed.headers, "origin");
        upgrade.user_agent = field(parsed.headers, "user-agent");
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let whole = completed(response);
    if parsed.parse(&whole).is_ok_and(|status| status.is_complete()) {
        upgrade.subprotocol = field(parsed.headers, "sec-websocket-protocol");
        upgrade.extensions = field(parsed.headers, "sec-websocket-extensions");
    }
    upgrade
}

/// What follows the header that a proxy puts before its client's bytes (PROXY protocol, sections 2.1 and 2.2).
fn without_proxy_header(bytes: &[u8]) -> &[u8] {
    const V1: &[u8] = b"PROXY ";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    /// Of version 2, before what its length counts.
    const FIXED: usize = 16;
    if bytes.starts_with(V1) {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").map_or(bytes.len(), |line| line + 2);
        return &bytes[end..];
    }
    if bytes.starts_with(V2) && bytes.len() >= FIXED {
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        return bytes.get(FIXED + length..).unwrap_or_default();
    }
    bytes
}

/// The head, or the whole lines of one that was cut.
fn completed(head: &[u8]) -> Vec<u8> {
    const END: &[u8] = b"\r\n\r\n";
    if head.windows(END.len()).any(|bytes| bytes == END) {
        return head.to_vec();
    }
    let lines = head.windows(2).rposition(|bytes| bytes == b"\r\n").unwrap_or(0);
    [&head[..lines], END].concat()
}

/// The values of a field, which may be repeated (RFC 9110 section 5.3).
fn field(headers: &[httparse::Header<'_>], name: &str) -> Option<String> {
    let values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let values: Vec<_> = values.map(|header| String::from_utf8_lossy(header.value)).collect();
    (!values.is_empty()).then(|| clip(&values.join(", ")))
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /chat?token=secret HTTP/1.1\r\nHost: example.org\r\nUser-Agent: probe/1\r\n\
                           Cookie: session=secret\r\nORIGIN: https://example.org\r\n\r\n";
    const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: chat\r\n\
                            Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n\r\n";

    #[test]
    fn named_fields_are_read_and_secrets_are_not() {
        let read = upgrade(REQUEST.as_bytes(), RESPONSE.as_bytes(), false);
        assert_eq!(read.path.as_deref(), Some("/chat"));
        assert_eq!(read.query.as_deref(), Some("[redacted]"));
        assert_eq!(read.host.as_deref(), Some("example.org"));
        assert_eq!(read.origin.as_deref(), Some("https://example.org"));
        assert_eq!(read.user_agent.as_deref(), Some("probe/1"));
        assert_eq!(read.subprotocol.as_deref(), Some("chat"));
        assert_eq!(read.extensions.as_deref(), Some("permessage-deflate; server_max_window_bits=12"));
        assert!(!format!("{read:?}").contains("secret"));
        let shown = upgrade(REQUEST.as_bytes(), b"", true);
        assert_eq!((shown.query.as_deref(), shown.subprotocol), (Some("token=secret"), None));
    }

    #[test]
    fn a_head_that_was_cut_gives_its_whole_lines() {
        for len in 0..REQUEST.len() {
            let read = upgrade(&REQUEST.as_bytes()[..len], b"", false);
            assert!(read.host.as_deref().is_none_or(|host| host == "example.org"), "{len} bytes");
            assert!(read.path.as_deref().is_none_or(|path| path == "/chat"), "{len} bytes");
        }
        let cut = upgrade(&REQUEST.as_bytes()[..80], b"", false);
        assert_eq!(cut.host.as_deref(), Some("example.org"));
    }

    #[test]
    fn proxy_header_is_skipped() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n".as_slice();
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\0\x50".as_slice();
        for header in [v1, v2] {
            let read = upgrade(&[header, REQUEST.as_bytes()].concat(), b"", false);
            assert_eq!(read.path.as_deref(), Some("/chat"));
            assert_eq!(read.host.as_deref(), Some("example.org"));
            for len in 0..header.len() {
                assert_eq!(upgrade(&header[..len], b"", false), Upgrade::default(), "{len} bytes");
            }
        }
    }

    #[test]
    fn noise_says_nothing() {
        assert_eq!(upgrade(&[0xff; 300], &[0; 40], true), Upgrade::default());
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "é".repeat(400));
        assert!(upgrade(long.as_bytes(), b"", true).path.is_none_or(|path| path.len() <= LONGEST));
    }
}
