//! What the agent says of socket memory is what the kernel says of it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use agent::document::Snapshot;
use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;

use crate::agent_process::Settling;
use crate::pace::patient;
use crate::process::SOON;
use crate::ss::{self, Skmem};
use crate::websocket;
use crate::wire::Namespace;

/// Message sizes: small messages cost far more memory than they hold, large ones come in big pages.
const SIZES: &[usize] = &[0, 60, 1000, 10_000, 65_536, 300_000];
const ATTEMPTS: u32 = 3;
/// A queue that was filled is beyond this: half of the smallest default buffer (`tcp_rmem`), which 6.1 does not grow
/// for a reader that takes nothing.
const FULL: u64 = 65_536;

type Sockets = BTreeMap<(String, String), Skmem>;

pub(crate) fn socket_memory_equals_inet_diag() -> anyhow::Result<()> {
    equals_inet_diag(None)
}

/// On this host, or in a namespace of it that nobody but this test holds.
pub(crate) fn equals_inet_diag(namespace: Option<&Namespace>) -> anyhow::Result<()> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        // A full connection still probes its peer's window now and then; a snapshot that met a probe proves nothing.
        match compare(namespace)? {
            None => return Ok(()),
            Some(moved) => last = moved,
        }
    }
    bail!("the sockets were never quiet: {last}")
}

/// Says what moved, if anything did.
fn compare(namespace: Option<&Namespace>) -> anyhow::Result<Option<String>> {
    let listener = inside(namespace, || Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let port = listener.local_addr()?.port();
    let mut snapshot = Settling::attach(port, patient(Duration::from_secs(8)))?;
    let mut ends = Vec::new();
    for size in SIZES {
        let (server, client) = inside(namespace, || websocket::pair(&listener))?;
        fill(&client, *size)?;
        ends.push((server, client));
    }
    // The agent's own state is part of a socket's memory, so the comparison must be made while it is attached.
    let mut samples = Vec::new();
    while snapshot.is_settling()? {
        samples.push((Timestamp::now(), inside(namespace, || ss::sockets(port))?));
        std::thread::sleep(Duration::from_millis(100));
    }
    let snapshot = snapshot.finish(SOON)?;
    let taken = snapshot.timestamp;
    let quiet = samples.into_iter().rev().filter(|(time, _)| *time < taken).take(8).map(|(_, sample)| sample);
    let quiet: Vec<Sockets> = quiet.collect();
    ensure!(quiet.len() == 8, "filling the sockets took too long");
    if let Some(moved) = quiet.windows(2).find(|pair| pair[0] != pair[1]) {
        return Ok(Some(format!("{:?} became {:?}", moved[1], moved[0])));
    }
    agree(&snapshot, &quiet[0])?;
    drop(ends);
    Ok(None)
}

fn agree(snapshot: &Snapshot, sockets: &Sockets) -> anyhow::Result<()> {
    ensure!(sockets.len() == 2 * SIZES.len(), "ss shows {} sockets", sockets.len());
    ensure!(snapshot.connections.len() == sockets.len(), "the agent shows {}", snapshot.connections.len());
    for connection in &snapshot.connections {
        let ends = (connection.local.clone(), connection.remote.clone());
        let kernel = sockets.get(&ends).with_context(|| format!("ss does not show {ends:?}"))?;
        let agent = Skmem::of(&connection.memory).with_context(|| format!("no memory of {ends:?}"))?;
        ensure!(agent == *kernel, "{ends:?}: the agent says {agent:?}, ss says {kernel:?}");
    }
    ensure!(sockets.values().any(|memory| memory.receive > FULL), "no receive queue was filled: {sockets:?}");
    ensure!(sockets.values().any(|memory| memory.send > FULL), "no send queue was filled: {sockets:?}");
    Ok(())
}

fn inside<T: Send>(
    namespace: Option<&Namespace>,
    body: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    match namespace {
        Some(namespace) => namespace.enter(body),
        None => body(),
    }
}

/// Sends messages of `size` until the socket has taken nothing more for a while; 0 leaves it idle.
fn fill(client: &TcpStream, size: usize) -> anyhow::Result<()> {
    if size == 0 {
        return Ok(());
    }
    client.set_nodelay(true)?;
    client.set_nonblocking(true)?;
    let frame = websocket::binary(&vec![b'.'; size]);
    let (mut rest, mut refusals) = (&frame[..], 0);
    while refusals < 5 {
        match (&mut &*client).write(rest) {
            Ok(taken) => {
                refusals = 0;
                rest = &rest[taken..];
                if rest.is_empty() {
                    rest = &frame;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                std::thread::sleep(Duration::from_millis(40));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
