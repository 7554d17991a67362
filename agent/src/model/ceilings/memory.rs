//! Memory: the host's, each limited cgroup's, and the TCP stack's share.
//!
//! What a connection costs is a sum of parts: kernel objects by their sizes, buffers as measured, and the slope of the
//! process's anonymous memory over its connections. A cgroup's use can be read beside the count, and then its own slope decides:
//! which parts are charged to it differs (v1 leaves socket buffers out), and the slope knows.

use std::collections::BTreeMap;

use super::{Inputs, Parts, process_scope};
use crate::document::{Ceiling, CostPart, Kind, Part, Unit};
use crate::model::{CgroupMemory, Estimate, Holder, ProcessReading};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut all = vec![host(inputs)];
    all.extend(cgroups(inputs));
    all.extend(tcp(inputs));
    all
}

fn host(inputs: &Inputs<'_>) -> Ceiling {
    let total = inputs.summary.total();
    let memory = inputs.reading.memory;
    let price = price(inputs, inputs.reading.processes.iter());
    let basis = match memory {
        Some(_) => format!("MemTotal - MemAvailable of MemTotal; {}", price.how),
        None => "MemAvailable cannot be read from /proc/meminfo".into(),
    };
    let reusable = inputs.reading.processes.iter().map(|process| reusable(inputs, process)).sum();
    Parts {
        used: memory.map(|memory| memory.total.saturating_sub(memory.available)),
        limit: memory.map(|memory| memory.total),
        connections: total.connections,
        cost: price.cost,
        parts: price.parts,
        reusable,
        ..Parts::new(Kind::Memory, "host".into(), Unit::Bytes, basis)
    }
    .ceiling(inputs)
}

/// Memory that a process kept from connections that are gone.
fn reusable(inputs: &Inputs<'_>, process: &ProcessReading) -> f64 {
    let connections = holder(inputs, process.pid).connections;
    let scope = process_scope(process.pid);
    process.anonymous_bytes.map_or(0.0, |bytes| inputs.reusable(Kind::Memory, &scope, connections, bytes))
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
        let price = price(inputs, members.iter().copied());
        let basis = format!("the cgroup's memory use, less unused file pages, and its limit; {}", price.how);
        Parts {
            used: Some(memory.used),
            limit: Some(memory.limit),
            connections: members.iter().map(|process| holder(inputs, process.pid).connections).sum(),
            cost: price.cost,
            parts: price.parts,
            ..Parts::new(Kind::Memory, format!("cgroup:{path}"), Unit::Bytes, basis)
        }
        .ceiling(inputs)
    };
    groups.into_iter().map(ceiling).collect()
}

/// `tcp_mem` counts buffers only: slab objects are not charged to it. No connection is refused at its third field, which use goes
/// beyond; from its second on, full sockets lose what comes for them, and that is where service ends.
fn tcp(inputs: &Inputs<'_>) -> Option<Ceiling> {
    let total = inputs.summary.total();
    let memory = inputs.reading.tcp?;
    let cost = total.buffers_per_connection().filter(|bytes| *bytes > 0.0).map(Estimate::exact);
    let basis = match cost {
        Some(_) => {
            "TCP mem of /proc/net/sockstat against the second field of tcp_mem (pressure); cost: mean buffer memory"
        }
        None => {
            "TCP mem of /proc/net/sockstat against the second field of tcp_mem (pressure); connections hold no buffers now"
        }
    };
    let parts = Parts {
        used: Some(memory.used),
        limit: Some(memory.pressure),
        connections: total.connections,
        cost,
        ..Parts::new(Kind::Memory, "tcp".into(), Unit::Bytes, basis.into())
    };
    Some(parts.ceiling(inputs))
}

fn holder(inputs: &Inputs<'_>, pid: u32) -> Holder {
    inputs.summary.holders.get(&pid).copied().unwrap_or_default()
}

/// A connection's cost, what it is made of, and how both were found.
#[derive(Default)]
struct Price {
    cost: Option<Estimate>,
    parts: Vec<CostPart>,
    how: String,
}

/// Mean cost of a connection over `processes`: kernel memory plus what the process itself keeps for it.
fn price<'a>(inputs: &Inputs<'_>, processes: impl Iterator<Item = &'a ProcessReading>) -> Price {
    let unknown = |why: &str| Price { how: why.to_owned(), ..Price::default() };
    if !inputs.summary.fixed_known {
        return unknown(
            "the fixed kernel memory of a connection is not known: /proc/slabinfo cannot be read",
        );
    }
    let (mut sum, mut own, mut bounded) = (Holder::default(), Estimate::exact(0.0), false);
    for process in processes {
        let holder = holder(inputs, process.pid);
        if holder.connections == 0 {
            continue;
        }
        sum = sum + holder;
        let share = holder.connections as f64;
        let measured = inputs.observed_cost(Kind::Memory, &process_scope(process.pid));
        own = own
            + match (measured, process.anonymous_bytes) {
                (Some(own), _) => own.map(|bytes| bytes * share),
                (None, Some(anonymous)) => {
                    bounded = true;
                    let all = anonymous as f64;
                    Estimate { value: all, least: 0.0, most: all, samples: 1 }
                }
                (None, None) => {
                    return unknown("the memory of a process that holds connections cannot be read");
                }
            };
    }
    if sum.connections == 0 {
        return unknown(if inputs.summary.total().connections == 0 {
            "no connection to price yet"
        } else {
            "the processes of the connections are not known yet"
        });
    }
    let per_connection = |bytes: u64| bytes as f64 / sum.connections as f64;
    let own = own.map(|bytes| bytes / sum.connections as f64);
    let counted = |part, cost| CostPart { part, cost, range: None, samples: sum.connections };
    let buffers = sum.kernel_bytes - sum.fixed_bytes;
    let mut parts = vec![
        counted(Part::KernelFixed, per_connection(sum.fixed_bytes)),
        counted(Part::KernelBuffers, per_connection(buffers)),
        CostPart { part: Part::Process, cost: own.value, range: own.range(), samples: own.samples },
    ];
    if sum.compressed > 0 {
        // What presumed connections negotiated is not known.
        let cost = sum.compression_bytes as f64 / sum.recognised().max(1) as f64;
        parts.push(CostPart { samples: sum.recognised(), ..counted(Part::Compression, cost) });
    }
    let how = if bounded {
        "cost: kernel memory measured per socket, plus, as an upper bound until the count changes, all anonymous memory \
         of the process shared out"
    } else {
        "cost: kernel memory measured per socket, plus the slope of the process's anonymous memory over its connections"
    };
    let cost = own.map(|bytes| bytes + per_connection(sum.kernel_bytes));
    Price { cost: Some(cost), parts, how: how.into() }
}
