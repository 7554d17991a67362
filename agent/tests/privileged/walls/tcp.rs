//! Socket buffers that nobody empties, until the TCP stack has no memory left for more. With version 1 of cgroups this is the wall
//! that buffers lead to: no group is charged for them.
//!
//! The limit is the whole host's. It is lowered for some seconds, to what is in use and room for a few hundred connections.

use std::time::{Duration, Instant};

use agent::document::Kind;
use anyhow::Context as _;

use super::climb::{Climb, crowd};
use super::row::Row;
use super::servers::{Server, Wrapped};
use super::sysctl::Sysctl;

/// Bytes above what is in use.
const ROOM: u64 = 96 << 20;
/// More than fit.
const CONNECTIONS: u64 = 4_000;
const OPENED_A_SECOND: u64 = 40;
/// No handshake for this long.
const STALL: Duration = Duration::from_millis(1_500);

pub(super) fn wall() -> anyhow::Result<Row> {
    let page = rustix::param::page_size() as u64;
    let high = pages_in_use()? + ROOM / page;
    let (server, address) = Server::PythonFlood.start(&Wrapped::default())?;
    // The kernel's own proportions: no pressure below a half of it, none in force below two thirds.
    let limits = format!("{} {} {high}", high / 2, high / 3 * 2);
    let _limit = Sysctl::set("/proc/sys/net/ipv4/tcp_mem", limits)?;
    // Clients' buffers are on this host as well: both ends are connections that the limit is shared by.
    let mut climb = Climb::start(&server, address.port(), &[], Kind::Memory, "tcp")?.both_ends();
    let crowd = crowd(Server::PythonFlood, address, CONNECTIONS, OPENED_A_SECOND, None)?;
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let tick = climb.next()?;
        if tick.connections > most {
            (most, since) = (tick.connections, Instant::now());
        } else if most > 0 && since.elapsed() > STALL {
            break;
        }
    }
    climb.finish(crowd, high * page)
}

/// What all TCP sockets of the host have of its memory.
fn pages_in_use() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).context("no TCP in sockstat")?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
    Ok(words.nth(1).context("no mem in sockstat")?.parse()?)
}
