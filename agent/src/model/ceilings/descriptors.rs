//! Descriptors: each process's soft limit, and the host's file table.

use super::{Inputs, Parts, process_scope};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::Estimate;

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let processes = inputs.reading.processes.iter().filter_map(|process| {
        let connections = inputs.summary.holders.get(&process.pid)?.connections;
        let descriptors = process.descriptors;
        let basis = match (descriptors.open, descriptors.soft_limit) {
            (Some(_), Some(_)) => {
                format!("/proc/{}/fd and its soft RLIMIT_NOFILE ({})", process.pid, process.comm)
            }
            (Some(_), None) => format!("{} has no descriptor limit", process.comm),
            _ => format!("/proc/{} cannot be read; needs CAP_SYS_PTRACE", process.pid),
        };
        let parts = Parts {
            used: descriptors.open,
            limit: descriptors.soft_limit,
            connections,
            // One per TCP connection (RFC 6455), until it is seen that a server takes more of them: pipes, a process each.
            cost: Some(Estimate::exact(1.0)),
            ..Parts::new(Kind::Descriptors, process_scope(process.pid), Unit::Descriptors, basis)
        };
        Some(parts.ceiling(inputs))
    });
    let mut all: Vec<Ceiling> = processes.collect();
    let table = inputs.reading.descriptors;
    let basis = "allocated file handles against fs.file-max (/proc/sys/fs/file-nr)".into();
    let parts = Parts {
        used: table.map(|table| table.allocated),
        limit: table.map(|table| table.max),
        connections: inputs.summary.total().connections,
        cost: Some(Estimate::exact(1.0)),
        ..Parts::new(Kind::Descriptors, "host".into(), Unit::Descriptors, basis)
    };
    all.push(parts.ceiling(inputs));
    all
}
