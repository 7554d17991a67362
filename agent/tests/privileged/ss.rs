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
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let ended = run(Command::new("ss").args(["-tmnHO", "state", "established"]).arg(filter), SOON)?;
    ensure!(ended.status.success(), "ss: {}", ended.stderr.join(" "));
    let mut sockets = BTreeMap::new();
    for line in &ended.stdout {
        let mut words = line.split_whitespace().skip(2);
        let ends = words.next().zip(words.next()).with_context(|| format!("ss says {line}"))?;
        let memory = Skmem::parse(line).with_context(|| format!("ss says {line}"))?;
        sockets.insert((ends.0.to_owned(), ends.1.to_owned()), memory);
    }
    Ok(sockets)
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

/// TCP's own counters (`TCP_INFO`) of established sockets with `port` at either end, by their addresses.
pub(crate) fn bytes(port: u16) -> anyhow::Result<BTreeMap<(String, String), Bytes>> {
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let ended = run(Command::new("ss").args(["-tinHO", "state", "established"]).arg(filter), SOON)?;
    ensure!(ended.status.success(), "ss: {}", ended.stderr.join(" "));
    let mut sockets = BTreeMap::new();
    for line in &ended.stdout {
        let mut words = line.split_whitespace().skip(2);
        let ends = words.next().zip(words.next()).with_context(|| format!("ss says {line}"))?;
        // What is nothing is left out.
        let count = |name| words.clone().find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap_or(0);
        let sent = count("bytes_sent:") - count("bytes_retrans:");
        let bytes = Bytes { received: count("bytes_received:"), sent };
        sockets.insert((ends.0.to_owned(), ends.1.to_owned()), bytes);
    }
    Ok(sockets)
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
