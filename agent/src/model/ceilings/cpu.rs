//! Processor time: of the host, and of each cgroup with a quota.

use std::collections::BTreeMap;

use super::{Earlier, Inputs, Parts, connections};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{CgroupCpu, Estimate, ProcessReading};

/// The kernel counts a process's time in hundredths of a second; less than this between two readings is no measurement.
const LEAST_SECONDS: f64 = 0.05;
/// A share of connections that opened since the earlier reading, beyond which opening is much of what they cost.
const CHURN: f64 = 0.1;

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut all = cgroups(inputs);
    all.push(host(inputs));
    all
}

fn host(inputs: &Inputs<'_>) -> Ceiling {
    let used = inputs.earlier.and_then(|earlier| {
        let busy = inputs.reading.cpu?.busy_seconds - earlier.reading.cpu?.busy_seconds;
        Some(millicores(busy, earlier.elapsed.as_secs_f64()))
    });
    let (cost, how) = cost(inputs, inputs.reading.processes.iter());
    let what = match inputs.reading.cpu {
        Some(_) => "time in which cores were not idle (/proc/stat) against all cores",
        None => "/proc/stat cannot be read",
    };
    let total = inputs.summary.total().connections;
    let parts = Parts {
        used,
        limit: inputs.reading.cpu.map(|cpu| cpu.cores * 1000),
        connections: total,
        cost,
        pending: inputs.pending(total, cost),
        ..Parts::new(Kind::Cpu, "host".into(), Unit::Millicores, format!("{what}; {how}"))
    };
    parts.ceiling(inputs)
}

/// One ceiling for each group with a quota, whichever of its descendants the processes are in.
fn cgroups(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut groups: BTreeMap<&str, (&CgroupCpu, Vec<&ProcessReading>)> = BTreeMap::new();
    for process in &inputs.reading.processes {
        if let Some(cpu) = &process.cgroup_cpu {
            groups.entry(&cpu.path).or_insert_with(|| (cpu, Vec::new())).1.push(process);
        }
    }
    groups.into_iter().map(|(path, (cpu, members))| cgroup(inputs, path, cpu, &members)).collect()
}

fn cgroup(inputs: &Inputs<'_>, path: &str, cpu: &CgroupCpu, members: &[&ProcessReading]) -> Ceiling {
    let (used, what) = match group_seconds(inputs, cpu) {
        Some(seconds) => (seconds, "the cgroup's processor time against its quota"),
        // The hierarchy does not count time: what is known of is what connections hang on.
        None => (
            spent(inputs, members.iter().copied()).map(|(seconds, _)| seconds),
            "processor time of the processes that hold connections (the group's own is not counted) against its quota",
        ),
    };
    let used =
        used.zip(inputs.earlier).map(|(spent, earlier)| millicores(spent, earlier.elapsed.as_secs_f64()));
    let (cost, how) = cost(inputs, members.iter().copied());
    let held = connections(inputs.summary, members.iter().copied());
    let parts = Parts {
        used,
        limit: Some(cpu.millicores),
        connections: held,
        cost,
        pending: inputs.pending(held, cost),
        ..Parts::new(Kind::Cpu, format!("cgroup:{path}"), Unit::Millicores, format!("{what}; {how}"))
    };
    parts.ceiling(inputs)
}

/// What the group used since the earlier reading, as it counts itself; the outer `None` where it does not.
fn group_seconds(inputs: &Inputs<'_>, now: &CgroupCpu) -> Option<Option<f64>> {
    let seconds = now.used_seconds?;
    let before = |reading: &crate::model::Reading| {
        let groups = reading.processes.iter().filter_map(|process| process.cgroup_cpu.as_ref());
        groups.filter(|then| then.path == now.path).find_map(|then| then.used_seconds)
    };
    Some(inputs.earlier.and_then(|earlier| Some((seconds - before(earlier.reading)?).max(0.0))))
}

/// Processor time of a connection, mean over what the processes used since the earlier reading.
fn cost<'a>(
    inputs: &Inputs<'_>,
    processes: impl Iterator<Item = &'a ProcessReading>,
) -> (Option<Estimate>, &'static str) {
    let Some(Earlier { elapsed, .. }) = inputs.earlier else {
        return (None, "known from the second reading on");
    };
    match spent(inputs, processes) {
        Some(_) if opened(inputs) as f64 > CHURN * inputs.connections as f64 => (
            None,
            "many connections open just now: what they cost cannot be told from what opening them costs",
        ),
        None if inputs.summary.total().connections == 0 => (None, "no connection to price yet"),
        None => (None, "the processes of the connections were not known yet at the earlier reading"),
        Some((seconds, _)) if seconds < LEAST_SECONDS => {
            (None, "what connections cost is too little to be measured")
        }
        Some((seconds, connections)) => {
            let millicores = seconds * 1000.0 / elapsed.as_secs_f64() / connections as f64;
            let how = "cost: processor time of the processes that hold connections, mean per connection; what the kernel does in \
                       interrupts on their behalf is not in it";
            (Some(Estimate::exact(millicores)), how)
        }
    }
}

/// Connections opened since the earlier reading.
fn opened(inputs: &Inputs<'_>) -> u64 {
    let opened: u64 = inputs.listeners.iter().map(|listener| listener.opened).sum();
    inputs.earlier.map_or(0, |earlier| opened.saturating_sub(earlier.opened))
}

/// Seconds since the earlier reading and connections, of those processes that hold some and were there then.
fn spent<'a>(inputs: &Inputs<'_>, processes: impl Iterator<Item = &'a ProcessReading>) -> Option<(f64, u64)> {
    let before = inputs.earlier?.reading;
    let (mut seconds, mut held) = (0.0, 0);
    for process in processes {
        let then = before.processes.iter().find(|then| then.pid == process.pid);
        // A number that was another process's, if the time went backwards.
        let Some(then) = then.filter(|then| then.cpu_seconds <= process.cpu_seconds) else {
            continue;
        };
        let own = connections(inputs.summary, std::iter::once(process));
        if own > 0 {
            seconds += process.cpu_seconds - then.cpu_seconds;
            held += own;
        }
    }
    (held > 0).then_some((seconds, held))
}

fn millicores(seconds: f64, elapsed: f64) -> u64 {
    (seconds.max(0.0) * 1000.0 / elapsed).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ceilings::fixture::{compute, find, holders, listener, since};
    use crate::model::{HostCpu, Reading, Summary};

    fn reading(busy_seconds: f64, processes: &[(u32, f64)], group: Option<CgroupCpu>) -> Reading {
        let process = |(pid, cpu_seconds): &(u32, f64)| ProcessReading {
            pid: *pid,
            cpu_seconds: *cpu_seconds,
            cgroup_cpu: group.clone(),
            ..ProcessReading::default()
        };
        Reading {
            cpu: Some(HostCpu { busy_seconds, cores: 2 }),
            processes: processes.iter().map(process).collect(),
            ..Reading::default()
        }
    }

    fn told(then: &Reading, now: &Reading, summary: &Summary, scope: &str) -> Ceiling {
        find(&since(then, &[], now, &[], summary), Kind::Cpu, scope).clone()
    }

    #[test]
    fn the_processes_of_connections_are_what_a_connection_costs() {
        // In 10 s: the host 12 s of 20, the server of 1,000 connections 5 s, another process 3 s.
        let then = reading(100.0, &[(7, 50.0), (8, 10.0)], None);
        let now = reading(112.0, &[(7, 55.0), (8, 13.0)], None);
        let host = told(&then, &now, &holders(&[(7, 1_000), (8, 0)]), "host");
        assert_eq!((host.used, host.limit, host.connections), (Some(1_200), Some(2_000), 1_000));
        assert_eq!((host.cost_per_connection, host.connections_left), (Some(0.5), Some(1_600)));
        assert!(host.basis.contains("interrupts"), "{}", host.basis);
    }

    #[test]
    fn what_was_not_measured_has_no_price() {
        let then = reading(100.0, &[(7, 50.0)], None);
        let now = reading(101.0, &[(7, 50.02)], None);
        let idle = told(&then, &now, &holders(&[(7, 1_000)]), "host");
        assert_eq!((idle.used, idle.cost_per_connection), (Some(100), None));
        assert!(idle.basis.contains("too little"), "{}", idle.basis);
        let reused = told(&then, &reading(101.0, &[(7, 1.0)], None), &holders(&[(7, 1_000)]), "host");
        assert_eq!(reused.cost_per_connection, None);
        let all = compute(&now, &holders(&[(7, 1_000)]));
        let first = find(&all, Kind::Cpu, "host");
        assert_eq!((first.used, first.limit, first.connections_left), (None, Some(2_000), None));
    }

    #[test]
    fn opening_connections_is_not_having_them() {
        let (then, now) = (reading(100.0, &[(7, 50.0)], None), reading(112.0, &[(7, 55.0)], None));
        let cost = |opened: u64| {
            let (before, after) = ([listener(1, 80, 500)], [listener(1, 80, 500 + opened)]);
            let all = since(&then, &before, &now, &after, &holders(&[(7, 1_000)]));
            find(&all, Kind::Cpu, "host").cost_per_connection
        };
        assert_eq!((cost(50), cost(51)), (Some(0.5), None));
    }

    #[test]
    fn a_quota_is_a_ceiling_of_its_own() {
        let group = |used_seconds| Some(CgroupCpu { path: "/pod".into(), millicores: 800, used_seconds });
        let summary = holders(&[(7, 1_000)]);
        let then = reading(100.0, &[(7, 50.0)], group(Some(200.0)));
        let now = reading(112.0, &[(7, 54.0)], group(Some(206.0)));
        let counted = told(&then, &now, &summary, "cgroup:/pod");
        // The group used 600 of its 800, the server 400 of them.
        assert_eq!((counted.used, counted.limit), (Some(600), Some(800)));
        assert_eq!((counted.cost_per_connection, counted.connections_left), (Some(0.4), Some(500)));
        let then = reading(100.0, &[(7, 50.0)], group(None));
        let uncounted = told(&then, &reading(112.0, &[(7, 54.0)], group(None)), &summary, "cgroup:/pod");
        assert_eq!((uncounted.used, uncounted.connections_left), (Some(400), Some(1_000)));
        assert!(uncounted.basis.contains("not counted"), "{}", uncounted.basis);
    }
}
