//! What has a past: who is who over restarts, how counts grow, and how near ceilings have been.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Growths, Levels, Lineages, Member, Reading, Summary, Thresholds};

/// What the engine remembers of connection counts and ceilings.
#[derive(Debug, Default)]
pub(super) struct Trends {
    pub(super) lineages: Lineages,
    pub(super) growth: Growths,
    pub(super) levels: Levels,
}

impl Trends {
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self { levels: Levels::new(thresholds), ..Self::default() }
    }

    /// Takes the counts by process and by limited cgroup, of a sweep and a reading of the same tick.
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
        let counts = members.iter().map(|member| (member.pid, member.connections));
        self.growth.observe_processes(at, &self.lineages, counts);
        let mut cgroups: BTreeMap<&str, u64> = BTreeMap::new();
        for process in processes {
            if let Some(memory) = &process.cgroup_memory {
                *cgroups.entry(&memory.path).or_default() += held(process.pid);
            }
        }
        self.growth.observe_cgroups(at, cgroups.into_iter());
    }
}
