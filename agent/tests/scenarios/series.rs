//! From a script to counts by process, tick by tick.

use std::f64::consts::TAU;
use std::path::Path;
use std::time::Duration;

use crate::script::{Script, Segment};

const DAY: f64 = 86_400.0;

/// Processes with their counts at one moment; the last one is the one to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Duration,
    pub(crate) processes: Vec<(u32, u64)>,
}

impl Moment {
    pub(crate) fn total(&self) -> u64 {
        self.processes.iter().map(|(_, count)| count).sum()
    }
}

/// Writes moments down, and knows where the script has got to.
struct Writer<'a> {
    script: &'a Script,
    random: fastrand::Rng,
    moments: Vec<Moment>,
    pid: u32,
    /// Where the count should be, and where it is.
    target: f64,
    count: f64,
}

/// All moments of a script. Recordings are beside it in `folder`.
pub(crate) fn moments(script: &Script, folder: &Path) -> Vec<Moment> {
    let random = fastrand::Rng::with_seed(script.seed);
    let mut writer = Writer { script, random, moments: Vec::new(), pid: 100, target: 0.0, count: 0.0 };
    for segment in &script.segments {
        writer.segment(segment, folder);
    }
    writer.moments
}

impl Writer<'_> {
    fn segment(&mut self, segment: &Segment, folder: &Path) {
        let start = self.target;
        match segment {
            Segment::Hold { time } => self.along(*time, |_| start),
            Segment::Ramp { to, time } => {
                let whole = time.as_secs_f64();
                self.along(*time, |elapsed| start + (to - start) * elapsed / whole);
            }
            Segment::Step { to } => (self.target, self.count) = (*to, *to),
            Segment::Restart { down } => {
                (self.pid, self.target, self.count) = (self.pid + 1, 0.0, 0.0);
                for _ in 0..self.ticks(*down) {
                    self.write(Vec::new());
                }
            }
            Segment::Handover { time } => {
                let (old, whole) = (self.pid, self.count.round() as u64);
                self.pid += 1;
                let ticks = self.ticks(*time);
                for tick in 1..=ticks {
                    let new = whole * tick / ticks;
                    self.write(vec![(old, whole - new), (self.pid, new)]);
                }
            }
            Segment::Sawtooth { low, high, period, time } => {
                let period = period.as_secs_f64();
                self.along(*time, |elapsed| low + (high - low) * (elapsed % period) / period);
            }
            Segment::Day { low, high, leak, time } => self.along(*time, |elapsed| {
                let swing = (1.0 - (TAU * elapsed / DAY).cos()) / 2.0;
                low + (high - low) * swing + leak * elapsed / DAY
            }),
            Segment::Recorded { file } => {
                let text = std::fs::read_to_string(folder.join(file)).expect(file);
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    let (seconds, count) = line.split_once(',').expect("seconds,count");
                    let at = Duration::from_secs_f64(seconds.parse().expect("seconds"));
                    let count = count.parse().expect("a count");
                    self.moments.push(Moment { at, processes: vec![(self.pid, count)] });
                    (self.target, self.count) = (count as f64, count as f64);
                }
            }
        }
    }

    fn ticks(&self, time: Duration) -> u64 {
        (time.as_secs_f64() / self.script.interval.as_secs_f64()).round() as u64
    }

    /// Follows `target`, a count by seconds since the segment's start.
    fn along(&mut self, time: Duration, target: impl Fn(f64) -> f64) {
        let interval = self.script.interval.as_secs_f64();
        for tick in 1..=self.ticks(time) {
            let next = target(tick as f64 * interval);
            let scripted = next - self.target;
            self.count = match self.script.lifetime {
                None => next,
                Some(lifetime) => {
                    let turnover = interval / lifetime.as_secs_f64();
                    // As many come as go at the scripted count; around it, more go from more.
                    let come = self.poisson(self.target * turnover + scripted.max(0.0));
                    let gone = self.poisson(self.count * turnover + (-scripted).max(0.0));
                    (self.count + come - gone).max(0.0)
                }
            };
            self.target = next;
            self.write(vec![(self.pid, self.count.round() as u64)]);
        }
    }

    fn write(&mut self, processes: Vec<(u32, u64)>) {
        let at = self.script.interval * self.moments.len() as u32;
        self.moments.push(Moment { at, processes });
    }

    /// A number of independent events, of which `mean` are expected.
    fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 50.0 {
            let normal = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
            return (mean + mean.sqrt() * normal).round().max(0.0);
        }
        let (limit, mut product, mut events) = ((-mean).exp(), self.random.f64(), 0.0);
        while product > limit {
            product *= self.random.f64();
            events += 1.0;
        }
        events
    }
}
