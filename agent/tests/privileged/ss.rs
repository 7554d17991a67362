//! The kernel's own account of socket memory: `INET_DIAG_SKMEMINFO`, as `ss -m` prints it.

use std::collections::BTreeMap;
use std::process::Command;

use agent::document::Memory;
use anyhow::{Context as _, ensure};

use crate::process::{SOON, run};

/// `skmem:(r…,rb…,t…,tb…,f…,w…,o…,bl…,d…)`, without the drops, which no document has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skmem {
    pub(crate) receive: u64,
    receive_limit: u64,
    transmit: u64,
    send_limit: u64,
    forward_alloc: u64,
    pub(crate) send: u64,
    option: u64,
    backlog: u64,
}

/// Established sockets with `port` at either end, by their local and remote address.
pub(crate) fn sockets(port: u16) -> anyhow::Result<BTreeMap<(String, String), Skmem>> {
    let mut sockets = BTreeMap::new();
    for line in established(port, "-tmnHO")? {
        let memory = Skmem::parse(&line).with_context(|| format!("ss says {line}"))?;
        sockets.insert(ends(&line)?, memory);
    }
    Ok(sockets)
}

/// Segments that each connection with `port` at either end has sent again, by its local and remote address.
pub(crate) fn retransmissions(port: u16) -> anyhow::Result<BTreeMap<(String, String), u64>> {
    let mut counts = BTreeMap::new();
    for line in established(port, "-tinHO")? {
        // `retrans:NOW/EVER` is left out where it is zero.
        let ever = line.split_whitespace().find_map(|word| word.strip_prefix("retrans:")?.split_once('/'));
        let ever = ever.map_or(Ok(0), |(_, ever)| ever.parse()).with_context(|| format!("ss says {line}"))?;
        counts.insert(ends(&line)?, ever);
    }
    Ok(counts)
}

/// Bytes that the peer of each connection with `port` at either end has not acknowledged.
pub(crate) fn unacknowledged(port: u16) -> anyhow::Result<BTreeMap<(String, String), u64>> {
    let mut counts = BTreeMap::new();
    for line in established(port, "-tnHO")? {
        let queue = line.split_whitespace().nth(1).and_then(|queue| queue.parse().ok());
        counts.insert(ends(&line)?, queue.with_context(|| format!("ss says {line}"))?);
    }
    Ok(counts)
}

/// Stream bytes of a socket, each counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Bytes {
    /// What was added since an earlier account.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self { received: self.received - earlier.received, sent: self.sent - earlier.sent }
    }
}

/// TCP's own counters (`TCP_INFO`) of the connections with `port` at either end, by their local and remote address.
pub(crate) fn bytes(port: u16) -> anyhow::Result<BTreeMap<(String, String), Bytes>> {
    let mut counts = BTreeMap::new();
    for line in established(port, "-tinHO")? {
        // What is nothing is left out.
        let count = |name| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let sent = count("bytes_sent:") - count("bytes_retrans:");
        counts.insert(ends(&line)?, Bytes { received: count("bytes_received:"), sent });
    }
    Ok(counts)
}

/// A line for each established socket with `port` at either end.
fn established(port: u16, flags: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let ended = run(Command::new("ss").args([flags, "state", "established"]).arg(filter), SOON)?;
    ensure!(ended.status.success(), "ss: {}", ended.stderr.join(" "));
    Ok(ended.stdout)
}

/// Local and remote address.
fn ends(line: &str) -> anyhow::Result<(String, String)> {
    let mut words = line.split_whitespace().skip(2);
    let ends = words.next().zip(words.next()).with_context(|| format!("ss says {line}"))?;
    Ok((ends.0.to_owned(), ends.1.to_owned()))
}

impl Skmem {
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("skmem:(")?;
        let (fields, _) = rest.split_once(')')?;
        let field = |name: &str| {
            fields.split(',').find_map(|field| field.strip_prefix(name)?.parse::<u32>().ok()).map(u64::from)
        };
        Some(Self {
            receive: field("r")?,
            receive_limit: field("rb")?,
            transmit: field("t")?,
            send_limit: field("tb")?,
            forward_alloc: field("f")?,
            send: field("w")?,
            option: field("o")?,
            backlog: field("bl")?,
        })
    }

    /// The same set from the agent's document; `None` where the agent has not seen the socket's memory.
    pub(crate) fn of(memory: &Memory) -> Option<Self> {
        Some(Self {
            receive: memory.receive_bytes?,
            receive_limit: memory.receive_limit_bytes?,
            transmit: memory.transmit_bytes?,
            send_limit: memory.send_limit_bytes?,
            forward_alloc: memory.forward_alloc_bytes?,
            send: memory.send_bytes?,
            option: memory.option_bytes?,
            backlog: memory.backlog_bytes?,
        })
    }
}
