//! One file per subcommand, and the flags they share.

pub(crate) mod check;
pub(crate) mod run;
pub(crate) mod snapshot;

use std::path::PathBuf;

use agent::cli::{Exit, Failure};
use agent::daemon::Settings;
use agent::host::NicSpeed;
use agent::kernel::LoadError;

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
    /// Share of one core that visiting every connection may take; with many connections, visits become rarer.
    #[arg(long, value_name = "SHARE")]
    sweep_budget: Option<f64>,
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
        if let Some(budget) = self.sweep_budget {
            settings.sweep_budget = budget;
        }
        // `log` counts debug as 4, trace as 5.
        settings.log_level = if verbose > 0 { 3 + verbose.min(2) } else { 0 };
        Ok(settings)
    }
}

/// A value that makes no sense, from flags.
fn check(settings: &Settings) -> anyhow::Result<()> {
    settings.check().map_err(|(key, message)| {
        Failure::new(Exit::Usage, format!("--{}: {message}", key.replace('_', "-"))).into()
    })
}

/// The exit code a loading error deserves.
pub(crate) fn failure(error: LoadError) -> Failure {
    let exit = match &error {
        LoadError::Privilege(_) => Exit::NoPermission,
        _ => Exit::Unavailable,
    };
    Failure::new(exit, error.to_string())
}
