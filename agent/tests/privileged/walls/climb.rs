//! Connections come one after the other, and what the agent says of one ceiling is written down until its server fails.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::document::{Body, Kind, Tick};
use anyhow::{Context as _, bail, ensure};
use procfs::net::TcpState;
use rustix::process::Signal;
use serde_json::Value;

use super::row::{Row, Said};
use super::servers::Server;
use crate::agent_process::Run;
use crate::binaries;
use crate::process::{Process, SOON};
use crate::python;
use crate::wire::Namespace;

/// However slow a machine is, an experiment ends.
const LONGEST: Duration = Duration::from_secs(240);
/// No connection more for this long: the server takes none.
const STALL: Duration = Duration::from_secs(3);

pub(super) struct Climb {
    agent: Run,
    server: u32,
    /// Descriptors the server has without a connection.
    base: u64,
    /// Tracked connections for each one of the server's.
    ends: u64,
    /// Somebody wants this program to end: what was set on the host must be put back first.
    interrupted: Arc<AtomicBool>,
    kind: Kind,
    scope: String,
    said: Vec<Said>,
    begun: Instant,
}

impl Climb {
    /// Attaches the agent. `scope` is the ceiling's, or how it begins.
    pub(super) fn start(
        server: &Process,
        port: u16,
        more: &[&str],
        kind: Kind,
        scope: &str,
    ) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let base = descriptors(server.pid()).context("the server's descriptors")?;
        let port = port.to_string();
        let fixed = ["--port", &port, "--interval", "250ms", "--sweep-budget", "0.5"];
        let agent = Run::attach(&[&fixed[..], more].concat())?;
        Ok(Self {
            agent,
            server: server.pid(),
            base,
            ends: 1,
            interrupted,
            kind,
            scope: scope.to_owned(),
            said: Vec::new(),
            begun: Instant::now(),
        })
    }

    /// The limit is one that both ends of each connection take from.
    pub(super) fn both_ends(self) -> Self {
        Self { ends: 2, ..self }
    }

    /// Notes what the next tick says.
    pub(super) fn next(&mut self) -> anyhow::Result<Tick> {
        ensure!(self.begun.elapsed() < LONGEST, "no failure within {LONGEST:?}: {:?}", self.said.last());
        loop {
            ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
            let event = self.agent.next(SOON)?.context("the agent ended")?;
            let Body::Tick(tick) = event.body else { continue };
            let mine = tick
                .ceilings
                .iter()
                .find(|ceiling| ceiling.kind == self.kind && ceiling.scope.starts_with(&self.scope));
            // A server that is gone has no descriptors any more, and what is said of it counts no more.
            let open = descriptors(self.server).filter(|open| *open > 0);
            if let Some((ceiling, open)) = mine.zip(open) {
                let first = tick.ceilings.iter().find(|ceiling| ceiling.first);
                self.said.push(Said {
                    open: self.ends * open.saturating_sub(self.base),
                    connections: ceiling.connections,
                    connections_max: ceiling.connections_max,
                    is_first: ceiling.first,
                    first: first.map(|first| format!("{} {}", first.kind.name(), first.scope)),
                    cost: ceiling.cost_per_connection,
                });
            }
            return Ok(tick);
        }
    }

    /// Until `over` says so, which is asked after every tick.
    pub(super) fn until(&mut self, mut over: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        while !over()? {
            self.next()?;
        }
        Ok(())
    }

    /// Until no connections come any more.
    pub(super) fn until_it_stalls(&mut self) -> anyhow::Result<()> {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            self.next()?;
            let open = self.open();
            if open > most {
                (most, since) = (open, Instant::now());
            } else if most > 0 && since.elapsed() > STALL {
                return Ok(());
            }
        }
    }

    /// Connections the server had at the last tick.
    pub(super) fn open(&self) -> u64 {
        self.said.last().map_or(0, |said| said.open)
    }

    /// What came of it, where it failed at so many.
    pub(super) fn row(self, actual: u64, limit: u64) -> Row {
        Row { kind: self.kind, limit, actual, said: self.said }
    }

    /// Counts the connections that a server which lives on has accepted, as the kernel has them: those in the accept queue
    /// have no inode yet. Then ends the crowd.
    pub(super) fn finish_at(
        self,
        server: &Process,
        port: u16,
        crowd: Vec<Process>,
        limit: u64,
    ) -> anyhow::Result<Row> {
        let sockets = procfs::process::Process::new(i32::try_from(server.pid())?)?.tcp()?;
        let accepted = sockets.iter().filter(|socket| {
            socket.local_address.port() == port && socket.state == TcpState::Established && socket.inode != 0
        });
        let actual = accepted.count() as u64;
        ensure!(actual > 0, "the server has accepted nothing");
        drop(crowd);
        Ok(self.row(actual, limit))
    }

    /// Ends the crowd of a server that is no more, and takes its word for how many connections there were.
    pub(super) fn finish(self, crowd: Process, limit: u64) -> anyhow::Result<Row> {
        crowd.signal(Signal::TERM)?;
        let ended = crowd.finish(SOON)?;
        let text = ended.stdout.join("\n");
        let result: Value = serde_json::from_str(&text)
            .with_context(|| format!("no result of the crowd: {text} {}", ended.stderr.join(" ")))?;
        let Some(opened) = result["connections"]["opened"].as_u64().filter(|opened| *opened > 0) else {
            bail!("the crowd opened nothing: {result}");
        };
        let actual = self.ends * opened;
        Ok(self.row(actual, limit))
    }
}

/// Descriptors a process has open: an outside witness of its connections. None once it is gone.
pub(super) fn descriptors(pid: u32) -> Option<u64> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// Connections that stay until they are told to go, opened at a steady rate: headroom-load's, or, where messages are to be
/// compressed or not to be read, those of a script that speaks to servers nobody here wrote.
pub(super) fn crowd(
    server: Server,
    address: SocketAddr,
    connections: u64,
    rate: u64,
    namespace: Option<&Namespace>,
) -> anyhow::Result<Process> {
    if let Some(behaviour) = server.behaviour() {
        let numbers = [u64::from(address.port()), connections, rate].map(|number| number.to_string());
        let [port, connections, rate] = &numbers;
        return python::start("crowd.py", &[&address.ip().to_string(), port, connections, rate, behaviour]);
    }
    let mut command = loader(address, connections, rate)?;
    match namespace {
        Some(namespace) => namespace.enter(|| Process::start(&mut command)),
        None => Process::start(&mut command),
    }
}

/// headroom-load for that.
pub(super) fn loader(address: SocketAddr, connections: u64, rate: u64) -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::path("headroom-load")?);
    let url = format!("ws://{address}/echo");
    command.args(["--json", "--duration", "10m", "--allow-remote", "--url", &url]);
    command.args(["--connections", &connections.to_string(), "--rate", &rate.to_string()]);
    Ok(command)
}
