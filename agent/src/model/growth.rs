//! How fast the number of connections grows.

use std::collections::VecDeque;
use std::time::Duration;

use super::slope;

/// How far back a trend looks.
const WINDOW: Duration = Duration::from_secs(60);
/// A trend is said from this many samples and this much time on; before, it would be a guess.
const FEWEST_SAMPLES: usize = 8;
const SHORTEST: Duration = Duration::from_secs(8);

/// Samples of the connection count.
#[derive(Debug, Clone, Default)]
pub struct Growth {
    samples: VecDeque<(Duration, u64)>,
}

impl Growth {
    /// Takes the count at monotonic time `at`.
    pub fn observe(&mut self, at: Duration, connections: u64) {
        self.samples.push_back((at, connections));
        while self
            .samples
            .front()
            .is_some_and(|(first, _)| at.saturating_sub(*first) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Connections per second, or `None` while too little was seen. Zero and less mean "not growing".
    pub fn per_second(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        if self.samples.len() < FEWEST_SAMPLES || last.0.saturating_sub(first.0) < SHORTEST {
            return None;
        }
        let points: Vec<(f64, f64)> = self
            .samples
            .iter()
            .map(|(at, count)| (at.as_secs_f64(), *count as f64))
            .collect();
        slope(&points)
    }

    /// Seconds until `left` more connections have come, where the count grows.
    pub fn seconds_until(&self, left: u64) -> Option<f64> {
        let rate = self.per_second()?;
        (rate > 1e-6).then(|| left as f64 / rate)
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
        assert_eq!(
            after((0..30).map(|second| 1000 - 10 * second)).seconds_until(10),
            None
        );
    }

    #[test]
    fn one_step_is_not_growth() {
        let growth = after((0..60).map(|second| if second < 50 { 100 } else { 5000 }));
        assert_eq!(growth.seconds_until(10), None);
    }
}
