//! WebSockets inside TLS: what can be seen of them on a port that was named, and that nothing else is said.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::document::{Connection, Parse, Role, Snapshot};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::agent_process::Settling;
use crate::pace::patient;
use crate::process::{Process, SOON};
use crate::python;
use crate::ss::{self, Bytes};
use crate::traffic;
use crate::watch::Watch;

const CONNECTIONS: usize = 4;
const SETTLE: Duration = Duration::from_secs(4);
/// What is said of frames.
const FRAMES: &[&str] = &[
    "frames",
    "text",
    "binary",
    "continuation",
    "ping",
    "pong",
    "close",
    "payload_bytes",
    "control_bytes",
    "header_bytes",
    "compressed_frames",
];

/// encrypted.py, and what it opened.
struct Peers {
    script: Process,
    port: u16,
    /// Local ports of the clients that connected before the agent came.
    older: Vec<u16>,
    newer: Vec<u16>,
}

pub(crate) fn bytes_are_those_of_tcp_and_frames_are_unknown() -> anyhow::Result<()> {
    let mut peers = Peers::start()?;
    let mut agent = Watch::attach(&[peers.port], &[])?;
    peers.open()?;
    // Older ones show what they are by talking.
    peers.talk()?;
    agent.settle_holders()?;
    ensure!(agent.opened.len() == 2 * CONNECTIONS, "{} opened", agent.opened.len());
    ensure!(agent.adopted.len() == 2 * CONNECTIONS, "{} adopted", agent.adopted.len());
    let before = (peers.connections(&agent)?, ss::bytes(peers.port)?);
    for (connection, older) in before.0.values() {
        hidden(connection)?;
        ensure!(connection.opened.is_none() == *older, "older: {older}, and {connection:?}");
        ensure!(connection.pid == Some(peers.script.pid()) && connection.fd.is_some(), "{connection:?}");
        ensure!(connection.memory.kernel_bytes.is_some_and(|bytes| bytes > 0), "{connection:?}");
        ensure!(connection.upgrade.is_none() && connection.deflate.is_none(), "{connection:?}");
        let tcp = before.1.get(&(connection.local.clone(), connection.remote.clone()));
        absolute(connection, *older, tcp.with_context(|| format!("ss has no {connection:?}"))?)?;
    }
    peers.talk()?;
    let tick = agent.settle()?;
    let after = (peers.connections(&agent)?, ss::bytes(peers.port)?);
    for (ends, (connection, _)) in &after.0 {
        let (earlier, _) = &before.0[ends];
        let (tcp, tcp_earlier) = (after.1[ends], before.1[ends]);
        let seen = streams(connection)?.since(&streams(earlier)?);
        let expected = tcp.since(&tcp_earlier);
        ensure!(seen == expected, "{ends:?}: {seen:?}, and TCP says {expected:?}");
        ensure!(expected.received > 0 && expected.sent > 0, "nothing was said: {ends:?}");
    }
    for role in [Role::Server, Role::Client] {
        let listener = traffic::listener(&tick.listeners, peers.port, role)?;
        let told = (listener.connections, listener.opened, listener.adopted);
        let half = CONNECTIONS as u64;
        ensure!(told == (2 * half, half, half), "{listener:?}");
        ensure!(listener.received.frames.is_none() && listener.sent.frames.is_none(), "{listener:?}");
        ensure!(listener.received.stream_bytes > 0 && listener.sent.packet_bytes > 0, "{listener:?}");
    }
    Ok(())
}

pub(crate) fn documents_say_null_of_what_is_hidden() -> anyhow::Result<()> {
    let mut peers = Peers::start()?;
    let snapshot = Settling::attach(peers.port, patient(SETTLE))?;
    peers.open()?;
    peers.talk()?;
    let document: Value = snapshot.finish_json(SOON)?;
    let connections = document["connections"].as_array().context("no connections")?;
    ensure!(connections.len() == 4 * CONNECTIONS, "{} connections", connections.len());
    for connection in connections {
        ensure!(connection["parse"] == "encrypted", "{connection}");
        for direction in ["received", "sent"] {
            let traffic = connection[direction].as_object().with_context(|| format!("{connection}"))?;
            for name in FRAMES {
                ensure!(traffic.get(*name) == Some(&Value::Null), "{name} of {connection}");
            }
            for name in ["stream_bytes", "packets", "packet_bytes"] {
                ensure!(traffic.get(name).and_then(Value::as_u64) > Some(0), "{name} of {connection}");
            }
        }
        let ping = connection["ping"].as_object().context("no ping")?;
        ensure!(!ping.is_empty() && ping.values().all(Value::is_null), "{connection}");
    }
    Ok(())
}

/// Nobody said that these are WebSockets.
pub(crate) fn without_a_named_port_tls_is_left_alone() -> anyhow::Result<()> {
    let mut peers = Peers::start()?;
    let snapshot = Settling::attach_everywhere(patient(SETTLE))?;
    peers.open()?;
    peers.talk()?;
    peers.talk()?;
    let snapshot: Snapshot = snapshot.finish(SOON)?;
    let end = format!(":{}", peers.port);
    let is_theirs =
        |connection: &&Connection| connection.local.ends_with(&end) || connection.remote.ends_with(&end);
    let tracked: Vec<_> = snapshot.connections.iter().filter(is_theirs).collect();
    ensure!(tracked.is_empty(), "tracked: {tracked:?}");
    ensure!(
        snapshot.listeners.iter().all(|listener| listener.port != peers.port),
        "{:?}",
        snapshot.listeners
    );
    Ok(())
}

fn hidden(connection: &Connection) -> anyhow::Result<()> {
    ensure!(connection.parse == Parse::Encrypted, "{connection:?}");
    let (received, sent) = connection.received.zip(connection.sent).context("no traffic")?;
    for traffic in [received, sent] {
        ensure!(traffic::seen(&traffic).is_empty(), "frames inside TLS: {traffic:?}");
        let bytes = (traffic.stream_bytes, traffic.packets, traffic.packet_bytes);
        ensure!(bytes.0 > 0 && bytes.1 > 0 && bytes.2 > bytes.0, "{traffic:?}");
    }
    ensure!(connection.ping.rtt_seconds.is_none() && connection.ping.missed.is_none(), "{connection:?}");
    Ok(())
}

/// All of the stream from the ClientHello on, where that was seen.
fn absolute(connection: &Connection, older: bool, tcp: &Bytes) -> anyhow::Result<()> {
    let seen = streams(connection)?;
    if older {
        ensure!(seen.received < tcp.received && seen.sent < tcp.sent, "{seen:?}, and TCP says {tcp:?}");
        return Ok(());
    }
    ensure!(seen == *tcp, "{seen:?}, and TCP says {tcp:?}: {connection:?}");
    Ok(())
}

fn streams(connection: &Connection) -> anyhow::Result<Bytes> {
    let (received, sent) = connection.received.zip(connection.sent).context("no traffic")?;
    Ok(Bytes { received: received.stream_bytes, sent: sent.stream_bytes })
}

impl Peers {
    fn start() -> anyhow::Result<Self> {
        let script = python::start("encrypted.py", &[&CONNECTIONS.to_string()])?;
        let Some(port) = script.stdout.after("listening ")? else {
            bail!("encrypted.py: {}", script.finish(SOON)?.stderr.join("\n"));
        };
        let older = ports(&script, "older ")?;
        Ok(Self { script, port: port.parse()?, older, newer: Vec::new() })
    }

    fn open(&mut self) -> anyhow::Result<()> {
        self.script.tell("open")?;
        self.newer = ports(&self.script, "newer ")?;
        Ok(())
    }

    fn talk(&mut self) -> anyhow::Result<()> {
        self.script.tell("talk")?;
        self.script.stdout.after("quiet")?.context("encrypted.py ended").map(drop)
    }

    /// What was last said of each end, by its addresses, and whether it is older than the agent.
    fn connections(&self, agent: &Watch) -> anyhow::Result<BTreeMap<(String, String), (Connection, bool)>> {
        let server = format!("127.0.0.1:{}", self.port);
        let mut connections = BTreeMap::new();
        for (ports, older) in [(&self.older, true), (&self.newer, false)] {
            for port in ports {
                let client = format!("127.0.0.1:{port}");
                for (local, remote) in [(&server, &client), (&client, &server)] {
                    let connection = agent.connection(local, remote)?.clone();
                    connections.insert((local.clone(), remote.clone()), (connection, older));
                }
            }
        }
        Ok(connections)
    }
}

fn ports(script: &Process, name: &str) -> anyhow::Result<Vec<u16>> {
    let line = script.stdout.after(name)?.with_context(|| format!("encrypted.py did not say {name}"))?;
    let ports: Vec<u16> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(ports.len() == CONNECTIONS, "{name}{line}");
    Ok(ports)
}
