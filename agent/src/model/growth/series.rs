//! What one count is doing: the windows of time it is looked at through, put together.

use std::cell::Cell;
use std::time::Duration;

use super::heights::Heights;
use super::window::{Slope, Window};
use crate::document::{Range, Trend};
use crate::model::Estimate;

/// Each window takes some sixty samples: a minute shows a surge, an hour a leak.
const WINDOWS: [(u64, u64); 3] = [(950, 60_000), (9_950, 600_000), (59_950, 3_600_000)];
/// The newest part of the first one, which shows a surge soonest and that a rise has ended.
const NOW: Duration = Duration::from_secs(15);

/// What a count is doing, and what follows for a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Forecast {
    /// What it is doing.
    pub trend: Trend,
    /// Seconds until the limit; only where it is growing.
    pub seconds_left: Option<f64>,
    /// Their interval.
    pub seconds_left_range: Option<Range>,
}

/// Samples of one count.
#[derive(Debug, Clone)]
pub struct Growth {
    windows: [Window; 3],
    heights: Heights,
    count: u64,
    /// Connections older than the agent that have been recognised so far; `None` before the first count.
    adopted: Option<u64>,
    /// What the windows say, until a sample comes: every ceiling asks.
    rate: Cell<Option<Rate>>,
}

/// Connections per second, as far as anything is known of them.
#[derive(Debug, Clone, Copy)]
enum Rate {
    /// Too little was seen.
    Unknown,
    /// They do not grow.
    Steady,
    /// They grow.
    Growing(Estimate),
}

impl Default for Growth {
    fn default() -> Self {
        Self::with(Heights::default())
    }
}

impl Growth {
    fn with(heights: Heights) -> Self {
        let window =
            |(spacing, span)| Window::new(Duration::from_millis(spacing), Duration::from_millis(span));
        Self { windows: WINDOWS.map(window), heights, count: 0, adopted: None, rate: Cell::new(None) }
    }

    /// Of a newcomer at monotonic time `at` whose like have had up to `height` connections.
    pub(super) fn of_newcomer(at: Duration, height: u64) -> Self {
        Self::with(Heights::of_newcomer(at, height))
    }

    /// Takes how many connections older than the agent have been recognised so far. They have been there all along: that the count
    /// rises by them is no growth.
    pub(super) fn recognise(&mut self, adopted: u64) {
        let late = self.adopted.map_or(0, |before| adopted.saturating_sub(before));
        self.adopted = self.adopted.max(Some(adopted));
        if late > 0 {
            self.windows.iter_mut().for_each(|window| window.raise(late));
            self.heights.raise(late);
            self.rate.set(None);
        }
    }

    /// Takes the count at monotonic time `at`.
    pub fn observe(&mut self, at: Duration, connections: u64) {
        for window in &mut self.windows {
            window.observe(at, connections);
        }
        self.heights.observe(at, connections);
        self.count = connections;
        self.rate.set(None);
    }

    /// The highest count of the last day and a little.
    pub(super) fn highest(&self) -> u64 {
        self.heights.highest().map_or(0, |(_, height)| height)
    }

    /// What the count is doing where `left` more connections fit, and when they will have come.
    pub fn forecast(&self, left: Option<u64>, range: Option<Range>) -> Forecast {
        let rate = match self.rate() {
            Rate::Unknown => return Forecast::default(),
            Rate::Steady => return Forecast { trend: Trend::Steady, ..Forecast::default() },
            Rate::Growing(rate) => rate,
        };
        // A height that does not fit under the limit is none that was survived.
        let fits = |height: &u64| left.is_none_or(|left| *height <= self.count.saturating_add(left));
        if self.heights.fallen_from().as_ref().is_some_and(fits) {
            return Forecast { trend: Trend::Recovering, ..Forecast::default() };
        }
        let seconds = |left: f64, rate: f64| (rate > 0.0).then(|| left / rate);
        let ends = left.map(|left| range.unwrap_or(Range { least: left as f64, most: Some(left as f64) }));
        Forecast {
            trend: Trend::Growing,
            seconds_left: left.and_then(|left| seconds(left as f64, rate.value)),
            seconds_left_range: ends.and_then(|ends| {
                let most = ends.most.and_then(|most| seconds(most, rate.least));
                seconds(ends.least, rate.most).map(|least| Range { least, most })
            }),
        }
    }

    fn rate(&self) -> Rate {
        let rate = self.rate.get().unwrap_or_else(|| self.judge());
        self.rate.set(Some(rate));
        rate
    }

    fn judge(&self) -> Rate {
        let [minute, ..] = &self.windows;
        let newest = minute.slope_of_last(NOW);
        let longer = self.windows.iter().map(Window::slope);
        let slopes: Vec<Slope> = std::iter::once(newest).chain(longer).flatten().collect();
        let mut agreeing = slopes.iter();
        let Some(first) = agreeing.next() else { return Rate::Unknown };
        // From the newest back: a window that says something else speaks of the past, and so do all longer ones.
        let (mut least, mut most) = (first.rate.least, first.rate.most);
        let mut rate = first.rises.then_some(first.rate);
        for slope in agreeing {
            (least, most) = (least.max(slope.rate.least), most.min(slope.rate.most));
            if least > most {
                break;
            }
            if slope.rises {
                rate = Some(rate.map_or(slope.rate, |rate| both(&rate, &slope.rate)));
            }
        }
        rate.map_or(Rate::Steady, Rate::Growing)
    }
}

/// The value of the surer one, and an interval that holds both.
fn both(one: &Estimate, other: &Estimate) -> Estimate {
    let width = |estimate: &Estimate| estimate.most - estimate.least;
    let surer = if width(one) <= width(other) { one } else { other };
    Estimate { least: one.least.min(other.least), most: one.most.max(other.most), ..*surer }
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

    fn trend(growth: &Growth) -> Trend {
        growth.forecast(Some(1_000_000), None).trend
    }

    #[test]
    fn a_steady_rise_gives_the_time_left_and_its_interval() {
        let forecast = after((0..30).map(|second| 1000 + 10 * second)).forecast(Some(500), None);
        assert_eq!(forecast.trend, Trend::Growing);
        assert!((forecast.seconds_left.expect("growing") - 50.0).abs() < 1e-6);
        let range = Range { least: 400.0, most: Some(600.0) };
        let range = after((0..30).map(|second| 1000 + 10 * second)).forecast(Some(500), Some(range));
        let range = range.seconds_left_range.expect("growing");
        assert!((range.least - 40.0).abs() < 1e-6 && (range.most.expect("closed") - 60.0).abs() < 1e-6);
        let open = Range { least: 400.0, most: None };
        let open = after((0..30).map(|second| 1000 + 10 * second)).forecast(Some(500), Some(open));
        assert_eq!(open.seconds_left_range.map(|range| range.most), Some(None));
    }

    #[test]
    fn recognising_older_connections_is_no_growth() {
        let mut growth = Growth::default();
        for second in 0..40 {
            growth.recognise(100 * second);
            growth.observe(Duration::from_secs(second), 500 + 100 * second);
        }
        assert_eq!(trend(&growth), Trend::Steady);
        for second in 40..80 {
            growth.recognise(4_000);
            growth.observe(Duration::from_secs(second), 4_400 + 10 * (second - 40));
        }
        let seconds = growth.forecast(Some(1_000), None).seconds_left.expect("growing");
        assert!((seconds - 100.0).abs() < 10.0, "{seconds}");
    }

    #[test]
    fn no_trend_from_few_samples_and_none_that_grows_from_a_plateau_or_a_fall() {
        assert_eq!(trend(&after([1, 1000])), Trend::Unknown);
        assert_eq!(trend(&after([7; 40])), Trend::Steady);
        assert_eq!(trend(&after((0..30).map(|second| 1000 - 10 * second))), Trend::Steady);
    }

    #[test]
    fn a_rise_that_has_ended_is_not_growth_and_the_present_rate_counts() {
        assert_eq!(trend(&after((0..40).map(|second| 10 * second.min(25)))), Trend::Steady);
        let steeper = after((0..45).map(|second| if second < 30 { second } else { 30 + 20 * (second - 30) }));
        let seconds = steeper.forecast(Some(2_000), None).seconds_left.expect("growing");
        assert!((seconds - 100.0).abs() < 10.0, "{seconds}");
    }

    #[test]
    fn slow_growth_is_seen_through_the_longer_windows() {
        // One connection in 40 seconds: a minute holds one or two.
        let growth = after((0..3_600).map(|second| 500 + second / 40));
        let forecast = growth.forecast(Some(90), None);
        assert_eq!(forecast.trend, Trend::Growing);
        assert!((forecast.seconds_left.expect("growing") / 3_600.0 - 1.0).abs() < 0.05, "{forecast:?}");
    }

    #[test]
    fn what_fell_recovers_unless_its_height_fits_no_more() {
        let growth = after((0..100).map(|second| if second < 60 { 5_000 } else { 50 * (second - 60) }));
        let now = 50 * 39;
        assert_eq!(growth.forecast(Some(10_000 - now), None).trend, Trend::Recovering);
        let lowered = growth.forecast(Some(4_000 - now), None);
        assert_eq!(lowered.trend, Trend::Growing);
        assert!((lowered.seconds_left.expect("growing") - 41.0).abs() < 1.0, "{lowered:?}");
    }
}
