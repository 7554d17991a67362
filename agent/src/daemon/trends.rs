//! What has a past: who is who over restarts, how counts grow, what connections cost and carry, and how near ceilings have
//! been.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::time::Duration;

use crate::document::{Ceiling, Kind};
use crate::model::{
    Costs, Growths, Holder, Levels, Lineages, Member, Rates, Reading, Summary, Thresholds, process_scope,
};

/// What the engine remembers of connection counts and ceilings.
#[derive(Debug, Default)]
pub(super) struct Trends {
    pub(super) lineages: Lineages,
    pub(super) growth: Growths,
    pub(super) levels: Levels,
    pub(super) costs: Costs,
    pub(super) rates: Rates,
}

impl Trends {
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self { levels: Levels::new(thresholds), ..Self::default() }
    }

    /// Takes the counts by process and by limited cgroup, of this tick.
    pub(super) fn observe(&mut self, at: Duration, summary: &Summary, reading: &Reading) {
        let held = |pid: u32| summary.holders.get(&pid).map_or(0, |holder| holder.connections);
        let processes = reading.processes.iter();
        let members: Vec<Member<'_>> = processes
            .clone()
            .map(|process| Member {
                pid: process.pid,
                comm: &process.comm,
                cgroup: process.cgroup.as_deref(),
                connections: held(process.pid),
            })
            .collect();
        self.lineages.observe(at, &members);
        let older = |pid: u32| summary.holders.get(&pid).map_or(0, Holder::older);
        self.growth.recognise_processes(&self.lineages, members.iter().map(|one| (one.pid, older(one.pid))));
        let counts = members.iter().map(|member| (member.pid, member.connections));
        self.growth.observe_processes(at, &self.lineages, counts);
        let mut cgroups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for process in processes {
            if let Some(memory) = &process.cgroup_memory {
                let sums = cgroups.entry(&memory.path).or_default();
                *sums = (sums.0 + held(process.pid), sums.1 + older(process.pid));
            }
        }
        self.growth.recognise_cgroups(cgroups.iter().map(|(path, sums)| (*path, sums.1)));
        self.growth.observe_cgroups(at, cgroups.into_iter().map(|(path, sums)| (path, sums.0)));
    }

    /// Sets what is in use against the number of connections, both of this tick; `swept` where what is read with a sweep is of
    /// this tick, too.
    pub(super) fn observe_costs(
        &mut self,
        reading: &Reading,
        summary: &Summary,
        ceilings: &[Ceiling],
        swept: bool,
    ) {
        self.costs.begin();
        let read_with_sweep = |kind| matches!(kind, Kind::EpollWatches | Kind::MemoryMaps | Kind::Ports);
        for ceiling in ceilings.iter().filter(|ceiling| swept || !read_with_sweep(ceiling.kind)) {
            if let Some(used) = ceiling.used {
                let (scope, life) = self.line(&ceiling.scope, reading);
                let counts = (ceiling.connections, older(summary, reading, &ceiling.scope));
                self.costs.observe(ceiling.kind, &scope, life, counts, used);
            }
        }
        for process in &reading.processes {
            let holder = summary.holders.get(&process.pid).copied().unwrap_or_default();
            if let Some(bytes) = process.anonymous_bytes {
                let (scope, life) = self.line(&process_scope(process.pid), reading);
                let counts = (holder.connections, holder.older());
                self.costs.observe(Kind::Memory, &scope, life, counts, bytes);
            }
        }
    }

    /// What a process keeps for a connection, in bytes, where that is known.
    pub(super) fn own_memory(&self, pid: u32) -> Option<f64> {
        let scope = self.lineages.scope(&process_scope(pid));
        self.costs.cost(Kind::Memory, &scope).map(|bytes| bytes.value)
    }

    /// Under which name a scope's costs are kept, and which life of it this is. A cgroup has a new one with each change of its
    /// processes: what a restarted server has in use begins from another base.
    fn line(&self, scope: &str, reading: &Reading) -> (String, u64) {
        let name = self.lineages.scope(scope);
        let pid = scope.strip_prefix("process:").and_then(|pid| pid.parse().ok());
        if let Some(lineage) = pid.and_then(|pid| self.lineages.of(pid)) {
            return (name, lineage.life.into());
        }
        let Some(path) = scope.strip_prefix("cgroup:") else { return (name, 0) };
        let mut hasher = DefaultHasher::new();
        for process in &reading.processes {
            if process.cgroup.as_deref().is_some_and(|cgroup| Path::new(cgroup).starts_with(path)) {
                process.pid.hash(&mut hasher);
            }
        }
        (name, hasher.finish())
    }
}

/// Connections older than the agent that have been found under a scope so far, recognised or presumed. What is neither a process's
/// nor a cgroup's is taken to be everybody's.
fn older(summary: &Summary, reading: &Reading, scope: &str) -> u64 {
    let of = |pid: u32| summary.holders.get(&pid).map_or(0, Holder::older);
    if let Some(pid) = scope.strip_prefix("process:").and_then(|pid| pid.parse().ok()) {
        return of(pid);
    }
    if let Some(path) = scope.strip_prefix("cgroup:") {
        let within = |cgroup: &str| Path::new(cgroup).starts_with(path);
        let members = reading.processes.iter().filter(|one| one.cgroup.as_deref().is_some_and(within));
        return members.map(|process| of(process.pid)).sum();
    }
    summary.total().older()
}
