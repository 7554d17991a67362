//! Which process is which over restarts: a server that was restarted has another pid and the same work. What was learned of
//! it (how many connections it had, what one of them costs) must not be learned anew after each deploy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A process that is gone is remembered for a day and a little, so that what it was like at this hour yesterday is known.
pub(super) const MEMORY: Duration = Duration::from_secs(26 * 3600);
/// Processes that are gone and still remembered; beyond, the one that is gone longest is forgotten.
const GONE_KEPT: usize = 256;
/// Hexadecimal digits in a row that are a generated name: container ids have 64, abbreviated ones 12, pods' UIDs 32.
const GENERATED_DIGITS: usize = 12;

/// A process that is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Process id.
    pub pid: u32,
    /// Command name.
    pub comm: &'a str,
    /// Cgroup path.
    pub cgroup: Option<&'a str>,
    /// Connections it holds.
    pub connections: u64,
}

/// A process's place in the history of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lineage {
    /// Number of the line: stays the same over restarts, and no two processes have it at once.
    pub id: u64,
    /// Which process of the line this is, from 0: one more for each restart.
    pub life: u32,
    /// Number of the family: lines of the same command in cgroups that differ by generated names at most, such as the
    /// workers of one server, or a container and the one that a deploy puts in its place.
    pub family: u64,
}

#[derive(Debug, Clone)]
struct Line {
    identity: (String, Option<String>),
    lineage: Lineage,
    pid: u32,
    connections: u64,
    seen: Duration,
}

/// All lines: those of processes that are there, and for [`MEMORY`] those of processes that are gone.
#[derive(Debug, Clone, Default)]
pub struct Lineages {
    lines: BTreeMap<u64, Line>,
    /// Pid to line, of processes that are there.
    present: BTreeMap<u32, u64>,
    families: BTreeMap<(String, Option<String>), u64>,
    next: u64,
}

impl Lineages {
    /// Takes the processes that are there at monotonic time `at`. A newcomer continues the line of a process with the same command
    /// and cgroup that is gone: its own, if it was away only, else the one that held most.
    pub fn observe(&mut self, at: Duration, members: &[Member<'_>]) {
        let before = std::mem::take(&mut self.present);
        let known = |pid: &u32| before.get(pid).copied();
        // Who was there keeps its line, and only then newcomers are served: a line is free when its process is not listed.
        for member in members {
            if let Some(id) = known(&member.pid) {
                self.present.insert(member.pid, id);
                self.renew(id, at, member);
            }
        }
        for member in members.iter().filter(|member| known(&member.pid).is_none()) {
            let id = self.vacant(member).unwrap_or_else(|| self.found(member));
            self.present.insert(member.pid, id);
            self.renew(id, at, member);
        }
        self.forget(at);
    }

    /// The line of a process that is there.
    pub fn of(&self, pid: u32) -> Option<Lineage> {
        self.lines.get(self.present.get(&pid)?).map(|line| line.lineage)
    }

    /// The name under which something of a scope is kept over restarts: that of the line for `process:PID`, else the scope.
    pub fn scope(&self, scope: &str) -> String {
        let pid = scope.strip_prefix("process:").and_then(|pid| pid.parse().ok());
        pid.and_then(|pid| self.of(pid))
            .map_or_else(|| scope.to_owned(), |lineage| format!("line:{}", lineage.id))
    }

    /// Whether a line is still remembered: what is kept for it elsewhere may go when it is not.
    pub fn remembers(&self, id: u64) -> bool {
        self.lines.contains_key(&id)
    }

    fn renew(&mut self, id: u64, at: Duration, member: &Member<'_>) {
        let family = self.family(member);
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.lineage.life += u32::from(line.pid != member.pid);
        (line.pid, line.connections, line.seen) = (member.pid, member.connections, at);
        // A process that renames or moves itself stays itself.
        if line.identity.0 != member.comm || line.identity.1.as_deref() != member.cgroup {
            line.identity = identity(member);
            line.lineage.family = family;
        }
    }

    fn vacant(&self, member: &Member<'_>) -> Option<u64> {
        let taken = |line: &Line| self.present.get(&line.pid) == Some(&line.lineage.id);
        self.lines
            .values()
            .filter(|line| line.identity.0 == member.comm && line.identity.1.as_deref() == member.cgroup)
            .filter(|line| !taken(line))
            .max_by_key(|line| (line.pid == member.pid, line.connections, std::cmp::Reverse(line.lineage.id)))
            .map(|line| line.lineage.id)
    }

    fn found(&mut self, member: &Member<'_>) -> u64 {
        let id = self.number();
        let lineage = Lineage { id, life: 0, family: self.family(member) };
        let line = Line {
            identity: identity(member),
            lineage,
            pid: member.pid,
            connections: 0,
            seen: Duration::ZERO,
        };
        self.lines.insert(id, line);
        id
    }

    fn family(&mut self, member: &Member<'_>) -> u64 {
        let name = (member.comm.to_owned(), member.cgroup.map(without_generated_names));
        match self.families.get(&name) {
            Some(family) => *family,
            None => {
                let family = self.number();
                self.families.insert(name, family);
                family
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn forget(&mut self, at: Duration) {
        let mut gone: Vec<(Duration, u64)> = self
            .lines
            .values()
            .filter(|line| self.present.get(&line.pid) != Some(&line.lineage.id))
            .map(|line| (line.seen, line.lineage.id))
            .collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(GONE_KEPT);
        for (place, (seen, id)) in gone.into_iter().enumerate() {
            if place < surplus || at.saturating_sub(seen) > MEMORY {
                self.lines.remove(&id);
            }
        }
        let families: BTreeSet<u64> = self.lines.values().map(|line| line.lineage.family).collect();
        self.families.retain(|_, family| families.contains(family));
    }
}

fn identity(member: &Member<'_>) -> (String, Option<String>) {
    (member.comm.to_owned(), member.cgroup.map(str::to_owned))
}

/// A cgroup's path with `*` for every run of hexadecimal digits (and the dashes and underscores of UIDs) that is long enough
/// to be generated.
pub(super) fn without_generated_names(path: &str) -> String {
    let in_run = |c: char| matches!(c, '0'..='9' | 'a'..='f' | '-' | '_');
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| in_run(c) != in_run(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        let generated = run.chars().filter(char::is_ascii_hexdigit).count() >= GENERATED_DIGITS;
        text.push_str(if in_run(first) && generated { "*" } else { run });
        rest = after;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn member(pid: u32, comm: &'static str, connections: u64) -> Member<'static> {
        Member { pid, comm, cgroup: Some("/web"), connections }
    }

    fn of(lineages: &Lineages, pid: u32) -> Lineage {
        lineages.of(pid).expect("there")
    }

    #[test]
    fn a_restarted_process_continues_its_line() {
        let mut lineages = Lineages::default();
        lineages.observe(HOUR, &[member(7, "server", 100), member(8, "proxy", 100)]);
        let (server, proxy) = (of(&lineages, 7), of(&lineages, 8));
        assert_ne!(server.id, proxy.id);
        lineages.observe(2 * HOUR, &[member(8, "proxy", 100)]);
        assert_eq!(lineages.of(7), None);
        lineages.observe(3 * HOUR, &[member(8, "proxy", 100), member(9, "server", 0)]);
        assert_eq!(of(&lineages, 9), Lineage { life: 1, ..server });
        assert_eq!(of(&lineages, 8), proxy);
    }

    #[test]
    fn workers_are_apart_and_a_newcomer_takes_the_largest_vacancy() {
        let mut lineages = Lineages::default();
        let workers = [member(1, "w", 10), member(2, "w", 30), member(3, "w", 20)];
        lineages.observe(HOUR, &workers);
        let ids = [1, 2, 3].map(|pid| of(&lineages, pid).id);
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_eq!(of(&lineages, 1).family, of(&lineages, 3).family);
        lineages.observe(2 * HOUR, &[workers[0], member(4, "w", 0), member(5, "w", 0), member(6, "w", 0)]);
        assert_eq!([4, 5].map(|pid| of(&lineages, pid).id), [ids[1], ids[2]]);
        assert_eq!(of(&lineages, 6).life, 0, "there were two vacancies for three newcomers");
    }

    #[test]
    fn who_was_away_comes_back_to_its_own_line_and_life() {
        let mut lineages = Lineages::default();
        lineages.observe(HOUR, &[member(1, "w", 10), member(2, "w", 30)]);
        let first = of(&lineages, 1);
        lineages.observe(2 * HOUR, &[]);
        lineages.observe(3 * HOUR, &[member(1, "w", 5)]);
        assert_eq!(of(&lineages, 1), first);
    }

    #[test]
    fn a_line_is_forgotten_after_a_day_and_a_little() {
        let mut lineages = Lineages::default();
        lineages.observe(HOUR, &[member(1, "w", 10)]);
        let id = of(&lineages, 1).id;
        lineages.observe(27 * HOUR, &[]);
        assert!(lineages.remembers(id));
        lineages.observe(28 * HOUR, &[]);
        assert!(!lineages.remembers(id));
        assert!(lineages.families.is_empty());
    }

    #[test]
    fn many_short_lives_do_not_pile_up() {
        let mut lineages = Lineages::default();
        for pid in 0..3_000 {
            let comm = format!("job-{pid}");
            lineages.observe(HOUR, &[Member { pid, comm: &comm, cgroup: None, connections: 1 }]);
        }
        assert!(lineages.lines.len() <= GONE_KEPT + 1 && lineages.families.len() <= GONE_KEPT + 1);
    }

    #[test]
    fn a_container_and_its_successor_are_one_family_and_two_lines() {
        let mut lineages = Lineages::default();
        let [old, new] = [
            "/kubepods.slice/kubepods-pod0d6a41ad_7b7d_4a2c_8a5a_2f1d6c9e0b11.slice/cri-containerd-4f5e6d7c8b9a.scope",
            "/kubepods.slice/kubepods-pod91f3c2b4_0a1b_4c3d_9e8f_7a6b5c4d3e2f.slice/cri-containerd-a1b2c3d4e5f6.scope",
        ];
        let member = |pid, cgroup, comm| Member { pid, comm, cgroup: Some(cgroup), connections: 1 };
        lineages.observe(HOUR, &[member(1, old, "node"), member(2, old, "envoy")]);
        lineages.observe(HOUR, &[member(1, old, "node"), member(3, new, "node"), member(2, old, "envoy")]);
        assert_eq!(of(&lineages, 1).family, of(&lineages, 3).family);
        assert_ne!(of(&lineages, 1).id, of(&lineages, 3).id);
        assert_ne!(of(&lineages, 2).family, of(&lineages, 3).family);
        assert_eq!(
            without_generated_names("/system.slice/facade-feed.service"),
            "/system.slice/facade-feed.service"
        );
    }
}
