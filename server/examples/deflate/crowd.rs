//! Resident memory of headroom-server for each connection that has carried compressed messages: while it is active, and once
//! it is idle.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use agent::model::zlib::{deflate_bytes, inflate_bytes};
use server::deflate::{Adapter, Settings, negotiate};
use server::link::Link;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{records, resident};

/// Carried by each connection, more than any window.
const MESSAGES: usize = 12;
const SIZE: usize = 4096;
/// After the last message, until all are parked, shared contexts are freed and the allocator has given back what it can.
const SETTLE: Duration = Duration::from_secs(36);
/// Connections that touch what is touched once, uncompressed: what large contexts leave behind would hide what is measured.
const WARMERS: usize = 50;

/// windowBits, memLevel, and the flag for who keeps its window.
const ROWS: [(u8, u8, &str); 6] =
    [(12, 5, "none"), (15, 8, "both"), (15, 8, "client"), (12, 5, "both"), (11, 3, "both"), (9, 1, "both")];

/// The server, ended on drop.
struct Server {
    process: Child,
    address: String,
}

type Client = Link<TcpStream, ()>;

pub(crate) fn print(out: &mut impl Write, server: &str, connections: usize) -> Result<(), Box<dyn Error>> {
    writeln!(
        out,
        "resident bytes of headroom-server a connection: {connections} connections that carried {MESSAGES} messages of {SIZE} \
         bytes each way\n"
    )?;
    writeln!(out, "| takeover | window bits | memLevel | active | zlib's formula | idle | zlib's formula |")?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (bits, mem_level, takeover) in ROWS {
        // Active as long as nobody parks them.
        let setting = (bits, mem_level, takeover);
        let active = measure(&runtime, server, setting, connections, "1h", Duration::ZERO)?;
        let idle = measure(&runtime, server, setting, connections, "100ms", SETTLE)?;
        let (server_keeps, client_keeps) = (takeover == "both", takeover != "none");
        let compressor = if server_keeps { deflate_bytes(bits, mem_level) } else { 0 };
        let decompressor = if client_keeps { inflate_bytes(bits) } else { 0 };
        let history = if client_keeps { 1 << bits } else { 0 };
        writeln!(
            out,
            "| {takeover} | {bits} | {mem_level} | {active} | {} | {idle} | {history} |",
            compressor + decompressor
        )?;
        out.flush()?;
    }
    Ok(())
}

/// What a connection adds to the server's resident memory, `settle` after the last message.
fn measure(
    runtime: &Runtime,
    server: &str,
    setting: (u8, u8, &str),
    connections: usize,
    idle_after: &str,
    settle: Duration,
) -> Result<usize, Box<dyn Error>> {
    let server = Server::start(server, setting, idle_after)?;
    let process = server.process.id().to_string();
    drop(runtime.block_on(crowd(&server, WARMERS, false))?);
    sleep(Duration::from_secs(3));
    let before = resident(&process)?;
    let crowd = runtime.block_on(crowd(&server, connections, true))?;
    sleep(settle);
    let after = resident(&process)?;
    drop(crowd);
    Ok(after.saturating_sub(before) / connections)
}

/// Connections that have said what they have to say. Their own contexts are gone.
async fn crowd(
    server: &Server,
    connections: usize,
    compress: bool,
) -> Result<Vec<TcpStream>, Box<dyn Error>> {
    let messages: Vec<Message> = (0..MESSAGES as u64)
        .map(|seed| String::from_utf8(records(seed, SIZE)).map(Message::text))
        .collect::<Result<_, _>>()?;
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut link = open(server, compress).await?;
        for message in &messages {
            link.send(message.clone())?;
            poll_fn(|cx| link.poll_flush(cx)).await?;
            if poll_fn(|cx| link.poll_read(cx)).await? != *message {
                return Err("an echo is not what was said".into());
            }
        }
        clients.push(link.into_transport());
    }
    Ok(clients)
}

async fn open(server: &Server, compress: bool) -> Result<Client, Box<dyn Error>> {
    // Offers everything; the server says what it will have.
    let offer = Settings {
        server_bits: 15,
        client_bits: 15,
        server_takeover: true,
        client_takeover: true,
        ..Settings::default()
    };
    let mut tcp = TcpStream::connect(&server.address).await?;
    let field = format!("{}: {}\r\n", negotiate::FIELD, negotiate::offer(&offer));
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
        if compress { field.as_str() } else { "" }
    );
    tcp.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let named = head.lines().filter_map(|line| line.split_once(": "));
    let fields =
        named.filter(|(name, _)| name.eq_ignore_ascii_case(negotiate::FIELD)).map(|(_, value)| value);
    let agreed = negotiate::judge(fields, &offer)?;
    if agreed.is_some() != compress {
        return Err("the server does not do what it was asked for".into());
    }
    let adapter = agreed.map(|agreed| Adapter::new(Role::Client, agreed.into(), &offer));
    Ok(Link::compressed(tcp, Role::Client, 1 << 20, Vec::new(), (), adapter))
}

impl Server {
    fn start(path: &str, (bits, mem_level, takeover): (u8, u8, &str), idle_after: &str) -> io::Result<Self> {
        let (bits, mem_level) = (bits.to_string(), mem_level.to_string());
        let mut process = Command::new(path)
            .args(["--listen", "ws://127.0.0.1:0", "--ping-interval", "0", "--deflate-takeover", takeover])
            .args(["--deflate-server-window-bits", &bits, "--deflate-client-window-bits", &bits])
            .args(["--deflate-mem-level", &mem_level])
            .args(["--idle-after", idle_after])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take();
        let mut server = Self { process, address: String::new() };
        BufReader::new(stdout.ok_or_else(|| io::Error::other("no stdout"))?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ws://");
        server.address = address.ok_or_else(|| io::Error::other("the server does not listen"))?.to_owned();
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
