//! A process's descriptor limit: up to its hard limit without any privilege, and beyond it up to `fs.nr_open` with it.

use super::what_if::Change;
use super::{Known, Proposal, enough, used};
use crate::document::{Ceiling, Kind};
use crate::model::{ProcessReading, process_scope};
use crate::report::format::count;

pub(super) fn advise(known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    let process = known.reading.processes.iter().find(|process| process_scope(process.pid) == first.scope);
    let Some(process) = process.filter(|_| first.kind == Kind::Descriptors) else { return Vec::new() };
    [to_hard_limit(known, first, process), beyond(known, first, process)].into_iter().flatten().collect()
}

fn to_hard_limit(known: &Known<'_>, first: &Ceiling, process: &ProcessReading) -> Option<Proposal> {
    let (soft, hard) = (first.limit?, process.descriptors.hard_limit?);
    if hard <= soft {
        return None;
    }
    let (who, changes) = raised(known, process, hard);
    Some(Proposal {
        id: "raise-soft-descriptor-limit",
        action: format!(
            "raise the soft descriptor limit of {who} from {soft} to its hard limit {hard}: LimitNOFILE={hard} in its unit, or \
             setrlimit at start"
        ),
        evidence: evidence(first),
        changes,
    })
}

fn beyond(known: &Known<'_>, first: &Ceiling, process: &ProcessReading) -> Option<Proposal> {
    let (soft, hard) = (first.limit?, process.descriptors.hard_limit?);
    let most = known.reading.descriptors_max?;
    let limit = enough(known, first).unwrap_or(most).min(most);
    if limit <= hard {
        return None;
    }
    let (who, changes) = raised(known, process, limit);
    Some(Proposal {
        id: "raise-hard-descriptor-limit",
        action: format!(
            "raise the descriptor limit of {who} from {soft} beyond its hard limit {hard} to {limit}: LimitNOFILE={limit} in its \
             unit (fs.nr_open allows {most})"
        ),
        evidence: evidence(first),
        changes,
    })
}

fn evidence(first: &Ceiling) -> String {
    format!("{} descriptors are open, {} connections are among them", used(first), count(first.connections))
}

/// All that one setting raises: processes of one name are workers of one server.
fn raised(known: &Known<'_>, process: &ProcessReading, limit: u64) -> (String, Vec<Change>) {
    let processes = &known.reading.processes;
    let workers = processes.iter().filter(|other| {
        other.comm == process.comm && other.descriptors.soft_limit.is_some_and(|soft| soft < limit)
    });
    let changes: Vec<Change> = workers
        .filter_map(|worker| {
            let scope = process_scope(worker.pid);
            let mine = |ceiling: &&Ceiling| ceiling.kind == Kind::Descriptors && ceiling.scope == scope;
            known.ceilings.iter().find(mine).map(|ceiling| Change::limit(ceiling, limit))
        })
        .collect();
    let who = match changes.len() {
        0 | 1 => format!("{} (process {})", process.comm, process.pid),
        several => format!("{} (process {} and {} more)", process.comm, process.pid, several - 1),
    };
    (who, changes)
}
