//! headroom-server beside what one would take instead, in one run: memory of idle connections, handshakes, echo.
//!
//! Rounds are interleaved: each round measures every server, beginning with another one each time, so that what the machine
//! does meanwhile falls on all.

mod clients;
mod idle;
mod peers;
mod speed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::process::{Running, Stop};
use crate::setup;
use crate::verbs::{cargo, python, target_dir};
use peers::Peer;
use speed::{Measure, Series};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Idle connections to each server.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Time between two pings on an idle connection, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    ping_interval: u32,
    /// From the last message to the reading of memory, in seconds.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=600))]
    settle: u64,
    /// Rounds of handshakes and echo; 0 leaves them out.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    rounds: u32,
    /// Rounds of idle connections; 0 leaves them out.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    idle_rounds: u32,
    /// How long each handshake and echo measurement runs, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only servers whose name contains this, besides headroom-server.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    let folder = prepare(stop)?;
    let peers: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| *peer == Peer::Headroom || peer.name().contains(&arguments.only))
        .collect();
    let mut document = json!({
        "schema": "headroom-bench-server/2",
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
    });
    let result = folder.join("result.json");
    if arguments.rounds > 0 {
        document["speed"] = speed(stop, arguments, &folder, &peers)?;
        write(&result, &document)?;
    }
    if arguments.idle_rounds > 0 {
        document["idle"] = idle(stop, arguments, &folder, &peers)?;
        write(&result, &document)?;
    }
    println!("\nwritten to {}", result.display());
    Ok(())
}

fn prepare(stop: &Stop) -> anyhow::Result<PathBuf> {
    // What is missing makes those rows fail that need it, and no others.
    if let Err(error) = setup::install(stop).and_then(|()| python::interpreter(stop).map(drop)) {
        stop.check()?;
        println!("{error:#}");
    }
    println!("building the release binaries (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --package server --bins --examples");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    let folder = target_dir().join("bench-server");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// After each part, so that what was measured stays when a later one is interrupted.
fn write(path: &Path, document: &Value) -> anyhow::Result<()> {
    std::fs::write(path, format!("{document:#}\n")).with_context(|| format!("writing {}", path.display()))
}

/// What begins a round comes to begin it each in its turn.
fn turn<T: Copy>(all: &[T], round: u32) -> Vec<T> {
    let mut order = all.to_vec();
    order.rotate_left(round as usize % all.len().max(1));
    order
}

fn speed(stop: &Stop, arguments: &Arguments, folder: &Path, peers: &[Peer]) -> anyhow::Result<Value> {
    let time = Duration::from_secs(arguments.seconds);
    let mut all: Vec<Series> =
        peers.iter().map(|peer| Series { peer: *peer, rounds: Vec::new(), failures: Vec::new() }).collect();
    for round in 0..arguments.rounds {
        println!("round {} of {}", round + 1, arguments.rounds);
        for peer in turn(peers, round) {
            let outcome = speed::measure(stop, folder, peer, time);
            stop.check()?;
            let series = all.iter_mut().find(|series| series.peer == peer).context("no such series")?;
            match outcome {
                Ok(round) => series.rounds.push(Some(round)),
                Err(error) => {
                    println!("  {}: {error:#}", peer.name());
                    series.failures.push(format!("{error:#}"));
                    series.rounds.push(None);
                }
            }
        }
    }
    let reference = speed::reference(&all)?;
    if reference.rounds.iter().all(Option::is_none) {
        bail!("headroom-server could not be measured");
    }
    println!(
        "\n{} rounds of {} s: median (least–most); ratios are to headroom-server in the same round",
        arguments.rounds, arguments.seconds
    );
    let mut measures = Vec::new();
    for measure in Measure::all() {
        println!("\n{}\n{}", measure.name(), speed::heading());
        all.iter().for_each(|series| println!("{}", series.line(measure, reference)));
        let servers: Vec<Value> = all.iter().map(|series| series.json(measure, reference)).collect();
        measures.push(json!({ "measure": measure.name(), "servers": servers }));
    }
    Ok(json!({ "rounds": arguments.rounds, "seconds": arguments.seconds, "measures": measures }))
}

fn idle(stop: &Stop, arguments: &Arguments, folder: &Path, peers: &[Peer]) -> anyhow::Result<Value> {
    let settings = idle::Settings {
        connections: arguments.connections,
        ping_interval: arguments.ping_interval,
        settle: Duration::from_secs(arguments.settle),
    };
    println!(
        "\n{} idle connections, pinged every {} s; bytes a connection, {} s after the last message: median \
         (least–most) of {}",
        arguments.connections, arguments.ping_interval, arguments.settle, arguments.idle_rounds
    );
    println!("{}", idle::heading());
    let mut rows: Vec<idle::Row> = Vec::new();
    for traffic in &idle::TRAFFIC {
        let first = rows.len();
        rows.extend(peers.iter().map(|peer| idle::Row {
            peer: *peer,
            traffic: traffic.name,
            samples: Vec::new(),
            failures: Vec::new(),
        }));
        for round in 0..arguments.idle_rounds {
            for index in turn(&(first..rows.len()).collect::<Vec<_>>(), round) {
                let outcome = idle::measure(stop, folder, &settings, rows[index].peer, traffic);
                stop.check()?;
                match outcome {
                    Ok(sample) => rows[index].samples.push(sample),
                    Err(error) => rows[index].failures.push(format!("{error:#}")),
                }
            }
        }
        let reference = rows.get(first).filter(|row| row.peer == Peer::Headroom);
        rows[first..].iter().for_each(|row| println!("{}", row.line(reference)));
    }
    Ok(json!({
        "connections": arguments.connections,
        "ping_interval_seconds": arguments.ping_interval,
        "settle_seconds": arguments.settle,
        "rows": rows.iter().map(idle::Row::json).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_begins_a_round_in_its_turn() {
        assert_eq!(turn(&[1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(turn(&[1, 2, 3], 1), [2, 3, 1]);
        assert_eq!(turn(&[1, 2, 3], 5), [3, 1, 2]);
        assert_eq!(turn::<u32>(&[], 1), [0; 0]);
    }
}
