//! A million WebSockets on one machine: over TCP connections of their own, and as streams of HTTP/2 connections.
//!
//! First it is checked that the machine has what that takes. Then servers, clients and the agent are started, connections opened
//! and left idle, pinged for a while, and measured. What was measured is written down after each stage.

mod crew;
mod experiment;
mod host;
mod needs;
mod watch;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::process::{Running, Stop, is_root};
use crate::verbs::{cargo, target_dir};
use needs::{Plan, Transport};

/// Pings a second, all connections together, that are no burden.
const PINGS: u32 = 33_000;
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// WebSockets over TCP connections of their own; 0 leaves them out
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// WebSockets over HTTP/2; 0 leaves them out [default: twice as many]
    #[arg(long)]
    http2: Option<u32>,
    /// Streams of each HTTP/2 connection
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
    /// Connections opened in a second
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Time between two pings on a connection, in seconds [default: as many as 33,000 pings a second take, at least 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    ping_interval: Option<u32>,
    /// Leave the agent out
    #[arg(long)]
    no_agent: bool,
    /// Only say what would be needed and what is there
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    let agent = is_root() && !arguments.no_agent;
    let plans = plans(arguments, agent)?;
    // Everything is checked before anything is started.
    for (_, plan) in &plans {
        suffices(plan)?;
    }
    if arguments.check {
        return Ok(());
    }
    build(stop)?;
    experiments(stop, &plans, f64::from(arguments.rate), "bench-scale", "release")
}

/// The step of `cargo xtask test`: a few thousand, without the agent, with what is built already in that folder of the target
/// directory.
pub(crate) fn small(stop: &Stop, profile: &str) -> anyhow::Result<()> {
    let limits = host::limits()?;
    let plan = |transport| Plan::new(transport, 2_000, 2, false, &limits);
    let plans = [("tcp", plan(Transport::Tcp)), ("http2", plan(Transport::Http2(100)))];
    for (_, plan) in &plans {
        suffices(plan)?;
    }
    experiments(stop, &plans, 2_000.0, "bench-scale-small", profile)
}

fn plans(arguments: &Arguments, agent: bool) -> anyhow::Result<Vec<(&'static str, Plan)>> {
    let http2 = arguments.http2.unwrap_or(arguments.connections.saturating_mul(2));
    let experiments = [
        ("tcp", Transport::Tcp, arguments.connections),
        ("http2", Transport::Http2(arguments.streams), http2),
    ];
    let limits = host::limits()?;
    let wanted = experiments.into_iter().filter(|(_, _, websockets)| *websockets > 0);
    Ok(wanted
        .map(|(name, transport, websockets)| {
            let interval = arguments.ping_interval.unwrap_or(websockets.div_ceil(PINGS).max(2));
            (name, Plan::new(transport, websockets, interval, agent, &limits))
        })
        .collect())
}

fn experiments(
    stop: &Stop,
    plans: &[(&'static str, Plan)],
    rate: f64,
    folder: &str,
    profile: &str,
) -> anyhow::Result<()> {
    let place = Place { folder: target_dir().join(folder), binaries: target_dir().join(profile) };
    std::fs::create_dir_all(&place.folder).with_context(|| format!("creating {}", place.folder.display()))?;
    let mut document = json!({ "schema": "headroom-bench-scale/1" });
    for (name, plan) in plans {
        let mut record = Record { place: &place, document: &mut document, name };
        experiment::run(stop, plan, rate, &mut record)?;
    }
    println!("\nwritten to {}", place.result().display());
    Ok(())
}

/// Where things are.
struct Place {
    /// Results and logs.
    folder: PathBuf,
    /// What is started.
    binaries: PathBuf,
}

impl Place {
    fn result(&self) -> PathBuf {
        self.folder.join("result.json")
    }
}

/// Says what is needed and what is there; an error where that is not enough.
fn suffices(plan: &Plan) -> anyhow::Result<()> {
    let over = match plan.transport {
        Transport::Tcp => String::new(),
        Transport::Http2(streams) => {
            format!(" over {} HTTP/2 connections with {streams} streams each", plan.connections())
        }
    };
    println!(
        "{} WebSockets{over}: {} server and {} client processes, pinged every {} s{}",
        plan.websockets,
        plan.servers,
        plan.clients,
        plan.ping_interval,
        if plan.agent { ", the agent beside them" } else { "" }
    );
    let needs = plan.needs(&host::limits()?);
    needs.iter().for_each(|need| println!("{need}"));
    let lacks: Vec<&str> = needs.iter().filter(|need| need.lacks() > 0).map(|need| need.what).collect();
    ensure!(lacks.is_empty(), "this machine has not enough of: {}", lacks.join("; "));
    Ok(())
}

fn build(stop: &Stop) -> anyhow::Result<()> {
    println!("building the release binaries (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --bins --package agent --package server");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    Ok(())
}

/// The result as far as it has come.
struct Record<'a> {
    place: &'a Place,
    document: &'a mut Value,
    name: &'a str,
}

impl Record<'_> {
    fn note(&mut self, stage: &str, value: Value) -> anyhow::Result<()> {
        self.document[self.name][stage] = value;
        std::fs::write(self.place.result(), format!("{:#}\n", self.document))?;
        Ok(())
    }
}
