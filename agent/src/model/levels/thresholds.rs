//! From where on a ceiling is near, and critical.

use std::time::Duration;

use crate::document::{Ceiling, Level};
use crate::report::format::{count, percent, span};

/// A time left says something from this use on. Below, a host that fills up after its start would alarm every time: where
/// half of the limit is free, a rise has yet to show that it lasts, and nobody is woken while a quarter is.
const FORECAST_FROM: Pair<f64> = Pair { near: 0.5, critical: 0.75 };

/// A pair of thresholds for one measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair<T> {
    /// Of [`Level::Near`].
    pub near: T,
    /// Of [`Level::Critical`].
    pub critical: T,
}

impl<T> Pair<T> {
    fn of(&self, level: Level) -> &T {
        if level == Level::Critical { &self.critical } else { &self.near }
    }
}

/// Thresholds, and for how long they must be crossed. Any one of the measures is enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Share of the limit that is used, 0–1.
    pub ratio: Pair<f64>,
    /// Connections that still fit.
    pub connections_left: Pair<Option<u64>>,
    /// Seconds until the limit at the present growth.
    pub seconds_left: Pair<Option<f64>>,
    /// How much clearer than crossed a threshold must be to count as left again: a share of it.
    pub margin: f64,
    /// How long a use or a number left must hold before it raises the level.
    pub rise_after: Duration,
    /// How long a time left must hold before it raises the level.
    pub forecast_after: Duration,
    /// How long a level must be left before it falls.
    pub fall_after: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            ratio: Pair { near: 0.8, critical: 0.95 },
            connections_left: Pair { near: None, critical: None },
            // An hour is enough to bring up another host, ten minutes to raise a limit or to shed load.
            seconds_left: Pair { near: Some(3600.0), critical: Some(600.0) },
            margin: 0.05,
            rise_after: Duration::from_secs(5),
            forecast_after: Duration::from_secs(30),
            fall_after: Duration::from_secs(60),
        }
    }
}

impl Thresholds {
    /// The level by what is used and left alone, at this moment.
    pub fn reached_by_use(&self, ceiling: &Ceiling) -> Level {
        self.highest(ceiling, |level| self.by_use(ceiling, level, 0.0).is_some())
    }

    /// The level by any measure, at this moment.
    pub(super) fn reached(&self, ceiling: &Ceiling) -> Level {
        self.highest(ceiling, |level| {
            self.by_use(ceiling, level, 0.0).is_some() || self.by_time(ceiling, level).is_some()
        })
    }

    /// The level by what is used and left, where it was `before`: it is left only with the margin.
    pub(super) fn held_by_use(&self, ceiling: &Ceiling, before: Level) -> Level {
        let held = self.highest(ceiling, |level| self.by_use(ceiling, level, self.margin).is_some());
        held.min(before).max(self.reached_by_use(ceiling))
    }

    /// The level that the time left may still be of.
    pub(super) fn held_by_time(&self, ceiling: &Ceiling) -> Level {
        self.highest(ceiling, |level| self.may_be_in_time(ceiling, level))
    }

    /// Why a ceiling has its level, in words.
    pub(super) fn reason(&self, ceiling: &Ceiling) -> String {
        let level = ceiling.level;
        let by_time = || self.by_time(ceiling, level);
        let reason = match level {
            Level::Unknown => Some(ceiling.basis.clone()),
            Level::Ok => None,
            Level::Near | Level::Critical => {
                let held = || self.by_use(ceiling, level, self.margin);
                self.by_use(ceiling, level, 0.0).or_else(by_time).or_else(held)
            }
        };
        reason.unwrap_or_else(|| match ceiling.utilization {
            Some(used) => format!("{} of the limit is used, below the thresholds", percent(used)),
            None => "below the thresholds".to_owned(),
        })
    }

    fn highest(&self, ceiling: &Ceiling, holds: impl Fn(Level) -> bool) -> Level {
        if ceiling.utilization.is_none() && ceiling.connections_left.is_none() {
            return Level::Unknown;
        }
        [Level::Critical, Level::Near].into_iter().find(|level| holds(*level)).unwrap_or(Level::Ok)
    }

    /// Whether what is used or left is past a threshold that is moved by `margin`, and how.
    fn by_use(&self, ceiling: &Ceiling, level: Level, margin: f64) -> Option<String> {
        let ratio = *self.ratio.of(level);
        if let Some(used) = ceiling.utilization.filter(|used| *used >= ratio * (1.0 - margin)) {
            return Some(format!("{} of the limit is used, of {}", percent(used), percent(ratio)));
        }
        let threshold = (*self.connections_left.of(level))?;
        let left = ceiling.connections_left?;
        (left as f64 <= threshold as f64 * (1.0 + margin))
            .then(|| format!("{} connections are left, of {}", count(left), count(threshold)))
    }

    /// Whether the limit is hit sooner than a threshold even by the upper end of its interval, and when.
    fn by_time(&self, ceiling: &Ceiling, level: Level) -> Option<String> {
        let threshold = (*self.seconds_left.of(level))?;
        let seconds = ceiling.seconds_left_range?.most?;
        let telling = ceiling.utilization.is_none_or(|used| used >= *FORECAST_FROM.of(level));
        (telling && seconds <= threshold)
            .then(|| format!("full within {} at the present growth, of {}", span(seconds), span(threshold)))
    }

    /// Whether it may be hit so soon, by the lower end.
    fn may_be_in_time(&self, ceiling: &Ceiling, level: Level) -> bool {
        let threshold = self.seconds_left.of(level).zip(ceiling.seconds_left_range);
        let from = *FORECAST_FROM.of(level) * (1.0 - self.margin);
        let telling = ceiling.utilization.is_none_or(|used| used >= from);
        telling && threshold.is_some_and(|(threshold, range)| range.least <= threshold)
    }
}
