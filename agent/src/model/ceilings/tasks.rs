//! Tasks: processes and threads, of each limited cgroup and of the host.

use std::collections::BTreeMap;

use super::{Inputs, Parts, connections};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{CgroupTasks, ProcessReading};

/// An event loop takes no thread for a connection, and a thread pool takes some for all of them.
const UNPRICED: &str = "what a connection takes is not known: it may be none, as with an event loop";

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut all = cgroups(inputs);
    all.push(host(inputs));
    all
}

fn host(inputs: &Inputs<'_>) -> Ceiling {
    let tasks = inputs.reading.tasks;
    let limit = tasks.map(|tasks| tasks.pid_max.min(tasks.threads_max));
    let what = match tasks {
        Some(tasks) if tasks.pid_max <= tasks.threads_max => {
            "threads of all processes against kernel.pid_max"
        }
        Some(_) => "threads of all processes against kernel.threads-max",
        None => "/proc/loadavg or the limits in /proc/sys/kernel cannot be read",
    };
    let parts = Parts {
        used: tasks.map(|tasks| tasks.used),
        limit,
        connections: inputs.summary.total().connections,
        ..Parts::new(Kind::Tasks, "host".into(), Unit::Tasks, format!("{what}; {UNPRICED}"))
    };
    parts.ceiling(inputs)
}

/// One ceiling for each limited group, whichever of its descendants the processes are in.
fn cgroups(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut groups: BTreeMap<&str, (&CgroupTasks, Vec<&ProcessReading>)> = BTreeMap::new();
    for process in &inputs.reading.processes {
        if let Some(tasks) = &process.cgroup_tasks {
            groups.entry(&tasks.path).or_insert_with(|| (tasks, Vec::new())).1.push(process);
        }
    }
    let ceiling = |(path, (tasks, members)): (&str, (&CgroupTasks, Vec<&ProcessReading>))| {
        let parts = Parts {
            used: Some(tasks.used),
            limit: Some(tasks.limit),
            connections: connections(inputs.summary, members.into_iter()),
            ..Parts::new(
                Kind::Tasks,
                format!("cgroup:{path}"),
                Unit::Tasks,
                format!("the cgroup's pids.current and pids.max; {UNPRICED}"),
            )
        };
        parts.ceiling(inputs)
    };
    groups.into_iter().map(ceiling).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Level;
    use crate::model::ceilings::fixture::{compute, find, holders};
    use crate::model::{HostTasks, Reading};

    #[test]
    fn the_lower_of_the_hosts_limits_holds() {
        let tasks = |pid_max, threads_max| {
            let tasks = Some(HostTasks { used: 100, pid_max, threads_max });
            let all = compute(&Reading { tasks, ..Reading::default() }, &holders(&[(7, 5)]));
            find(&all, Kind::Tasks, "host").clone()
        };
        let low = tasks(32_768, 60_000);
        assert_eq!((low.limit, low.connections, low.connections_left), (Some(32_768), 5, None));
        assert!(low.basis.contains("pid_max") && low.basis.contains("event loop"), "{}", low.basis);
        assert_eq!(tasks(32_768, 110).level, Level::Near);
    }

    #[test]
    fn members_of_a_limited_group_are_summed() {
        let limited = CgroupTasks { path: "/pod".into(), used: 97, limit: 100 };
        let member = |pid| ProcessReading { pid, cgroup_tasks: Some(limited.clone()), ..Default::default() };
        let reading = Reading { processes: vec![member(7), member(8)], ..Reading::default() };
        let all = compute(&reading, &holders(&[(7, 5), (8, 6), (9, 100)]));
        let group = find(&all, Kind::Tasks, "cgroup:/pod");
        assert_eq!((group.used, group.limit, group.connections), (Some(97), Some(100), 11));
        assert_eq!(group.level, Level::Critical);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let all = compute(&Reading::default(), &holders(&[]));
        let host = find(&all, Kind::Tasks, "host");
        assert_eq!((host.used, host.limit, host.level), (None, None, Level::Unknown));
    }
}
