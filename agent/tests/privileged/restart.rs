//! An agent that comes, or comes back, while ten thousand connections are open.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::document::{Body, Role};
use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;

use crate::agent_process::Run;
use crate::binaries;
use crate::load;
use crate::pace::{gentle, patient};
use crate::process::{Process, SOON, until};
use crate::traffic;

/// At each end.
const CONNECTIONS: u32 = 10_000;
/// Each sends a message this often, and gets its echo.
const EVERY: Duration = Duration::from_secs(4);
/// Within which this share is to be recognised.
const WITHIN: Duration = Duration::from_secs(60);
const SHARE: f64 = 0.99;

pub(crate) fn ten_thousand_connections_are_recognised_at_each_start() -> anyhow::Result<()> {
    let connections = gentle(CONNECTIONS) as usize;
    // Its pings would show the connections sooner than their messages do.
    let arguments = ["--listen", "ws://127.0.0.1:0", "--ping-interval", "10m"];
    let server = Process::start(Command::new(binaries::path("headroom-server")?).args(arguments))?;
    let address = server.stdout.after("listening on ws://")?.context("headroom-server did not start")?;
    let (_, port) = address.rsplit_once(':').context("no port")?;
    let (url, number) = (format!("ws://{address}/echo"), connections.to_string());
    let rate = (1.0 / EVERY.as_secs_f64()).to_string();
    let load = Process::start(Command::new(binaries::path("headroom-load")?).args([
        "--json",
        "--duration",
        "1d",
        "--url",
        &url,
        "--connections",
        &number,
        "--rate",
        "4000",
        "--message-rate",
        &rate,
        "--message-size",
        "64B",
    ]))?;
    until("opening the connections", patient(SOON), || {
        Ok(descriptors(&server)? >= connections && descriptors(&load)? >= connections)
    })?;
    // Until each has opened its WebSocket and has begun to send.
    std::thread::sleep(patient(EVERY / 2));
    for start in ["first", "second"] {
        let time = recognised(port, connections).with_context(|| format!("the {start} agent"))?;
        println!("{start} agent: {:.0}% of {} sockets within {time:.1?}", SHARE * 100.0, 2 * connections);
    }
    let report = load::result(load)?;
    ensure!(report["connections"]["opened"] == connections, "opened: {}", report["connections"]);
    ensure!(report["connections"]["closed_by_peer"] == 0, "closed: {}", report["connections"]);
    Ok(())
}

/// Starts an agent, waits until it has recognised its share of both ends, and kills it; returns how long that took.
fn recognised(port: &str, connections: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut agent = Run::attach(&["--port", port, "--interval", "250ms"])?;
    let enough = (connections as f64 * SHARE).ceil() as usize;
    let mut adopted: BTreeSet<(Role, String)> = BTreeSet::new();
    let of =
        |adopted: &BTreeSet<(Role, String)>, role| adopted.iter().filter(|(end, _)| *end == role).count();
    let tick = loop {
        match agent.next(SOON)?.context("the agent ended")?.body {
            Body::ConnectionAdopted(connection) => {
                let new = adopted.insert((connection.role, connection.id.clone()));
                ensure!(new, "adopted twice: {connection:?}");
            }
            Body::ConnectionOpened(connection) => bail!("opened: {connection:?}"),
            Body::Tick(tick) => {
                let both = [Role::Server, Role::Client].map(|role| of(&adopted, role));
                if both.iter().all(|number| *number >= enough) {
                    break tick;
                }
                ensure!(begun.elapsed() < patient(WITHIN), "{both:?} of {connections} within {WITHIN:?}");
            }
            _ => {}
        }
    };
    let time = begun.elapsed();
    for role in [Role::Server, Role::Client] {
        let listener = traffic::listener(&tick.listeners, port.parse()?, role)?;
        let told = of(&adopted, role) as u64;
        // Some may have been recognised since the ring buffer was drained.
        ensure!(
            told <= listener.adopted && listener.adopted <= connections as u64,
            "{told} events: {listener:?}"
        );
        ensure!(listener.opened == 0 && listener.connections == listener.adopted, "{listener:?}");
    }
    ensure!(tick.agent.events_dropped == 0, "{} events dropped", tick.agent.events_dropped);
    agent.process.signal(Signal::KILL)?;
    agent.process.finish(SOON)?;
    Ok(time)
}

/// How many descriptors a process has open.
fn descriptors(process: &Process) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", process.pid()))?.count())
}
