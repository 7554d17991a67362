//! A running agent that reports each connection, and what it last said of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent::document::{Body, Connection, Evidence, Role, Tick, Traffic};
use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;

use crate::agent_process::Run;
use crate::process::SOON;
use crate::traffic::{self, Counts};

/// `headroom-agent run --updates`, a sweep at each of its frequent ticks.
pub(crate) struct Watch {
    run: Run,
    /// Recognised connections, by socket cookie.
    pub(crate) latest: BTreeMap<String, Connection>,
    /// Connections that were presumed to be WebSockets.
    pub(crate) presumed: BTreeMap<String, Connection>,
    pub(crate) opened: Vec<Connection>,
    pub(crate) adopted: Vec<Connection>,
    pub(crate) closed: Vec<Connection>,
}

impl Watch {
    pub(crate) fn attach(ports: &[u16], more: &[&str]) -> anyhow::Result<Self> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut arguments = vec!["--updates", "--interval", "200ms", "--sweep-budget", "1"];
        arguments.extend(ports.iter().flat_map(|port| ["--port", port]));
        arguments.extend(more);
        let run = Run::attach(&arguments)?;
        let (opened, adopted, closed) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { run, latest: BTreeMap::new(), presumed: BTreeMap::new(), opened, adopted, closed })
    }

    /// Reads one event; returns a tick with the time at which its sweep began.
    fn next(&mut self) -> anyhow::Result<Option<(Timestamp, Tick)>> {
        let event = self.run.next(SOON)?.context("the agent ended")?;
        let (connection, list) = match event.body {
            Body::Tick(tick) => return Ok(Some((event.timestamp, tick))),
            Body::ConnectionOpened(connection) => (connection, Some(&mut self.opened)),
            Body::ConnectionAdopted(connection) => (connection, Some(&mut self.adopted)),
            Body::ConnectionClosed(connection) => (connection, Some(&mut self.closed)),
            Body::ConnectionUpdated(connection) if connection.evidence == Some(Evidence::Presumed) => {
                self.presumed.insert(connection.id.clone(), connection);
                return Ok(None);
            }
            Body::ConnectionUpdated(connection) => (connection, None),
            _ => return Ok(None),
        };
        if let Some(list) = list {
            list.push(connection.clone());
        }
        self.latest.insert(connection.id.clone(), connection);
        Ok(None)
    }

    /// Reads on to the first tick whose sweep began after now: what happened until now has been told by then.
    pub(crate) fn settle(&mut self) -> anyhow::Result<Tick> {
        let now = Timestamp::now();
        self.until("a tick", SOON, |time, _, _| time > now)
    }

    /// The same, and as long as it takes until the holder of every connection is known.
    pub(crate) fn settle_holders(&mut self) -> anyhow::Result<Tick> {
        let now = Timestamp::now();
        self.until("finding the holders", SOON, |time, _, agent| {
            time > now && agent.latest.values().all(|connection| connection.pid.is_some())
        })
    }

    /// Reads on to the first tick of which, with all that was told before it, `done` holds.
    pub(crate) fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(Timestamp, &Tick, &Self) -> bool,
    ) -> anyhow::Result<Tick> {
        let deadline = Instant::now() + within;
        loop {
            match self.next()? {
                Some((time, tick)) if done(time, &tick, self) => return Ok(tick),
                Some(_) if Instant::now() > deadline => bail!(
                    "{what}: not within {within:?}; {} opened, {} adopted, {} closed",
                    self.opened.len(),
                    self.adopted.len(),
                    self.closed.len()
                ),
                _ => {}
            }
        }
    }

    /// What was last said of the connection between these addresses.
    pub(crate) fn connection(&self, local: &str, remote: &str) -> anyhow::Result<&Connection> {
        let mut found = self.latest.values().filter(|found| found.local == local && found.remote == remote);
        match (found.next(), found.next()) {
            (Some(connection), None) => Ok(connection),
            (None, _) => bail!("nothing was told of {local} → {remote}"),
            _ => bail!("{local} → {remote} was told of under two ids"),
        }
    }
}

/// What a connection carried between two accounts of it: received, sent. Everything in between must have been parsed.
pub(crate) fn between(before: &Connection, after: &Connection) -> anyhow::Result<[Counts; 2]> {
    ensure!(before.id == after.id, "{} became {}", before.id, after.id);
    ensure!(
        before.unparsed_bytes == after.unparsed_bytes,
        "{} bytes went unparsed between {before:?} and {after:?}",
        after.unparsed_bytes - before.unparsed_bytes
    );
    let direction = |before: Option<Traffic>, after: Option<Traffic>| {
        let (before, after) = before.zip(after).context("no counts")?;
        let mut counts = traffic::seen(&after);
        for (name, count) in traffic::seen(&before) {
            *counts.entry(name).or_default() -= count;
        }
        counts.insert("stream_bytes", after.stream_bytes - before.stream_bytes);
        anyhow::Ok(counts)
    };
    Ok([direction(before.received, after.received)?, direction(before.sent, after.sent)?])
}

/// The role a listener's totals are of, of a tick: how many it says were adopted.
pub(crate) fn adopted(tick: &Tick, port: u16, role: Role) -> u64 {
    tick.listeners
        .iter()
        .filter(|listener| listener.port == port && listener.role == role)
        .map(|listener| listener.adopted)
        .sum()
}
