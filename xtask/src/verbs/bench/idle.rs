//! The agent beside many idle connections, at one tick a second.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::figures::Figure;
use crate::process::{Running, Stop, is_root};
use crate::verbs::crowd::{Clients, Server, Stage, privileged};
use crate::verbs::usage;

/// Until the programs are attached.
const ATTACH: Duration = Duration::from_secs(30);
/// Connections come at this many a second.
const RATE: u32 = 2_000;
/// After the last connection, before anything is measured.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Connections. Both of their ends are on this host, and the agent tracks both.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Windows that are measured one after the other.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    windows: u32,
    /// Length of a window in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// One agent under measurement.
struct Agent {
    name: &'static str,
    events: std::path::PathBuf,
    running: Running,
    shares: Vec<f64>,
    resident: Vec<f64>,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(is_root(), "needs root: it reads what the agent, a process of root's, costs");
    let stage = Stage::build(stop, "bench-idle", arguments.connections)?;
    let server = Server::start(&stage, "30s")?;
    let mut agents = [
        Agent::start(&stage, "events only", "run.jsonl", &[])?,
        Agent::start(&stage, "with an update for each changed connection", "updates.jsonl", &["--updates"])?,
    ];
    let opening = Duration::from_secs(u64::from((arguments.connections / RATE).max(1)));
    let clients = Clients::start(&stage, &server, opening, &[])?;
    let expected = 2 * u64::from(arguments.connections);
    stop.wait_for("opening all connections", opening * 3 + Duration::from_secs(30), || {
        Ok((agents[0].last_tick()?["connections"] == expected).then_some(()))
    })?;
    stop.pause(SETTLE)?;
    for _ in 0..arguments.windows {
        let before = agents.iter().map(Agent::cpu_seconds).collect::<anyhow::Result<Vec<f64>>>()?;
        let start = Instant::now();
        stop.pause(Duration::from_secs(arguments.seconds))?;
        let elapsed = start.elapsed().as_secs_f64();
        for (agent, before) in agents.iter_mut().zip(before) {
            agent.shares.push((agent.cpu_seconds()? - before) / elapsed * 100.0);
            agent.resident.push(agent.resident_mib()?);
        }
    }
    println!(
        "\n{} idle connections, both ends tracked, pinged every 30 s, one tick a second; {} windows of {} s, \
         median (least–most)",
        arguments.connections, arguments.windows, arguments.seconds
    );
    for agent in &agents {
        println!("  headroom-agent run, {}", agent.name);
        println!("    share of a core  {} %", Figure::of(agent.shares.iter().copied()));
        println!("    resident memory  {} MiB", Figure::of(agent.resident.iter().copied()));
        let tick = agent.last_tick()?;
        println!("    last visit of all connections took {} s of CPU time", tick["self"]["sweep_seconds"]);
    }
    drop(agents);
    let result = clients.finish()?;
    ensure!(result["connections"]["opened"] == arguments.connections, "opened: {}", result["connections"]);
    Ok(())
}

impl Agent {
    fn start(stage: &Stage<'_>, name: &'static str, file: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let events = stage.folder.join(file);
        let mut command = privileged("headroom-agent");
        command.arg("run").args(arguments).stdout(File::create(&events)?);
        let mut running = Running::start(&mut command)?;
        stage.stop.wait_for("attaching", ATTACH, || {
            if let Some(status) = running.child.try_wait()? {
                bail!("headroom-agent ended with {status}");
            }
            Ok(std::fs::read_to_string(&events)?.contains("agent_started").then_some(()))
        })?;
        Ok(Self { name, events, running, shares: Vec::new(), resident: Vec::new() })
    }

    /// Payload of the last tick that is written to the end.
    fn last_tick(&self) -> anyhow::Result<Value> {
        let text = std::fs::read_to_string(&self.events)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let ticks = whole.lines().rev().filter(|line| line.contains("\"event\":\"tick\""));
        let last = ticks.map(serde_json::from_str::<Value>).next().context("no tick yet")??;
        Ok(last["tick"].clone())
    }

    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        usage::cpu_seconds(self.running.child.id())
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        Ok(usage::memory(self.running.child.id())?.resident / (1024.0 * 1024.0))
    }
}
