//! What the servers are loaded with: headroom-load for all alike, a bare handshake client, and a client that is not ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::peers::{example, release, script};
use crate::process::{Running, Stop};
use crate::verbs::python;

/// Connections come at this many a second.
pub(super) const RATE: u32 = 5_000;

/// headroom-load at work.
pub(super) struct Load {
    running: Running,
    output: PathBuf,
}

impl Load {
    /// Opens `connections` to `url`; `flags` say what goes over them.
    pub(super) fn start(folder: &Path, url: &str, connections: u32, flags: &[&str]) -> anyhow::Result<Self> {
        let output = folder.join("load.json");
        let mut command = Command::new(release("headroom-load"));
        command.args(["--json", "--url", url, "--connections", &connections.to_string()]);
        command.args(["--rate", &RATE.to_string()]).args(flags);
        command.stdout(File::create(&output)?).stderr(File::create(folder.join("load.log"))?);
        Ok(Self { running: Running::start(&mut command)?, output })
    }

    /// An error once it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.running.child.try_wait()? {
            Some(status) => bail!("headroom-load ended with {status}; see its log beside the result"),
            None => Ok(()),
        }
    }

    pub(super) fn ask_to_end(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.running.end()?;
        Ok(())
    }

    /// Waits for its result, in which every connection was opened.
    pub(super) fn finish(mut self, stop: &Stop) -> anyhow::Result<Value> {
        let status = self.running.wait(stop)?;
        ensure!(status.success(), "headroom-load ended with {status}");
        let result: Value = serde_json::from_str(&std::fs::read_to_string(&self.output)?)?;
        let connections = &result["connections"];
        ensure!(connections["opened"] == connections["requested"], "not all were opened: {connections}");
        // A connection that is gone costs nothing, and would make the server look lean.
        ensure!(connections["closed_by_peer"] == 0, "the server closed some: {connections}");
        Ok(result)
    }
}

/// Handshakes, some at a time, each followed by a reset: how many, in how many seconds.
pub(super) fn knock(stop: &Stop, url: &str, time: Duration, at_once: u32) -> anyhow::Result<(f64, f64)> {
    let mut command = example("knock", &[url, &time.as_secs_f64().to_string(), &at_once.to_string()]);
    let result = output(stop, &mut command)?;
    ensure!(result["failed"] == 0, "handshakes failed: {result}");
    Ok((number(&result, "opened")?, number(&result, "seconds")?))
}

/// A client written in Python with websockets: messages echoed, and in how many seconds.
pub(super) fn foreign(
    stop: &Stop,
    url: &str,
    connections: u32,
    time: Duration,
    size: u32,
) -> anyhow::Result<(f64, f64)> {
    let mut command = Command::new(python::interpreter(stop)?);
    command.arg("-B").arg(script("client.py")).arg(url);
    command.args([connections.to_string(), time.as_secs_f64().to_string(), size.to_string()]);
    let result = output(stop, &mut command)?;
    Ok((number(&result, "messages")?, number(&result, "seconds")?))
}

/// The JSON object that a short-lived program prints.
fn output(stop: &Stop, command: &mut Command) -> anyhow::Result<Value> {
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let status = running.wait(stop)?;
    let text = std::io::read_to_string(running.child.stdout.take().context("no stdout")?)?;
    ensure!(status.success(), "{command:?} ended with {status}");
    serde_json::from_str(&text).with_context(|| format!("{command:?} printed {text:?}"))
}

/// A number that has to be there.
pub(super) fn number(result: &Value, field: &str) -> anyhow::Result<f64> {
    result[field].as_f64().with_context(|| format!("no {field} in {result}"))
}
