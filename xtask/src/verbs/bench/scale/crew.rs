//! The many processes: servers that share a port, and clients that share the connections out among them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Place;
use super::needs::{Plan, Transport};
use crate::process::{Running, Stop};
use crate::verbs::listening::Listening;
use crate::verbs::usage;

/// headroom-server in as many processes as the plan says.
pub(super) struct Servers {
    listening: Listening,
}

impl Servers {
    pub(super) fn start(stop: &Stop, place: &Place, plan: &Plan) -> anyhow::Result<Self> {
        let mut command = Command::new(place.binaries.join("headroom-server"));
        command.args(["--listen", "ws://127.0.0.1:0", "--processes", &plan.servers.to_string()]);
        command.args(["--ping-interval", &format!("{}s", plan.ping_interval)]);
        if let Transport::Http2(streams) = plan.transport {
            command.args(["--http2-max-streams", &streams.to_string()]);
        }
        Ok(Self { listening: Listening::start(stop, &mut command, "headroom-server", &place.folder)? })
    }

    pub(super) fn port(&self) -> anyhow::Result<&str> {
        let (_, port) = self.listening.address().rsplit_once(':').context("headroom-server names no port")?;
        Ok(port)
    }

    /// All its processes.
    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let parent = self.listening.running.child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let children = children.split_whitespace().flat_map(str::parse);
        Ok(std::iter::once(parent).chain(children).collect())
    }

    /// Resident bytes of all together.
    pub(super) fn resident(&self) -> anyhow::Result<f64> {
        self.processes()?.into_iter().map(|process| Ok(usage::memory(process)?.resident)).sum()
    }

    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes()?.into_iter().map(usage::cpu_seconds).sum()
    }

    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.listening.running.child.try_wait()? {
            Some(status) => bail!("headroom-server ended with {status}; see its log"),
            None => Ok(()),
        }
    }
}

/// headroom-load, several times.
pub(super) struct Clients {
    all: Vec<Client>,
}

struct Client {
    running: Running,
    output: PathBuf,
}

impl Clients {
    pub(super) fn start(servers: &Servers, place: &Place, plan: &Plan, rate: f64) -> anyhow::Result<Self> {
        let mut clients = Self { all: Vec::new() };
        let mut source = 0;
        for (index, share) in plan.shares().into_iter().enumerate() {
            let output = place.folder.join(format!("load-{index}.json"));
            let mut command = Command::new(place.binaries.join("headroom-load"));
            command.args(["--json", "--url", &format!("{}/echo", servers.listening.url)]);
            command.args(["--connections", &share.to_string()]);
            command.args(["--rate", &(rate / f64::from(plan.clients)).to_string()]);
            // Until it is asked to end; then it pings every connection once more and counts the answers.
            command.args(["--duration", "0s", "--linger", "1d", "--ping-all", "--announce"]);
            // Addresses of its own.
            command.args(["--first-source", &source.to_string()]);
            source += plan.addresses(share);
            if let Transport::Http2(streams) = plan.transport {
                command.args(["--transport", "http2", "--streams-per-connection", &streams.to_string()]);
            }
            command.stdout(File::create(&output)?);
            command.stderr(File::create(output.with_extension("log"))?);
            clients.all.push(Client { running: Running::start(&mut command)?, output });
        }
        Ok(clients)
    }

    /// How many have opened all they could, and how many connections those are.
    pub(super) fn announced(&self) -> anyhow::Result<(usize, u64)> {
        let mut announced = (0, 0);
        for client in &self.all {
            let log = std::fs::read_to_string(client.output.with_extension("log"))?;
            if let Some(opened) = log.lines().find_map(announcement) {
                announced.0 += 1;
                announced.1 += opened;
            }
        }
        Ok(announced)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// An error once one of them has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for client in &mut self.all {
            if let Some(status) = client.running.child.try_wait()? {
                let log = client.output.with_extension("log");
                bail!("a headroom-load ended with {status}; see {}", log.display());
            }
        }
        Ok(())
    }

    pub(super) fn resident(&self) -> anyhow::Result<f64> {
        self.all.iter().map(|client| Ok(usage::memory(client.running.child.id())?.resident)).sum()
    }

    /// Ends all at once and gathers what they have to say. Some may be too busy closing to say anything in time: then there are
    /// fewer results than clients.
    pub(super) fn finish(mut self, within: Duration) -> anyhow::Result<Vec<Value>> {
        self.ask_all();
        let deadline = Instant::now() + within;
        let mut results = Vec::new();
        for client in &mut self.all {
            while client.running.child.try_wait()?.is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            let text = std::fs::read_to_string(&client.output)?;
            if !text.is_empty() {
                let result = serde_json::from_str(&text);
                results.push(result.with_context(|| format!("{} holds no result", client.output.display()))?);
            }
        }
        Ok(results)
    }

    fn ask_all(&mut self) {
        self.all.iter_mut().for_each(|client| client.running.ask_to_end());
    }
}

impl Drop for Clients {
    /// One after the other would take minutes. A second signal has each give up closing properly.
    fn drop(&mut self) {
        self.ask_all();
    }
}

/// From "headroom-load: 7 of 10 connections opened".
fn announcement(line: &str) -> Option<u64> {
    let (opened, rest) = line.strip_prefix("headroom-load: ")?.split_once(" of ")?;
    rest.ends_with(" connections opened").then(|| opened.parse().ok())?
}

/// Sums over the clients' results.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) opened: u64,
    pub(super) failed: u64,
    pub(super) closed_by_peer: u64,
    /// The server's pings.
    pub(super) pings: u64,
    pub(super) pongs: u64,
    /// Connections that answered one of ours.
    pub(super) answered: u64,
}

impl Totals {
    pub(super) fn of(results: &[Value]) -> Self {
        let sum = |pointer: &str| {
            let number = |result: &Value| result.pointer(pointer).and_then(Value::as_u64);
            results.iter().filter_map(number).sum()
        };
        Self {
            opened: sum("/connections/opened"),
            failed: sum("/connections/failed") + sum("/connections/refused"),
            closed_by_peer: sum("/connections/closed_by_peer"),
            pings: sum("/received/ping"),
            pongs: sum("/sent/pong"),
            answered: sum("/ping_all/answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_the_clients() {
        let result = |opened, pings| {
            serde_json::json!({
                "connections": { "opened": opened, "failed": 1, "refused": 2, "closed_by_peer": 0 },
                "received": { "ping": pings }, "sent": { "pong": pings }, "ping_all": { "answered": opened },
            })
        };
        let totals = Totals::of(&[result(10, 30), result(5, 10)]);
        assert_eq!((totals.opened, totals.failed, totals.closed_by_peer), (15, 6, 0));
        assert_eq!((totals.pings, totals.pongs, totals.answered), (40, 40, 15));
    }

    #[test]
    fn an_announcement_says_how_many() {
        assert_eq!(announcement("headroom-load: 7 of 10 connections opened"), Some(7));
        assert_eq!(announcement("headroom-load: descriptor limit raised from 1 to 2"), None);
    }
}
