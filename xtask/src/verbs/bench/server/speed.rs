//! Handshakes and echo.
//!
//! Closed loop: each connection sends when its last message came back, so the server or the client is always the one that is
//! waited for, and a second is full. What a message costs the server in processor time says more than how many there are where
//! both ends share few processors.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::clients::{self, Load, number};
use super::peers::Peer;
use crate::process::Stop;
use crate::verbs::bench::figures::Figure;
use crate::verbs::usage;

/// Connections over which messages are echoed.
pub(super) const CROWDS: [u32; 3] = [1, 100, 5_000];
/// Those of the client that is not ours.
pub(super) const FOREIGN: u32 = 100;
/// Handshakes under way at once.
const AT_ONCE: u32 = 64;
/// A message's payload in bytes.
pub(super) const SIZE: u32 = 128;
/// Pings are rare: what is measured is the echo.
const PING_INTERVAL: u32 = 30;

const WARM: Duration = Duration::from_millis(500);
const OPENING: Duration = Duration::from_secs(60);
/// Share of the time at either end in which processor time is not looked at.
const MARGIN: f64 = 0.15;
/// Processor time that is measured to a tenth.
const LEAST: f64 = 0.1;

/// One round of one server.
pub(super) struct Round {
    pub(super) handshakes: Rate,
    pub(super) echo: Vec<Echo>,
    pub(super) foreign: Rate,
}

/// Things done, and what each cost the server.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    /// Of the server's processor time, user and system; `None` when it was too little for the kernel's clock of hundredths.
    pub(super) microseconds: Option<f64>,
}

pub(super) struct Echo {
    pub(super) rate: Rate,
    pub(super) p99_seconds: f64,
}

pub(super) fn measure(stop: &Stop, folder: &Path, peer: Peer, time: Duration) -> anyhow::Result<Round> {
    let server = peer.start(stop, folder, PING_INTERVAL)?;
    let process = server.running.child.id();
    let url = server.url.as_str();
    let target = Target { folder, process, url };
    target.echo(stop, FOREIGN, WARM)?;
    clients::knock(stop, url, WARM, AT_ONCE)?;

    let cpu = usage::cpu_seconds(process)?;
    let (count, seconds) = clients::knock(stop, url, time, AT_ONCE)?;
    let handshakes = rate(count, seconds, usage::cpu_seconds(process)? - cpu)?;
    let echo: anyhow::Result<Vec<Echo>> =
        CROWDS.iter().map(|connections| target.echo(stop, *connections, time)).collect();
    let echo = echo?;
    let cpu = usage::cpu_seconds(process)?;
    let (count, seconds) = clients::foreign(stop, url, FOREIGN, time, SIZE)?;
    // Opening a hundred is some milliseconds of it.
    let foreign = rate(count, seconds, usage::cpu_seconds(process)? - cpu)?;
    Ok(Round { handshakes, echo, foreign })
}

/// A server that is measured.
struct Target<'a> {
    folder: &'a Path,
    process: u32,
    url: &'a str,
}

impl Target<'_> {
    /// Processor time is read in the middle of the conversation, so that opening and closing are not in it.
    fn echo(&self, stop: &Stop, connections: u32, time: Duration) -> anyhow::Result<Echo> {
        let before = usage::descriptors(self.process)?;
        let (milliseconds, size) = (format!("{}ms", time.as_millis()), format!("{SIZE}B"));
        let flags = ["--closed-loop", "--duration", &milliseconds, "--message-size", &size];
        let mut load = Load::start(self.folder, self.url, connections, &flags)?;
        stop.wait_for("opening all connections", OPENING, || {
            load.check()?;
            Ok((usage::descriptors(self.process)? >= before + connections as usize).then_some(()))
        })?;
        stop.pause(time.mul_f64(MARGIN))?;
        let (cpu, begun) = (usage::cpu_seconds(self.process)?, Instant::now());
        stop.pause(time.mul_f64(1.0 - 2.0 * MARGIN))?;
        let spent = usage::cpu_seconds(self.process)? - cpu;
        let window = begun.elapsed().as_secs_f64();
        let result = load.finish(stop)?;
        let errors = &result["errors"];
        ensure!(errors.as_object().is_none_or(serde_json::Map::is_empty), "errors: {errors}");
        let echoed = number(&result, "echoes_per_second")? * window;
        Ok(Echo { rate: rate(echoed, window, spent)?, p99_seconds: number(&result["echo_seconds"], "p99")? })
    }
}

fn rate(count: f64, seconds: f64, cpu_seconds: f64) -> anyhow::Result<Rate> {
    ensure!(count > 0.0 && seconds > 0.0, "nothing was done");
    let microseconds = (cpu_seconds >= LEAST).then_some(cpu_seconds / count * 1e6);
    Ok(Rate { per_second: count / seconds, microseconds })
}

/// All rounds of one server.
pub(super) struct Series {
    pub(super) peer: Peer,
    pub(super) rounds: Vec<Option<Round>>,
    pub(super) failures: Vec<String>,
}

/// What is compared: a name, and how to find it in a round.
#[derive(Clone, Copy)]
pub(super) enum Measure {
    Handshakes,
    Echo(usize),
    Foreign,
}

impl Measure {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let echoes = (0..CROWDS.len()).map(Self::Echo);
        std::iter::once(Self::Handshakes).chain(echoes).chain([Self::Foreign])
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Handshakes => format!("handshakes, {AT_ONCE} at a time, each connection then reset"),
            Self::Echo(index) => format!("echo of {SIZE} B, closed loop, {} connections", CROWDS[index]),
            Self::Foreign => format!("the same by a client in Python, {FOREIGN} connections"),
        }
    }

    fn rate(self, round: &Round) -> Rate {
        match self {
            Self::Handshakes => round.handshakes,
            Self::Echo(index) => round.echo[index].rate,
            Self::Foreign => round.foreign,
        }
    }

    fn p99(self, round: &Round) -> Option<f64> {
        let Self::Echo(index) = self else { return None };
        Some(round.echo[index].p99_seconds)
    }
}

impl Series {
    fn figure(&self, value: impl Fn(&Round) -> Option<f64>) -> Figure {
        Figure::of(self.rounds.iter().flatten().filter_map(value))
    }

    /// Ratios to another's of the same round, so that a slow minute is in both.
    fn ratio(&self, other: &Self, value: impl Fn(&Round) -> Option<f64>) -> Figure {
        let both = self.rounds.iter().zip(&other.rounds);
        Figure::of(both.filter_map(|(own, other)| Some(value(own.as_ref()?)? / value(other.as_ref()?)?)))
    }

    pub(super) fn line(&self, measure: Measure, reference: &Self) -> String {
        format!(
            "{:<28}{:>26.0}{:>19.2}{:>21.1}{:>19.2} {:>26.2}",
            self.peer.name(),
            self.figure(|round| Some(measure.rate(round).per_second)),
            self.ratio(reference, |round| Some(measure.rate(round).per_second)),
            self.figure(|round| measure.rate(round).microseconds),
            self.ratio(reference, |round| measure.rate(round).microseconds),
            self.figure(|round| measure.p99(round).map(|seconds| seconds * 1e3)),
        )
    }

    pub(super) fn json(&self, measure: Measure, reference: &Self) -> Value {
        json!({
            "server": self.peer.name(),
            "per_second": self.figure(|round| Some(measure.rate(round).per_second)).json(),
            "per_second_ratio": self.ratio(reference, |round| Some(measure.rate(round).per_second)).json(),
            "server_cpu_seconds_each":
                self.figure(|round| measure.rate(round).microseconds.map(|each| each / 1e6)).json(),
            "server_cpu_ratio": self.ratio(reference, |round| measure.rate(round).microseconds).json(),
            "p99_seconds": self.figure(|round| measure.p99(round)).json(),
            "failures": self.failures,
        })
    }
}

/// The heading of [`Series`]' lines.
pub(super) fn heading() -> String {
    format!(
        "{:<28}{:>26}{:>19}{:>21}{:>19} {:>26}",
        "server", "a second", "ratio", "server's µs each", "ratio", "p99, ms"
    )
}

/// The first, which the others are compared with.
pub(super) fn reference(all: &[Series]) -> anyhow::Result<&Series> {
    all.first().context("no server was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(per_second: f64) -> Option<Round> {
        let rate = Rate { per_second, microseconds: Some(1e6 / per_second) };
        let echo = || Echo { rate, p99_seconds: 0.25 };
        Some(Round { handshakes: rate, echo: CROWDS.iter().map(|_| echo()).collect(), foreign: rate })
    }

    #[test]
    fn a_ratio_pairs_what_was_measured_in_the_same_round() {
        let reference = Series {
            peer: Peer::Headroom,
            rounds: vec![round(100.0), None, round(10.0)],
            failures: Vec::new(),
        };
        let other = Series {
            peer: Peer::NodeWs,
            rounds: vec![round(50.0), round(1.0), round(5.0)],
            failures: Vec::new(),
        };
        let document = other.json(Measure::Handshakes, &reference);
        assert_eq!(
            document["per_second_ratio"],
            json!({ "median": 0.5, "least": 0.5, "most": 0.5, "count": 2 })
        );
        assert_eq!(document["server_cpu_ratio"]["median"], 2.0);
        assert_eq!(document["p99_seconds"]["median"], Value::Null);
        assert_eq!(other.json(Measure::Echo(2), &reference)["p99_seconds"]["most"], 0.25);
    }

    #[test]
    fn nothing_done_is_no_rate() {
        assert!(rate(0.0, 1.0, 1.0).is_err());
        let rate = rate(1000.0, 2.0, 0.5).unwrap();
        assert_eq!((rate.per_second, rate.microseconds), (500.0, Some(500.0)));
        // Two hundredths may as well have been one or three.
        assert_eq!(super::rate(1000.0, 2.0, 0.02).unwrap().microseconds, None);
    }
}
