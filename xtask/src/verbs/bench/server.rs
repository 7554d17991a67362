//! What an idle connection costs: headroom-server beside plain tokio-tungstenite, in one run.
//!
//! Each row is a server of its own: it is warmed up with a few connections, then carries the crowd. What its resident memory
//! grew by, long enough after the last message, is divided by the connections. Pings run all the time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::process::{Running, Stop};
use crate::verbs::{cargo, target_dir};

const READY: Duration = Duration::from_secs(20);
/// Connections come at this many a second.
const RATE: u32 = 5_000;
/// Connections that touch what is touched once, such as the program's own pages.
const WARMERS: u32 = 200;
/// From the end of the warm-up to the first reading.
const COOL: Duration = Duration::from_secs(4);

/// Share of the messages that must have been carried for a row to be worth something.
const ENOUGH: f64 = 0.995;

/// Caches that hold nothing but sockets and what watches them.
const SLABS: [&str; 6] = ["TCP", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq", "ep_head"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Connections to each server.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Time between two pings on a connection, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    ping_interval: u32,
    /// From the last message to the reading, in seconds.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=600))]
    settle: u64,
}

/// What goes over each connection before it is quiet.
struct Traffic {
    name: &'static str,
    /// Messages a second on each connection, as headroom-load takes it, for how long, how large.
    rate: &'static str,
    seconds: u64,
    size: &'static str,
}

const TRAFFIC: [Traffic; 4] = [
    Traffic { name: "nothing", rate: "0", seconds: 0, size: "125B" },
    Traffic { name: "125 B each way", rate: "0.2", seconds: 5, size: "125B" },
    Traffic { name: "8 KiB each way", rate: "0.2", seconds: 5, size: "8KiB" },
    Traffic { name: "8 KiB, all within 1 s", rate: "1", seconds: 1, size: "8KiB" },
];

const SERVERS: [&str; 3] = ["headroom-server", "tokio-tungstenite, default", "tokio-tungstenite, tuned"];

/// One line of the table.
struct Row {
    server: &'static str,
    traffic: &'static str,
    /// Bytes a connection.
    resident: f64,
    anonymous: f64,
    /// Both ends, for both are on this host; `None` where the kernel does not tell.
    kernel: Option<f64>,
    /// Of a core, while quiet.
    cpu_percent: f64,
}

/// Memory of a process and of the kernel at one moment, in bytes.
struct Reading {
    resident: f64,
    anonymous: f64,
    slabs: Option<f64>,
}

pub(crate) fn run(stop: &Stop, arguments: &Arguments) -> anyhow::Result<()> {
    println!("building the release binaries (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --package server --bins --example plain");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    let folder = target_dir().join("bench-server");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    println!(
        "{} idle connections, pinged every {} s; bytes a connection, {} s after the last message",
        arguments.connections, arguments.ping_interval, arguments.settle
    );
    println!(
        "{:<28}{:<24}{:>10}{:>11}{:>18}{:>7}",
        "server", "after", "resident", "anonymous", "kernel, 2 ends", "CPU"
    );
    let mut rows = Vec::new();
    for server in SERVERS {
        for traffic in &TRAFFIC {
            let row = measure(stop, arguments, &folder, server, traffic)?;
            println!("{row}");
            rows.push(row.json());
        }
    }
    let result = folder.join("result.json");
    let document = json!({
        "schema": "headroom-bench-server/1",
        "connections": arguments.connections,
        "ping_interval_seconds": arguments.ping_interval,
        "settle_seconds": arguments.settle,
        "rows": rows,
    });
    std::fs::write(&result, format!("{document:#}\n"))?;
    println!("written to {}", result.display());
    Ok(())
}

fn measure(
    stop: &Stop,
    arguments: &Arguments,
    folder: &Path,
    name: &'static str,
    traffic: &Traffic,
) -> anyhow::Result<Row> {
    let server = Server::start(stop, folder, name, arguments.ping_interval)?;
    let warm = Traffic { name: "", rate: "2", seconds: 1, size: "8KiB" };
    Clients::start(folder, &server.url, WARMERS, &warm, "0")?.finish(stop)?;
    pause(stop, COOL)?;
    let before = server.reading()?;

    let mut clients = Clients::start(folder, &server.url, arguments.connections, traffic, "1d")?;
    let opening = Duration::from_secs(u64::from(arguments.connections / RATE));
    stop.wait_for("opening all connections", opening * 5 + Duration::from_secs(30), || {
        clients.check()?;
        let open = std::fs::read_dir(server.proc("fd"))?.count();
        Ok((open as u64 >= u64::from(arguments.connections)).then_some(()))
    })?;
    pause(stop, Duration::from_secs(traffic.seconds))?;
    let (cpu, start) = (server.cpu_seconds()?, Instant::now());
    pause(stop, Duration::from_secs(arguments.settle))?;
    let cpu_percent = (server.cpu_seconds()? - cpu) / start.elapsed().as_secs_f64() * 100.0;
    let after = server.reading()?;
    clients.ask_to_end()?;
    traffic.ensure_carried(arguments.connections, &clients.finish(stop)?)?;

    let each = |after: f64, before: f64| (after - before) / f64::from(arguments.connections);
    Ok(Row {
        server: name,
        traffic: traffic.name,
        resident: each(after.resident, before.resident),
        anonymous: each(after.anonymous, before.anonymous),
        kernel: after.slabs.zip(before.slabs).map(|(after, before)| each(after, before)),
        cpu_percent,
    })
}

/// A server under measurement.
struct Server {
    running: Running,
    url: String,
}

impl Server {
    fn start(stop: &Stop, folder: &Path, name: &str, ping_interval: u32) -> anyhow::Result<Self> {
        let (output, log) = (folder.join("server.txt"), folder.join("server.log"));
        let release = target_dir().join("release");
        let mut command = match name.split_once(", ") {
            Some((_, settings)) => {
                let mut command = Command::new(release.join("examples/plain"));
                command.args([settings, &ping_interval.to_string()]);
                command
            }
            None => {
                let mut command = Command::new(release.join(name));
                command.args([
                    "--listen",
                    "ws://127.0.0.1:0",
                    "--ping-interval",
                    &format!("{ping_interval}s"),
                ]);
                command
            }
        };
        command.stdout(File::create(&output)?).stderr(File::create(&log)?);
        let mut running = Running::start(&mut command)?;
        let url = stop.wait_for(name, READY, || {
            if let Some(status) = running.child.try_wait()? {
                bail!("{name} ended with {status}; see {}", log.display());
            }
            let text = std::fs::read_to_string(&output)?;
            let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
            Ok(line.filter(|_| text.ends_with('\n')).map(str::to_owned))
        })?;
        Ok(Self { running, url })
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.running.child.id()))
    }

    fn reading(&self) -> anyhow::Result<Reading> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let bytes = |field: &str| -> anyhow::Result<f64> {
            let value = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
            let kib: f64 = value.trim().trim_end_matches(" kB").parse()?;
            Ok(kib * 1024.0)
        };
        Ok(Reading { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, slabs: slabs() })
    }

    /// User and system time so far (fields 14 and 15 of /proc/PID/stat, in hundredths).
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(self.proc("stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat is malformed")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

/// Bytes of objects in use in [`SLABS`], all together. Root alone may read them; a cache that the kernel has merged
/// into another is not among them.
fn slabs() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/slabinfo").ok()?;
    let mut sum = 0.0;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        if fields.next().is_some_and(|name| SLABS.contains(&name)) {
            let active: f64 = fields.next()?.parse().ok()?;
            let size: f64 = fields.nth(1)?.parse().ok()?;
            sum += active * size;
        }
    }
    Some(sum)
}

/// headroom-load.
struct Clients {
    running: Running,
    output: PathBuf,
}

impl Clients {
    fn start(
        folder: &Path,
        url: &str,
        connections: u32,
        traffic: &Traffic,
        linger: &str,
    ) -> anyhow::Result<Self> {
        let output = folder.join("load.json");
        let mut command = Command::new(target_dir().join("release/headroom-load"));
        command.args(["--json", "--url", url, "--connections", &connections.to_string()]);
        command.args(["--rate", &RATE.to_string(), "--duration", &format!("{}s", traffic.seconds)]);
        command.args(["--message-rate", traffic.rate, "--message-size", traffic.size, "--linger", linger]);
        command.stdout(File::create(&output)?).stderr(File::create(folder.join("load.log"))?);
        Ok(Self { running: Running::start(&mut command)?, output })
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.running.child.try_wait()? {
            Some(status) => bail!("headroom-load ended with {status}; see its log beside the result"),
            None => Ok(()),
        }
    }

    fn ask_to_end(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.running.end()?;
        Ok(())
    }

    /// Waits for its result.
    fn finish(mut self, stop: &Stop) -> anyhow::Result<Value> {
        let status = self.running.wait(stop)?;
        ensure!(status.success(), "headroom-load ended with {status}");
        Ok(serde_json::from_str(&std::fs::read_to_string(&self.output)?)?)
    }
}

impl Traffic {
    /// Holds headroom-load's result to what was asked for.
    fn ensure_carried(&self, connections: u32, result: &Value) -> anyhow::Result<()> {
        let rate: f64 = self.rate.parse()?;
        let messages = rate * self.seconds as f64 * f64::from(connections);
        let (opened, sent) = (&result["connections"]["opened"], &result["sent"]["text"]);
        ensure!(*opened == connections, "opened {opened} of {connections} connections");
        ensure!(result["received"]["text"] == *sent, "not all of {sent} messages came back");
        // On a busy machine the schedule's end cuts off the last few.
        let enough = sent.as_f64().is_some_and(|sent| sent >= ENOUGH * messages);
        ensure!(enough, "only {sent} of {messages} messages were sent");
        Ok(())
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "server": self.server,
            "after": self.traffic,
            "resident_bytes_per_connection": self.resident,
            "anonymous_bytes_per_connection": self.anonymous,
            "kernel_bytes_per_connection_both_ends": self.kernel,
            "cpu_percent_while_quiet": self.cpu_percent,
        })
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kernel = self.kernel.map_or("–".into(), |kernel| format!("{kernel:.0}"));
        let Self { server, traffic, resident, anonymous, cpu_percent, .. } = self;
        write!(f, "{server:<28}{traffic:<24}{resident:>10.0}{anonymous:>11.0}{kernel:>18}{cpu_percent:>6.1}%")
    }
}

/// Sleeps, interruptibly.
fn pause(stop: &Stop, time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        stop.check()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}
