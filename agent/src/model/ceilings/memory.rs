//! Memory: the host's, each limited cgroup's, and the TCP stack's share.

use std::collections::BTreeMap;

use super::{Inputs, Parts};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{CgroupMemory, Estimate, Holder, ProcessReading};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut all = Vec::new();
    all.extend(host(inputs));
    all.extend(cgroups(inputs));
    all.extend(tcp(inputs));
    all
}

fn host(inputs: &Inputs<'_>) -> Option<Ceiling> {
    let total = inputs.summary.total();
    let memory = inputs.reading.memory;
    let (cost, how) = cost(inputs, inputs.reading.processes.iter());
    let basis = match memory {
        Some(_) => format!("MemTotal - MemAvailable of MemTotal; {how}"),
        None => "MemAvailable cannot be read from /proc/meminfo".into(),
    };
    let parts = Parts {
        kind: Kind::Memory,
        scope: "host".into(),
        unit: Unit::Bytes,
        used: memory.map(|memory| memory.total.saturating_sub(memory.available)),
        limit: memory.map(|memory| memory.total),
        connections: total.connections,
        cost: cost.map(Estimate::exact),
        parts: Vec::new(),
        basis,
    };
    Some(parts.ceiling())
}

/// One ceiling for each limited group, whichever of its descendants the processes are in.
fn cgroups(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let host_total = inputs.reading.memory.map_or(u64::MAX, |memory| memory.total);
    let mut groups: BTreeMap<&str, (&CgroupMemory, Vec<&ProcessReading>)> = BTreeMap::new();
    for process in &inputs.reading.processes {
        if let Some(memory) = process.cgroup_memory.as_ref().filter(|memory| memory.limit < host_total) {
            groups.entry(&memory.path).or_insert_with(|| (memory, Vec::new())).1.push(process);
        }
    }
    let ceiling = |(path, (memory, members)): (&str, (&CgroupMemory, Vec<&ProcessReading>))| {
        let (cost, how) = cost(inputs, members.iter().copied());
        let parts = Parts {
            kind: Kind::Memory,
            scope: format!("cgroup:{path}"),
            unit: Unit::Bytes,
            used: Some(memory.used),
            limit: Some(memory.limit),
            connections: members.iter().map(|process| holder(inputs, process.pid).connections).sum(),
            cost: cost.map(Estimate::exact),
            parts: Vec::new(),
            basis: format!("the cgroup's memory use, less unused file pages, and its limit; {how}"),
        };
        parts.ceiling()
    };
    groups.into_iter().map(ceiling).collect()
}

/// `tcp_mem` counts buffers only: slab objects are not charged to it.
fn tcp(inputs: &Inputs<'_>) -> Option<Ceiling> {
    let total = inputs.summary.total();
    let memory = inputs.reading.tcp?;
    let cost = total.buffers_per_connection().filter(|bytes| *bytes > 0.0);
    let basis = match cost {
        Some(_) => {
            "TCP mem of /proc/net/sockstat against the third field of tcp_mem; cost: mean buffer memory"
        }
        None => {
            "TCP mem of /proc/net/sockstat against the third field of tcp_mem; connections hold no buffers now"
        }
    };
    let parts = Parts {
        kind: Kind::Memory,
        scope: "tcp".into(),
        unit: Unit::Bytes,
        used: Some(memory.used),
        limit: Some(memory.limit),
        connections: total.connections,
        cost: cost.map(Estimate::exact),
        parts: Vec::new(),
        basis: basis.into(),
    };
    Some(parts.ceiling())
}

fn holder(inputs: &Inputs<'_>, pid: u32) -> Holder {
    inputs.summary.holders.get(&pid).copied().unwrap_or_default()
}

/// Mean cost of a connection over `processes`: kernel memory plus what the process itself keeps for it.
fn cost<'a>(
    inputs: &Inputs<'_>,
    processes: impl Iterator<Item = &'a ProcessReading>,
) -> (Option<f64>, String) {
    let unknown = |why: &str| (None, why.to_owned());
    if !inputs.summary.fixed_known {
        return unknown(
            "the fixed kernel memory of a connection is not known: /proc/slabinfo cannot be read",
        );
    }
    let (mut bytes, mut connections, mut bounded) = (0.0, 0u64, false);
    for process in processes {
        let holder = holder(inputs, process.pid);
        if holder.connections == 0 {
            continue;
        }
        connections += holder.connections;
        bytes += holder.kernel_bytes as f64;
        match (inputs.costs.per_connection(process.pid), process.anonymous_bytes) {
            (Some(own), _) => bytes += own.value * holder.connections as f64,
            (None, Some(anonymous)) => {
                bounded = true;
                bytes += anonymous as f64;
            }
            (None, None) => return unknown("the memory of a process that holds connections cannot be read"),
        }
    }
    if connections == 0 {
        return unknown(if inputs.summary.total().connections == 0 {
            "no connection to price yet"
        } else {
            "the processes of the connections are not known yet"
        });
    }
    let how = if bounded {
        "cost: kernel memory measured per socket, plus, as an upper bound until the count changes, all anonymous memory \
         of the process shared out"
    } else {
        "cost: kernel memory measured per socket, plus the slope of the process's anonymous memory over its connections"
    };
    (Some(bytes / connections as f64), how.into())
}
