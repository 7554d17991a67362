//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use agent::cli::parse_duration;
use agent::host::{NicPackets, NicSpeed};
use clap::Parser;

/// How many more WebSocket connections this host can take, and which ceiling it hits first.
///
/// Shows the daemon behind /run/headroom/agent.sock where there is one, else runs the agent itself; --agent and --replay
/// name another source of events.
#[derive(Debug, Clone, Parser)]
#[command(name = "headroom", version)]
pub struct Options {
    /// Show the agent behind this unix socket.
    #[arg(long, value_name = "SOCKET", conflicts_with = "replay")]
    pub agent: Option<PathBuf>,

    /// Show a recording of an agent's event stream.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,

    /// Replay this many times faster than recorded; 0 is as fast as possible.
    #[arg(long, value_name = "FACTOR", requires = "replay", value_parser = speed)]
    pub replay_speed: Option<f64>,

    /// Print the state once as text and exit.
    #[arg(long, conflicts_with_all = ["json", "svg"])]
    pub once: bool,

    /// Print the state once as a JSON document and exit.
    #[arg(long, conflicts_with = "svg")]
    pub json: bool,

    /// Draw the dashboard once into an SVG file and exit.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Gather events for this long before printing once (a recording is read to its end).
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub settle: Duration,

    /// Watch this port only; may be repeated. Default: every WebSocket on the host.
    #[arg(long = "port", value_name = "N", conflicts_with_all = ["agent", "replay"])]
    pub ports: Vec<u16>,

    /// What an interface can really carry, for all or for one: 10G, eth0=2.5G; may be repeated.
    #[arg(long = "nic-speed", value_name = "[NAME=]RATE", conflicts_with_all = ["agent", "replay"])]
    pub nic_speeds: Vec<NicSpeed>,

    /// How many packets a second an interface can carry in one direction, for all or for one: 800K, eth0=1.2M; may be
    /// repeated.
    #[arg(long = "nic-pps", value_name = "[NAME=]N", conflicts_with_all = ["agent", "replay"])]
    pub nic_packets: Vec<NicPackets>,

    /// Time between two looks at the host. Default: 1s.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["agent", "replay"])]
    pub interval: Option<Duration>,

    /// Go on where only a part of the host's cgroups can be seen, as in most containers.
    #[arg(long, conflicts_with_all = ["agent", "replay"])]
    pub this_cgroup: bool,
}

/// What to print instead of opening the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Table,
    Json,
    Svg(PathBuf),
}

impl Options {
    /// Whether a daemon that runs already would do: nothing is asked of the agent that only a new one could be told.
    pub(crate) fn needs_no_agent_of_its_own(&self) -> bool {
        self.ports.is_empty()
            && self.interval.is_none()
            && self.nic_speeds.is_empty()
            && self.nic_packets.is_empty()
    }

    pub(crate) fn headless(&self) -> Option<Output> {
        match &self.svg {
            Some(path) => Some(Output::Svg(path.clone())),
            None if self.json => Some(Output::Json),
            None if self.once => Some(Output::Table),
            None => None,
        }
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor >= 0.0 => Ok(factor),
        _ => Err("not a number of zero or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["headroom"], arguments].concat())
    }

    #[test]
    fn one_source_and_one_output_at_a_time() {
        assert!(parse(&[]).expect("no flag is needed").headless().is_none());
        assert!(parse(&["--agent", "s", "--replay", "f"]).is_err());
        assert!(parse(&["--once", "--json"]).is_err());
        assert!(parse(&["--svg", "f", "--json"]).is_err());
        let once = parse(&["--replay", "f", "--once"]).expect("a recording can be printed once");
        assert_eq!(once.headless(), Some(Output::Table));
    }

    #[test]
    fn flags_that_would_be_ignored_are_refused() {
        assert!(parse(&["--replay", "f", "--port", "80"]).is_err());
        assert!(parse(&["--agent", "s", "--interval", "1s"]).is_err());
        assert!(parse(&["--replay-speed", "2"]).is_err());
        assert!(parse(&["--replay", "f", "--replay-speed", "-1"]).is_err());
        assert!(parse(&["--replay", "f", "--replay-speed", "0"]).is_ok());
    }
}
