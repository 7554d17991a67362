//! Memory of idle connections.
//!
//! Each row is a server of its own: it is warmed up with a few connections, then carries the crowd. What its resident memory
//! grew by, long enough after the last message, is divided by the connections. Pings run all the time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::clients::{Load, RATE};
use super::peers::Peer;
use crate::process::Stop;
use crate::verbs::bench::figures::Figure;
use crate::verbs::usage;

/// Connections that touch what is touched once, such as the program's own pages.
const WARMERS: u32 = 200;
/// From the end of the warm-up to the first reading.
const COOL: Duration = Duration::from_secs(4);
/// Share of the messages that must have been carried for a row to be worth something.
const ENOUGH: f64 = 0.995;

/// What goes over each connection before it is quiet.
pub(super) struct Traffic {
    pub(super) name: &'static str,
    /// Messages a second on each connection, as headroom-load takes it, for how long, how large.
    rate: &'static str,
    seconds: u64,
    size: &'static str,
}

pub(super) const TRAFFIC: [Traffic; 4] = [
    Traffic { name: "nothing", rate: "0", seconds: 0, size: "125B" },
    Traffic { name: "125 B each way", rate: "0.2", seconds: 5, size: "125B" },
    Traffic { name: "8 KiB each way", rate: "0.2", seconds: 5, size: "8KiB" },
    Traffic { name: "8 KiB, all within 1 s", rate: "1", seconds: 1, size: "8KiB" },
];

const WARM: Traffic = Traffic { name: "", rate: "2", seconds: 1, size: "8KiB" };

/// What one run measured.
pub(super) struct Sample {
    /// Bytes a connection.
    resident: f64,
    anonymous: f64,
    /// Both ends, for both are on this host; `None` where the kernel does not tell.
    kernel: Option<f64>,
    /// Of a core, while quiet.
    cpu_percent: f64,
}

/// One line of the table.
pub(super) struct Row {
    pub(super) peer: Peer,
    pub(super) traffic: &'static str,
    pub(super) samples: Vec<Sample>,
    /// Why there are fewer samples than rounds.
    pub(super) failures: Vec<String>,
}

/// How it is measured.
pub(super) struct Settings {
    pub(super) connections: u32,
    pub(super) ping_interval: u32,
    pub(super) settle: Duration,
}

pub(super) fn measure(
    stop: &Stop,
    folder: &Path,
    settings: &Settings,
    peer: Peer,
    traffic: &Traffic,
) -> anyhow::Result<Sample> {
    let server = peer.start(stop, folder, settings.ping_interval)?;
    let process = server.running.child.id();
    Load::start(folder, &server.url, WARMERS, &WARM.flags("0").each_ref().map(String::as_str))?
        .finish(stop)?;
    stop.pause(COOL)?;
    let (before, slabs) = (usage::memory(process)?, usage::slabs());

    let connections = settings.connections;
    let flags = traffic.flags("1d");
    let mut load = Load::start(folder, &server.url, connections, &flags.each_ref().map(String::as_str))?;
    // Some take a thousand a second.
    let patience = Duration::from_secs(30 + u64::from(10 * connections / RATE));
    stop.wait_for("opening all connections", patience, || {
        load.check()?;
        Ok((usage::descriptors(process)? as u64 >= u64::from(connections)).then_some(()))
    })?;
    stop.pause(Duration::from_secs(traffic.seconds))?;
    let (cpu, start) = (usage::cpu_seconds(process)?, Instant::now());
    stop.pause(settings.settle)?;
    let cpu_percent = (usage::cpu_seconds(process)? - cpu) / start.elapsed().as_secs_f64() * 100.0;
    let (after, slabs_after) = (usage::memory(process)?, usage::slabs());
    load.ask_to_end()?;
    let result = load.finish(stop)?;
    traffic.ensure_carried(connections, &result)?;
    if settings.settle.as_secs() >= u64::from(settings.ping_interval) {
        // The first ping may take an interval and a half.
        let pings = &result["received"]["ping"];
        let enough = pings.as_u64().is_some_and(|pings| pings >= u64::from(connections) / 2);
        ensure!(enough, "only {pings} pings for {connections} connections");
    }

    let each = |after: f64, before: f64| (after - before) / f64::from(connections);
    Ok(Sample {
        resident: each(after.resident, before.resident),
        anonymous: each(after.anonymous, before.anonymous),
        kernel: slabs_after.zip(slabs).map(|(after, before)| each(after, before)),
        cpu_percent,
    })
}

impl Traffic {
    fn flags(&self, linger: &str) -> [String; 8] {
        let seconds = format!("{}s", self.seconds);
        ["--duration", &seconds, "--message-rate", self.rate, "--message-size", self.size, "--linger", linger]
            .map(str::to_owned)
    }

    /// Holds headroom-load's result to what was asked for.
    fn ensure_carried(&self, connections: u32, result: &Value) -> anyhow::Result<()> {
        let rate: f64 = self.rate.parse()?;
        let messages = rate * self.seconds as f64 * f64::from(connections);
        let sent = &result["sent"]["text"];
        ensure!(result["received"]["text"] == *sent, "not all of {sent} messages came back");
        // On a busy machine the schedule's end cuts off the last few.
        let enough = sent.as_f64().is_some_and(|sent| sent >= ENOUGH * messages);
        ensure!(enough, "only {sent} of {messages} messages were sent");
        Ok(())
    }
}

impl Row {
    pub(super) fn figure(&self, value: impl Fn(&Sample) -> Option<f64>) -> Figure {
        Figure::of(self.samples.iter().filter_map(value))
    }

    pub(super) fn resident(&self) -> Figure {
        self.figure(|sample| Some(sample.resident))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "server": self.peer.name(),
            "after": self.traffic,
            "resident_bytes_per_connection": self.resident().json(),
            "anonymous_bytes_per_connection": self.figure(|sample| Some(sample.anonymous)).json(),
            "kernel_bytes_per_connection_both_ends": self.figure(|sample| sample.kernel).json(),
            "cpu_percent_while_quiet": self.figure(|sample| Some(sample.cpu_percent)).json(),
            "failures": self.failures,
        })
    }
}

/// The heading of [`Row`]'s lines.
pub(super) fn heading() -> String {
    format!(
        "{:<28}{:<23}{:>24}{:>8}{:>24}{:>7}",
        "server", "after", "resident", "ratio", "kernel, both ends", "CPU"
    )
}

impl Row {
    /// `reference` is headroom-server's row after the same traffic.
    pub(super) fn line(&self, reference: Option<&Self>) -> String {
        let ratio = reference
            .and_then(|reference| Some(self.resident().median()? / reference.resident().median()?))
            .map_or("–".into(), |ratio| format!("{ratio:.1}"));
        let cpu = self.figure(|sample| Some(sample.cpu_percent)).median();
        let cpu = cpu.map_or("–".into(), |percent| format!("{percent:.1}%"));
        let mut line = format!(
            "{:<28}{:<23}{:>24.0}{ratio:>8}{:>24.0}{cpu:>7}",
            self.peer.name(),
            self.traffic,
            self.resident(),
            self.figure(|sample| sample.kernel),
        );
        for failure in &self.failures {
            line.push_str(&format!("\n    not measured: {failure}"));
        }
        line
    }
}
