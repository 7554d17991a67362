//! Counts of the event stream against those of a WebSocket implementation that has nothing to do with this project,
//! down to the closing handshake.

use std::time::Duration;

use agent::document::{Connection, Role};
use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::agent_process::Run;
use crate::python;
use crate::traffic::{self, Account};

const CONNECTIONS: usize = 50;
const SECONDS: &str = "4";

pub(crate) fn counts_equal_a_foreign_peers() -> anyhow::Result<()> {
    let (closed, counts) = exchange("none")?;
    ensure!(closed.iter().all(|connection| connection.deflate.is_none()), "nothing negotiated compression");
    ensure!(counts["server"]["received"]["continuation"].as_u64() > Some(0), "no fragments were exchanged");
    Ok(())
}

pub(crate) fn counts_equal_a_foreign_peers_when_compressed() -> anyhow::Result<()> {
    let (closed, counts) = exchange("deflate")?;
    let compressed = counts["client"]["sent"]["compressed_frames"].as_u64();
    ensure!(compressed > Some(0), "nothing was compressed");
    for connection in &closed {
        let deflate = connection.deflate.with_context(|| format!("{}: no compression", connection.local))?;
        // What the package negotiates with itself.
        ensure!((deflate.server_max_window_bits, deflate.client_max_window_bits) == (12, 12), "{deflate:?}");
    }
    Ok(())
}

fn exchange(compression: &str) -> anyhow::Result<(Vec<Connection>, Value)> {
    let mut peers = python::start("keepalive.py", &[&CONNECTIONS.to_string(), SECONDS, compression])?;
    let port = peers.stdout.after("listening ")?.context("keepalive.py did not start")?;
    let mut agent = Run::attach(&["--port", &port, "--interval", "500ms"])?;
    peers.tell("go")?;
    let last =
        agent.until("closing", Duration::from_secs(60), |_, closed| closed.len() >= 2 * CONNECTIONS)?;
    let counts = python::result(peers)?;
    for (role, side) in [(Role::Server, "server"), (Role::Client, "client")] {
        let told = Account::told(&counts[side])?;
        let number = traffic::agree((&agent.closed, &last), port.parse()?, role, &told)?;
        ensure!(number == CONNECTIONS, "{number} of {CONNECTIONS} closed as {role:?}");
        ensure!(told.received["ping"] > 0 && told.received["pong"] > 0, "no keepalive was exchanged");
    }
    ensure!(last.agent.events_dropped == 0, "{} events dropped", last.agent.events_dropped);
    Ok((std::mem::take(&mut agent.closed), counts))
}
