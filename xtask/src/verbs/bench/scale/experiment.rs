//! One crowd: opened, left idle, pinged, measured, closed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::crew::{Clients, Servers, Totals};
use super::needs::{Plan, Transport};
use super::watch::{self, Watch};
use super::{Record, host};
use crate::process::Stop;
use crate::verbs::usage;

/// Nothing has changed for this long: nothing will. HTTP/2 connections are all there long before their streams.
const STALLED: Duration = Duration::from_secs(240);
/// Below this the kernel may begin to kill.
const MEMORY_FLOOR: u64 = 512 << 20;
const REPORT: Duration = Duration::from_secs(5);
/// From the last connection to the first reading, with many of them and with few.
const SETTLE: Duration = Duration::from_secs(5);
const SETTLE_FEW: Duration = Duration::from_secs(1);
const FEW: u32 = 10_000;
const CLOSING: Duration = Duration::from_secs(120);

/// Memory at one moment, in bytes.
struct Reading {
    available: f64,
    slabs: Option<f64>,
    servers: f64,
    clients: f64,
}

pub(super) fn run(stop: &Stop, plan: &Plan, rate: f64, record: &mut Record<'_>) -> anyhow::Result<()> {
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
    let place = record.place;
    let mut servers = Servers::start(stop, place, plan)?;
    let watch = match plan.agent {
        true => Some(Watch::start(stop, place, servers.port()?)?),
        false => None,
    };
    let before = Reading {
        available: host::memory_available()? as f64,
        slabs: usage::slabs(),
        servers: servers.resident()?,
        clients: 0.0,
    };
    let sockets = host::tcp_sockets()?;
    let mut clients = Clients::start(&servers, place, plan, rate)?;
    let opening = open(stop, plan, sockets, &mut servers, &mut clients)?;
    record.note("opening_seconds", json!(opening))?;
    let opened = Instant::now();

    stop.pause(if plan.websockets > FEW { SETTLE } else { SETTLE_FEW })?;
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
        let summary = said(stop, plan, watch, opened)?;
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

/// What the agent says once it has visited the connections that are `opened`.
fn said(stop: &Stop, plan: &Plan, watch: &Watch, opened: Instant) -> anyhow::Result<Value> {
    let tick = match plan.transport {
        Transport::Tcp => watch.visited(stop, opened)?,
        // It sees no WebSocket inside HTTP/2, so there is nothing to wait for.
        Transport::Http2(_) => watch.tick()?.context("the agent said nothing")?,
    };
    let mut summary = watch::summary(&tick);
    summary["agent_resident_bytes"] = json!(usage::memory(watch.process())?.resident);
    println!("  the agent: {} connections, both ends counted", summary["connections"]);
    if let Some(first) = summary["first_ceiling"].as_object() {
        println!(
            "  the agent: first ceiling {} of {}, {} connections left",
            first["kind"], first["scope"], first["connections_left"]
        );
    }
    let memory = &summary["memory"];
    println!("  the agent: memory a connection {} ({})", memory["cost_per_connection"], memory["basis"]);
    println!("  the agent: {} events lost", summary["self"]["events_dropped"]);
    Ok(summary)
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
    use super::super::needs::Limits;
    use super::*;

    #[test]
    fn only_a_crowd_that_is_whole_and_answers_passes() {
        let limits = Limits::default();
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
