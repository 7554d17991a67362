//! A million WebSockets on one machine: over TCP connections of their own, and as streams of HTTP/2 connections.
//!
//! First it is checked that the machine has what that takes. Then servers, clients and the agent are started, connections opened
//! and left idle, pinged for a while, and measured. What was measured is written down after each stage.

mod crew;
mod host;
mod needs;
mod watch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::process::{Running, Stop, is_root};
use crate::verbs::{cargo, target_dir, usage};
use crew::{Clients, Servers, Totals};
use needs::{Plan, Transport};
use watch::Watch;

/// Pings a second, all connections together, that are no burden.
const PINGS: u32 = 33_000;
/// Nothing has changed for this long: nothing will. HTTP/2 connections are all there long before their streams.
const STALLED: Duration = Duration::from_secs(240);
/// Below this the kernel may begin to kill.
const MEMORY_FLOOR: u64 = 512 << 20;
const REPORT: Duration = Duration::from_secs(5);
/// From the last connection to the first reading.
const SETTLE: Duration = Duration::from_secs(5);
const CLOSING: Duration = Duration::from_secs(120);

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
    let http2 = arguments.http2.unwrap_or(arguments.connections.saturating_mul(2));
    let experiments = [
        ("tcp", Transport::Tcp, arguments.connections),
        ("http2", Transport::Http2(arguments.streams), http2),
    ];
    let agent = is_root() && !arguments.no_agent;
    let mut plans = Vec::new();
    for (name, transport, websockets) in experiments {
        if websockets == 0 {
            continue;
        }
        let interval = arguments.ping_interval.unwrap_or(websockets.div_ceil(PINGS).max(2));
        let limits = host::limits()?;
        plans.push((name, Plan::new(transport, websockets, interval, agent, &limits)));
    }
    // Everything is checked before anything is started.
    for (_, plan) in &plans {
        suffices(plan)?;
    }
    if arguments.check {
        return Ok(());
    }
    let folder = build(stop)?;
    let mut document = json!({ "schema": "headroom-bench-scale/1" });
    for (name, plan) in &plans {
        let mut record = Record { folder: &folder, document: &mut document, name };
        experiment(stop, plan, f64::from(arguments.rate), &mut record)?;
    }
    println!("\nwritten to {}", result_file(&folder).display());
    Ok(())
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

fn build(stop: &Stop) -> anyhow::Result<PathBuf> {
    println!("building the release binaries (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --bins --package agent --package server");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    let folder = target_dir().join("bench-scale");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

fn result_file(folder: &Path) -> PathBuf {
    folder.join("result.json")
}

/// The result as far as it has come.
struct Record<'a> {
    folder: &'a Path,
    document: &'a mut Value,
    name: &'a str,
}

impl Record<'_> {
    fn note(&mut self, stage: &str, value: Value) -> anyhow::Result<()> {
        self.document[self.name][stage] = value;
        std::fs::write(result_file(self.folder), format!("{:#}\n", self.document))?;
        Ok(())
    }
}

/// Memory at one moment, in bytes.
struct Reading {
    available: f64,
    slabs: Option<f64>,
    servers: f64,
    clients: f64,
}

fn experiment(stop: &Stop, plan: &Plan, rate: f64, record: &mut Record<'_>) -> anyhow::Result<()> {
    println!("\n{}: {} WebSockets", record.name, plan.websockets);
    record.note(
        "plan",
        json!({
            "websockets": plan.websockets,
            "connections": plan.connections(),
            "server_processes": plan.servers,
            "client_processes": plan.clients,
            "ping_interval_seconds": plan.ping_interval,
        }),
    )?;
    let folder = record.folder;
    let mut servers = Servers::start(stop, folder, plan)?;
    let watch = match plan.agent {
        true => Some(Watch::start(stop, servers.port()?, File::create(folder.join("agent.log"))?)?),
        false => None,
    };
    let before = Reading {
        available: host::memory_available()? as f64,
        slabs: usage::slabs(),
        servers: servers.resident()?,
        clients: 0.0,
    };
    let sockets = host::tcp_sockets()?;
    let mut clients = Clients::start(&servers, folder, plan, rate)?;
    let opening = open(stop, plan, sockets, &mut servers, &mut clients)?;
    record.note("opening_seconds", json!(opening))?;

    stop.pause(SETTLE)?;
    let after = Reading {
        available: host::memory_available()? as f64,
        slabs: usage::slabs(),
        servers: servers.resident()?,
        clients: clients.resident()?,
    };
    record.note("bytes_per_websocket", memory(plan, &before, &after))?;
    let cpu = keep(stop, plan, &mut servers, &mut clients)?;
    record.note("server_cpu_percent_while_idle", json!(cpu))?;
    if let Some(watch) = &watch {
        let tick = watch.tick()?.context("the agent said nothing")?;
        let mut summary = watch::summary(&tick);
        summary["agent_resident_bytes"] = json!(usage::memory(watch.process())?.resident);
        println!("  the agent: {} connections, both ends counted", summary["connections"]);
        if let Some(first) = summary["first_ceiling"].as_object() {
            println!("  the agent: first ceiling {} of {}", first["kind"], first["scope"]);
        }
        println!("  the agent: memory a connection {}", summary["memory"]["cost_per_connection"]);
        record.note("agent", summary)?;
    }
    println!("  closing");
    let results = clients.finish(CLOSING)?;
    let totals = Totals::of(&results);
    record.note(
        "clients",
        json!({
            "reported": results.len(),
            "opened": totals.opened,
            "failed": totals.failed,
            "closed_by_peer": totals.closed_by_peer,
            "pings_received": totals.pings,
            "pongs_sent": totals.pongs,
            "answered_a_last_ping": totals.answered,
        }),
    )?;
    if let Some(watch) = watch {
        watch.end()?;
    }
    judge(plan, results.len(), &totals)
}

/// Until every client has opened what it can; how long that took, in seconds. `base` sockets were there before.
fn open(
    stop: &Stop,
    plan: &Plan,
    base: u64,
    servers: &mut Servers,
    clients: &mut Clients,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let (mut last, mut grown, mut said) = ((0, 0), Instant::now(), Instant::now());
    loop {
        stop.check()?;
        servers.check()?;
        clients.check()?;
        let sockets = host::tcp_sockets()?.saturating_sub(base);
        let (ready, opened) = clients.announced()?;
        let available = host::memory_available()?;
        let seconds = begun.elapsed().as_secs_f64();
        let state = format!(
            "{} of {} connections after {seconds:.0} s, {ready} of {} clients ready, {:.1} GiB of memory available",
            sockets / 2,
            plan.connections(),
            clients.len(),
            available as f64 / f64::from(1 << 30)
        );
        if ready == clients.len() {
            println!("  {opened} of {} WebSockets open after {seconds:.1} s", plan.websockets);
            return Ok(seconds);
        }
        if (sockets, ready) != last {
            (last, grown) = ((sockets, ready), Instant::now());
        }
        ensure!(available > MEMORY_FLOOR, "memory ran out: {state}");
        ensure!(grown.elapsed() < STALLED, "nothing new for {} s: {state}", STALLED.as_secs());
        if said.elapsed() > REPORT {
            println!("  {state}");
            said = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Bytes a WebSocket, by where they are.
fn memory(plan: &Plan, before: &Reading, after: &Reading) -> Value {
    let each = |bytes: f64| bytes / f64::from(plan.websockets);
    let kernel = after.slabs.zip(before.slabs).map(|(after, before)| each(after - before));
    let (server, client) = (each(after.servers - before.servers), each(after.clients - before.clients));
    let all = each(before.available - after.available);
    let slabs = kernel.map_or("unknown".into(), |kernel| format!("{kernel:.0}"));
    println!(
        "  bytes a WebSocket: server {server:.0}, client {client:.0}, kernel {slabs} for both ends (slab), all together \
         {all:.0} (MemAvailable)"
    );
    json!({
        "server_resident": server,
        "client_resident": client,
        "kernel_both_ends": kernel,
        "memory_available": all,
        "server_resident_before_bytes": before.servers,
        "server_resident_after_bytes": after.servers,
    })
}

/// Three rounds of pings. The server drops who answers neither of two.
fn keep(stop: &Stop, plan: &Plan, servers: &mut Servers, clients: &mut Clients) -> anyhow::Result<f64> {
    let time = Duration::from_secs(u64::from(plan.ping_interval) * 3 + 1);
    println!("  pinging for {} s", time.as_secs());
    let (cpu, begun) = (servers.cpu_seconds()?, Instant::now());
    while begun.elapsed() < time {
        stop.pause(Duration::from_secs(1).min(time - begun.elapsed().min(time)))?;
        servers.check()?;
        clients.check()?;
    }
    let percent = (servers.cpu_seconds()? - cpu) / begun.elapsed().as_secs_f64() * 100.0;
    println!("  the servers took {percent:.1}% of a core for that");
    Ok(percent)
}

/// Whether every connection was opened, stayed, and answered.
fn judge(plan: &Plan, reported: usize, totals: &Totals) -> anyhow::Result<()> {
    let wanted = u64::from(plan.websockets);
    ensure!(
        reported == plan.clients as usize,
        "{reported} of {} clients reported within {} s",
        plan.clients,
        CLOSING.as_secs()
    );
    ensure!(totals.opened == wanted, "opened {} of {wanted}, {} failed", totals.opened, totals.failed);
    ensure!(totals.closed_by_peer == 0, "the servers closed {}", totals.closed_by_peer);
    // Two of the three rounds are whole for every connection; who had answered neither would have been closed. What comes during
    // the closing handshake is not answered.
    ensure!(totals.pings >= 2 * wanted, "only {} pings for {wanted} connections", totals.pings);
    ensure!(
        totals.pongs >= 2 * wanted && totals.pings - totals.pongs <= wanted,
        "{} pings, only {} pongs",
        totals.pings,
        totals.pongs
    );
    ensure!(totals.answered == wanted, "only {} of {wanted} answered a last ping", totals.answered);
    println!(
        "  {wanted} opened, none lost, {} pings of the servers, {} pongs; all answered a last ping of the clients",
        totals.pings, totals.pongs
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crowd_that_is_whole_and_answers_passes() {
        let limits = needs::Limits::default();
        let plan = Plan::new(Transport::Tcp, 100, 2, false, &limits);
        let good =
            || Totals { opened: 100, failed: 0, closed_by_peer: 0, pings: 250, pongs: 250, answered: 100 };
        assert!(judge(&plan, 1, &good()).is_ok());
        assert!(judge(&plan, 0, &good()).is_err());
        for bad in [
            Totals { opened: 99, failed: 1, ..good() },
            Totals { closed_by_peer: 1, ..good() },
            Totals { pings: 199, pongs: 199, ..good() },
            Totals { pongs: 149, ..good() },
            Totals { answered: 99, ..good() },
            Totals { pings: 400, pongs: 250, ..good() },
        ] {
            assert!(judge(&plan, 1, &bad).is_err(), "{bad:?}");
        }
    }
}
