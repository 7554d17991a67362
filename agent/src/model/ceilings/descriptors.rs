//! Descriptors: each process's soft limit, and the host's file table.

use super::{Inputs, Parts};
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
            kind: Kind::Descriptors,
            scope: format!("process:{}", process.pid),
            unit: Unit::Descriptors,
            used: descriptors.open,
            limit: descriptors.soft_limit,
            connections,
            // One per TCP connection (RFC 6455); HTTP/2 would share it among its streams.
            cost: Some(Estimate::exact(1.0)),
            parts: Vec::new(),
            basis,
        };
        Some(parts.ceiling())
    });
    let mut all: Vec<Ceiling> = processes.collect();
    let table = inputs.reading.descriptors;
    let parts = Parts {
        kind: Kind::Descriptors,
        scope: "host".into(),
        unit: Unit::Descriptors,
        used: table.map(|table| table.allocated),
        limit: table.map(|table| table.max),
        connections: inputs.summary.total().connections,
        cost: Some(Estimate::exact(1.0)),
        parts: Vec::new(),
        basis: "allocated file handles against fs.file-max (/proc/sys/fs/file-nr)".into(),
    };
    all.push(parts.ceiling());
    all
}
