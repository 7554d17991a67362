//! Settings: flags over the configuration file over defaults.

mod levels;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::cli::parse_duration;
use crate::host::{NicPackets, NicSpeed};
use crate::kernel::Options;
use crate::model::Thresholds;

/// Most ports that can be watched at once: the size of the map behind it.
const MAX_PORTS: usize = 64;

/// Where the event stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file, appended to; SIGHUP opens it anew.
    File(PathBuf),
    /// A listening Unix socket; every reader gets the whole stream from then on.
    Unix(PathBuf),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Stdout => f.write_str("stdout"),
            Output::File(path) => write!(f, "file:{}", path.display()),
            Output::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Output {
    /// The file or socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Output::Stdout => None,
            Output::File(path) | Output::Unix(path) => Some(path),
        }
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "stdout" => Ok(Output::Stdout),
            Some(("file", path)) if !path.is_empty() => Ok(Output::File(path.into())),
            Some(("unix", path)) if !path.is_empty() => Ok(Output::Unix(path.into())),
            _ => Err(format!("{text:?} is not an output: stdout, file:PATH or unix:PATH")),
        }
    }
}

/// One connection of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(pub u32);

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one_of =
            text.strip_prefix("1/").and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        one_of.map(Self).ok_or_else(|| format!("{text:?} is not a share of connections: 1/10"))
    }
}

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Track only these ports; empty tracks every WebSocket on the host.
    pub ports: Vec<u16>,
    /// Where events go.
    pub output: Output,
    /// Time between ticks.
    pub interval: Duration,
    /// Stop by itself after this long.
    pub duration: Option<Duration>,
    /// What interfaces can really carry.
    pub nic_speeds: Vec<NicSpeed>,
    /// How many packets interfaces can carry.
    pub nic_packets: Vec<NicPackets>,
    /// Share of one core that sweeps over all connections may take.
    pub sweep_budget: f64,
    /// Whether each changed connection is reported after a sweep.
    pub updates: bool,
    /// Whether to go on where only a part of the host's cgroups can be seen.
    pub this_cgroup: bool,
    /// Tell of a share of the connections one by one; totals are of all.
    pub sample_connections: Option<Sample>,
    /// Most events about single connections a second.
    pub max_connection_events: Option<u32>,
    /// Whether the query of a handshake's path is shown; it often holds credentials.
    pub show_query: bool,
    /// From where on a ceiling is near, and critical.
    pub thresholds: Thresholds,
    /// Kernel-side log level.
    pub log_level: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            output: Output::Stdout,
            interval: Duration::from_secs(1),
            duration: None,
            nic_speeds: Vec::new(),
            nic_packets: Vec::new(),
            sweep_budget: 0.01,
            updates: false,
            this_cgroup: false,
            sample_connections: None,
            max_connection_events: None,
            show_query: false,
            thresholds: Thresholds::default(),
            log_level: 0,
        }
    }
}

/// Why a configuration file was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or has keys nobody knows.
    #[error("configuration {path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value makes no sense.
    #[error("configuration {path}: {key}: {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        message: String,
    },
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ports: Option<Vec<u16>>,
    output: Option<String>,
    interval: Option<String>,
    nic_speed: Option<Vec<String>>,
    nic_pps: Option<Vec<String>>,
    sweep_budget: Option<f64>,
    updates: Option<bool>,
    this_cgroup: Option<bool>,
    sample_connections: Option<String>,
    max_connection_events: Option<u32>,
    show_query: Option<bool>,
    levels: Option<levels::Levels>,
}

impl Settings {
    /// Defaults, overridden by what the file says.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { path: path.into(), message: syntax(&error, &text) })?;
        let refused = |key, message: String| ConfigError::Value { path: path.to_owned(), key, message };
        let mut settings = Settings::default();
        if let Some(ports) = file.ports {
            settings.ports = ports;
        }
        if let Some(output) = file.output {
            settings.output = output.parse().map_err(|error| refused("output", error))?;
        }
        if let Some(interval) = file.interval {
            settings.interval =
                parse_duration(&interval).map_err(|error| refused("interval", error.to_string()))?;
        }
        for speed in file.nic_speed.unwrap_or_default() {
            let speed: Result<NicSpeed, _> = speed.parse();
            settings.nic_speeds.push(speed.map_err(|error| refused("nic_speed", error.to_string()))?);
        }
        for packets in file.nic_pps.unwrap_or_default() {
            let packets: Result<NicPackets, _> = packets.parse();
            settings.nic_packets.push(packets.map_err(|error| refused("nic_pps", error.to_string()))?);
        }
        if let Some(budget) = file.sweep_budget {
            settings.sweep_budget = budget;
        }
        if let Some(updates) = file.updates {
            settings.updates = updates;
        }
        if let Some(part) = file.this_cgroup {
            settings.this_cgroup = part;
        }
        if let Some(share) = file.sample_connections {
            settings.sample_connections =
                Some(share.parse().map_err(|error| refused("sample_connections", error))?);
        }
        settings.max_connection_events = file.max_connection_events;
        if let Some(show) = file.show_query {
            settings.show_query = show;
        }
        if let Some(levels) = file.levels {
            settings.thresholds = levels.thresholds().map_err(|(key, message)| refused(key, message))?;
        }
        settings.check().map_err(|(key, message)| refused(key, message))?;
        Ok(settings)
    }

    /// Says which value makes no sense, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.interval < Duration::from_millis(10) {
            return Err(("interval", "must be at least 10ms".into()));
        }
        if !(self.sweep_budget > 0.0 && self.sweep_budget <= 1.0) {
            return Err(("sweep_budget", "is a share of one core: more than 0, at most 1".into()));
        }
        if self.ports.len() > MAX_PORTS {
            return Err((
                "ports",
                format!("at most {MAX_PORTS} ports can be watched; leave it out to watch all"),
            ));
        }
        if self.max_connection_events == Some(0) {
            return Err(("max_connection_events", "is a number a second of at least 1".into()));
        }
        if self.ports.contains(&0) {
            return Err(("ports", "0 is no port".into()));
        }
        Ok(())
    }

    pub(super) fn load_options(&self) -> Options {
        Options { ports: self.ports.clone(), this_cgroup: self.this_cgroup, log_level: self.log_level }
    }
}

/// TOML errors draw the line they speak of; one line must do.
fn syntax(error: &toml::de::Error, text: &str) -> String {
    let line =
        error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("written");
        Settings::from_file(file.path())
    }

    #[test]
    fn a_file_overrides_defaults() {
        let settings = from_text(
            "ports = [8080]\ninterval = \"250ms\"\noutput = \"unix:/run/headroom.sock\"\nnic_speed = [\"lo=1G\"]\nnic_pps = [\"2M\"]\nthis_cgroup = true\nsample_connections = \"1/10\"\nmax_connection_events = 500\n",
        )
        .expect("valid");
        assert_eq!(settings.ports, [8080]);
        assert!(settings.this_cgroup);
        assert_eq!(
            (settings.sample_connections, settings.max_connection_events),
            (Some(Sample(10)), Some(500))
        );
        assert_eq!(settings.interval, Duration::from_millis(250));
        assert_eq!(settings.output, Output::Unix("/run/headroom.sock".into()));
        assert_eq!(settings.nic_speeds[0].bits_per_second, 1_000_000_000);
        assert_eq!(settings.nic_packets[0].packets_per_second, 2_000_000);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let message = |text: &str| from_text(text).expect_err("refused").to_string();
        assert!(message("ports = [8080]\nporst = 1\n").contains("line 2: unknown field `porst`"));
        assert!(message("interval = \"5\"").contains("interval: \"5\" needs a unit"));
        assert!(message("sweep_budget = 0").contains("sweep_budget"));
        assert!(message("[levels]\nnear_ration = 0.5").contains("line 2: unknown field `near_ration`"));
        assert!(message("[levels]\nnear_ratio = 2").contains("levels.near_ratio: 2 is no share"));
        assert!(
            message("sample_connections = \"0.1\"").contains("sample_connections: \"0.1\" is not a share")
        );
        assert!(message("sample_connections = \"1/0\"").contains("is not a share"));
        assert!(message("max_connection_events = 0").contains("max_connection_events: is a number a second"));
        assert!(message("ports = [0]").contains("0 is no port"));
        assert!(Settings::from_file(Path::new("/nonexistent")).is_err());
    }
}
