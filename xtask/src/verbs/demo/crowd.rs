//! The server and its clients.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Stage, binary};
use crate::process::Running;

const READY: Duration = Duration::from_secs(20);

/// headroom-server, pinging every second.
pub(super) struct Server {
    _running: Running,
    /// `address:port`.
    address: String,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let (output, log) = (stage.folder.join("server.txt"), stage.folder.join("server.log"));
        let mut command = Command::new(binary("headroom-server"));
        command.args(["--listen", "ws://127.0.0.1:0", "--ping-interval", "1s"]);
        command.stdout(File::create(&output)?).stderr(File::create(&log)?);
        let mut running = Running::start(&mut command)?;
        let address = stage.stop.wait_for("headroom-server", READY, || {
            if let Some(status) = running.child.try_wait()? {
                bail!("headroom-server ended with {status}; see {}", log.display());
            }
            let text = std::fs::read_to_string(&output)?;
            let line = text.lines().find_map(|line| line.strip_prefix("listening on ws://"));
            Ok(line.filter(|_| text.ends_with('\n')).map(str::to_owned))
        })?;
        let (_, port) = address.rsplit_once(':').context("headroom-server names no port")?;
        println!("headroom-server listens on ws://{address} and pings every second");
        Ok(Self { _running: running, port: port.parse()?, address })
    }
}

/// headroom-load, sending until it is told to stop.
pub(super) struct Clients {
    running: Running,
    output: PathBuf,
}

impl Clients {
    pub(super) fn start(stage: &Stage<'_>, server: &Server, opening: Duration) -> anyhow::Result<Self> {
        let output = stage.folder.join("load.json");
        let rate = (f64::from(stage.connections) / opening.as_secs_f64()).max(200.0);
        let mut command = Command::new(binary("headroom-load"));
        command.args(["--json", "--duration", "1d", "--message-rate", "0.5", "--message-size", "512B"]);
        command.args(["--url", &format!("ws://{}/echo", server.address)]);
        command.args(["--connections", &stage.connections.to_string(), "--rate", &rate.to_string()]);
        command.stdout(File::create(&output)?).stderr(File::create(stage.folder.join("load.log"))?);
        Ok(Self { running: Running::start(&mut command)?, output })
    }

    /// Ends it and takes its result.
    pub(super) fn finish(mut self) -> anyhow::Result<Value> {
        if let Some(status) = self.running.child.try_wait()? {
            bail!("headroom-load ended with {status}; see {}", self.output.with_extension("log").display());
        }
        self.running.end()?;
        let text = std::fs::read_to_string(&self.output)?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no result", self.output.display()))
    }
}
