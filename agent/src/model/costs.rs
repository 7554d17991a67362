//! What one more connection really takes of a limit: how its use went with the number of connections.
//!
//! The same regression serves every limit whose use can be read beside a count (a cgroup's memory, a process's descriptors, the
//! connection tracking table). It knows nothing of why a connection costs what it costs, and so forgets nothing either.

use std::collections::BTreeMap;

use super::{Estimate, slope_within};
use crate::document::Kind;

/// Points kept of one life, and lives of one series.
const POINTS: usize = 64;
const LIVES: usize = 4;
/// Fewest points, and the spread of their counts as a share of the largest, from which a slope means something.
const FEWEST: u64 = 6;
const SPREAD: f64 = 0.05;
/// Points of the upper half of the counts from which these alone decide.
const RECENT: usize = 12;
/// Counts closer together than this share of the largest are one point.
const STEP: f64 = 1.0 / 128.0;
/// By how much a use may waver at the same count and still be the same, as a share of it.
const STILL: f64 = 1.0 / 1024.0;
/// Observations without one of a series until it is forgotten.
const FORGOTTEN_AFTER: u64 = 86_400;

/// Use against connection count, for each limit by its kind and scope.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    series: BTreeMap<(Kind, String), Series>,
    /// Counts rounds of observation.
    round: u64,
}

#[derive(Debug, Clone, Default)]
struct Series {
    /// Oldest first; only points of one life are compared, as each begins from a base of its own.
    lives: Vec<Life>,
    slope: Option<Estimate>,
    seen: u64,
}

#[derive(Debug, Clone)]
struct Life {
    id: u64,
    /// By rising count. What a server keeps of connections that went away would pass for the cost of those that are left:
    /// only heights that were not reached before are noted.
    points: Vec<(f64, f64)>,
    /// Connections older than the agent that have been recognised so far.
    adopted: u64,
}

impl Costs {
    /// Begins a round of observations.
    pub fn begin(&mut self) {
        self.round += 1;
        let round = self.round;
        self.series.retain(|_, series| round - series.seen < FORGOTTEN_AFTER);
    }

    /// Takes what was in use and how many connections were open at the same moment. `life` tells one life of whatever owns the
    /// limit from the next: a restarted server begins with other memory. `adopted` is how many of all connections so far were older
    /// than the agent: their cost was there before they were counted.
    pub fn observe(
        &mut self,
        kind: Kind,
        scope: &str,
        life: u64,
        (connections, adopted): (u64, u64),
        used: u64,
    ) {
        let series = self.series.entry((kind, scope.to_owned())).or_default();
        series.seen = self.round;
        if series.lives.last().is_none_or(|last| last.id != life) {
            series.lives.push(Life { id: life, points: Vec::new(), adopted });
            if series.lives.len() > LIVES {
                series.lives.remove(0);
            }
        }
        if let Some(life) = series.lives.last_mut() {
            life.recognise(adopted);
            if life.note((connections as f64, used as f64)) {
                series.slope = series.estimate();
            }
        }
    }

    /// What a connection takes, once the use was seen at counts that differ enough.
    pub fn cost(&self, kind: Kind, scope: &str) -> Option<Estimate> {
        self.series.get(&(kind, scope.to_owned()))?.slope
    }

    /// The part of `used` that is left over from connections that are gone, and that new ones will take up again before the
    /// use grows.
    pub fn reusable(&self, kind: Kind, scope: &str, connections: u64, used: u64) -> f64 {
        let Some(series) = self.series.get(&(kind, scope.to_owned())) else { return 0.0 };
        let highest = series.lives.last().and_then(|life| life.points.last());
        let Some((slope, (count, height))) = series.slope.zip(highest) else { return 0.0 };
        let gone = slope.value * (count - connections as f64).max(0.0);
        (used as f64 - (height - gone)).clamp(0.0, gone)
    }
}

impl Series {
    fn estimate(&self) -> Option<Estimate> {
        let spread = |life: &&Life| {
            let (least, most) = (life.points.first()?.0, life.points.last()?.0);
            (most > 0.0 && most - least >= SPREAD * most).then_some(())
        };
        let lives: Vec<&[(f64, f64)]> =
            self.lives.iter().filter(|life| spread(life).is_some()).map(Life::recent).collect();
        let slope = slope_within(&lives).filter(|slope| slope.samples >= FEWEST)?;
        Some(slope.map(|cost| cost.max(0.0)))
    }
}

impl Life {
    /// The points of the upper half of the counts, once there are enough of them: the first connections of a server often cost
    /// more than the rest, while its tables and heaps are laid out.
    fn recent(&self) -> &[(f64, f64)] {
        let half = self.points.last().map_or(0.0, |(count, _)| count / 2.0);
        let upper = &self.points[self.points.partition_point(|(count, _)| *count < half)..];
        if upper.len() >= RECENT { upper } else { &self.points }
    }

    /// Connections that were recognised just now have been there all along, and so they were at each of the points.
    fn recognise(&mut self, adopted: u64) {
        let late = adopted.saturating_sub(self.adopted);
        self.adopted += late;
        self.points.iter_mut().for_each(|(count, _)| *count += late as f64);
    }

    /// Whether anything changed.
    fn note(&mut self, (count, used): (f64, f64)) -> bool {
        match self.points.as_mut_slice() {
            [.., (highest, _)] if count < *highest => return false,
            // A count that stands still, tick for tick, tells nothing new.
            [.., (highest, height)] if count == *highest && (used - *height).abs() <= *height * STILL => {
                return false;
            }
            // The newest reading at this height stands: the first one may have come before its memory was touched.
            [.., before, last] if count - before.0 < STEP * count => *last = (count, used),
            _ => self.points.push((count, used)),
        }
        if self.points.len() > POINTS {
            let newest = self.points.len() - 1;
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1 || index > newest
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "process:7";

    fn observed(points: impl IntoIterator<Item = (u64, u64, u64)>) -> Costs {
        let mut costs = Costs::default();
        for (life, connections, used) in points {
            costs.begin();
            costs.observe(Kind::Memory, SCOPE, life, (connections, 0), used);
        }
        costs
    }

    #[test]
    fn the_slope_leaves_the_base_out() {
        let costs = observed((1..=2000).map(|count| (1, count, 50_000_000 + 1_200 * count)));
        let cost = costs.cost(Kind::Memory, SCOPE).expect("known");
        assert!((cost.value - 1_200.0).abs() < 1e-6, "{cost:?}");
        assert!(cost.samples >= 30 && cost.samples <= POINTS as u64, "{cost:?}");
        assert_eq!(costs.cost(Kind::Descriptors, SCOPE), None);
    }

    #[test]
    fn a_count_that_stands_still_costs_no_work_until_its_use_moves() {
        let mut life = Life { id: 1, points: vec![(100.0, 1e6)], adopted: 0 };
        assert!(!life.note((100.0, 1e6 + 900.0)));
        assert!(life.note((100.0, 1e6 + 2_000.0)) && life.note((101.0, 1e6)));
    }

    #[test]
    fn recognising_older_connections_makes_them_no_cheaper() {
        let mut costs = Costs::default();
        // 1,000 connections are recognised while 500 are opened; memory grows by what those take.
        for step in 0..=500 {
            costs.begin();
            let (adopted, used) = (2 * step, 3_000_000 + 2_000 * step);
            costs.observe(Kind::Memory, SCOPE, 1, (adopted + step, adopted), used);
        }
        assert!((costs.cost(Kind::Memory, SCOPE).expect("known").value - 2_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_constant_count_or_a_few_readings_tell_nothing() {
        let constant = observed((0..50).map(|extra| (1, 1000 + extra % 3, 50_000_000 + extra * 1_000_000)));
        assert_eq!(constant.cost(Kind::Memory, SCOPE), None);
        let few = observed((1..5).map(|count| (1, 100 * count, 1_000 * count)));
        assert_eq!(few.cost(Kind::Memory, SCOPE), None);
    }

    #[test]
    fn memory_kept_after_connections_went_is_no_cost_of_those_that_stay() {
        let rise = (1..=1000).map(|count| (1, count, 1_000_000 + 2_000 * count));
        let fall = (0..500).map(|gone| (1, 1000 - gone, 3_000_000));
        let costs = observed(rise.chain(fall));
        assert!((costs.cost(Kind::Memory, SCOPE).expect("known").value - 2_000.0).abs() < 1e-6);
        // 500 connections are gone and their megabyte is not: the next 500 take none.
        assert!((costs.reusable(Kind::Memory, SCOPE, 500, 3_000_000) - 1_000_000.0).abs() < 3e4);
        assert!(costs.reusable(Kind::Memory, SCOPE, 500, 2_000_000) < 3e4, "given back");
        assert!(costs.reusable(Kind::Memory, SCOPE, 1000, 3_000_000) < 1e-6);
    }

    #[test]
    fn what_the_first_connections_cost_is_not_what_the_next_ones_will() {
        // Evenly spread: the first half of the connections costs 6,000 each, the second 1,000.
        let point =
            |count: u32| (f64::from(count), 1_000.0 * f64::from(count) + 5_000.0 * f64::from(count.min(15)));
        let life = Life { id: 1, points: (1..=30).map(point).collect(), adopted: 0 };
        let series = Series { lives: vec![life], ..Series::default() };
        assert!((series.estimate().expect("known").value - 1_000.0).abs() < 1e-6, "{:?}", series.estimate());
    }

    #[test]
    fn a_restart_with_another_base_does_not_bend_the_slope() {
        let first = (1..=40).map(|step| (1, 50 * step, 90_000_000 + 50_000 * step));
        let second = (1..=10).map(|step| (2, 50 * step, 20_000_000 + 50_000 * step));
        let cost = observed(first.chain(second)).cost(Kind::Memory, SCOPE).expect("known");
        assert!((cost.value - 1_000.0).abs() < 1e-6, "{cost:?}");
        assert!(cost.samples > 21, "both lives count: {cost:?}");
    }

    #[test]
    fn what_is_not_observed_any_more_is_forgotten() {
        let mut costs = observed((1..=40).map(|step| (1, 50 * step, 50_000 * step)));
        for _ in 0..=FORGOTTEN_AFTER {
            costs.begin();
        }
        assert_eq!(costs.cost(Kind::Memory, SCOPE), None);
    }
}
