//! Connections in network namespaces other than the agent's.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use agent::document::{Body, Connection, Degraded, Role, Snapshot, Tick};
use anyhow::{Context as _, bail, ensure};

use crate::agent_process::{Run, Settling};
use crate::load;
use crate::memory;
use crate::pace::patient;
use crate::process::{Process, SOON};
use crate::websocket;
use crate::wire::Namespace;

const SETTLE: Duration = Duration::from_secs(4);
/// Connections of the load generator.
const CONNECTIONS: usize = 10;
/// A list of namespaces that could not be visited names the first few.
const PROBE: &str = "per-connection figures of other network namespaces";

/// Nobody is in this namespace: a descriptor of this test is all that leads to it.
pub(crate) fn socket_memory_elsewhere_equals_inet_diag() -> anyhow::Result<()> {
    memory::equals_inet_diag(Some(&Namespace::new()?))
}

pub(crate) fn holders_elsewhere_are_found() -> anyhow::Result<()> {
    let namespaces = [Namespace::new()?, Namespace::new()?];
    // The same port in each of them and here: connections are told apart by more than their addresses.
    let here = TcpListener::bind("127.0.0.1:0")?;
    let port = here.local_addr()?.port();
    let mut crowds = Vec::new();
    let snapshot = Settling::attach(port, patient(SETTLE))?;
    for namespace in &namespaces {
        crowds.push(namespace.enter(|| Crowd::new(port))?);
    }
    let own = websocket::pair(&here)?;
    let snapshot = snapshot.finish(SOON)?;
    told(&snapshot, None)?;
    for crowd in &crowds {
        let inodes = load::inodes(crowd.server.pid())?;
        for (role, holder) in [(Role::Server, &crowd.server), (Role::Client, &crowd.load)] {
            let of_role =
                |connection: &&Connection| connection.role == role && connection.pid == Some(holder.pid());
            let found: Vec<&Connection> = snapshot.connections.iter().filter(of_role).collect();
            ensure!(found.len() == CONNECTIONS, "{} connections of {role:?} {}", found.len(), holder.pid());
            for connection in found {
                load::held(connection, &[holder.pid()], &inodes)?;
                ensure!(connection.memory.kernel_bytes.is_some(), "no memory of {connection:?}");
            }
            let process = snapshot.processes.iter().find(|process| process.pid == holder.pid());
            let connections = process.map(|process| process.connections);
            ensure!(connections == Some(CONNECTIONS as u64), "{role:?} {process:?}");
        }
    }
    for (stream, role) in [(&own.0, Role::Server), (&own.1, Role::Client)] {
        let mine =
            |connection: &&Connection| connection.pid == Some(std::process::id()) && connection.role == role;
        let found = snapshot.connections.iter().find(mine).with_context(|| format!("no own {role:?}"))?;
        ensure!(found.fd == u32::try_from(stream.as_raw_fd()).ok(), "{found:?} is {stream:?}");
    }
    let number = snapshot.connections.len();
    ensure!(number == 4 * CONNECTIONS + 2, "{number} connections");
    Ok(())
}

/// A namespace that only its sockets keep alive cannot be entered by anybody.
pub(crate) fn a_namespace_that_cannot_be_found_keeps_its_totals() -> anyhow::Result<()> {
    let namespace = Namespace::new()?;
    let netns = namespace.inode()?;
    let listener = namespace.enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let port = listener.local_addr()?.port();
    let snapshot = Settling::attach(port, patient(SETTLE))?;
    let pair = namespace.enter(|| websocket::pair(&listener))?;
    drop(namespace);
    let snapshot = snapshot.finish(SOON)?;
    ensure!(snapshot.connections.is_empty(), "{:?}", snapshot.connections);
    totals_alone(&snapshot, netns)?;
    told(&snapshot, Some(&["not found", "2 connections in 1", &netns.to_string()]))?;
    drop(pair);
    Ok(())
}

/// Without CAP_SYS_ADMIN the agent sees its own namespace as before, and says what it does not see.
pub(crate) fn a_namespace_that_is_closed_to_the_agent_keeps_its_totals() -> anyhow::Result<()> {
    let here = TcpListener::bind("127.0.0.1:0")?;
    let address = here.local_addr()?;
    let namespace = Namespace::new()?;
    let there = namespace.enter(|| Ok(TcpListener::bind(address)?))?;
    let wrapper = ["setpriv", "--bounding-set=-sys_admin"];
    let snapshot = Settling::attach_through(&wrapper, address.port(), patient(SETTLE))?;
    let pairs = [websocket::pair(&here)?, namespace.enter(|| websocket::pair(&there))?];
    let snapshot = snapshot.finish(SOON)?;
    let known = |connection: &Connection| connection.memory.kernel_bytes.is_some();
    ensure!(
        snapshot.connections.len() == 2 && snapshot.connections.iter().all(known),
        "{:?}",
        snapshot.connections
    );
    totals_alone(&snapshot, namespace.inode()?)?;
    told(&snapshot, Some(&["setns", "CAP_SYS_ADMIN", "2 connections in 1"]))?;
    drop(pairs);
    Ok(())
}

/// A namespace and all in it comes and goes while the agent runs, and the agent neither stumbles nor keeps it alive.
pub(crate) fn namespaces_come_and_go() -> anyhow::Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut agent = Run::attach(&["--port", &port.to_string(), "--interval", "200ms"])?;
    for _ in 0..3 {
        let namespace = Namespace::new()?;
        let netns = namespace.inode()?;
        let crowd = namespace.enter(|| Crowd::new(port))?;
        let pids = [crowd.server.pid(), crowd.load.pid()];
        // It is found through the processes in it from here on.
        drop(namespace);
        ticks_until(&mut agent, |tick| {
            pids.iter().all(|pid| {
                tick.processes
                    .iter()
                    .any(|process| process.pid == *pid && process.connections == CONNECTIONS as u64)
            })
        })
        .context("connections in a namespace were not seen")?;
        let kept = keeps(agent.process.pid(), netns)?;
        ensure!(!kept, "the agent keeps net:[{netns}] between sweeps");
        drop(crowd);
        ticks_until(&mut agent, |tick| tick.processes.is_empty() && tick.connections == 0)
            .context("connections of a namespace that is gone are still there")?;
        let tick = ticks_until(&mut agent, |_| true)?;
        let failed = |missing: &Degraded| missing.probe == PROBE || missing.probe == "iter/tcp";
        ensure!(!tick.degraded.iter().any(failed), "{:?}", tick.degraded);
    }
    Ok(())
}

/// A server and its clients.
struct Crowd {
    server: Process,
    load: Process,
}

impl Crowd {
    /// Everything open, in the network namespace of the calling thread.
    fn new(port: u16) -> anyhow::Result<Self> {
        let (server, address) = load::server_at(SocketAddr::from(([127, 0, 0, 1], port)))?;
        let load = load::load(address, CONNECTIONS, 5, &[])?;
        Ok(Self { server, load })
    }
}

/// What the snapshot says of namespaces it could not visit: nothing, or one thing with these words.
fn told(snapshot: &Snapshot, words: Option<&[&str]>) -> anyhow::Result<()> {
    let told: Vec<&Degraded> =
        snapshot.host.degraded.iter().filter(|missing| missing.probe == PROBE).collect();
    match (&told[..], words) {
        ([], None) => Ok(()),
        ([only], Some(words)) if words.iter().all(|word| only.reason.contains(word)) => Ok(()),
        _ => bail!("instead of {words:?}: {told:?}"),
    }
}

/// Both ends of one connection are in the totals of the namespace.
fn totals_alone(snapshot: &Snapshot, netns: u32) -> anyhow::Result<()> {
    for role in [Role::Server, Role::Client] {
        let of =
            snapshot.listeners.iter().filter(|listener| listener.netns == netns && listener.role == role);
        let open: u64 = of.map(|listener| listener.connections).sum();
        ensure!(open == 1, "{open} connections in the totals as {role:?}: {:?}", snapshot.listeners);
    }
    Ok(())
}

pub(crate) fn ticks_until(agent: &mut Run, suits: impl Fn(&Tick) -> bool) -> anyhow::Result<Tick> {
    let deadline = Instant::now() + SOON;
    loop {
        if let Body::Tick(tick) = agent.next(SOON)?.context("the agent ended")?.body {
            if suits(&tick) {
                return Ok(tick);
            }
            ensure!(Instant::now() < deadline, "the last tick: {tick:?}");
        }
    }
}

/// Whether a thread of the process is in the namespace, or a descriptor leads there. Asked several times, as a sweep may
/// be there for a moment.
fn keeps(pid: u32, netns: u32) -> anyhow::Result<bool> {
    let link = format!("net:[{netns}]");
    let leads = |path: std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == link.as_str())
    };
    for _ in 0..10 {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            paths.push(entry?.path());
        }
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            paths.push(entry?.path().join("ns/net"));
        }
        if !paths.into_iter().any(leads) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}
