//! The reference server and its clients, as the demonstration and the measurements use them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::listening::Listening;
use super::{cargo, target_dir};
use crate::process::{Running, Stop, is_root};

/// What the demonstration takes loopback for, which has no speed of its own.
pub(super) const LINK: &str = "lo=1G";

/// Flags of headroom-load for a little conversation.
pub(super) const TALK: &[&str] = &["--message-rate", "0.5", "--message-size", "512B"];

/// What a verb that runs a server and clients works with.
pub(super) struct Stage<'a> {
    pub(super) stop: &'a Stop,
    pub(super) connections: u32,
    /// Where outputs and logs go.
    pub(super) folder: PathBuf,
}

impl<'a> Stage<'a> {
    /// Builds the release binaries and makes the folder.
    pub(super) fn build(stop: &'a Stop, name: &str, connections: u32) -> anyhow::Result<Self> {
        println!("building the release binaries (the first time takes some minutes)");
        let mut command =
            cargo("build --release --locked --bins --package agent --package server --package tui");
        let status = Running::start(&mut command)?.wait(stop)?;
        ensure!(status.success(), "the build failed: {status}");
        let folder = target_dir().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { stop, connections, folder })
    }
}

/// One of the binaries just built.
fn binary(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

/// One of them with the privilege to attach. Where that takes sudo, the verb has made sure of it.
pub(super) fn privileged(name: &str) -> Command {
    if is_root() {
        return Command::new(binary(name));
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(binary(name));
    command
}

/// headroom-server.
pub(super) struct Server {
    listening: Listening,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start(stage: &Stage<'_>, ping_interval: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(binary("headroom-server"));
        command.args(["--listen", "ws://127.0.0.1:0", "--ping-interval", ping_interval]);
        let listening = Listening::start(stage.stop, &mut command, "headroom-server", &stage.folder)?;
        let (_, port) = listening.address().rsplit_once(':').context("headroom-server names no port")?;
        println!("headroom-server listens on {} and pings every {ping_interval}", listening.url);
        Ok(Self { port: port.parse()?, listening })
    }
}

/// headroom-load, connected until it is told to stop.
pub(super) struct Clients {
    running: Running,
    output: PathBuf,
}

impl Clients {
    /// Opens the stage's connections over the time `opening`; `traffic` are flags that say what goes over them.
    pub(super) fn start(
        stage: &Stage<'_>,
        server: &Server,
        opening: Duration,
        traffic: &[&str],
    ) -> anyhow::Result<Self> {
        let output = stage.folder.join("load.json");
        let rate = (f64::from(stage.connections) / opening.as_secs_f64()).max(200.0);
        let mut command = Command::new(binary("headroom-load"));
        command.args(["--json", "--duration", "1d"]).args(traffic);
        command.args(["--url", &format!("{}/echo", server.listening.url)]);
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
