//! Events about a share of the connections.

use std::collections::BTreeSet;

use agent::document::Body;
use anyhow::{Context as _, ensure};

use crate::agent_process::Run;
use crate::load;
use crate::pace::patient;
use crate::process::SOON;

const CONNECTIONS: usize = 40;

/// Whichever connection is told of as opened is told of as closed, the others are counted, and totals are of all.
pub(crate) fn a_share_is_told_whole_and_the_rest_is_counted() -> anyhow::Result<()> {
    let (server, address) = load::server()?;
    let port = address.port().to_string();
    let mut run = Run::attach(&["--port", &port, "--interval", "200ms", "--sample-connections", "1/2"])?;
    let clients = load::load(address, CONNECTIONS, 40, &[])?;
    run.until("connections of both roles", patient(SOON), |tick, _| {
        tick.connections == 2 * CONNECTIONS as u64
    })?;
    load::result(clients)?;
    let (mut ended, mut last) = (BTreeSet::new(), None);
    let deadline = std::time::Instant::now() + patient(SOON);
    while std::time::Instant::now() < deadline {
        match run.next(SOON)?.context("the agent ended")?.body {
            Body::ConnectionClosed(connection) => drop(ended.insert(connection.id)),
            Body::Tick(tick) if tick.connections == 0 => {
                last = Some(tick);
                break;
            }
            _ => {}
        }
    }
    let tick = last.context("connections stay open")?;
    ended.extend(run.closed.drain(..).map(|connection| connection.id));
    let (told, left_out) = (ended.len() as u64, tick.agent.left_out);
    ensure!(told > 0 && left_out.limited == 0, "{told} told, {left_out:?}");
    // An opening and a close of each.
    ensure!(2 * told + left_out.sampled == 4 * CONNECTIONS as u64, "{told} told, {left_out:?}");
    let opened: u64 = tick.listeners.iter().map(|listener| listener.opened).sum();
    ensure!(opened == 2 * CONNECTIONS as u64, "totals are of all: {opened}");
    drop(server);
    Ok(())
}
