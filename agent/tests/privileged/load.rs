//! Counts of the snapshot against those of the load generator, to the last frame and byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::document::{Connection, Role, Snapshot};
use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use procfs::net::TcpNetEntry;
use rustix::process::Signal;
use serde_json::Value;

use crate::agent_process::Settling;
use crate::binaries;
use crate::pace::{gentle, patient};
use crate::process::{Process, SOON};
use crate::traffic::{self, Counts};

const CONNECTIONS: usize = 40;
/// How long messages go back and forth.
const TRAFFIC: Duration = Duration::from_secs(3);
/// From attaching: when the server is stopped, and when the snapshot is taken.
const STOP: Duration = Duration::from_secs(7);
const SETTLE: Duration = Duration::from_secs(12);

/// headroom-server on a port of its own, pinging every second.
pub(crate) fn server() -> anyhow::Result<(Process, SocketAddr)> {
    server_at(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The same at an address.
pub(crate) fn server_at(address: SocketAddr) -> anyhow::Result<(Process, SocketAddr)> {
    let url = format!("ws://{address}");
    let arguments = ["--listen", &url, "--ping-interval", "1s", "--ping-payload", "16B"];
    let server = Process::start(Command::new(binaries::path("headroom-server")?).args(arguments))?;
    let address = server.stdout.after("listening on ws://")?.context("headroom-server did not start")?;
    Ok((server, address.parse()?))
}

/// headroom-load on that server, lingering until it is told to stop.
pub(crate) fn load(
    address: SocketAddr,
    connections: usize,
    rate: u32,
    arguments: &[&str],
) -> anyhow::Result<Process> {
    let (url, connections) = (format!("ws://{address}/echo"), connections.to_string());
    let (seconds, rate) = (format!("{}s", TRAFFIC.as_secs()), gentle(rate).to_string());
    let fixed = ["--json", "--linger", "10m", "--duration", &seconds, "--url", &url];
    let sized = ["--connections", &connections, "--message-rate", &rate];
    Process::start(Command::new(binaries::path("headroom-load")?).args(fixed).args(sized).args(arguments))
}

/// Stops a load generator and takes its result.
pub(crate) fn result(load: Process) -> anyhow::Result<Value> {
    load.signal(Signal::TERM)?;
    let ended = load.finish(SOON)?;
    ensure!(ended.status.success(), "headroom-load: {}: {}", ended.status, ended.stderr.join(" "));
    serde_json::from_str(&ended.stdout.join("\n")).context("headroom-load printed no JSON")
}

pub(crate) fn counts_equal_the_load_generators() -> anyhow::Result<()> {
    let (server, address) = server()?;
    let snapshot = Settling::attach(address.port(), patient(SETTLE))?;
    let attached = Instant::now();
    let loads = [
        load(address, CONNECTIONS, 20, &["--message-size", "300B"])?,
        load(address, CONNECTIONS, 4, &["--message-size", "70000B", "--binary"])?,
    ];
    std::thread::sleep(patient(STOP).saturating_sub(attached.elapsed()));
    // Both ends are quiet from here: the load generators only answer, and the server no longer asks.
    server.signal(Signal::STOP)?;
    let stopped = Timestamp::now();
    let snapshot = snapshot.finish(SOON)?;
    let taken = snapshot.timestamp;
    ensure!(
        taken > stopped + Duration::from_secs(1),
        "this host is too slow: the snapshot came before the quiet"
    );
    let holders =
        [(Role::Server, vec![server.pid()]), (Role::Client, loads.iter().map(Process::pid).collect())];
    let inodes = inodes(server.pid())?;
    for (role, pids) in &holders {
        for connection in snapshot.connections.iter().filter(|connection| connection.role == *role) {
            held(connection, pids, &inodes)?;
        }
    }
    let (mut sent, mut received) = (Counts::new(), Counts::new());
    for load in loads {
        let report = result(load)?;
        ensure!(report["connections"]["opened"] == CONNECTIONS, "opened: {}", report["connections"]);
        traffic::add(&mut sent, &without_closes(traffic::told(&report["sent"])?));
        traffic::add(&mut received, &traffic::told(&report["received"])?);
    }
    for name in ["text", "binary", "ping"] {
        ensure!(received[name] > 0, "there was no {name} frame to count");
    }
    check(&snapshot, address.port(), &sent, &received)
}

/// `sent` and `received` are the clients' view.
fn check(snapshot: &Snapshot, port: u16, sent: &Counts, received: &Counts) -> anyhow::Result<()> {
    for (role, expected) in [(Role::Server, [sent, received]), (Role::Client, [received, sent])] {
        let (number, from_peer, to_peer) = traffic::sum(snapshot.connections.iter(), role)?;
        ensure!(number == 2 * CONNECTIONS, "{number} connections as {role:?}");
        traffic::equal(&format!("connections as {role:?}"), [&from_peer, &to_peer], expected)?;
        let listener = traffic::listener(&snapshot.listeners, port, role)?;
        ensure!(listener.opened == 2 * CONNECTIONS as u64 && listener.closed == 0, "listener: {listener:?}");
        ensure!(listener.unparsed_bytes == 0, "listener: {listener:?}");
        let totals = [traffic::seen(&listener.received), traffic::seen(&listener.sent)];
        traffic::equal(&format!("listener as {role:?}"), [&totals[0], &totals[1]], expected)?;
    }
    Ok(())
}

/// The load generator closes with code 1000 when told to stop, after the snapshot.
fn without_closes(mut sent: Counts) -> Counts {
    let closes = sent.insert("close", 0).unwrap_or_default();
    for (name, each) in [("frames", 1), ("control_bytes", 2)] {
        if let Some(count) = sent.get_mut(name) {
            *count -= each * closes;
        }
    }
    sent
}

/// Socket inodes by local and remote address.
pub(crate) type Inodes = BTreeMap<(String, String), u64>;

/// Those of the network namespace that a process is in, from its /proc/PID/net/tcp. Read once: where many sockets are in
/// TIME_WAIT, a reading takes its time.
pub(crate) fn inodes(pid: u32) -> anyhow::Result<Inodes> {
    let ends = |entry: &TcpNetEntry| (entry.local_address.to_string(), entry.remote_address.to_string());
    let process = procfs::process::Process::new(i32::try_from(pid)?)?;
    Ok(process.tcp()?.iter().map(|entry| (ends(entry), entry.inode)).collect())
}

/// The descriptor that the agent names is that connection's socket.
pub(crate) fn held(connection: &Connection, pids: &[u32], inodes: &Inodes) -> anyhow::Result<()> {
    let ends = (connection.local.clone(), connection.remote.clone());
    let holder = connection.pid.zip(connection.fd);
    let (pid, fd) = holder.with_context(|| format!("{ends:?}: no holder"))?;
    ensure!(pids.contains(&pid), "{ends:?} is held by {pid}, not one of {pids:?}");
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
    let inode = inodes.get(&ends).with_context(|| format!("/proc/PID/net/tcp has no {ends:?}"))?;
    ensure!(
        link.as_os_str() == format!("socket:[{inode}]").as_str(),
        "{pid}'s descriptor {fd} is {}, the connection's inode {inode}",
        link.display()
    );
    Ok(())
}
