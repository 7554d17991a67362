//! Connections that are older than the agent and say nothing: presumed, listed and priced where their port speaks for them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use agent::document::{Body, Connection, Evidence, Kind, Parse, Role, Snapshot};
use anyhow::{Context as _, ensure};

use crate::agent_process::{Run, Settling};
use crate::load;
use crate::pace::patient;
use crate::process::SOON;
use crate::traffic;
use crate::watch::Watch;
use crate::websocket;
use crate::wire::Namespace;

const IDLE: usize = 30;
/// Longer than a snapshot's ticks need: clients are presumed by what the sweep before has met.
const SETTLE: Duration = Duration::from_secs(4);

type Pairs = Vec<(TcpStream, TcpStream)>;

fn pairs(listener: &TcpListener, number: usize) -> anyhow::Result<Pairs> {
    (0..number).map(|_| websocket::pair(listener)).collect()
}

/// Frames of both sides, in turn.
fn converse((server, client): &mut (TcpStream, TcpStream)) -> anyhow::Result<()> {
    for _ in 0..10 {
        let said = websocket::frame(0x81, b"still here", Some([1, 2, 3, 4]));
        client.write_all(&said)?;
        server.read_exact(&mut vec![0; said.len()])?;
        let answer = websocket::frame(0x81, b"so am I", None);
        server.write_all(&answer)?;
        client.read_exact(&mut vec![0; answer.len()])?;
    }
    Ok(())
}

/// Connections of this listener, one side of them.
fn at(snapshot: &Snapshot, port: u16, role: Role) -> Vec<&Connection> {
    let suffix = format!(":{port}");
    let own = |one: &&Connection| {
        one.role == role && (if role == Role::Server { &one.local } else { &one.remote }).ends_with(&suffix)
    };
    snapshot.connections.iter().filter(own).collect()
}

/// The server's sockets are listed with who holds them and what they cost.
fn listed(snapshot: &Snapshot, port: u16, pairs: &Pairs) -> anyhow::Result<Vec<Connection>> {
    let inodes = load::inodes(std::process::id())?;
    let listed = at(snapshot, port, Role::Server);
    ensure!(listed.len() == pairs.len(), "{} of {} are listed", listed.len(), pairs.len());
    let ids: BTreeSet<&str> = listed.iter().map(|one| one.id.as_str()).collect();
    ensure!(ids.len() == listed.len(), "an id is listed twice");
    let descriptors: BTreeSet<_> = pairs.iter().map(|(server, _)| Some(server.as_raw_fd() as u32)).collect();
    ensure!(listed.iter().map(|one| one.fd).collect::<BTreeSet<_>>() == descriptors, "other descriptors");
    for one in &listed {
        load::held(one, &[std::process::id()], &inodes)?;
        ensure!(one.memory.kernel_bytes.is_some_and(|bytes| bytes > 2_000), "{one:?}");
        ensure!(one.memory.receive_queue_bytes.is_some(), "{one:?}");
    }
    Ok(listed.into_iter().cloned().collect())
}

fn is_presumed(one: &Connection) -> bool {
    one.evidence == Some(Evidence::Presumed)
}

/// Nothing is said of frames that were never seen.
fn without_frames(one: &Connection) -> anyhow::Result<()> {
    ensure!(one.parse == Parse::Unsynced && one.opened.is_none(), "{one:?}");
    ensure!((one.received, one.sent, one.unparsed_bytes) == (None, None, 0), "{one:?}");
    Ok(())
}

pub(crate) fn idle_neighbours_of_recognised_connection_are_listed() -> anyhow::Result<()> {
    let (listener, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let port = listener.local_addr()?.port();
    let mut pairs = pairs(&listener, IDLE + 1)?;
    let unrelated: Vec<_> = (0..5)
        .map(|_| Ok((TcpStream::connect(other.local_addr()?)?, other.accept()?)))
        .collect::<std::io::Result<_>>()?;
    // Every port of the host: nothing but the one that speaks says what the others are.
    let snapshot = Settling::attach_everywhere(patient(SETTLE))?;
    converse(&mut pairs[IDLE])?;
    let snapshot = snapshot.finish(SOON)?;
    let listed = listed(&snapshot, port, &pairs)?;
    ensure!(listed.iter().filter(|one| is_presumed(one)).count() == IDLE, "{listed:?}");
    listed.iter().filter(|one| is_presumed(one)).try_for_each(without_frames)?;
    let recognised = listed.iter().find(|one| !is_presumed(one)).context("none was recognised")?;
    ensure!(recognised.evidence == Some(Evidence::Frames), "{recognised:?}");
    ensure!(at(&snapshot, port, Role::Client).len() == IDLE + 1, "the clients are not listed");
    let other = other.local_addr()?.port();
    for role in [Role::Server, Role::Client] {
        ensure!(at(&snapshot, other, role).is_empty(), "unrelated connections are listed");
        let listener = traffic::listener(&snapshot.listeners, port, role)?;
        ensure!((listener.connections, listener.presumed) == (1, IDLE as u64), "{listener:?}");
    }
    let own = |pid: u32| pid == std::process::id();
    let process = snapshot.processes.iter().find(|one| own(one.pid)).context("this process is missing")?;
    ensure!((process.connections, process.presumed) == (2, 2 * IDLE as u64), "{process:?}");
    let scope = format!("process:{}", std::process::id());
    let mut ceilings = snapshot.ceilings.iter();
    let ceiling = ceilings.find(|one| one.kind == Kind::Descriptors && one.scope == scope);
    let ceiling = ceiling.context("no ceiling of this process's descriptors")?;
    ensure!(ceiling.connections == 2 * (IDLE + 1) as u64, "{ceiling:?}");
    drop(unrelated);
    Ok(())
}

pub(crate) fn idle_connections_of_named_port_are_listed() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let pairs = pairs(&listener, IDLE)?;
    let snapshot = Settling::attach(port, patient(SETTLE))?.finish(SOON)?;
    let listed = listed(&snapshot, port, &pairs)?;
    ensure!(listed.iter().all(is_presumed), "{listed:?}");
    listed.iter().try_for_each(without_frames)?;
    ensure!(at(&snapshot, port, Role::Client).len() == IDLE, "the clients are not listed");
    for role in [Role::Server, Role::Client] {
        let listener = traffic::listener(&snapshot.listeners, port, role)?;
        ensure!((listener.connections, listener.presumed) == (0, IDLE as u64), "{listener:?}");
    }
    Ok(())
}

/// In a namespace where no connection was ever recognised, so that no totals lead there.
pub(crate) fn idle_connections_of_another_namespace_are_listed() -> anyhow::Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let port = listener.local_addr()?.port();
    let pairs = namespace.enter(|| pairs(&listener, IDLE))?;
    // Older connections are looked for where processes live.
    let _resident = namespace.enter(load::server)?;
    let snapshot = Settling::attach(port, patient(SETTLE))?.finish(SOON)?;
    let listed = at(&snapshot, port, Role::Server);
    ensure!(listed.len() == pairs.len(), "{} of {} are listed", listed.len(), pairs.len());
    for one in listed {
        ensure!(is_presumed(one) && one.netns == namespace.inode()?, "{one:?}");
        ensure!(one.pid == Some(std::process::id()) && one.fd.is_some(), "{one:?}");
    }
    Ok(())
}

pub(crate) fn presumed_connection_is_recognised_or_goes() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut pairs = pairs(&listener, 4)?;
    let mut agent = Watch::attach(&[port], &[])?;
    let count = |agent: &mut Watch, what: &str, recognised: u64, presumed: u64| {
        agent.until(what, SOON, |_, tick, _| {
            (tick.connections, tick.presumed) == (2 * recognised, 2 * presumed)
        })
    };
    count(&mut agent, "presuming", 0, 4)?;
    ensure!(agent.opened.is_empty() && agent.adopted.is_empty(), "announced without being recognised");
    // One shows that it is a WebSocket, one that it is something else, and one goes.
    converse(&mut pairs[0])?;
    let (server, client) = &mut pairs[1];
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    server.read_exact(&mut [0; 27])?;
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    client.read_exact(&mut [0; 38])?;
    pairs.remove(2);
    count(&mut agent, "moving over", 1, 1)?;
    ensure!(agent.adopted.len() == 2 && agent.opened.is_empty(), "{:?}", agent.adopted);
    ensure!(agent.adopted.iter().all(|one| agent.presumed.contains_key(&one.id)), "ids changed");
    Ok(())
}

/// Both directions of a socket make up their minds at the same moment, on two CPUs: it is one connection all the same.
pub(crate) fn connection_that_both_directions_recognise_is_adopted_once() -> anyhow::Result<()> {
    const PAIRS: usize = 1_000;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut open = Pairs::new();
    let (servers, clients): (Vec<_>, Vec<_>) = pairs(&listener, PAIRS)?.into_iter().unzip();
    for stream in servers.iter().chain(&clients) {
        stream.set_nodelay(true)?;
    }
    let mut agent = Run::attach(&["--port", &port.to_string(), "--interval", "200ms"])?;
    let from_client = websocket::frame(0x81, b"still here", Some([1, 2, 3, 4]));
    let from_server = websocket::frame(0x81, b"so am I", None);
    let turn = std::sync::atomic::AtomicUsize::new(0);
    // In lockstep, as closely as two threads can be, and then up to 4 µs apart: a segment needs that much longer to come in than
    // to go out.
    let speak = |streams: &[TcpStream], frame: &[u8], late: bool| -> std::io::Result<()> {
        for (place, mut stream) in streams.iter().enumerate() {
            let apart = Duration::from_nanos(if late { place as u64 * 4 } else { 0 });
            for step in 0..4 {
                let all = 2 * (4 * place + step + 1);
                turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                while turn.load(std::sync::atomic::Ordering::SeqCst) < all {
                    std::hint::spin_loop();
                }
                let met = std::time::Instant::now();
                while met.elapsed() < apart {}
                stream.write_all(frame)?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| speak(&servers, &from_server, true));
        speak(&clients, &from_client, false)?;
        server.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        anyhow::Ok(())
    })?;
    // Those that met badly show it in peace.
    for pair in servers.into_iter().zip(clients) {
        let mut pair = pair;
        for (stream, bytes) in [(&mut pair.0, 4 * from_client.len()), (&mut pair.1, 4 * from_server.len())] {
            stream.read_exact(&mut vec![0; bytes])?;
        }
        converse(&mut pair)?;
        open.push(pair);
    }
    let told = |body: &Body, role| match body {
        Body::Tick(tick) => {
            let mut listeners = tick.listeners.iter();
            let mine = listeners.find(|one| one.port == port && one.role == role);
            mine.map_or((0, 0, 0), |one| (one.adopted, one.connections, one.presumed))
        }
        _ => (0, 0, 0),
    };
    let both = |body: &Body| [Role::Server, Role::Client].map(|role| told(body, role));
    let mut last = agent.next(SOON)?.context("the agent ended")?.body;
    let deadline = std::time::Instant::now() + SOON;
    while !both(&last).iter().all(|(adopted, _, _)| *adopted >= PAIRS as u64) {
        ensure!(std::time::Instant::now() < deadline, "not all were recognised: {:?}", both(&last));
        last = agent.next(SOON)?.context("the agent ended")?.body;
    }
    let expected = (PAIRS as u64, PAIRS as u64, 0);
    ensure!(both(&last) == [expected; 2], "adopted, open, presumed: {:?}", both(&last));
    Ok(())
}
