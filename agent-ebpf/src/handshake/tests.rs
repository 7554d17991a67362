use super::*;

fn scan(head: &str) -> (Scanner, usize) {
    let mut scanner = Scanner::default();
    let taken = head.bytes().take_while(|byte| scanner.push(*byte)).count() + 1;
    (scanner, taken)
}

#[test]
fn an_upgrade_ends_where_its_frames_begin() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n";
    let (scanner, taken) = scan(&format!("{head}\u{1}ab"));
    assert!(scanner.is_upgrade());
    assert_eq!(taken, head.len());
    assert!(!scanner.deflate().negotiated());
}

#[test]
fn beginnings_are_told_apart_at_every_length() {
    let begin = |text: &[u8]| {
        let mut start = [0; 16];
        start[..text.len()].copy_from_slice(text);
        beginning(&start, text.len() as u32)
    };
    for len in 1..=STATUS_LINE.len() {
        assert_eq!(begin(&STATUS_LINE[..len]), Beginning::Upgrade, "{len} bytes");
        let mut wrong = STATUS_LINE;
        wrong[len - 1] ^= 1;
        assert_ne!(begin(&wrong[..len]), Beginning::Upgrade, "{len} bytes, the last one wrong");
    }
    assert_eq!(begin(b"HTTP/1.1 200"), Beginning::Response);
    assert_eq!(begin(b"HTTP/1.0 101"), Beginning::Response);
    assert_eq!(begin(b"GET /chat HT"), Beginning::Else);
}

#[test]
fn a_head_of_another_status_fails_at_the_status() {
    let (scanner, taken) = scan("HTTP/1.1 200 OK\r\nUpgrade: websocket\r\n\r\n");
    assert!(scanner.failed() && !scanner.is_upgrade());
    assert_eq!(taken, "HTTP/1.1 2".len());
}

#[test]
fn other_upgrades_are_not_websocket() {
    let (h2c, _) = scan("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nX-Note: websocket\r\n\r\n");
    assert!(!h2c.is_upgrade());
    let (inside, _) = scan("HTTP/1.1 101 x\r\nX-Upgrade: websocket\r\n\r\n");
    assert!(!inside.is_upgrade(), "the name must be the whole field name");
    let (cut, _) = scan("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n");
    assert!(!cut.is_upgrade(), "the head has not ended");
    for value in ["xwebsocket", "websocket/13", "websockets", "web socket", "foo websocket", "web\r\n socket"]
    {
        let (scanner, _) = scan(&format!("HTTP/1.1 101 x\r\nUpgrade: {value}\r\n\r\n"));
        assert!(scanner.ended() && !scanner.is_upgrade(), "{value}");
    }
    let (status, _) = scan("HTTP/1.1 1010 x\r\nUpgrade: websocket\r\n\r\n");
    assert!(status.failed() && !status.is_upgrade());
}

#[test]
fn legal_spellings_are_websocket() {
    for lines in [
        "UPGRADE:websocket",
        "upgrade: \t WEBSOCKET \t",
        "Upgrade: foo/2, websocket",
        "Upgrade: ,websocket ,h2c",
        "Upgrade: h2c\r\nUpgrade: websocket",
        "X: y\r\nUpgrade: websocket\r\nX-Upgrade: h2c",
    ] {
        for head in [format!("HTTP/1.1 101\r\n{lines}\r\n\r\n"), format!("HTTP/1.1 101 a:b\n{lines}\n\n")] {
            let (scanner, taken) = scan(&format!("{head}\u{1}"));
            assert!(scanner.is_upgrade(), "{head:?}");
            assert_eq!(taken, head.len(), "{head:?}");
        }
    }
}

#[test]
fn deflate_parameters() {
    let (scanner, _) = scan(
        "HTTP/1.1 101 x\r\nupgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate; \
             server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=\"9\"\r\n\r\n",
    );
    let deflate = scanner.deflate();
    assert!(deflate.negotiated() && deflate.server_no_context_takeover());
    assert!(!deflate.client_no_context_takeover());
    assert_eq!((deflate.server_max_window_bits(), deflate.client_max_window_bits()), (12, 9));
    let (plain, _) = scan(
        "HTTP/1.1 101 x\r\nupgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate; \
             client_no_context_takeover\r\n\r\n",
    );
    assert!(plain.deflate().client_no_context_takeover());
    assert_eq!(plain.deflate().server_max_window_bits(), 15);
}

#[test]
fn deflate_is_an_extension_and_parameters_are_its_own() {
    let deflate = |lines: &str| {
        let (scanner, _) = scan(&format!("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n{lines}\r\n\r\n"));
        assert!(scanner.is_upgrade(), "{lines}");
        scanner.deflate()
    };
    for lines in [
        "X-Note: permessage-deflate",
        "X-Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: xpermessage-deflate",
        "Sec-WebSocket-Extensions: foo; permessage-deflate",
        "Sec-WebSocket-Extensions: foo; a=permessage-deflate",
    ] {
        assert!(!deflate(lines).negotiated(), "{lines}");
    }
    let own = deflate(
        "Sec-WebSocket-Extensions: foo; server_max_window_bits=9,\r\n\
             Sec-WebSocket-Extensions: permessage-deflate ; client_max_window_bits = 10, bar; \
             server_no_context_takeover",
    );
    assert!(own.negotiated() && !own.server_no_context_takeover());
    assert_eq!((own.server_max_window_bits(), own.client_max_window_bits()), (15, 10));
    let wrong =
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=265; client_max_window_bits=7";
    assert_eq!(deflate(wrong).server_max_window_bits(), 15);
    assert_eq!(deflate(wrong).client_max_window_bits(), 15);
}
