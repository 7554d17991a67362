//! The agent in this process.

use agent::cli::Failure;
use agent::daemon::{self, Settings};

use super::Stream;
use crate::Options;

/// Starts the agent in this process, watching what the options say.
pub(super) fn open(options: &Options) -> anyhow::Result<Stream> {
    let defaults = Settings::default();
    let settings = Settings {
        ports: options.ports.clone(),
        nic_speeds: options.nic_speeds.clone(),
        nic_packets: options.nic_packets.clone(),
        interval: options.interval.unwrap_or(defaults.interval),
        this_cgroup: options.this_cgroup,
        // The table of connections lives on them.
        updates: true,
        ..defaults
    };
    settings
        .check()
        .map_err(|(key, message)| Failure::new(agent::cli::Exit::Usage, format!("--{key}: {message}")))?;
    let (running, events) = daemon::start(&settings).map_err(Failure::from)?;
    Ok(Stream { events, producer: None, agent: Some(running) })
}
