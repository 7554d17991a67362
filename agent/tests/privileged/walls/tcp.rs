//! Socket buffers that nobody empties, until the TCP stack is under pressure and drops what comes for them. With version 1 of cgroups this is
//! the wall that buffers lead to: no group is charged for them.
//!
//! The limit is the whole host's. It is lowered for some seconds, to what is in use and room for some hundred connections.

use agent::document::Kind;
use anyhow::Context as _;

use super::climb::{Climb, crowd};
use super::row::Row;
use super::servers::{Server, Wrapped};
use super::sysctl::Sysctl;

/// Bytes above what is in use.
const ROOM: u64 = 64 << 20;
/// More than fit.
const CONNECTIONS: u64 = 4_000;
const OPENED_A_SECOND: u64 = 40;

pub(super) fn wall() -> anyhow::Result<Row> {
    let page = rustix::param::page_size() as u64;
    let pressure = pages_in_use()? + ROOM / page;
    let (server, address) = Server::PythonFlood.start(&Wrapped::default())?;
    // The kernel's own proportions.
    let limits = format!("{} {pressure} {}", pressure / 4 * 3, pressure / 2 * 3);
    let _limit = Sysctl::set("/proc/sys/net/ipv4/tcp_mem", limits)?;
    // Clients' buffers are on this host as well: both ends are connections that the limit is shared by.
    let mut climb = Climb::start(&server, address.port(), &[], Kind::Memory, "tcp")?.both_ends();
    let before = pressures()?;
    let crowd = crowd(Server::PythonFlood, address, CONNECTIONS, OPENED_A_SECOND, None)?;
    climb.until(|| Ok(pressures()? > before))?;
    let actual = climb.open();
    drop(crowd);
    Ok(climb.row(actual, pressure * page))
}

/// How often the kernel says that pressure began. Drops alone tell less: a single full socket has them too.
fn pressures() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = lines.next().zip(lines.next()).context("no TcpExt in netstat")?;
    let mut counters = names.split_whitespace().zip(values.split_whitespace());
    let (_, count) = counters
        .find(|(name, _)| *name == "TCPMemoryPressures")
        .context("no TCPMemoryPressures in netstat")?;
    Ok(count.parse()?)
}

/// What all TCP sockets of the host have of its memory.
fn pages_in_use() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).context("no TCP in sockstat")?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
    Ok(words.nth(1).context("no mem in sockstat")?.parse()?)
}
