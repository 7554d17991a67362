//! A WebSocket that changes hands while it is open (SCM_RIGHTS).

use std::net::TcpStream;
use std::time::Duration;

use agent::document::{Connection, Role};
use anyhow::{Context as _, ensure};

use crate::agent_process::{Run, Settling};
use crate::exchange::{announced, held};
use crate::pace::patient;
use crate::process::{Process, SOON};
use crate::python;
use crate::traffic;
use crate::websocket;

const SETTLE: Duration = Duration::from_secs(3);
const MESSAGES: &[&[u8]] = &[b"to the one that accepted it", b"to the one", b"it was passed to"];

/// Process and descriptor.
type Holder = (u32, u32);

pub(crate) fn a_snapshot_names_the_new_holder() -> anyhow::Result<()> {
    let (mut server, port) = announced(python::start("pass_socket.py", &[])?)?;
    let snapshot = Settling::attach(port, patient(SETTLE))?;
    let mut client = connect(port)?;
    let before = accepted(&server)?;
    let after = pass(&mut server, &mut client)?;
    ensure!(before.0 != after.0, "it was not passed on");
    let snapshot = snapshot.finish(SOON)?;
    ensure!(server.is_running()?, "pass_socket.py ended, and with it the holder");
    check(&snapshot.connections, &client, after)
}

/// The agent has found the first holder before, and looks again because of another connection.
pub(crate) fn the_stream_follows_the_holder() -> anyhow::Result<()> {
    let (mut server, port) = announced(python::start("pass_socket.py", &[])?)?;
    let mut agent =
        Run::attach(&["--port", &port.to_string(), "--interval", "250ms", "--sweep-budget", "1"])?;
    let mut client = connect(port)?;
    let first = accepted(&server)?;
    agent.until("finding the first holder", SOON, |tick, _| held(tick, &[first.0]) == 1)?;
    let second = pass(&mut server, &mut client)?;
    let mut other = connect(port)?;
    let kept = accepted(&server)?;
    ensure!(kept.0 == first.0 && second.0 != first.0, "{kept:?} and {second:?} after {first:?}");
    websocket::echo(&mut other, b"to the one that stays")?;
    agent.until("finding both holders", SOON, |tick, _| {
        (held(tick, &[second.0]), held(tick, &[kept.0])) == (1, 1)
    })?;
    let (passed, stayed) = (client.local_addr()?, other.local_addr()?);
    drop((client, other));
    agent.until("closing", SOON, |_, closed| closed.len() >= 4)?;
    for (remote, holder) in [(passed, second), (stayed, kept)] {
        let remote = remote.to_string();
        let connection = agent.closed.iter().find(|connection| connection.remote == remote);
        let connection = connection.with_context(|| format!("no connection of {remote} closed"))?;
        ensure!(connection.pid.zip(connection.fd) == Some(holder), "{holder:?} holds {connection:?}");
    }
    Ok(())
}

fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let mut client = websocket::request(([127, 0, 0, 1], port).into())?;
    websocket::opened(&mut client)?;
    Ok(client)
}

fn accepted(server: &Process) -> anyhow::Result<Holder> {
    let fd = server.stdout.after("accepted ")?.context("pass_socket.py accepted nothing")?;
    Ok((server.pid(), fd.parse()?))
}

/// Has the server pass the client's connection on, with messages before and after; returns where it is then.
fn pass(server: &mut Process, client: &mut TcpStream) -> anyhow::Result<Holder> {
    websocket::echo(client, MESSAGES[0])?;
    server.tell("pass")?;
    let told = server.stdout.after("passed ")?.context("pass_socket.py passed nothing")?;
    let (pid, fd) = told.split_once(' ').with_context(|| format!("passed {told}"))?;
    for message in &MESSAGES[1..] {
        websocket::echo(client, message)?;
    }
    Ok((pid.parse()?, fd.parse()?))
}

/// The snapshot shows both ends, their holders, and all messages.
fn check(connections: &[Connection], client: &TcpStream, server: Holder) -> anyhow::Result<()> {
    let bytes: usize = MESSAGES.iter().map(|message| message.len()).sum();
    let own = (std::process::id(), std::os::fd::AsRawFd::as_raw_fd(client) as u32);
    for (role, holder) in [(Role::Server, server), (Role::Client, own)] {
        let (number, received, sent) = traffic::sum(connections.iter(), role)?;
        ensure!(number == 1, "{number} connections as {role:?}");
        for counts in [received, sent] {
            let seen = (counts["frames"], counts["binary"], counts["payload_bytes"]);
            let expected = (MESSAGES.len() as u64, MESSAGES.len() as u64, bytes as u64);
            ensure!(seen == expected, "{role:?}: {seen:?} instead of {expected:?}");
        }
        let named = connections.iter().find(|connection| connection.role == role);
        let named = named.and_then(|connection| connection.pid.zip(connection.fd));
        ensure!(named == Some(holder), "{holder:?} holds the end as {role:?}, not {named:?}");
    }
    Ok(())
}
