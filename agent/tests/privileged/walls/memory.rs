//! A server in a memory cgroup, until the kernel kills it.

use agent::document::Kind;
use anyhow::ensure;

use super::cgroup::Group;
use super::climb::{Climb, crowd};
use super::row::Row;
use super::servers::{Server, Wrapped};
use crate::process::SOON;

/// More connections than any of the limits here hold.
const CONNECTIONS: u64 = 18_000;

/// `limit` in MiB.
pub(super) fn wall(kind: Server, limit: u64) -> anyhow::Result<Row> {
    let group = Group::new(limit << 20)?;
    let (mut server, address) = kind.start(&Wrapped::by_shell(&group.enter()))?;
    let mut climb = Climb::start(&server, address.port(), &[], Kind::Memory, &group.scope())?;
    let rate = match kind {
        Server::Reference | Server::ReferenceWithMessages | Server::Node => 300,
        _ => 150,
    };
    let crowd = crowd(kind, address, CONNECTIONS, rate, None)?;
    climb.until(|| Ok(!server.is_running()?))?;
    let row = climb.finish(crowd, group.limit)?;
    let ended = server.finish(SOON)?;
    ensure!(ended.status.code().is_none(), "the server was not killed: {}", ended.status);
    Ok(row)
}
