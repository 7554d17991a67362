//! Connections that open and close while the agent attaches and while it ends.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::document::{Connection, Parse, Role};
use anyhow::{Context as _, ensure};

use crate::process::SOON;
use crate::traffic;
use crate::watch::Watch;
use crate::websocket;

/// Messages of each side on each connection.
const MESSAGES: u64 = 5;
/// Connections that are opened before the agent starts and after it has attached.
const AROUND: u64 = 200;
const THREADS: usize = 2;

/// Opens, uses and closes one connection after another on one port.
struct Churn {
    port: u16,
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Churn {
    fn start() -> anyhow::Result<Self> {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
        let port = listener.local_addr()?.port();
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..THREADS)
            .map(|_| {
                let (listener, stop, opened) =
                    (Arc::clone(&listener), Arc::clone(&stop), Arc::clone(&opened));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        turn(&listener)?;
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        Ok(Self { port, stop, opened, threads })
    }

    /// Waits until so many more have come and gone.
    fn go_on(&self, more: u64) -> anyhow::Result<()> {
        let (target, deadline) = (self.opened.load(Ordering::Relaxed) + more, Instant::now() + SOON);
        while self.opened.load(Ordering::Relaxed) < target {
            ensure!(Instant::now() < deadline, "the peers stand still");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a peer panicked")??;
        }
        Ok(())
    }
}

/// One connection's life. Threads share the listener, so either end may be another thread's: both behave alike.
fn turn(listener: &TcpListener) -> anyhow::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut client = websocket::request(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SOON))?;
    websocket::answer(&mut server)?;
    websocket::opened(&mut client)?;
    for _ in 0..MESSAGES {
        client.write_all(&websocket::binary(b"from the client"))?;
        server.write_all(&websocket::frame(0x81, b"back", None))?;
    }
    drop(client.shutdown(std::net::Shutdown::Write));
    server.read_to_end(&mut Vec::new())?;
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    Ok(())
}

pub(crate) fn connections_that_open_meanwhile_are_exact_or_not_tracked() -> anyhow::Result<()> {
    let churn = Churn::start()?;
    churn.go_on(AROUND)?;
    let port = churn.port;
    let mut agent = Watch::attach(&[port], &[])?;
    churn.go_on(AROUND)?;
    churn.end()?;
    let tick = agent.until("closing every connection", SOON, |_, tick, _| {
        tick.listeners.iter().all(|listener| listener.connections == 0) && tick.connections == 0
    })?;
    for role in [Role::Server, Role::Client] {
        let listener = traffic::listener(&tick.listeners, port, role)?;
        ensure!(listener.opened + listener.adopted == listener.closed, "phantoms: {listener:?}");
        let closed: Vec<&Connection> =
            agent.closed.iter().filter(|closed| traffic::belongs(closed, port, role)).collect();
        let exact = closed.iter().filter(|closed| closed.parse == Parse::Exact);
        ensure!(exact.clone().count() as u64 >= AROUND / 2, "{role:?}: few are exact");
        for connection in exact {
            let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
            ensure!(
                (received.frames, sent.frames, connection.unparsed_bytes)
                    == (Some(MESSAGES), Some(MESSAGES), 0),
                "exact, and {connection:?}"
            );
        }
    }
    let losses = tick.agent.losses.context("no losses")?;
    ensure!(losses.packets == 0, "{losses:?}");
    Ok(())
}
