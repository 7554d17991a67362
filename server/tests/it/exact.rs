//! The load generator's counts against an independent count: a raw TCP peer that keeps every byte it received and reads
//! the frames out of them with tungstenite's own header parser, and that writes every frame it sends by hand.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use server::load::report::Traffic;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::support::{LOAD, PATIENCE, Process};

/// What a peer does besides echoing.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Pings in pairs within one write, fragments its echoes, answers the Close.
    Busy,
    /// The same, and closes first, with a reason, after a few messages.
    ClosesFirst,
}

/// Counts on the server's side: `received` by the peer, `sent` by the peer.
#[derive(Default)]
struct Peer {
    received: Traffic,
    sent: Traffic,
    tcp: Option<TcpStream>,
    raw: Vec<u8>,
    parsed: usize,
}

fn count(traffic: &mut Traffic, opcode: OpCode, payload: u64) {
    traffic.frames += 1;
    let (counter, bytes) = match opcode {
        OpCode::Data(Data::Continue) => (&mut traffic.continuation, &mut traffic.payload_bytes),
        OpCode::Data(Data::Text) => (&mut traffic.text, &mut traffic.payload_bytes),
        OpCode::Data(_) => (&mut traffic.binary, &mut traffic.payload_bytes),
        OpCode::Control(Control::Ping) => (&mut traffic.ping, &mut traffic.control_bytes),
        OpCode::Control(Control::Pong) => (&mut traffic.pong, &mut traffic.control_bytes),
        OpCode::Control(_) => (&mut traffic.close, &mut traffic.control_bytes),
    };
    *counter += 1;
    *bytes += payload;
}

fn add(to: &mut Traffic, from: &Traffic) {
    to.frames += from.frames;
    to.text += from.text;
    to.binary += from.binary;
    to.continuation += from.continuation;
    to.ping += from.ping;
    to.pong += from.pong;
    to.close += from.close;
    to.payload_bytes += from.payload_bytes;
    to.control_bytes += from.control_bytes;
}

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        let request = loop {
            let mut byte = [0];
            tcp.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
            if let Some((_, request)) = Request::try_parse(&head).unwrap() {
                break request;
            }
        };
        let mut answer = Vec::new();
        write_response(&mut answer, &create_response(&request).unwrap()).unwrap();
        let mut peer = Self { tcp: Some(tcp), ..Self::default() };
        // In one write with the 101: the client reads this ping together with the end of the handshake.
        peer.frame(&mut answer, OpCode::Control(Control::Ping), true, b"hello");
        peer.write(&answer);
        peer
    }

    fn frame(&mut self, out: &mut Vec<u8>, opcode: OpCode, is_final: bool, payload: &[u8]) {
        let header = FrameHeader { is_final, opcode, ..FrameHeader::default() };
        header.format(payload.len() as u64, out).unwrap();
        out.extend(payload);
        count(&mut self.sent, opcode, payload.len() as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.tcp.as_ref().unwrap().write_all(bytes).unwrap();
    }

    /// The next whole frame, or `None` at the end of the stream. A frame cut short is never returned nor counted.
    fn next(&mut self) -> Option<(OpCode, Vec<u8>)> {
        loop {
            let mut cursor = Cursor::new(&self.raw[self.parsed..]);
            if let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() {
                let start = self.parsed + cursor.position() as usize;
                let end = start + length as usize;
                if let Some(masked) = self.raw.get(start..end) {
                    let mask = header.mask.expect("clients mask");
                    let payload = masked.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
                    self.parsed = end;
                    count(&mut self.received, header.opcode, length);
                    return Some((header.opcode, payload));
                }
            }
            let mut chunk = vec![0; 1 << 16];
            // Small odd reads too: frames must be found wherever the stream is cut.
            let size = 1 + self.raw.len() % 4099;
            match self.tcp.as_ref().unwrap().read(&mut chunk[..size]).unwrap() {
                0 => return None,
                read => self.raw.extend(&chunk[..read]),
            }
        }
    }

    fn serve(mut self, manner: Manner) -> Self {
        let mut messages = 0;
        let mut closed = false;
        while let Some((opcode, payload)) = self.next() {
            let mut out = Vec::new();
            match opcode {
                OpCode::Data(_) if !closed => {
                    messages += 1;
                    let (first, rest) = payload.split_at(payload.len() / 2);
                    self.frame(&mut out, opcode, false, first);
                    // Between the fragments, two at once: the second must not displace the first one's pong.
                    self.frame(&mut out, OpCode::Control(Control::Ping), true, &[messages; 3]);
                    self.frame(&mut out, OpCode::Control(Control::Ping), true, &[messages; 125]);
                    self.frame(&mut out, OpCode::Data(Data::Continue), true, rest);
                    if manner == Manner::ClosesFirst && messages == 5 {
                        closed = true;
                        self.frame(&mut out, OpCode::Control(Control::Close), true, b"\x03\xe9enough");
                    }
                }
                OpCode::Control(Control::Close) if closed => break,
                OpCode::Control(Control::Close) => {
                    self.frame(&mut out, OpCode::Control(Control::Close), true, &payload);
                    self.write(&out);
                    break;
                }
                _ => {}
            }
            self.write(&out);
        }
        // Nothing may come after the Close; the client waits for this end of the connection.
        self.tcp.as_ref().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(self.next(), None);
        assert_eq!(self.parsed, self.raw.len(), "the client stopped within a frame");
        self
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn serve(listener: TcpListener, manners: Vec<Manner>) -> JoinHandle<Vec<Peer>> {
    thread::spawn(move || {
        let peers: Vec<_> = manners
            .into_iter()
            .map(|manner| {
                let peer = Peer::accept(&listener);
                thread::spawn(move || peer.serve(manner))
            })
            .collect();
        peers.into_iter().map(|peer| peer.join().unwrap()).collect()
    })
}

fn compare(arguments: &[&str], manners: &[Manner]) {
    let (listener, address) = listen();
    let peers = serve(listener, manners.to_vec());
    let (url, connections) = (format!("ws://{address}/"), manners.len().to_string());
    let common = ["--url", &url, "--connections", &connections, "--json"];
    let report = Process::start(LOAD, &[&common, arguments].concat()).end().report();
    let (mut received, mut sent) = (Traffic::default(), Traffic::default());
    for peer in peers.join().unwrap() {
        add(&mut received, &peer.received);
        add(&mut sent, &peer.sent);
    }
    assert_eq!(report.sent, received, "client sent, peer received");
    assert_eq!(report.received, sent, "client received, peer sent");
    assert_eq!(received.pong, sent.ping, "every ping has its pong");
    assert_eq!(received.close, manners.len() as u64);
    let first = manners.iter().filter(|manner| **manner == Manner::ClosesFirst).count();
    assert_eq!(report.connections.closed_by_peer, first as u64);
    assert!(received.text + received.binary > 0);
}

#[test]
fn counts_equal_an_independent_count_per_opcode_and_byte() {
    compare(&["--duration", "700ms", "--message-rate", "40", "--message-size", "300B"], &[Manner::Busy; 4]);
}

#[test]
fn counts_are_exact_for_large_binary_messages() {
    let arguments = [
        "--duration",
        "700ms",
        "--message-rate",
        "10",
        "--message-size",
        "200KB",
        "--binary",
        "--linger",
        "200ms",
    ];
    compare(&arguments, &[Manner::Busy; 2]);
}

#[test]
fn counts_are_exact_when_the_peer_closes_first() {
    let manners = [Manner::ClosesFirst, Manner::Busy, Manner::ClosesFirst];
    compare(&["--duration", "800ms", "--message-rate", "50", "--message-size", "40B"], &manners);
}

#[test]
fn a_frame_the_kernel_did_not_take_whole_is_not_counted() {
    let (listener, address) = listen();
    let url = format!("ws://{address}/");
    let load = Process::start(
        LOAD,
        &[
            "--url",
            &url,
            "--connections",
            "1",
            "--duration",
            "1h",
            "--message-rate",
            "50",
            "--message-size",
            "300KB",
            "--json",
        ],
    );
    let mut peer = Peer::accept(&listener);
    // Long enough for both socket buffers to fill; the client is then in the middle of a frame.
    thread::sleep(Duration::from_millis(1500));
    load.signal(Signal::TERM);
    let report = load.end().report();
    while peer.next().is_some() {}
    assert_eq!(report.sent, peer.received);
    assert!(peer.raw.len() > peer.parsed, "the socket buffers ended on a frame: the test proves nothing");
    assert_eq!(report.sent.close, 0);
    assert!(
        report.errors["messages_not_sent"] > 0 || report.errors["close_timeout"] == 1,
        "{:?}",
        report.errors
    );
}
