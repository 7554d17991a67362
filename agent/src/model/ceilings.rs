//! Ceilings from readings: each limit that is in force, what is used of it, and what that means in connections.

mod bandwidth;
mod descriptors;
mod memory;

use std::time::Duration;

use super::{Costs, Estimate, Growths, Rates, Reading, Summary};
use crate::document::{Ceiling, CostPart, Kind, Level, Range, Trend, Unit};

/// A share of the limit from which a ceiling is near, and critical.
const NEAR: f64 = 0.8;
const CRITICAL: f64 = 0.95;

/// Everything the ceilings are computed from.
pub struct Inputs<'a> {
    /// Tracked connections open now.
    pub connections: u64,
    /// The host now.
    pub reading: &'a Reading,
    /// The host some seconds ago and how long ago that was, for rates; none on the first tick.
    pub earlier: Option<(&'a Reading, Duration)>,
    /// Sums over connections, by the last sweep.
    pub summary: &'a Summary,
    /// What connections carry.
    pub rates: &'a Rates,
    /// Growth of the connection count.
    pub growth: &'a Growths,
    /// How the use of limits went with the number of connections.
    pub costs: &'a Costs,
}

/// All ceilings, the first to be hit first, unknown ones last.
pub fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut all = memory::ceilings(inputs);
    all.extend(descriptors::ceilings(inputs));
    all.extend(bandwidth::ceilings(inputs));
    for ceiling in &mut all {
        // A process's limit is reached by its own growth, not by that of its neighbours.
        let process = ceiling.scope.strip_prefix("process:").and_then(|pid| pid.parse().ok());
        ceiling.seconds_left =
            ceiling.connections_left.and_then(|left| inputs.growth.seconds_until(process, left));
    }
    // A stable sort: among equals the order above stands.
    all.sort_by_key(|ceiling| ceiling.connections_left.unwrap_or(u64::MAX));
    if let Some(first) = all.first_mut().filter(|ceiling| ceiling.connections_left.is_some()) {
        first.first = true;
    }
    all
}

/// The scope of what a process alone is limited in.
pub fn process_scope(pid: u32) -> String {
    format!("process:{pid}")
}

/// How near a limit is, by the share of it that is used.
pub(super) fn level(utilization: Option<f64>) -> Level {
    match utilization {
        None => Level::Unknown,
        Some(share) if share >= CRITICAL => Level::Critical,
        Some(share) if share >= NEAR => Level::Near,
        Some(_) => Level::Ok,
    }
}

/// What a ceiling is made of before its consequences are computed.
struct Parts {
    kind: Kind,
    scope: String,
    unit: Unit,
    used: Option<u64>,
    limit: Option<u64>,
    connections: u64,
    /// What a connection takes by definition, or by the sum of its parts; a slope that was observed comes first.
    cost: Option<Estimate>,
    parts: Vec<CostPart>,
    /// The part of `used` that the next connections take up again.
    reusable: f64,
    basis: String,
}

impl Parts {
    /// Nothing known yet.
    fn new(kind: Kind, scope: String, unit: Unit, basis: String) -> Self {
        Self {
            kind,
            scope,
            unit,
            used: None,
            limit: None,
            connections: 0,
            cost: None,
            parts: Vec::new(),
            reusable: 0.0,
            basis,
        }
    }

    fn ceiling(mut self, inputs: &Inputs<'_>) -> Ceiling {
        self.observed(inputs);
        let known = self.used.zip(self.limit).filter(|(_, limit)| *limit > 0);
        let utilization = known.map(|(used, limit)| used as f64 / limit as f64);
        let room = known.map(|(used, limit)| limit.saturating_sub(used) as f64 + self.reusable);
        let cost = self.cost.filter(|cost| cost.value > 0.0);
        let left = room.zip(cost).map(|(room, cost)| (room / cost.value) as u64);
        let left_range = room.zip(cost.filter(|cost| !cost.is_exact())).map(|(room, cost)| Range {
            least: (room / cost.most).floor(),
            most: (cost.least > 0.0).then(|| (room / cost.least).floor()),
        });
        Ceiling {
            kind: self.kind,
            scope: self.scope,
            used: self.used,
            limit: self.limit,
            unit: self.unit,
            utilization,
            level: level(utilization),
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
        }
    }

    /// Lets the use that was observed at different counts decide, where there is such.
    fn observed(&mut self, inputs: &Inputs<'_>) {
        let Some(cost) = slope(inputs, self.kind, &self.scope) else { return };
        self.reusable = self
            .used
            .map_or(0.0, |used| inputs.costs.reusable(self.kind, &self.scope, self.connections, used));
        let how = "cost: slope of that use over the number of connections";
        match self.basis.split_once("; cost: ") {
            Some((before, parts)) => self.basis = format!("{before}; {how}; its parts: {parts}"),
            None => self.basis = format!("{}; {how}", self.basis),
        }
        self.cost = Some(cost);
    }
}

/// Whether a limit's use follows from the connections under it closely enough for its slope to be their cost, and how
/// closely. The host as a whole has too many other users.
fn slope(inputs: &Inputs<'_>, kind: Kind, scope: &str) -> Option<Estimate> {
    /// Costs that are counts are multiples of this.
    const STEP: f64 = 0.5;
    /// A slope this near to such a multiple is one, and the rest is what else the process does.
    const NOISE: f64 = 0.05;
    let counted = match kind {
        Kind::Memory if scope.starts_with("cgroup:") => false,
        Kind::Descriptors | Kind::Tasks if scope != "host" => true,
        Kind::Conntrack | Kind::EpollWatches | Kind::MemoryMaps => true,
        _ => return None,
    };
    let cost = inputs.costs.cost(kind, scope)?;
    let whole = (cost.value / STEP).round() * STEP;
    if counted && (cost.value - whole).abs() <= NOISE {
        return Some(Estimate {
            value: whole,
            least: cost.least.min(whole),
            most: cost.most.max(whole),
            ..cost
        });
    }
    Some(cost)
}

#[cfg(test)]
mod tests;
