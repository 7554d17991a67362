//! The leanest WebSocket echo there can be: blocking sockets and ready-made frames, so that what an attached program
//! adds is as large a share of a round trip as it can get.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// 125 bytes, the most a ping may carry.
const PAYLOAD: usize = 125;
/// Enough pairs to keep both cores busy.
const PAIRS: usize = 8;

/// Connected pairs, ready to echo.
pub(crate) struct Rig {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Rig {
    /// Connects all pairs and starts the traffic.
    pub(crate) fn start() -> io::Result<Rig> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for _ in 0..PAIRS {
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            threads.push(std::thread::spawn(move || serve(server)));
            let (rounds, stop) = (Arc::clone(&rounds), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || call(client, &rounds, &stop)));
        }
        Ok(Rig { rounds, stop, threads })
    }

    /// Round trips per second over `time`.
    pub(crate) fn measure(&self, time: Duration) -> f64 {
        let (before, start) = (self.rounds.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(time);
        (self.rounds.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// Ends the traffic and closes everything.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("an echo thread panicked").expect("an echo connection failed");
        }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = vec![0; REQUEST.len()];
    stream.read_exact(&mut request)?;
    stream.write_all(RESPONSE)?;
    let mut frame = [0u8; 6 + PAYLOAD];
    let mut reply = [0u8; 2 + PAYLOAD];
    reply[..2].copy_from_slice(&[0x82, PAYLOAD as u8]);
    loop {
        match stream.read_exact(&mut frame) {
            Ok(()) => stream.write_all(&reply)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn call(mut stream: TcpStream, rounds: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(REQUEST)?;
    let mut response = vec![0; RESPONSE.len()];
    stream.read_exact(&mut response)?;
    let mut frame = [0u8; 6 + PAYLOAD];
    frame[..2].copy_from_slice(&[0x82, 0x80 | PAYLOAD as u8]);
    let mut reply = [0u8; 2 + PAYLOAD];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&frame)?;
        stream.read_exact(&mut reply)?;
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
