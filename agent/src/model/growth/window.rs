//! The slope of a count over one window of time, and how far it can be trusted.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Estimate, slope};

/// A slope is said from this many samples on, over this much time: before, it would be a guess.
const FEWEST: usize = 8;
const SHORTEST: Duration = Duration::from_secs(8);
/// Most points whose pairs are looked at: pairs grow with their square.
const POINTS: usize = 24;
/// What a count may do unseen: over a span without any change there may be a rate that makes three ("rule of three", the
/// upper end of 95% for an event that was never seen).
const UNSEEN: f64 = 3.0;
/// Standard deviations: of the interval, and of what counts as a rise. The second is wide, as the question is asked every
/// second of every day.
const INTERVAL: f64 = 2.0;
const RISE: f64 = 3.5;

/// The slope over a window, in connections per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slope {
    /// The slope and its interval.
    pub(super) rate: Estimate,
    /// Whether it is a rise beyond what comings and goings explain.
    pub(super) rises: bool,
}

/// Samples of a count, evenly spaced, over a bounded time.
#[derive(Debug, Clone)]
pub(super) struct Window {
    spacing: Duration,
    span: Duration,
    samples: VecDeque<(Duration, u64)>,
    /// The slope of the whole window, until a sample comes.
    slope: Cell<Option<Option<Slope>>>,
}

impl Window {
    pub(super) fn new(spacing: Duration, span: Duration) -> Self {
        Self { spacing, span, samples: VecDeque::new(), slope: Cell::new(None) }
    }

    /// Takes the count at monotonic time `at`, unless the last sample is too fresh.
    pub(super) fn observe(&mut self, at: Duration, count: u64) {
        if self.samples.back().is_some_and(|(last, _)| at.saturating_sub(*last) < self.spacing) {
            return;
        }
        self.samples.push_back((at, count));
        while self.samples.front().is_some_and(|(first, _)| at.saturating_sub(*first) > self.span) {
            self.samples.pop_front();
        }
        self.slope.set(None);
    }

    /// Every sample was lower than it should have been.
    pub(super) fn raise(&mut self, by: u64) {
        self.samples.iter_mut().for_each(|(_, count)| *count += by);
        self.slope.set(None);
    }

    /// The slope over the whole window, or `None` while too little was seen.
    pub(super) fn slope(&self) -> Option<Slope> {
        if let Some(known) = self.slope.get() {
            return known;
        }
        let slope = self.slope_of_last(self.span);
        self.slope.set(Some(slope));
        slope
    }

    /// The slope over the last `span` of it, or over as many samples as it takes.
    pub(super) fn slope_of_last(&self, span: Duration) -> Option<Slope> {
        let last = self.samples.back()?.0;
        let start = self.samples.partition_point(|(at, _)| last.saturating_sub(*at) > span);
        let start = start.min(self.samples.len().checked_sub(FEWEST)?);
        let points: Vec<(f64, f64)> =
            self.samples.range(start..).map(|(at, count)| (at.as_secs_f64(), *count as f64)).collect();
        let elapsed = last.saturating_sub(self.samples.get(start)?.0);
        (elapsed >= SHORTEST).then(|| judge(&points, elapsed.as_secs_f64()))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}

/// Theil–Sen's slope, and the wider of its own interval and that of a random walk: counts are sums of comings and goings, so
/// their errors add up, and an interval that takes them for independent is too narrow. For a random walk whose variance grows by
/// v a second, the slope over T seconds wavers by √(6v/5T).
fn judge(points: &[(f64, f64)], elapsed: f64) -> Slope {
    let steps = (points.len() - 1) as f64;
    let mean = (points[points.len() - 1].1 - points[0].1) / elapsed;
    // Samples need not be evenly spaced: visits to all connections come when there is budget for them.
    let squares = points.windows(2).map(|pair| {
        let time = pair[1].0 - pair[0].0;
        (pair[1].1 - pair[0].1 - mean * time).powi(2) / time
    });
    let variance = squares.sum::<f64>() / (steps - 1.0);
    let deviation = (1.2 * variance / elapsed).sqrt();
    // Few steps tell little of their own deviation.
    let sure = |deviations: f64| deviations * (1.0 + 3.0 / steps) * deviation;
    let flat = points.iter().all(|(_, count)| *count == points[0].1);
    let still = Estimate { value: 0.0, least: 0.0, most: 0.0, samples: points.len() as u64 };
    let estimate = if flat { still } else { slope(&thinned(points)).unwrap_or(still) };
    let least = estimate.least.min(estimate.value - sure(INTERVAL));
    let most = estimate.most.max(estimate.value + sure(INTERVAL));
    let unseen = UNSEEN / elapsed;
    // A slope that so few connections make may as well be none, or a little more.
    let (least, most) = if least < unseen { (least - unseen, most + unseen) } else { (least, most) };
    Slope {
        rate: Estimate { value: estimate.value, least, most, samples: points.len() as u64 },
        rises: estimate.least.min(estimate.value - sure(RISE)) > 0.0 && estimate.value > unseen,
    }
}

/// At most [`POINTS`] of them, evenly spread, the last one included.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS);
    points.iter().rev().step_by(step).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(counts: impl IntoIterator<Item = u64>) -> Window {
        let mut window = Window::new(Duration::from_millis(950), Duration::from_secs(60));
        for (second, count) in counts.into_iter().enumerate() {
            window.observe(Duration::from_secs(second as u64), count);
        }
        window
    }

    #[test]
    fn a_straight_line_is_known_exactly() {
        let slope = window((0..30).map(|second| 1000 + 10 * second)).slope().expect("enough");
        assert!(slope.rises);
        for rate in [slope.rate.value, slope.rate.least, slope.rate.most] {
            assert!((rate - 10.0).abs() < 1e-9, "{rate}");
        }
    }

    #[test]
    fn too_little_is_nothing() {
        assert_eq!(window([1, 1000]).slope(), None);
        assert_eq!(window((0..7).map(|second| 100 * second)).slope(), None);
    }

    #[test]
    fn samples_may_come_when_they_can() {
        let mut window = window([]);
        let mut second = 0;
        for sample in 0..30 {
            second += 1 + sample % 3;
            window.observe(Duration::from_secs(second), 25 * second);
        }
        let slope = window.slope().expect("enough");
        assert!(slope.rises && slope.rate.least > 24.9 && slope.rate.most < 25.1, "{slope:?}");
    }

    #[test]
    fn a_step_is_no_rise_wherever_it_stands() {
        for place in 1..60 {
            let slope = window((0..60).map(|second| if second < place { 100 } else { 5000 })).slope();
            assert!(!slope.expect("enough").rises, "a step at {place} s");
        }
    }

    #[test]
    fn comings_and_goings_seldom_pass_for_a_rise() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut rises = 0;
        for _ in 0..2_000 {
            let mut count = 10_000_i64;
            let walk = (0..60).map(|_| {
                count += (0..20).map(|_| if random.bool() { 1 } else { -1 }).sum::<i64>();
                count as u64
            });
            rises += u32::from(window(walk).slope().expect("enough").rises);
        }
        assert!(rises <= 4, "{rises} of 2,000 random walks");
    }

    #[test]
    fn the_interval_holds_the_rate_of_arrivals_at_random() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut held = 0;
        for _ in 0..1_000 {
            let mut count = 0;
            let arrivals = (0..60).map(|_| {
                count += (0..100).filter(|_| random.f64() < 0.1).count() as u64;
                count
            });
            let slope = window(arrivals).slope().expect("enough");
            assert!(slope.rises);
            held += u32::from((slope.rate.least..=slope.rate.most).contains(&10.0));
        }
        assert!((930..=995).contains(&held), "held in {held} of 1,000");
    }

    #[test]
    fn fast_ticks_do_not_add_samples() {
        let mut window = window([]);
        for tick in 0..6_000u64 {
            window.observe(Duration::from_millis(10 * tick), tick);
        }
        assert!(window.len() <= 64, "{} samples of a minute", window.len());
        assert!((window.slope().expect("enough").rate.value - 100.0).abs() < 1.0);
    }
}
