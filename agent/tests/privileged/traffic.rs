//! Counts of one direction as both sides of a comparison give them.

use std::collections::BTreeMap;

use agent::document::{Connection, Listener, Role, Tick, Traffic};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// The counts compared, by the name that the documents, the load generator and frames.py share.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

const NAMES: &[&str] =
    &["frames", "text", "binary", "continuation", "ping", "pong", "close", "payload_bytes", "control_bytes"];
/// What frames.py counts beyond them.
const ON_THE_WIRE: &[&str] = &["header_bytes", "compressed_frames"];

/// Both directions as one end sees them.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) received: Counts,
    pub(crate) sent: Counts,
}

impl Account {
    /// From one side of what a script with frames.py printed.
    pub(crate) fn told(side: &Value) -> anyhow::Result<Self> {
        let direction = |object| {
            let mut counts = told(object)?;
            counts.extend(named(object, ON_THE_WIRE)?);
            anyhow::Ok(counts)
        };
        Ok(Self { received: direction(&side["received"])?, sent: direction(&side["sent"])? })
    }

    /// As the other end sees it.
    pub(crate) fn mirrored(&self) -> Self {
        Self { received: self.sent.clone(), sent: self.received.clone() }
    }
}

/// From the agent.
pub(crate) fn seen(traffic: &Traffic) -> Counts {
    // What cannot be seen is left out, and so equals no count.
    let counts = [
        ("frames", traffic.frames),
        ("text", traffic.text),
        ("binary", traffic.binary),
        ("continuation", traffic.continuation),
        ("ping", traffic.ping),
        ("pong", traffic.pong),
        ("close", traffic.close),
        ("payload_bytes", traffic.payload_bytes),
        ("control_bytes", traffic.control_bytes),
        ("header_bytes", traffic.header_bytes),
        ("compressed_frames", traffic.compressed_frames),
    ];
    counts.into_iter().filter_map(|(name, count)| Some((name, count?))).collect()
}

/// Bytes of the stream that were parsed.
pub(crate) fn parsed_bytes(traffic: &Traffic) -> u64 {
    [traffic.payload_bytes, traffic.control_bytes, traffic.header_bytes].into_iter().flatten().sum()
}

/// From a peer's JSON object, in which a count of nothing may be absent.
pub(crate) fn told(object: &Value) -> anyhow::Result<Counts> {
    named(object, NAMES)
}

fn named(object: &Value, names: &[&'static str]) -> anyhow::Result<Counts> {
    let object = object.as_object().context("the peer printed no counts")?;
    let count = |name: &&'static str| (*name, object.get(*name).and_then(Value::as_u64).unwrap_or(0));
    Ok(names.iter().map(count).collect())
}

/// Counts a frame of a peer of this process; `first` is its header's first byte.
pub(crate) fn count(counts: &mut Counts, first: u8, payload: usize) -> anyhow::Result<()> {
    let (name, bytes) = match first & 15 {
        0 => ("continuation", "payload_bytes"),
        1 => ("text", "payload_bytes"),
        2 => ("binary", "payload_bytes"),
        8 => ("close", "control_bytes"),
        9 => ("ping", "control_bytes"),
        10 => ("pong", "control_bytes"),
        opcode => bail!("no opcode {opcode}"),
    };
    add(counts, &Counts::from([("frames", 1), (name, 1), (bytes, payload as u64)]));
    Ok(())
}

/// Counts of nothing.
pub(crate) fn none() -> Counts {
    NAMES.iter().map(|name| (*name, 0)).collect()
}

/// Adds `other` to `sum`.
pub(crate) fn add(sum: &mut Counts, other: &Counts) {
    for (name, count) in other {
        *sum.entry(name).or_default() += count;
    }
}

/// Sums of the connections of one role: received, sent. Each must have been parsed to the last byte.
pub(crate) fn sum<'a>(
    connections: impl Iterator<Item = &'a Connection>,
    role: Role,
) -> anyhow::Result<(usize, Counts, Counts)> {
    let (mut number, mut received, mut sent) = (0, Counts::new(), Counts::new());
    for connection in connections.filter(|connection| connection.role == role) {
        ensure!(
            connection.parse == agent::document::Parse::Exact && connection.unparsed_bytes == 0,
            "{} → {}: {:?} with {} bytes unparsed",
            connection.local,
            connection.remote,
            connection.parse,
            connection.unparsed_bytes
        );
        number += 1;
        add(&mut received, &seen(&connection.received.context("no received counts")?));
        add(&mut sent, &seen(&connection.sent.context("no sent counts")?));
    }
    Ok((number, received, sent))
}

/// Totals of the listener with this port and role.
pub(crate) fn listener(listeners: &[Listener], port: u16, role: Role) -> anyhow::Result<&Listener> {
    let found = listeners.iter().find(|listener| listener.port == port && listener.role == role);
    found.with_context(|| format!("no {role:?} totals of port {port}"))
}

/// Both directions of two accounts are equal, in all that the peer counts.
pub(crate) fn equal(who: &str, agent: [&Counts; 2], peer: [&Counts; 2]) -> anyhow::Result<()> {
    for (direction, (agent, peer)) in ["received", "sent"].iter().zip(agent.into_iter().zip(peer)) {
        let differs = |(name, count): (&&'static str, &u64)| agent.get(name) != Some(count);
        ensure!(
            !peer.iter().any(differs),
            "{who} {direction}: the agent counted {agent:?}, the peer {peer:?}"
        );
    }
    Ok(())
}

/// Whether a connection belongs to the listener with this port and role.
pub(crate) fn belongs(connection: &Connection, port: u16, role: Role) -> bool {
    let end = if role == Role::Server { &connection.local } else { &connection.remote };
    connection.role == role && end.rsplit(':').next() == Some(port.to_string().as_str())
}

/// The sum over the closed connections of a listener, and its totals, are what a peer counted; all are parsed to the
/// last byte, and none is left open. Returns how many there were.
pub(crate) fn agree(
    (closed, last): (&[Connection], &Tick),
    port: u16,
    role: Role,
    told: &Account,
) -> anyhow::Result<usize> {
    let told = [&told.received, &told.sent];
    let own = closed.iter().filter(|connection| belongs(connection, port, role));
    let (number, received, sent) = sum(own, role)?;
    equal(&format!("connections of port {port} as {role:?}"), [&received, &sent], told)?;
    let listener = listener(&last.listeners, port, role)?;
    let totals = [seen(&listener.received), seen(&listener.sent)];
    equal(&format!("listener of port {port} as {role:?}"), [&totals[0], &totals[1]], told)?;
    ensure!(
        (listener.opened, listener.closed, listener.connections) == (number as u64, number as u64, 0),
        "{number} connections, and the listener says {listener:?}"
    );
    ensure!(listener.unparsed_bytes == 0, "listener: {listener:?}");
    Ok(number)
}
