//! The counting client (client.py) and a server that knows nothing of it, watched by the agent.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use agent::document::{Connection, Role, Tick};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::agent_process::Run;
use crate::process::{Process, SOON, until};
use crate::python;
use crate::traffic::{self, Account};

pub(crate) const CONNECTIONS: usize = 30;
/// Longer than the servers ping for.
const SECONDS: &str = "3";

/// What to exchange with whom.
pub(crate) struct Exchange<'a> {
    pub(crate) url: String,
    /// Further arguments of client.py.
    pub(crate) client: &'a [&'a str],
    /// What the agent watches.
    pub(crate) ports: &'a [u16],
    /// How many connections these processes hold together while all are open. The client's own are not among them.
    pub(crate) holders: &'a [(&'a [u32], usize)],
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) closed: Vec<Connection>,
    /// The last tick while all were open.
    pub(crate) open: Tick,
    /// The first one after all were closed.
    pub(crate) last: Tick,
    /// What client.py printed.
    pub(crate) told: Value,
    client: u32,
}

impl Exchange<'_> {
    /// Opens the connections, exchanges messages, waits for the agent to find all holders, closes, and returns what was
    /// seen and told.
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        // Visits as often as there are ticks, so that the holders are found soon.
        let mut arguments = vec!["--interval", "250ms", "--sweep-budget", "1"];
        arguments.extend(ports.iter().flat_map(|port| ["--port", port]));
        let mut agent = Run::attach(&arguments)?;
        let number = CONNECTIONS.to_string();
        let fixed = [self.url.as_str(), "--connections", &number, "--seconds", SECONDS];
        let mut client = python::start("client.py", &[&fixed, self.client].concat())?;
        if client.stdout.after("quiet")?.is_none() {
            bail!("client.py: {}", client.finish(SOON)?.stderr.join("\n"));
        }
        let own = [client.pid()];
        let holders: Vec<_> = self.holders.iter().copied().chain([(&own[..], CONNECTIONS)]).collect();
        let open = agent.until("finding the holders", SOON, |tick, _| {
            holders.iter().all(|(pids, number)| held(tick, pids) == *number as u64)
        })?;
        client.tell("go")?;
        let all = holders.iter().map(|(_, number)| number).sum();
        let last = agent.until("closing", SOON, |_, closed| closed.len() >= all)?;
        let told = python::result(client)?;
        ensure!(agent.closed.len() == all, "{} of {all} connections closed", agent.closed.len());
        ensure!(last.agent.events_dropped == 0, "{} events dropped", last.agent.events_dropped);
        Ok(Outcome { closed: agent.closed, open, last, told, client: own[0] })
    }
}

impl Outcome {
    /// What client.py counted.
    pub(crate) fn client(&self) -> anyhow::Result<Account> {
        Account::told(&self.told["client"])
    }

    /// The client's account is the agent's, of both ends of its connections to `port` on `host` (as in a URL), where
    /// the server's ends are held by `servers`.
    pub(crate) fn check(&self, host: &str, port: u16, servers: &[u32]) -> anyhow::Result<()> {
        let client = self.client()?;
        for direction in [&client.received, &client.sent] {
            for name in ["text", "payload_bytes", "control_bytes"] {
                ensure!(direction[name] > 0, "no {name} to count: {client:?}");
            }
            ensure!(direction["close"] == CONNECTIONS as u64, "not all were closed by both ends: {client:?}");
        }
        for (role, told) in [(Role::Client, &client), (Role::Server, &client.mirrored())] {
            let number = traffic::agree((&self.closed, &self.last), port, role, told)?;
            ensure!(number == CONNECTIONS, "{number} of {CONNECTIONS} closed as {role:?}");
        }
        for connection in self.of(port, Role::Client) {
            self.ends(connection, host, port, servers)?;
        }
        Ok(())
    }

    /// The closed connections of a listener.
    pub(crate) fn of(&self, port: u16, role: Role) -> impl Iterator<Item = &Connection> {
        self.closed.iter().filter(move |connection| traffic::belongs(connection, port, role))
    }

    /// Addresses, holders and close codes of both ends of a connection.
    fn ends(&self, client: &Connection, host: &str, port: u16, servers: &[u32]) -> anyhow::Result<()> {
        let mut opposite = self.of(port, Role::Server).filter(|server| {
            (&server.local, &server.remote) == (&client.remote, &client.local)
                && server.pid.is_some_and(|pid| servers.contains(&pid))
        });
        let server = match (opposite.next(), opposite.next()) {
            (Some(server), None) => server,
            _ => bail!("not one end of {servers:?} opposite to {client:?}"),
        };
        ensure!(client.remote == format!("{host}:{port}"), "{host}:{port} is shown as {}", client.remote);
        ensure!(client.local.starts_with(&format!("{host}:")), "{} is not on {host}", client.local);
        ensure!(client.pid == Some(self.client), "{:?} holds an end of {}", client.pid, self.client);
        ensure!(client.fd.is_some() && server.fd.is_some(), "no descriptor: {client:?}, {server:?}");
        // Each end's own code comes before its peer's.
        for (connection, by) in [(client, "client"), (server, "server")] {
            let code = self.told["close_codes"][by].as_u64().map(|code| code as u16);
            ensure!(connection.close_code == code, "the {by} closed with {code:?}: {connection:?}");
        }
        Ok(())
    }
}

/// How many connections these processes hold, as a tick says.
pub(crate) fn held(tick: &Tick, pids: &[u32]) -> u64 {
    let of = |pid| tick.processes.iter().filter(move |process| process.pid == pid);
    pids.iter().flat_map(|pid| of(*pid)).map(|process| process.connections).sum()
}

/// Starts a server that prints `listening PORT`.
pub(crate) fn announced(server: Process) -> anyhow::Result<(Process, u16)> {
    match server.stdout.after("listening ")? {
        Some(port) => Ok((server, port.parse()?)),
        None => bail!("the server ended: {}", server.finish(SOON)?.stderr.join("\n")),
    }
}

/// Starts a server that takes its port from us and says nothing; `package` is what it comes with.
pub(crate) fn silent(package: &str, command: &mut Command, port: u16) -> anyhow::Result<Process> {
    let mut server = Process::start(command).with_context(|| format!("Debian's {package} is missing"))?;
    listening(&mut server, port)?;
    Ok(server)
}

/// Waits until somebody listens on the port, which a server that has ended cannot be.
pub(crate) fn listening(server: &mut Process, port: u16) -> anyhow::Result<()> {
    until("listening", SOON, || {
        if !server.is_running()? {
            let mut said = Vec::new();
            while let Some(line) = server.stderr.next(SOON)? {
                said.push(line);
            }
            bail!("the server ended: {}", said.join("\n"));
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
