//! How near each ceiling is, over time: a level that was reached is believed after it has held for a moment, and one that
//! was left after it has been left clearly and for longer. Whoever is woken by it should not be woken twice.

mod thresholds;

use std::collections::BTreeMap;
use std::time::Duration;

pub use thresholds::{Pair, Thresholds};

use crate::document::{Ceiling, Kind, Level, LevelChanged};

/// A ceiling that was not seen for so long starts anew.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// One ceiling's level, and what may come of it.
#[derive(Debug, Clone, Copy)]
struct State {
    level: Level,
    /// The part of it that is due to what is used and left, and not to a forecast.
    by_use: Level,
    /// Since when each higher level's conditions have held without a break: near, critical.
    above: [Option<Duration>; 2],
    /// Since when the present level's conditions have not held, even with the margin, and the highest level since.
    below: Option<(Duration, Level)>,
    seen: Duration,
}

/// Levels of all ceilings.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    thresholds: Thresholds,
    states: BTreeMap<(Kind, String), State>,
}

impl Levels {
    /// With these thresholds.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, states: BTreeMap::new() }
    }

    /// Gives each ceiling its level at monotonic time `at`, and says what changed. A ceiling that is seen for the first time has its
    /// level at once, and that is a change only where there is something to look at.
    pub fn observe(&mut self, at: Duration, ceilings: &mut [Ceiling]) -> Vec<LevelChanged> {
        let mut changes = Vec::new();
        for ceiling in ceilings {
            let key = (ceiling.kind, ceiling.scope.clone());
            let before = self.states.get(&key).copied();
            let now = self.next(at, before, ceiling);
            let from = before.map_or(Level::Unknown, |state| state.level);
            let told = raised(ceiling);
            ceiling.level = now.level;
            if from != now.level && (before.is_some() || now.level >= Level::Near) {
                changes.push(self.changed(from, told, ceiling));
            }
            // What was never known has nothing to change from.
            if before.is_some() || now.level != Level::Unknown {
                self.states.insert(key, now);
            }
        }
        self.states.retain(|_, state| at.saturating_sub(state.seen) < FORGOTTEN);
        changes
    }

    fn next(&self, at: Duration, before: Option<State>, ceiling: &Ceiling) -> State {
        let thresholds = &self.thresholds;
        let used = thresholds.reached_by_use(ceiling);
        let Some(mut state) = before.filter(|state| state.level != Level::Unknown) else {
            // What was unknown has no past to be compared with. A forecast is believed only after a while, though.
            let above = self.since(at, [None; 2], ceiling);
            let level = used.max(raised(ceiling));
            return State { level, by_use: used, above, below: None, seen: at };
        };
        state.seen = at;
        state.above = self.since(at, state.above, ceiling);
        let held_for = |since: Duration| at.saturating_sub(since);
        for (level, since) in [Level::Near, Level::Critical].into_iter().zip(state.above) {
            if level <= state.level {
                continue;
            }
            // What is used is a fact, and soon believed; a forecast is not.
            let by_use = used >= level;
            let patience = if by_use { thresholds.rise_after } else { thresholds.forecast_after };
            let full = ceiling.connections_left == Some(0);
            let told = raised(ceiling) >= level;
            if since.is_some_and(|since| held_for(since) >= patience) || by_use && full || told {
                (state.level, state.below) = (level, None);
            }
        }
        if used >= state.level {
            state.by_use = state.level;
        }
        let held = thresholds
            .held_by_use(ceiling, state.by_use)
            .max(thresholds.held_by_time(ceiling))
            .max(raised(ceiling));
        state.below = match state.below {
            _ if held >= state.level => None,
            None => Some((at, held)),
            Some((since, highest)) => Some((since, highest.max(held))),
        };
        if let Some((_, highest)) = state.below.filter(|(since, _)| held_for(*since) >= thresholds.fall_after)
        {
            (state.level, state.by_use, state.below) = (highest, state.by_use.min(highest), None);
        }
        state
    }

    /// Since when the conditions of near and of critical have held.
    fn since(&self, at: Duration, before: [Option<Duration>; 2], ceiling: &Ceiling) -> [Option<Duration>; 2] {
        let reached = self.thresholds.reached(ceiling);
        let levels = [Level::Near, Level::Critical].into_iter().zip(before);
        let mut since = [None; 2];
        for (place, (level, before)) in levels.enumerate() {
            since[place] = (reached >= level).then(|| before.unwrap_or(at));
        }
        since
    }

    fn changed(&self, from: Level, told: Level, ceiling: &Ceiling) -> LevelChanged {
        LevelChanged {
            kind: ceiling.kind,
            scope: ceiling.scope.clone(),
            from,
            to: ceiling.level,
            reason: if told == ceiling.level {
                ceiling.basis.clone()
            } else {
                self.thresholds.reason(ceiling)
            },
            connections_left: ceiling.connections_left,
            seconds_left: ceiling.seconds_left,
        }
    }
}

/// The level that the model itself gave a ceiling beyond what is used of it, because something was refused already; else unknown.
fn raised(ceiling: &Ceiling) -> Level {
    let by_use = Thresholds::default().reached_by_use(ceiling);
    if ceiling.level > by_use { ceiling.level } else { Level::Unknown }
}

#[cfg(test)]
mod tests;
