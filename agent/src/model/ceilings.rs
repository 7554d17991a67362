//! Ceilings from readings: each limit that is in force, what is used of it, and what that means in connections.

mod bandwidth;
mod descriptors;
mod memory;

use std::time::Duration;

use super::{Estimate, Growths, ProcessCosts, Reading, Summary, Thresholds};
use crate::document::{Ceiling, CostPart, Kind, Level, Listener, Range, Trend, Unit};

/// Everything the ceilings are computed from.
pub struct Inputs<'a> {
    /// Tracked connections open now.
    pub connections: u64,
    /// The host now.
    pub reading: &'a Reading,
    /// The host some seconds ago and how long ago that was, for rates; none on the first tick.
    pub earlier: Option<(&'a Reading, &'a [Listener], Duration)>,
    /// Sums over connections, by the last sweep.
    pub summary: &'a Summary,
    /// Sums by listener now.
    pub listeners: &'a [Listener],
    /// Growth of the connection count.
    pub growth: &'a Growths,
    /// What connections cost their processes.
    pub costs: &'a ProcessCosts,
}

/// All ceilings, the first to be hit first, unknown ones last.
pub fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut all = memory::ceilings(inputs);
    all.extend(descriptors::ceilings(inputs));
    all.extend(bandwidth::ceilings(inputs));
    for ceiling in &mut all {
        let (left, range) = (ceiling.connections_left, ceiling.connections_left_range);
        let forecast = inputs.growth.forecast(&ceiling.scope, left, range);
        ceiling.trend = forecast.trend;
        (ceiling.seconds_left, ceiling.seconds_left_range) =
            (forecast.seconds_left, forecast.seconds_left_range);
    }
    // A stable sort: among equals the order above stands.
    all.sort_by_key(|ceiling| ceiling.connections_left.unwrap_or(u64::MAX));
    if let Some(first) = all.first_mut().filter(|ceiling| ceiling.connections_left.is_some()) {
        first.first = true;
    }
    all
}

/// What a ceiling is made of before its consequences are computed.
struct Parts {
    kind: Kind,
    scope: String,
    unit: Unit,
    used: Option<u64>,
    limit: Option<u64>,
    connections: u64,
    cost: Option<Estimate>,
    parts: Vec<CostPart>,
    basis: String,
}

impl Parts {
    fn ceiling(self) -> Ceiling {
        let known = self.used.zip(self.limit).filter(|(_, limit)| *limit > 0);
        let utilization = known.map(|(used, limit)| used as f64 / limit as f64);
        let room = known.map(|(used, limit)| limit.saturating_sub(used) as f64);
        let cost = self.cost.filter(|cost| cost.value > 0.0);
        let left = room.zip(cost).map(|(room, cost)| (room / cost.value) as u64);
        let left_range = room.zip(cost.filter(|cost| !cost.is_exact())).map(|(room, cost)| Range {
            least: (room / cost.most).floor(),
            most: (cost.least > 0.0).then(|| (room / cost.least).floor()),
        });
        let mut ceiling = Ceiling {
            kind: self.kind,
            scope: self.scope,
            used: self.used,
            limit: self.limit,
            unit: self.unit,
            utilization,
            level: Level::Unknown,
            connections: self.connections,
            cost_per_connection: self.cost.map(|cost| cost.value),
            cost_range: self.cost.and_then(|cost| cost.range()),
            cost_samples: self.cost.map(|cost| cost.samples).filter(|samples| *samples > 0),
            parts: self.parts,
            connections_left: left,
            connections_left_range: left_range,
            connections_max: left.map(|left| left.saturating_add(self.connections)),
            seconds_left: None,
            seconds_left_range: None,
            trend: Trend::Unknown,
            first: false,
            basis: self.basis,
        };
        // What it is at this moment; where there are moments before, `Levels` knows better.
        ceiling.level = Thresholds::default().reached_by_use(&ceiling);
        ceiling
    }
}

#[cfg(test)]
mod tests;
