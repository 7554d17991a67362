//! How fast the number of connections grows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::slope;

/// How far back a trend looks.
const WINDOW: Duration = Duration::from_secs(60);
/// A trend is said from this many samples and this much time on; before, it would be a guess.
const FEWEST_SAMPLES: usize = 8;
const SHORTEST: Duration = Duration::from_secs(8);
/// Samples are at least this far apart, whatever the tick: pairs grow with their square.
const SPACING: Duration = Duration::from_millis(950);

/// Samples of the connection count.
#[derive(Debug, Clone, Default)]
pub struct Growth {
    samples: VecDeque<(Duration, u64)>,
}

impl Growth {
    /// Takes the count at monotonic time `at`. Of counts that come faster than [`SPACING`], the last one stands.
    pub fn observe(&mut self, at: Duration, connections: u64) {
        if let [.., (before, _), (last, count)] = self.samples.make_contiguous()
            && at.saturating_sub(*before) < SPACING
        {
            (*last, *count) = (at, connections);
            return;
        }
        self.samples.push_back((at, connections));
        while self.samples.front().is_some_and(|(first, _)| at.saturating_sub(*first) > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Connections per second, or `None` while too little was seen. Zero and less mean "not growing": a rise that has
    /// ended is none, so the last seconds must agree with the whole window.
    pub fn per_second(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?.0, self.samples.back()?.0);
        if self.samples.len() < FEWEST_SAMPLES || last.saturating_sub(first) < SHORTEST {
            return None;
        }
        let since = |start: Duration| -> Option<f64> {
            let samples = self.samples.iter().filter(|(at, _)| *at >= start);
            let points: Vec<(f64, f64)> =
                samples.map(|(at, count)| (at.as_secs_f64(), *count as f64)).collect();
            slope(&points).map(|rate| rate.value)
        };
        let (whole, recent) = (since(first)?, since(last.saturating_sub(SHORTEST))?);
        Some(if whole > 0.0 { recent } else { whole })
    }

    /// Seconds until `left` more connections have come, where the count grows.
    pub fn seconds_until(&self, left: u64) -> Option<f64> {
        let rate = self.per_second()?;
        (rate > 1e-6).then(|| left as f64 / rate)
    }
}

/// Growth of the host's connections, and of each process's own.
#[derive(Debug, Clone, Default)]
pub struct Growths {
    total: Growth,
    processes: BTreeMap<u32, Growth>,
}

impl Growths {
    /// Takes the count over the whole host.
    pub fn observe_total(&mut self, at: Duration, connections: u64) {
        self.total.observe(at, connections);
    }

    /// Takes the counts of all processes that hold connections; others are forgotten.
    pub fn observe_processes(&mut self, at: Duration, counts: impl Iterator<Item = (u32, u64)>) {
        let mut before = std::mem::take(&mut self.processes);
        for (pid, connections) in counts {
            let mut growth = before.remove(&pid).unwrap_or_default();
            growth.observe(at, connections);
            self.processes.insert(pid, growth);
        }
    }

    /// Seconds until `left` more connections have come: to the process where one is named, else to the host.
    pub fn seconds_until(&self, process: Option<u32>, left: u64) -> Option<f64> {
        match process {
            Some(pid) => self.processes.get(&pid)?.seconds_until(left),
            None => self.total.seconds_until(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(counts: impl IntoIterator<Item = u64>) -> Growth {
        let mut growth = Growth::default();
        for (second, count) in counts.into_iter().enumerate() {
            growth.observe(Duration::from_secs(second as u64), count);
        }
        growth
    }

    #[test]
    fn a_steady_rise_gives_the_time_left() {
        let growth = after((0..30).map(|second| 1000 + 10 * second));
        assert!((growth.seconds_until(500).expect("growing") - 50.0).abs() < 1e-6);
    }

    #[test]
    fn no_trend_from_few_samples_nor_from_a_plateau() {
        assert_eq!(after([1, 1000]).seconds_until(10), None);
        assert_eq!(after([7; 40]).seconds_until(10), None);
        assert_eq!(after((0..30).map(|second| 1000 - 10 * second)).seconds_until(10), None);
    }

    #[test]
    fn fast_ticks_do_not_add_samples() {
        let mut growth = Growth::default();
        for tick in 0..3_000u64 {
            growth.observe(Duration::from_millis(10 * tick), tick);
        }
        assert!(growth.samples.len() < 40, "{} samples of 30 s", growth.samples.len());
        assert!((growth.per_second().expect("growing") - 100.0).abs() < 1.0);
    }

    #[test]
    fn a_process_grows_by_itself() {
        let mut growths = Growths::default();
        for second in 0..20 {
            let at = Duration::from_secs(second);
            growths.observe_total(at, 30 * second);
            growths.observe_processes(at, [(7, 10 * second), (8, 100)].into_iter());
        }
        assert!((growths.seconds_until(None, 300).expect("growing") - 10.0).abs() < 1e-6);
        assert!((growths.seconds_until(Some(7), 300).expect("growing") - 30.0).abs() < 1e-6);
        assert_eq!(growths.seconds_until(Some(8), 300), None);
        assert_eq!(growths.seconds_until(Some(9), 300), None);
    }

    #[test]
    fn a_rise_that_has_ended_is_not_growth() {
        let growth = after((0..40).map(|second| 10 * second.min(25)));
        assert_eq!(growth.seconds_until(10), None);
        let steeper = after((0..40).map(|second| if second < 30 { second } else { 30 + 20 * (second - 30) }));
        assert!((steeper.per_second().expect("growing") - 20.0).abs() < 1e-6, "the present rate counts");
    }

    #[test]
    fn one_step_is_not_growth() {
        let growth = after((0..60).map(|second| if second < 50 { 100 } else { 5000 }));
        assert_eq!(growth.seconds_until(10), None);
    }
}
