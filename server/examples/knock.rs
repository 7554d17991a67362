//! Opens WebSockets one after the other and counts them: `knock ws://ADDRESS:PORT SECONDS WORKERS`.
//!
//! Each worker connects, writes an upgrade request, reads the answer to its end, and resets the connection, so that no
//! closing handshake and no TIME_WAIT is in the figure. Bytes are written by hand: the bench's servers are measured, not
//! a client's library. Prints one JSON object.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, seconds, workers] = arguments.as_slice() else {
        return Err("which URL, how many seconds, how many workers?".into());
    };
    let address = url.strip_prefix("ws://").ok_or("only ws://ADDRESS:PORT")?.to_owned();
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds.parse()?);
    let workers: Vec<_> = (0..workers.parse()?).map(|_| tokio::spawn(work(address.clone(), end))).collect();
    let (mut opened, mut failed) = (0, 0);
    for worker in workers {
        let (some, not) = worker.await?;
        opened += some;
        failed += not;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let result = serde_json::json!({ "opened": opened, "failed": failed, "seconds": elapsed });
    writeln!(io::stdout(), "{result}")?;
    Ok(())
}

/// How many handshakes succeeded until `end`, and how many did not.
async fn work(address: String, end: Instant) -> (u64, u64) {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let (mut opened, mut failed) = (0, 0);
    while Instant::now() < end {
        match open(&address, request.as_bytes()).await {
            Ok(true) => opened += 1,
            Ok(false) | Err(_) => failed += 1,
        }
    }
    (opened, failed)
}

async fn open(address: &str, request: &[u8]) -> io::Result<bool> {
    let mut tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    tcp.write_all(request).await?;
    let mut answer = Vec::with_capacity(512);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if tcp.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
    rustix::net::sockopt::set_socket_linger(&tcp, Some(Duration::ZERO))?;
    Ok(answer.starts_with(b"HTTP/1.1 101 "))
}
