//! headroom-agent as its users start it.

use std::process::Command;
use std::time::{Duration, Instant};

use agent::document::{Body, Connection, Envelope, SCHEMA, Snapshot, Tick};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::binaries;
use crate::process::{Ended, Process, SOON};
use crate::runner::Skip;

/// Exit codes with which the agent says that this host or this user cannot be measured.
const REFUSALS: &[i32] = &[69, 77];

/// `headroom-agent ARGUMENTS`.
pub(crate) fn command(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::path("headroom-agent")?);
    command.args(arguments);
    Ok(command)
}

/// `headroom-agent run`, attached.
pub(crate) struct Run {
    pub(crate) process: Process,
    /// Those that [`Run::until`] came past.
    pub(crate) closed: Vec<Connection>,
    next_seq: u64,
}

impl Run {
    /// Starts it and waits for the first event.
    pub(crate) fn attach(arguments: &[&str]) -> anyhow::Result<Self> {
        let process = Process::start(command(&["run"])?.args(arguments))?;
        let mut run = Self { process, closed: Vec::new(), next_seq: 0 };
        match run.next(SOON)? {
            Some(Envelope { body: Body::AgentStarted(_), .. }) => Ok(run),
            Some(other) => bail!("the stream begins with {}", other.event),
            None => Err(refused(run.process.finish(SOON)?)),
        }
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) fn next(&mut self, within: Duration) -> anyhow::Result<Option<Envelope>> {
        let Some(line) = self.process.stdout.next(within)? else {
            return Ok(None);
        };
        let event: Envelope = serde_json::from_str(&line).with_context(|| format!("not an event: {line}"))?;
        ensure!(event.schema == SCHEMA, "schema {}", event.schema);
        ensure!(event.seq == self.next_seq, "event {} follows {}", event.seq, self.next_seq.wrapping_sub(1));
        ensure!(event.event == event.body.name(), "{} holds {}", event.event, event.body.name());
        self.next_seq += 1;
        Ok(Some(event))
    }

    /// Reads on to the first tick of which, together with all that closed before it, `done` holds.
    pub(crate) fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Tick, &[Connection]) -> bool,
    ) -> anyhow::Result<Tick> {
        let deadline = Instant::now() + within;
        loop {
            match self.next(SOON)?.context("the agent ended")?.body {
                Body::ConnectionClosed(connection) => self.closed.push(connection),
                Body::Tick(tick) if done(&tick, &self.closed) => return Ok(tick),
                Body::Tick(tick) if Instant::now() > deadline => bail!(
                    "{what}: not within {within:?}; {} closed, holders: {:?}",
                    self.closed.len(),
                    tick.processes
                        .iter()
                        .map(|process| (process.pid, process.connections))
                        .collect::<Vec<_>>()
                ),
                _ => {}
            }
        }
    }

    /// The final state of the next `number` connections that close, and the first tick after the last of them.
    pub(crate) fn until_closed(
        &mut self,
        number: usize,
        within: Duration,
    ) -> anyhow::Result<(Vec<Connection>, Tick)> {
        let tick = self.until("closing", within, |_, closed| closed.len() >= number)?;
        Ok((std::mem::take(&mut self.closed), tick))
    }
}

/// `headroom-agent snapshot`, attached and counting.
pub(crate) struct Settling(Process);

impl Settling {
    /// Starts it and returns once it is attached: what happens from now on is seen whole.
    pub(crate) fn attach(port: u16, settle: Duration) -> anyhow::Result<Self> {
        Self::start(&[], &["--port", &port.to_string()], settle)
    }

    /// The same of every port of the host.
    pub(crate) fn attach_everywhere(settle: Duration) -> anyhow::Result<Self> {
        Self::start(&[], &[], settle)
    }

    /// The same of an agent that `wrapper` starts, a command that takes another one for its last arguments.
    pub(crate) fn attach_through(wrapper: &[&str], port: u16, settle: Duration) -> anyhow::Result<Self> {
        Self::start(wrapper, &["--port", &port.to_string()], settle)
    }

    fn start(wrapper: &[&str], more: &[&str], settle: Duration) -> anyhow::Result<Self> {
        let settle = format!("{}ms", settle.as_millis());
        let arguments = [&["snapshot", "--json", "-v", "--settle", &settle], more].concat();
        let mut agent = command(&arguments)?;
        if let [program, rest @ ..] = wrapper {
            let mut wrapped = Command::new(program);
            wrapped.args(rest).arg(agent.get_program()).args(arguments);
            agent = wrapped;
        }
        let process = Process::start(&mut agent)?;
        let mut said = Vec::new();
        while let Some(line) = process.stderr.next(SOON)? {
            if line.starts_with("attached") {
                return Ok(Self(process));
            }
            said.push(line);
        }
        let ended = process.finish(SOON)?;
        Err(refused(Ended { stderr: said, ..ended }))
    }

    pub(crate) fn is_settling(&mut self) -> anyhow::Result<bool> {
        self.0.is_running()
    }

    /// Waits for the document.
    pub(crate) fn finish(self, within: Duration) -> anyhow::Result<Snapshot> {
        serde_json::from_value(self.finish_json(within)?).context("the snapshot is not what the schema says")
    }

    /// The same as it stands.
    pub(crate) fn finish_json(self, within: Duration) -> anyhow::Result<Value> {
        let ended = self.0.finish(within)?;
        ensure!(ended.status.success(), "snapshot: {}: {}", ended.status, ended.stderr.join(" "));
        serde_json::from_str(&ended.stdout.join("\n")).context("the snapshot is no JSON")
    }
}

/// Skips the test where the agent refused to attach.
pub(crate) fn refusals(ended: &Ended) -> anyhow::Result<()> {
    match ended.status.code() {
        Some(code) if REFUSALS.contains(&code) => Err(Skip(ended.stderr.join(" ")).into()),
        _ => Ok(()),
    }
}

/// A refusal skips the test; any other end fails it.
fn refused(ended: Ended) -> anyhow::Error {
    let words = ended.stderr.join(" ");
    match ended.status.code() {
        Some(code) if REFUSALS.contains(&code) => Skip(words).into(),
        _ => anyhow::anyhow!("headroom-agent ended before it attached: {}: {words}", ended.status),
    }
}
