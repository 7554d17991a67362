//! The demonstration without a terminal: the agent's events into a file, its table at the end, and a check that it saw
//! what there was to see.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::super::crowd::{Clients, LINK, Server, Stage, TALK, privileged};
use crate::process::Running;

/// Loading on a slow machine.
const ATTACH: Duration = Duration::from_secs(30);
/// An event's line is cut here: a tick is a page long.
const SHOWN: usize = 300;

pub(super) fn run(stage: &Stage<'_>, server: &Server, seconds: u64) -> anyhow::Result<()> {
    let (events, table) = (stage.folder.join("events.jsonl"), stage.folder.join("table.txt"));
    let port = server.port.to_string();
    println!("headroom-agent records its events into {}", events.display());
    // A little longer than the snapshot, so that the last tick is the later of the two. Standard output and not
    // `file:`, which root would own.
    let duration = format!("{}s", seconds + 2);
    let mut recorder = start(
        stage,
        &["run", "--port", &port, "--nic-speed", LINK, "--duration", &duration],
        "run",
        &events,
    )?;
    attached(stage, &mut recorder, "run", &events, "agent_started")?;
    let settle = format!("{seconds}s");
    let arguments =
        ["snapshot", "--table", "--verbose", "--port", &port, "--nic-speed", LINK, "--settle", &settle];
    let mut snapshot = start(stage, &arguments, "snapshot", &table)?;
    attached(stage, &mut snapshot, "snapshot", &stage.folder.join("snapshot.log"), "attached")?;
    println!("headroom-load opens {} connections, each with a message every two seconds", stage.connections);
    let clients = Clients::start(stage, server, Duration::from_secs(seconds) / 4, TALK)?;
    println!("watching for {seconds} seconds\n");
    for (name, agent) in [("snapshot", &mut snapshot), ("run", &mut recorder)] {
        let status = agent.wait(stage.stop)?;
        ensure!(status.success(), "headroom-agent {name} ended with {status}");
    }
    let load = clients.finish()?;
    println!("{}", std::fs::read_to_string(&table)?);
    let text = std::fs::read_to_string(&events)?;
    let parse = |line| serde_json::from_str(line).with_context(|| format!("not an event: {line}"));
    let events: Vec<Value> = text.lines().map(parse).collect::<anyhow::Result<_>>()?;
    show(&text, &events);
    judge(&events, server.port, &load)
}

/// headroom-agent with its output in files.
fn start(stage: &Stage<'_>, arguments: &[&str], name: &str, output: &Path) -> anyhow::Result<Running> {
    let log = stage.folder.join(name).with_extension("log");
    let mut command: Command = privileged("headroom-agent");
    command.args(arguments).stdout(File::create(output)?).stderr(File::create(log)?);
    Running::start(&mut command)
}

/// Waits until `word` stands in a file the agent writes.
fn attached(
    stage: &Stage<'_>,
    agent: &mut Running,
    name: &str,
    file: &Path,
    word: &str,
) -> anyhow::Result<()> {
    stage.stop.wait_for("attaching", ATTACH, || {
        if std::fs::read_to_string(file)?.contains(word) {
            return Ok(Some(()));
        }
        if let Some(status) = agent.child.try_wait()? {
            let log = std::fs::read_to_string(stage.folder.join(name).with_extension("log"))?;
            bail!("headroom-agent {name} ended with {status}: {}", log.trim());
        }
        Ok(None)
    })
}

/// One event of each kind, the last but for the first connection's, as they stand in the file.
fn show(text: &str, events: &[Value]) {
    println!("some of the {} events:", events.len());
    let of = |name: &'static str| move |event: &Value| event["event"] == name;
    let shown = [
        events.iter().position(of("agent_started")),
        events.iter().position(of("connection_opened")),
        events.iter().rposition(of("tick")),
        events.iter().rposition(of("agent_stopped")),
    ];
    for line in shown.into_iter().flatten().filter_map(|place| text.lines().nth(place)) {
        match line.char_indices().nth(SHOWN) {
            Some((end, _)) => println!("  {}…", &line[..end]),
            None => println!("  {line}"),
        }
    }
}

/// Whether the agent saw every connection, and the keepalive on them.
fn judge(events: &[Value], port: u16, load: &Value) -> anyhow::Result<()> {
    let tick = events.iter().rfind(|event| event["event"] == "tick").context("the agent wrote no tick")?;
    let listeners = tick["tick"]["listeners"].as_array().context("the last tick has no listeners")?;
    let listener = listeners
        .iter()
        .find(|listener| listener["role"] == "server" && listener["port"] == port)
        .with_context(|| format!("the agent saw no connection of port {port}"))?;
    let count = |value: &Value| value.as_u64().context("a count is missing");
    let (opened, tracked) = (count(&load["connections"]["opened"])?, count(&listener["opened"])?);
    let (pings, pongs) = (count(&listener["sent"]["ping"])?, count(&listener["received"]["pong"])?);
    println!(
        "\nheadroom-load opened {opened} connections, the agent tracked {tracked} of them; \
         {pings} pings and {pongs} pongs counted"
    );
    ensure!(opened > 0, "headroom-load opened no connection: {}", load["errors"]);
    ensure!(tracked >= opened, "the agent missed {} connections", opened - tracked);
    ensure!(pings > 0, "the agent counted no ping");
    Ok(())
}
