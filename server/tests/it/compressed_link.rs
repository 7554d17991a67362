//! The library's link in a client's role, compressing, against the server.

use std::cell::RefCell;
use std::future::poll_fn;

use server::deflate::{Adapter, Settings, negotiate};
use server::link::{Link, Observer};
use server::meter::SeenFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::raw::Rng;
use crate::support::{TestServer, bounded};

/// Payload bytes of each data frame on the wire.
#[derive(Default)]
struct Wire {
    sent: RefCell<Vec<u64>>,
    received: RefCell<Vec<u64>>,
}

impl Observer for &Wire {
    fn sent(&self, frame: SeenFrame) {
        if !frame.opcode.is_control() {
            self.sent.borrow_mut().push(frame.payload);
        }
    }

    fn received(&self, frame: SeenFrame) {
        if !frame.opcode.is_control() {
            self.received.borrow_mut().push(frame.payload);
        }
    }
}

/// A connection that offered what `settings` say, or nothing.
async fn open<'a>(
    server: &TestServer,
    settings: Option<&Settings>,
    wire: &'a Wire,
) -> Link<TcpStream, &'a Wire> {
    let mut tcp = TcpStream::connect(server.address()).await.unwrap();
    let offer = settings.map(|settings| format!("{}: {}\r\n", negotiate::FIELD, negotiate::offer(settings)));
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
        offer.unwrap_or_default()
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let named = head.lines().filter_map(|line| line.split_once(": "));
    let fields =
        named.filter(|(name, _)| name.eq_ignore_ascii_case(negotiate::FIELD)).map(|(_, value)| value);
    let adapter = settings.and_then(|settings| {
        let agreed = negotiate::judge(fields, settings).unwrap()?;
        Some(Adapter::new(Role::Client, agreed.into(), settings))
    });
    assert_eq!(adapter.is_some(), settings.is_some());
    Link::compressed(tcp, Role::Client, 1 << 20, Vec::new(), wire, adapter)
}

#[test]
fn messages_come_back_and_the_meters_see_what_was_on_the_wire() {
    bounded(async {
        let mut seed = 0;
        for takeover in ["none", "server", "client", "both"] {
            let server = TestServer::start(&["--deflate-takeover", takeover, "--deflate-min-size", "0B"]);
            for bits in [9, 12, 15] {
                seed += 1;
                let settings = Settings {
                    server_bits: bits,
                    client_bits: bits,
                    server_takeover: true,
                    client_takeover: true,
                    min_size: 0,
                    ..Settings::default()
                };
                let (wire, plain) = (Wire::default(), Wire::default());
                let mut compressed = open(&server, Some(&settings), &wire).await;
                let mut uncompressed = open(&server, None, &plain).await;
                let mut rng = Rng::new(seed);
                for number in 0..30 {
                    let words = 1 + rng.below(4_000);
                    let message = Message::text(format!("{number} of some words ").repeat(words));
                    for link in [&mut compressed, &mut uncompressed] {
                        link.send(message.clone()).unwrap();
                        poll_fn(|cx| link.poll_flush(cx)).await.unwrap();
                        assert_eq!(poll_fn(|cx| link.poll_read(cx)).await.unwrap(), message);
                        link.park();
                    }
                }
                // Between two messages, all of it may go elsewhere and come back.
                poll_fn(|cx| compressed.poll_flush(cx)).await.unwrap();
                compressed.park();
                assert!(compressed.is_bare());
                let (tcp, kept) = compressed.set_aside();
                let adapter = Adapter::new(Role::Client, kept.unwrap(), &settings);
                let mut compressed =
                    Link::compressed(tcp, Role::Client, 1 << 20, Vec::new(), &wire, Some(adapter));
                let last = Message::text("29 of some words ".repeat(50));
                compressed.send(last.clone()).unwrap();
                poll_fn(|cx| compressed.poll_flush(cx)).await.unwrap();
                assert_eq!(poll_fn(|cx| compressed.poll_read(cx)).await.unwrap(), last);
                for (wire, plain) in [(&wire.sent, &plain.sent), (&wire.received, &plain.received)] {
                    assert_eq!((wire.borrow().len(), plain.borrow().len()), (31, 30));
                    let [wire, plain]: [u64; 2] = [wire, plain].map(|frames| frames.borrow().iter().sum());
                    assert!(wire < plain / 20, "{wire} of {plain} bytes");
                }
            }
        }
    });
}
