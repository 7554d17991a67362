//! Ceilings from readings: each limit that is in force, what is used of it, and what that means in connections.

mod accept_queue;
mod bandwidth;
mod conntrack;
mod cpu;
mod descriptors;
mod epoll;
#[cfg(test)]
pub(super) mod fixture;
mod maps;
mod memory;
mod packets;
mod ports;
mod tasks;

use std::time::Duration;

use super::{Costs, Estimate, Growths, Lineages, ProcessReading, Rates, Reading, Summary, Thresholds};
use crate::document::{Ceiling, CostPart, Kind, Level, Listener, Range, Trend, Unit};

/// Everything the ceilings are computed from.
pub struct Inputs<'a> {
    /// Tracked connections open now.
    pub connections: u64,
    /// The host now.
    pub reading: &'a Reading,
    /// The host some seconds ago, for rates; none on the first tick.
    pub earlier: Option<Earlier<'a>>,
    /// Sums over connections, as of now.
    pub summary: &'a Summary,
    /// The same as the last sweep found them, for what is read with it.
    pub swept: &'a Summary,
    /// Sums by listener now.
    pub listeners: &'a [Listener],
    /// What connections carry.
    pub rates: &'a Rates,
    /// Growth of the connection count.
    pub growth: &'a Growths,
    /// How the use of limits went with the number of connections.
    pub costs: &'a Costs,
    /// Which process is which over restarts.
    pub lineages: &'a Lineages,
}

/// An earlier moment.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// The host then.
    pub reading: &'a Reading,
    /// How long ago that was.
    pub elapsed: Duration,
    /// Connections that had been opened since the agent attached.
    pub opened: u64,
    /// How many connections were open since then, on the average.
    pub mean_connections: f64,
}

impl Inputs<'_> {
    /// What one more connection takes, as far as it was observed.
    fn observed_cost(&self, kind: Kind, scope: &str) -> Option<Estimate> {
        self.costs.cost(kind, &self.lineages.scope(scope))
    }

    /// What a rate since the earlier reading leaves out of what `connections` use by now: it is that of the mean count, and some
    /// came meanwhile.
    fn pending(&self, connections: u64, cost: Option<Estimate>) -> f64 {
        let Some((earlier, cost)) = self.earlier.zip(cost).filter(|_| self.connections > 0) else {
            return 0.0;
        };
        let came = 1.0 - earlier.mean_connections / self.connections as f64;
        connections as f64 * came * cost.value
    }

    /// The part of `used` that the next connections take up again.
    fn reusable(&self, kind: Kind, scope: &str, connections: u64, used: u64) -> f64 {
        self.costs.reusable(kind, &self.lineages.scope(scope), connections, used)
    }
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
        let (left, range) = (ceiling.connections_left, ceiling.connections_left_range);
        let forecast = inputs.growth.forecast(&ceiling.scope, left, range);
        ceiling.trend = forecast.trend;
        (ceiling.seconds_left, ceiling.seconds_left_range) =
            (forecast.seconds_left, forecast.seconds_left_range);
    }
    order(&mut all);
    all
}

/// Puts the first to be hit first and names it. Processor time is no wall: with too little of it everything takes longer and
/// nothing fails, so it stands behind those where something does.
pub(super) fn order(all: &mut [Ceiling]) {
    let rank = |ceiling: &Ceiling| match (ceiling.connections_left, ceiling.kind) {
        (Some(left), Kind::Cpu) => (1, left),
        (Some(left), _) => (0, left),
        (None, _) => (2, 0),
    };
    // A stable sort: among equals the order of making stands.
    all.sort_by_key(rank);
    for (place, ceiling) in all.iter_mut().enumerate() {
        ceiling.first = place == 0 && rank(ceiling).0 == 0;
    }
}

/// The scope of what a process alone is limited in.
pub fn process_scope(pid: u32) -> String {
    format!("process:{pid}")
}

/// Connections that these processes hold.
fn connections<'a>(summary: &Summary, processes: impl Iterator<Item = &'a ProcessReading>) -> u64 {
    let held = |process: &ProcessReading| summary.holders.get(&process.pid);
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
    /// What a connection takes by definition, or by the sum of its parts; a slope that was observed comes first.
    cost: Option<Estimate>,
    parts: Vec<CostPart>,
    /// The part of `used` that the next connections take up again.
    reusable: f64,
    /// What the connections there are will use beside it.
    pending: f64,
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
            pending: 0.0,
            basis,
        }
    }

    fn ceiling(mut self, inputs: &Inputs<'_>) -> Ceiling {
        self.observed(inputs);
        let known = self.used.zip(self.limit).filter(|(_, limit)| *limit > 0);
        let utilization = known.map(|(used, limit)| used as f64 / limit as f64);
        let room = known
            .map(|(used, limit)| (limit.saturating_sub(used) as f64 + self.reusable - self.pending).max(0.0));
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

    /// Lets the use that was observed at different counts decide, where there is such.
    fn observed(&mut self, inputs: &Inputs<'_>) {
        let Some(cost) = slope(inputs, self.kind, &self.scope) else { return };
        // What a connection takes by definition it takes at least, whatever else went on meanwhile; and where nothing is taken,
        // the reason that was given says more.
        if matches!(self.kind, Kind::Descriptors | Kind::Conntrack | Kind::EpollWatches)
            && self.cost.is_none_or(|least| cost.value <= least.value)
        {
            return;
        }
        self.reusable =
            self.used.map_or(0.0, |used| inputs.reusable(self.kind, &self.scope, self.connections, used));
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
    let cost = inputs.observed_cost(kind, scope)?;
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
