//! Where the event stream goes besides standard output: a socket that readers join late, a file that is rotated.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use agent::document::{Body, Envelope, Role, Snapshot};
use anyhow::{bail, ensure};
use rustix::process::Signal;

use crate::agent_process::{Run, command};
use crate::binaries;
use crate::process::{self, Process, SOON, until};
use crate::websocket;

const CONNECTIONS: usize = 10;

/// A reader that comes when the connections are long open learns of the host and of each of them, and so does the
/// dashboard behind the same socket.
pub(crate) fn a_late_reader_learns_of_everything() -> anyhow::Result<()> {
    // Says whether this host can be measured at all.
    drop(Run::attach(&["--duration", "1s"])?);
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("agent.sock");
    let output = format!("unix:{}", socket.display());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let agent = Process::start(command(&["run", "--updates", "--port", &port])?.args(["--output", &output]))?;
    // The socket is there before the programs are attached; its first reader learns when they are.
    until("listening on the socket", SOON, || Ok(UnixStream::connect(&socket).is_ok()))?;
    events_until(&socket, |body| matches!(body, Body::AgentStarted(_)))?;
    let pairs: Vec<_> =
        (0..CONNECTIONS).map(|_| websocket::pair(&listener)).collect::<anyhow::Result<_>>()?;

    let (mut started, mut seen) = (false, BTreeSet::new());
    events_until(&socket, |body| {
        match body {
            Body::AgentStarted(_) => started = true,
            Body::ConnectionUpdated(connection) if started => {
                seen.insert(connection.id.clone());
            }
            _ => {}
        }
        started && seen.len() == 2 * CONNECTIONS
    })?;

    let mut dashboard = Command::new(binaries::path("headroom")?);
    let shown = process::run(dashboard.arg("--json").arg("--agent").arg(&socket), SOON)?;
    ensure!(shown.status.success(), "headroom: {}: {}", shown.status, shown.stderr.join(" "));
    let shown: Snapshot = serde_json::from_str(&shown.stdout.join("\n"))?;
    let servers = shown.connections.iter().filter(|connection| connection.role == Role::Server).count();
    ensure!(servers == CONNECTIONS, "the dashboard knows {servers} connections");

    drop(pairs);
    agent.signal(Signal::TERM)?;
    let ended = agent.finish(SOON)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr.join(" "));
    ensure!(!socket.exists(), "the socket is left behind");
    Ok(())
}

/// SIGHUP opens the file anew under its name; what was written before stays where it was moved.
pub(crate) fn a_rotated_file_is_opened_anew() -> anyhow::Result<()> {
    drop(Run::attach(&["--duration", "1s"])?);
    let folder = tempfile::tempdir()?;
    let (path, moved) = (folder.path().join("events.jsonl"), folder.path().join("events.jsonl.1"));
    let output = format!("file:{}", path.display());
    let agent = Process::start(&mut command(&["run", "--interval", "100ms", "--output", &output])?)?;
    until("the first events", SOON, || Ok(events(&path)? > 3))?;
    std::fs::rename(&path, &moved)?;
    agent.signal(Signal::HUP)?;
    until("events in the new file", SOON, || Ok(path.exists() && events(&path)? > 3))?;
    agent.signal(Signal::TERM)?;
    let ended = agent.finish(SOON)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr.join(" "));
    // Nothing fell between the two: the numbering goes on.
    let (before, after) = (std::fs::read_to_string(&moved)?, std::fs::read_to_string(&path)?);
    for (due, line) in before.lines().chain(after.lines()).enumerate() {
        let event: Envelope = serde_json::from_str(line)?;
        ensure!(event.seq == due as u64, "event {} where {due} was due", event.seq);
    }
    Ok(())
}

/// Joins the socket and reads until an event is the last one wanted.
fn events_until(socket: &Path, mut last: impl FnMut(&Body) -> bool) -> anyhow::Result<()> {
    let reader = UnixStream::connect(socket)?;
    reader.set_read_timeout(Some(SOON))?;
    let deadline = Instant::now() + SOON;
    for line in BufReader::new(reader).lines() {
        let event: Envelope = serde_json::from_str(&line?)?;
        if last(&event.body) {
            return Ok(());
        }
        // Ticks keep coming whatever else does not.
        ensure!(Instant::now() < deadline, "what was waited for did not come");
    }
    bail!("the socket was closed")
}

fn events(path: &Path) -> anyhow::Result<usize> {
    Ok(std::fs::read_to_string(path).map_or(0, |text| text.lines().count()))
}
