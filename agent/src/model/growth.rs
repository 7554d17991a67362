//! How fast the number of connections grows: over the whole host, in each process, and in each cgroup that has a limit.

mod heights;
mod series;
mod window;

use std::collections::BTreeMap;
use std::time::Duration;

pub use series::{Forecast, Growth};

use super::lineage::{Lineages, MEMORY, without_generated_names};
use crate::document::Range;

/// Cgroups that are gone and still remembered; beyond, the one that is gone longest is forgotten.
const GONE_KEPT: usize = 256;

/// A count that belongs to someone whose like may have been here before.
#[derive(Debug, Clone)]
struct Kin<F> {
    family: F,
    growth: Growth,
    seen: Duration,
}

/// Growth of the host's connections, and of each process's and cgroup's own.
#[derive(Debug, Clone, Default)]
pub struct Growths {
    total: Growth,
    /// By line, so that a process that was restarted is known again.
    lines: BTreeMap<u64, Kin<u64>>,
    /// Pid to line, of processes that are there.
    present: BTreeMap<u32, u64>,
    cgroups: BTreeMap<String, Kin<String>>,
}

impl Growths {
    /// Takes how many connections older than the agent have been recognised so far, over the whole host: before the count.
    pub fn recognise_total(&mut self, adopted: u64) {
        self.total.recognise(adopted);
    }

    /// The same of processes, by pid.
    pub fn recognise_processes(&mut self, lineages: &Lineages, adopted: impl Iterator<Item = (u32, u64)>) {
        for (pid, adopted) in adopted {
            let line = lineages.of(pid).and_then(|lineage| self.lines.get_mut(&lineage.id));
            line.into_iter().for_each(|kin| kin.growth.recognise(adopted));
        }
    }

    /// The same of cgroups, by path.
    pub fn recognise_cgroups<'a>(&mut self, adopted: impl Iterator<Item = (&'a str, u64)>) {
        for (path, adopted) in adopted {
            self.cgroups.get_mut(path).into_iter().for_each(|kin| kin.growth.recognise(adopted));
        }
    }

    /// Takes the count over the whole host.
    pub fn observe_total(&mut self, at: Duration, connections: u64) {
        self.total.observe(at, connections);
    }

    /// Takes the counts of all processes that hold connections, whose lines `lineages` knows.
    pub fn observe_processes(
        &mut self,
        at: Duration,
        lineages: &Lineages,
        counts: impl Iterator<Item = (u32, u64)>,
    ) {
        let members: Vec<_> =
            counts.filter_map(|(pid, count)| Some((pid, lineages.of(pid)?, count))).collect();
        self.present = members.iter().map(|(pid, lineage, _)| (*pid, lineage.id)).collect();
        let counts = members.iter().map(|(_, lineage, count)| (lineage.id, lineage.family, *count));
        observe(&mut self.lines, at, counts.collect());
        self.lines.retain(|id, _| lineages.remembers(*id));
    }

    /// Takes the sums of the cgroups that have a limit.
    pub fn observe_cgroups<'a>(&mut self, at: Duration, sums: impl Iterator<Item = (&'a str, u64)>) {
        let sums = sums.map(|(path, count)| (path.to_owned(), without_generated_names(path), count));
        observe(&mut self.cgroups, at, sums.collect());
        let mut seen: Vec<Duration> = self.cgroups.values().map(|kin| kin.seen).collect();
        seen.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = seen.get(GONE_KEPT).copied().unwrap_or_default().max(at.saturating_sub(MEMORY));
        self.cgroups.retain(|_, kin| kin.seen >= oldest);
    }

    /// What the count behind a ceiling's `scope` is doing, and when `left` more connections will have come. A process's or
    /// cgroup's limit is reached by its own growth, not by that of its neighbours; all others by the host's.
    pub fn forecast(&self, scope: &str, left: Option<u64>, range: Option<Range>) -> Forecast {
        let growth = match scope.split_once(':') {
            Some(("process", pid)) => {
                let line = pid.parse().ok().and_then(|pid: u32| self.present.get(&pid));
                line.and_then(|line| self.lines.get(line)).map(|kin| &kin.growth)
            }
            Some(("cgroup", path)) => Some(self.cgroups.get(path).map_or(&self.total, |kin| &kin.growth)),
            _ => Some(&self.total),
        };
        growth.map_or_else(Forecast::default, |growth| growth.forecast(left, range))
    }
}

/// Who is new begins below the height that its like have had before this moment.
fn observe<K: Ord, F: PartialEq>(kin: &mut BTreeMap<K, Kin<F>>, at: Duration, counts: Vec<(K, F, u64)>) {
    let newcomers: Vec<Growth> = counts
        .iter()
        .map(|(_, family, _)| {
            let like = kin.values().filter(|other| other.family == *family);
            Growth::of_newcomer(at, like.map(|other| other.growth.highest()).max().unwrap_or(0))
        })
        .collect();
    for ((key, family, count), newcomer) in counts.into_iter().zip(newcomers) {
        let one = kin.entry(key).or_insert(Kin { family, growth: newcomer, seen: at });
        one.growth.observe(at, count);
        one.seen = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Trend;
    use crate::model::Member;

    /// Counts of processes by pid and command, one second after the other.
    struct Host {
        growths: Growths,
        lineages: Lineages,
        second: u64,
    }

    impl Host {
        fn new() -> Self {
            Self { growths: Growths::default(), lineages: Lineages::default(), second: 0 }
        }

        fn second(&mut self, counts: &[(u32, u64)]) {
            let at = Duration::from_secs(self.second);
            self.second += 1;
            let members: Vec<Member<'_>> = counts
                .iter()
                .map(|(pid, connections)| Member {
                    pid: *pid,
                    comm: "server",
                    cgroup: Some("/web"),
                    connections: *connections,
                })
                .collect();
            self.lineages.observe(at, &members);
            self.growths.observe_total(at, counts.iter().map(|(_, count)| count).sum());
            self.growths.observe_processes(at, &self.lineages, counts.iter().copied());
        }

        fn forecast(&self, scope: &str, left: u64) -> Forecast {
            self.growths.forecast(scope, Some(left), None)
        }
    }

    #[test]
    fn a_process_grows_by_itself() {
        let mut host = Host::new();
        for second in 0..20 {
            host.second(&[(7, 1_000 + 10 * second), (8, 1_100)]);
        }
        let total = host.forecast("host", 300);
        assert!((total.seconds_left.expect("growing") - 30.0).abs() < 1e-6);
        let seven = host.forecast("process:7", 300);
        assert!((seven.seconds_left.expect("growing") - 30.0).abs() < 1e-6);
        assert_eq!(host.forecast("process:8", 300).trend, Trend::Steady);
        assert_eq!(host.forecast("process:9", 300), Forecast::default());
    }

    #[test]
    fn a_restarted_process_recovers() {
        let mut host = Host::new();
        for _ in 0..60 {
            host.second(&[(7, 7_000)]);
        }
        host.second(&[]);
        for second in 0..30 {
            host.second(&[(9, 200 * second)]);
        }
        assert_eq!(host.forecast("process:9", 4_200).trend, Trend::Recovering);
        assert_eq!(host.forecast("process:7", 4_200).trend, Trend::Unknown, "it is gone");
    }

    #[test]
    fn a_successor_that_starts_before_the_old_one_ends_recovers_too() {
        let mut host = Host::new();
        for _ in 0..60 {
            host.second(&[(7, 7_000)]);
        }
        for second in 0..30 {
            host.second(&[(7, 7_000 - 200 * second), (9, 200 * second)]);
        }
        assert_eq!(host.forecast("process:9", 4_200).trend, Trend::Recovering);
    }

    #[test]
    fn workers_that_grow_alike_are_no_recovery_of_each_other() {
        let mut host = Host::new();
        for second in 0..120 {
            host.second(&[(7, 3_000 + 10 * second), (8, 3_040 + 10 * second)]);
        }
        assert_eq!(host.forecast("process:7", 4_000).trend, Trend::Growing);
        assert_eq!(host.forecast("process:8", 4_000).trend, Trend::Growing);
    }

    #[test]
    fn cgroups_have_their_own_growth_and_are_forgotten() {
        let mut growths = Growths::default();
        let group = |id: u64| format!("/docker-{:064x}.scope", id * 7_919);
        for second in 0..30 {
            growths
                .observe_cgroups(Duration::from_secs(second), [(group(1).as_str(), 10 * second)].into_iter());
        }
        let scope = format!("cgroup:{}", group(1));
        assert!(
            (growths.forecast(&scope, Some(100), None).seconds_left.expect("growing") - 10.0).abs() < 1e-6
        );
        for second in 30..60 {
            let count = 5 * (second - 30);
            growths.observe_cgroups(Duration::from_secs(second), [(group(2).as_str(), count)].into_iter());
        }
        let scope = format!("cgroup:{}", group(2));
        assert_eq!(growths.forecast(&scope, Some(1_000), None).trend, Trend::Recovering);
        for other in 0..1_000 {
            growths.observe_cgroups(
                Duration::from_secs(60 + other),
                [(group(3 + other).as_str(), 1)].into_iter(),
            );
        }
        assert!(growths.cgroups.len() <= GONE_KEPT + 1, "{}", growths.cgroups.len());
    }
}
