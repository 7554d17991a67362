//! The handshake scanner on any bytes in any cuts, against httparse and the grammar of the extension list.

use agent_ebpf::handshake::{self, Beginning, Deflate, MAX_HEAD, STATUS_LINE, Scanner};

/// Takes the first byte for the cuts and the rest for the head, and panics where the scanner is wrong.
pub(crate) fn run(bytes: &[u8]) {
    let Some((cuts, head)) = bytes.split_first() else { return };
    let (scanner, taken) = scan(head, [head.len()].into_iter());
    bounded(&scanner, taken, head);
    let sizes = (0..).map(|turn| 1 + (usize::from(*cuts).rotate_left(turn % 64) & 0x1f));
    assert_eq!(scan(head, sizes), (scanner, taken), "the outcome depends on the cuts");
    begins(head);
    agrees(&scanner, taken, head);
}

/// Feeds the head in packets of those sizes the way the packet program does: it stops for good where the scanner says so.
fn scan(head: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Scanner, usize) {
    let (mut scanner, mut at) = (Scanner::default(), 0);
    while at < head.len() && !scanner.ended() && !scanner.failed() {
        let size = sizes.next().unwrap_or(head.len()).min(head.len() - at);
        let packet = &head[at..at + size];
        let taken = packet.iter().position(|byte| !scanner.push(*byte)).map_or(size, |last| last + 1);
        at += taken;
    }
    (scanner, at)
}

fn bounded(scanner: &Scanner, taken: usize, head: &[u8]) {
    assert_eq!(usize::from(scanner.taken()), taken);
    assert!(scanner.taken() <= MAX_HEAD);
    assert!(taken == head.len() || scanner.ended() || scanner.failed(), "it stopped without a reason");
    assert!(!scanner.is_upgrade() || scanner.ended());
}

/// The first look at a packet lets every upgrade pass, however little of it there is.
fn begins(head: &[u8]) {
    for len in 1..=head.len().min(16) {
        let mut start = [0; 16];
        start[..len].copy_from_slice(&head[..len]);
        let agreeing = len.min(STATUS_LINE.len());
        let is_beginning = head[..agreeing] == STATUS_LINE[..agreeing];
        let found = handshake::beginning(&start, len as u32);
        assert_eq!(found == Beginning::Upgrade, is_beginning, "{len} bytes");
    }
}

/// Whatever head httparse takes for whole is an upgrade for both or for neither, and ends at the same byte.
fn agrees(scanner: &Scanner, taken: usize, head: &[u8]) {
    // Line ends before the status line are a courtesy of httparse.
    if !head.starts_with(b"H") {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(len)) = response.parse(head) else { return };
    if len >= usize::from(MAX_HEAD) {
        return;
    }
    let is_101 = response.version == Some(1) && response.code == Some(101);
    assert_eq!(!scanner.failed(), is_101, "status {:?}, version {:?}", response.code, response.version);
    if !is_101 {
        return;
    }
    assert_eq!((scanner.ended(), taken), (true, len), "the head ends elsewhere");
    let values = |name: &'static str| {
        let named = response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    };
    let protocols = values("upgrade").flat_map(|value| value.split(|byte| *byte == b','));
    let is_upgrade =
        protocols.into_iter().any(|protocol| trimmed(protocol).eq_ignore_ascii_case(b"websocket"));
    assert_eq!(scanner.is_upgrade(), is_upgrade);
    if let Some(expected) = negotiated(values("sec-websocket-extensions")) {
        assert_eq!(scanner.deflate(), expected);
    }
}

/// What the response's extension lists negotiate; `None` where they break RFC 6455 section 9.1 or RFC 7692 section 7.1
/// and a client would give up the connection.
fn negotiated<'a>(lists: impl Iterator<Item = &'a [u8]>) -> Option<Deflate> {
    let mut found = None;
    for list in lists {
        for element in list.split(|byte| *byte == b',').map(trimmed).filter(|element| !element.is_empty()) {
            let mut parts = element.split(|byte| *byte == b';').map(trimmed);
            let name = token(parts.next()?)?;
            let parameters: Option<Vec<_>> = parts.map(parameter).collect();
            let parameters = parameters?;
            if name.eq_ignore_ascii_case(b"permessage-deflate") {
                let agreed = deflate(name, &parameters)?;
                if found.replace(agreed).is_some() {
                    return None;
                }
            }
        }
    }
    Some(found.unwrap_or_default())
}

type Parameter = (Vec<u8>, Option<Vec<u8>>);

fn deflate(name: &[u8], parameters: &[Parameter]) -> Option<Deflate> {
    let is_lower = |text: &[u8]| !text.iter().any(u8::is_ascii_uppercase);
    let mut bits = 1u16 << 15;
    let mut seen = Vec::new();
    for (name, value) in parameters {
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        bits |= match (name.as_slice(), value) {
            (b"server_no_context_takeover", None) => 1 << 14,
            (b"client_no_context_takeover", None) => 1 << 13,
            (b"server_max_window_bits", Some(value)) => window(value)?,
            (b"client_max_window_bits", Some(value)) => window(value)? << 4,
            _ => return None,
        };
    }
    // Case is not folded for extensions; the scanner does.
    is_lower(name).then_some(Deflate(bits))
}

fn window(value: &[u8]) -> Option<u16> {
    let bits = std::str::from_utf8(value).ok()?.parse().ok()?;
    ((8..=15).contains(&bits) && value[0] != b'0' && value[0] != b'+').then_some(bits)
}

/// `name`, `name=token` or `name="token"`.
fn parameter(text: &[u8]) -> Option<Parameter> {
    let Some(equals) = text.iter().position(|byte| *byte == b'=') else {
        return Some((token(text)?.to_owned(), None));
    };
    let (name, value) = (token(trimmed(&text[..equals]))?, trimmed(&text[equals + 1..]));
    let Some(quoted) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return Some((name.to_owned(), Some(token(value)?.to_owned())));
    };
    let (mut plain, mut bytes) = (Vec::new(), quoted.iter());
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some((name.to_owned(), Some(token(&plain)?.to_owned())))
}

fn token(text: &[u8]) -> Option<&[u8]> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!text.is_empty() && text.iter().all(is_part)).then_some(text)
}

/// Without blanks around it.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
