//! Ceilings from readings: each limit that is in force, what is used of it, and what that means in connections.

mod accept_queue;
mod bandwidth;
mod conntrack;
mod cpu;
mod descriptors;
mod epoll;
#[cfg(test)]
mod fixture;
mod maps;
mod memory;
mod packets;
mod ports;
mod tasks;

use std::time::Duration;

use super::{Estimate, Growths, ProcessCosts, ProcessReading, Reading, Summary};
use crate::document::{Ceiling, CostPart, Kind, Level, Listener, Range, Trend, Unit};

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
    all.extend(packets::ceilings(inputs));
    all.extend(conntrack::ceilings(inputs));
    all.extend(epoll::ceilings(inputs));
    all.extend(accept_queue::ceilings(inputs));
    all.extend(ports::ceilings(inputs));
    all.extend(tasks::ceilings(inputs));
    all.extend(maps::ceilings(inputs));
    all.extend(cpu::ceilings(inputs));
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

/// Connections that these processes hold.
fn connections<'a>(inputs: &Inputs<'_>, processes: impl Iterator<Item = &'a ProcessReading>) -> u64 {
    let held = |process: &ProcessReading| inputs.summary.holders.get(&process.pid);
    processes.filter_map(held).map(|holder| holder.connections).sum()
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
        let level = match utilization {
            None => Level::Unknown,
            Some(share) if share >= CRITICAL => Level::Critical,
            Some(share) if share >= NEAR => Level::Near,
            Some(_) => Level::Ok,
        };
        let room = known.map(|(used, limit)| limit.saturating_sub(used) as f64);
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
            level,
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
}

#[cfg(test)]
mod tests;
