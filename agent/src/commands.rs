//! One file per subcommand, and the flags they share.

pub(crate) mod check;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod snapshot;

use std::path::PathBuf;

use agent::cli::{Exit, Failure, say};
use agent::daemon::Settings;
use agent::host::{NicPackets, NicSpeed};

/// What to watch, and with which assumptions.
#[derive(clap::Args)]
pub(crate) struct Scope {
    /// TOML file with settings; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Track only connections of this port (a server's own, a client's remote one); may be repeated. Without it, every
    /// WebSocket on the host.
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<u16>,
    /// What an interface can really carry, for all or for one: 10G, eth0=2.5G; may be repeated.
    #[arg(long = "nic-speed", value_name = "[NAME=]RATE")]
    nic_speeds: Vec<NicSpeed>,
    /// How many packets a second an interface can carry in one direction, for all or for one: 800K, eth0=1.2M; may be
    /// repeated. Without it, packets are no ceiling.
    #[arg(long = "nic-pps", value_name = "[NAME=]N")]
    nic_packets: Vec<NicPackets>,
    /// Share of one core that visiting every connection may take; with many connections, visits become rarer.
    #[arg(long, value_name = "SHARE")]
    sweep_budget: Option<f64>,
    /// Go on where only a part of the host's cgroups can be seen, as in most containers; every document says so.
    #[arg(long)]
    this_cgroup: bool,
    /// Show the query of handshakes' paths, which often holds credentials.
    #[arg(long)]
    show_query: bool,
}

impl Scope {
    /// File, then flags.
    fn settings(&self, verbose: u8) -> anyhow::Result<Settings> {
        let mut settings = match &self.config {
            Some(path) => {
                Settings::from_file(path).map_err(|error| Failure::new(Exit::Config, error.to_string()))?
            }
            None => Settings::default(),
        };
        if !self.ports.is_empty() {
            settings.ports.clone_from(&self.ports);
        }
        if !self.nic_speeds.is_empty() {
            settings.nic_speeds.clone_from(&self.nic_speeds);
        }
        if !self.nic_packets.is_empty() {
            settings.nic_packets.clone_from(&self.nic_packets);
        }
        if let Some(budget) = self.sweep_budget {
            settings.sweep_budget = budget;
        }
        settings.this_cgroup |= self.this_cgroup;
        settings.show_query |= self.show_query;
        if verbose > 0 {
            // `log` counts debug as 4, trace as 5.
            settings.log_level = 3 + verbose.min(2);
            log::set_max_level(log::LevelFilter::Trace);
            // It can be set once, and this runs once.
            let _ = log::set_logger(&KernelLog);
        }
        Ok(settings)
    }
}

/// A value that makes no sense, from flags.
fn check(settings: &Settings) -> anyhow::Result<()> {
    settings.check().map_err(|(key, message)| {
        Failure::new(Exit::Usage, format!("--{}: {message}", key.replace('_', "-"))).into()
    })
}

/// Prints what the kernel programs log.
struct KernelLog;

impl log::Log for KernelLog {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // aya itself logs through the same facade; only the programs' records are asked for.
        if record.target().starts_with("headroom_ebpf") {
            say(&format!("kernel: {} {}: {}", record.level(), record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}
