//! Counts of the event stream against those of a WebSocket implementation that has nothing to do with this project,
//! down to the closing handshake.

use std::time::Duration;

use agent::document::{Connection, Role};
use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::agent_process::Run;
use crate::process::SOON;
use crate::python;
use crate::traffic;

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
    for role in [Role::Server, Role::Client] {
        let side = side(&counts, role);
        let of_role = closed.iter().filter(|connection| connection.role == role);
        let sent: u64 = of_role.filter_map(|connection| Some(connection.sent?.compressed_frames)).sum();
        ensure!(
            Some(sent) == side["sent"]["compressed_frames"].as_u64(),
            "{role:?}: {sent} compressed frames"
        );
    }
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
    let (closed, last) = agent.until_closed(2 * CONNECTIONS, Duration::from_secs(60))?;
    let ended = peers.finish(SOON)?;
    ensure!(ended.status.success(), "keepalive.py: {}", ended.stderr.join("\n"));
    let counts: Value = serde_json::from_str(ended.stdout.last().context("keepalive.py printed nothing")?)?;
    for role in [Role::Server, Role::Client] {
        let told = side(&counts, role);
        let mut told = [traffic::told(&told["received"])?, traffic::told(&told["sent"])?];
        if compression != "none" {
            // A receiver sees what it inflated; on the wire is what its peer wrote.
            let wire = side(&counts, opposite(role))["sent"]["payload_bytes"].as_u64();
            told[0].insert("payload_bytes", wire.context("no bytes were sent")?);
        }
        let told = [&told[0], &told[1]];
        let (number, received, sent) = traffic::sum(closed.iter(), role)?;
        ensure!(number == CONNECTIONS, "{number} of {CONNECTIONS} closed as {role:?}");
        traffic::equal(&format!("connections as {role:?}"), [&received, &sent], told)?;
        let listener = traffic::listener(&last.listeners, port.parse()?, role)?;
        let totals = [traffic::seen(&listener.received), traffic::seen(&listener.sent)];
        traffic::equal(&format!("listener as {role:?}"), [&totals[0], &totals[1]], told)?;
        ensure!(received["ping"] > 0 && received["pong"] > 0, "no keepalive was exchanged");
    }
    ensure!(last.agent.events_dropped == 0, "{} events dropped", last.agent.events_dropped);
    Ok((closed, counts))
}

fn side(counts: &Value, role: Role) -> &Value {
    match role {
        Role::Server => &counts["server"],
        Role::Client => &counts["client"],
    }
}

fn opposite(role: Role) -> Role {
    match role {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    }
}
