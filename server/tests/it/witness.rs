//! A server whose only purpose is to be believed: a thread for each connection, blocking sockets, tungstenite's header
//! parser and nothing of the load generator's. It echoes, and remembers what it saw.

use std::collections::BTreeSet;
use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::support::PATIENCE;

/// What it saw, all connections together.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) accepted: u64,
    /// Connections that ended with a reset, and with the end of the stream.
    pub(crate) resets: u64,
    pub(crate) ends: u64,
    /// Sizes of messages.
    pub(crate) sizes: Vec<usize>,
    /// Most messages of one connection that were there before the first was answered.
    pub(crate) most_at_once: usize,
    pub(crate) pings: u64,
    pub(crate) closes: u64,
    pub(crate) sources: BTreeSet<IpAddr>,
    open: u64,
}

/// How it behaves.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Manner {
    /// How long it takes to answer.
    pub(crate) delay: Duration,
    /// So many connections, the first, never get a pong.
    pub(crate) mute: u64,
}

pub(crate) struct Witness {
    pub(crate) url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let (seen, tcp) = (shared.clone(), tcp.unwrap());
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.sources.insert(tcp.peer_addr().unwrap().ip());
                    seen.open += 1;
                    seen.accepted += 1;
                    seen.accepted
                };
                thread::spawn(move || {
                    let outcome = serve(tcp, &seen, manner, number <= manner.mute);
                    let mut seen = seen.lock().unwrap();
                    seen.open -= 1;
                    match outcome {
                        Ok(()) => seen.ends += 1,
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => seen.resets += 1,
                        Err(error) => panic!("{error}"),
                    }
                });
            }
        });
        Self { url, seen }
    }

    /// What it saw once every connection has ended.
    pub(crate) fn seen(&self) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.open == 0 {
                return seen;
            }
            assert!(Instant::now() < deadline, "connections stay open: {seen:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn serve(mut tcp: TcpStream, seen: &Mutex<Seen>, manner: Manner, mute: bool) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    let request = loop {
        let count = tcp.read(&mut chunk)?;
        bytes.extend(&chunk[..count]);
        if let Some((size, request)) = Request::try_parse(&bytes).unwrap() {
            bytes.drain(..size);
            break request;
        }
    };
    let mut answer = Vec::new();
    write_response(&mut answer, &create_response(&request).unwrap()).unwrap();
    tcp.write_all(&answer)?;
    loop {
        let mut out = Vec::new();
        let (mut at, mut messages, mut closed) = (0, 0, false);
        while let Some((opcode, payload, size)) = frame(&bytes[at..]) {
            at += size;
            let mut seen = seen.lock().unwrap();
            match opcode {
                OpCode::Data(Data::Text | Data::Binary) => {
                    messages += 1;
                    seen.sizes.push(payload.len());
                    seen.most_at_once = seen.most_at_once.max(messages);
                    reply(&mut out, opcode, &payload);
                }
                OpCode::Control(Control::Ping) => {
                    seen.pings += 1;
                    if !mute {
                        reply(&mut out, OpCode::Control(Control::Pong), &payload);
                    }
                }
                OpCode::Control(Control::Close) => {
                    seen.closes += 1;
                    closed = true;
                    reply(&mut out, opcode, &payload);
                }
                other => panic!("{other:?} from a load generator"),
            }
        }
        bytes.drain(..at);
        if messages > 0 {
            thread::sleep(manner.delay);
        }
        tcp.write_all(&out).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => ErrorKind::ConnectionReset.into(),
            _ => error,
        })?;
        if closed {
            tcp.shutdown(std::net::Shutdown::Write)?;
        }
        match tcp.read(&mut chunk)? {
            0 => return Ok(()),
            count => bytes.extend(&chunk[..count]),
        }
    }
}

/// The whole frame at the start of `bytes`, and its length.
pub(crate) fn frame(bytes: &[u8]) -> Option<(OpCode, Vec<u8>, usize)> {
    let mut cursor = Cursor::new(bytes);
    let (header, length) = FrameHeader::parse(&mut cursor).unwrap()?;
    let start = cursor.position() as usize;
    let end = start + length as usize;
    let mask = header.mask.expect("clients mask");
    let payload = bytes.get(start..end)?.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
    assert!(header.is_final);
    Some((header.opcode, payload, end))
}

pub(crate) fn reply(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    FrameHeader { is_final: true, opcode, ..FrameHeader::default() }
        .format(payload.len() as u64, out)
        .unwrap();
    out.extend(payload);
}
