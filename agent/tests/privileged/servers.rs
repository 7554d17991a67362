//! The agent's counts against those of a client, on servers of other people in other languages.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::exchange::{CONNECTIONS, Exchange, Outcome, announced, free_port, silent};
use crate::process::Process;
use crate::python;

/// Where Debian puts modules for Node, which a Node of another origin does not know.
pub(crate) const NODE_PATH: &str = "/usr/share/nodejs";

pub(crate) fn counts_equal_with_javascript_ws() -> anyhow::Result<()> {
    let (server, port) = node("none")?;
    let outcome = exchange(&server, port, &[])?;
    ensure!(
        outcome.closed.iter().all(|connection| connection.deflate.is_none()),
        "compression was negotiated"
    );
    pinged(&outcome)
}

pub(crate) fn counts_equal_with_javascript_ws_when_compressed() -> anyhow::Result<()> {
    let (server, port) = node("deflate")?;
    let outcome = exchange(&server, port, &["--deflate"])?;
    let client = outcome.client()?;
    let (compressed, data) =
        (client.received["compressed_frames"], client.received["text"] + client.received["binary"]);
    // The server leaves short messages as they are.
    ensure!(0 < compressed && compressed < data, "{compressed} of {data} messages came compressed");
    ensure!(client.sent["compressed_frames"] > 0, "nothing was sent compressed");
    let Value::Object(told) = &outcome.told["deflate"][0] else { bail!("no compression: {}", outcome.told) };
    for connection in &outcome.closed {
        let deflate = serde_json::to_value(connection.deflate)?;
        let differs = |(name, value): (&String, &Value)| deflate[name] != *value;
        ensure!(!told.iter().any(differs), "the agent says {deflate}, the client {told:?}");
    }
    pinged(&outcome)
}

pub(crate) fn counts_equal_with_perl_mojolicious() -> anyhow::Result<()> {
    let server = Process::start(Command::new("perl").arg(python::path("echo.pl")))?;
    let (server, port) = announced(server).context("Debian's libmojolicious-perl")?;
    pinged(&exchange(&server, port, &[])?)
}

/// Go: gorilla/websocket under websocketd, which makes each line a message.
pub(crate) fn counts_equal_with_go_gorilla() -> anyhow::Result<()> {
    let port = free_port()?;
    let port_argument = format!("--port={port}");
    let mut command = Command::new("websocketd");
    command.args(["--address=127.0.0.1", &port_argument, "--loglevel=error", "cat"]);
    let server = silent("websocketd", &mut command, port)?;
    exchange(&server, port, &["--text"])?;
    Ok(())
}

/// C: every message goes to every connection of the mirror, long ones in pieces.
pub(crate) fn counts_equal_with_c_libwebsockets() -> anyhow::Result<()> {
    let (server, port) = libwebsockets()?;
    let mirror = ["--subprotocol", "lws-mirror-protocol", "--statements", "--text", "--largest", "5000"];
    let outcome = exchange(&server, port, &mirror)?;
    let client = outcome.client()?;
    ensure!(
        client.received["text"] > client.sent["text"] * CONNECTIONS as u64 / 2,
        "nothing was mirrored: {client:?}"
    );
    Ok(())
}

/// The server closes first, and may say one thing more behind its own close frame. Those are frames all the same.
pub(crate) fn counts_equal_when_c_libwebsockets_closes() -> anyhow::Result<()> {
    let (server, port) = libwebsockets()?;
    let protocol = ["--subprotocol", "dumb-increment-protocol", "--statements", "--text"];
    // Its receive buffer holds ten bytes; a longer ping is never answered.
    let outcome =
        exchange(&server, port, &[&protocol[..], &["--largest", "5", "--farewell", "closeme\n"]].concat())?;
    let client = outcome.client()?;
    ensure!(client.received["text"] > client.sent["text"], "the server said nothing: {client:?}");
    Ok(())
}

fn exchange(server: &Process, port: u16, client: &[&str]) -> anyhow::Result<Outcome> {
    let servers = [server.pid()];
    let url = format!("ws://127.0.0.1:{port}/");
    let holders = [(&servers[..], CONNECTIONS)];
    let outcome = Exchange { url, client, ports: &[port], holders: &holders }.run()?;
    outcome.check("127.0.0.1", port, &servers)?;
    Ok(outcome)
}

/// Both ends asked and answered.
fn pinged(outcome: &Outcome) -> anyhow::Result<()> {
    let client = outcome.client()?;
    for (one, other) in [(&client.received, &client.sent), (&client.sent, &client.received)] {
        ensure!(one["ping"] > 0 && one["ping"] == other["pong"], "pings without pongs: {client:?}");
    }
    Ok(())
}

fn node(compression: &str) -> anyhow::Result<(Process, u16)> {
    let mut command = Command::new("node");
    command.arg(python::path("echo.js")).arg(compression).env("NODE_PATH", NODE_PATH);
    announced(Process::start(&mut command)?).context("Debian's node-ws")
}

fn libwebsockets() -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let mut command = Command::new("libwebsockets-test-server");
    command.args(["--interface=lo", &format!("--port={port}")]);
    Ok((silent("libwebsockets-test-server", &mut command, port)?, port))
}
