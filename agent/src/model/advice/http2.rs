//! Many connections from one peer, which HTTP/2 would carry as streams of a few (RFC 8441).

use super::what_if::{Change, part};
use super::{Known, Proposal};
use crate::document::{Ceiling, Kind, Part};
use crate::model::Peers;
use crate::report::format::count;

/// WebSockets on an HTTP/2 connection: what servers and clients allow by default.
const STREAMS: u64 = 100;

pub(super) fn advise(known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    fold(known, first).into_iter().collect()
}

fn fold(known: &Known<'_>, first: &Ceiling) -> Option<Proposal> {
    let saved = spared(known, first)?;
    let (peer, most) =
        all(known, first)?.into_iter().flat_map(Peers::at_least).max_by_key(|(_, count)| *count)?;
    let changes = known.ceilings.iter().filter_map(|ceiling| {
        let share = spared(known, ceiling)? as f64 / ceiling.connections as f64;
        let (saved_on, cost) = match ceiling.kind {
            Kind::Descriptors | Kind::Conntrack | Kind::EpollWatches => (None, ceiling.cost_per_connection?),
            Kind::Memory => (Some(Part::KernelFixed), part(ceiling, Part::KernelFixed)?),
            _ => return None,
        };
        Some(Change::saving(ceiling, saved_on, cost * share))
    });
    let changes: Vec<Change> = changes.collect();
    Some(Proposal {
        id: "fold-into-http2",
        action: format!(
            "have peers with many connections carry them as streams of HTTP/2 (RFC 8441), {STREAMS} on a connection, if one program \
             holds them and not many users behind one address"
        ),
        evidence: format!(
            "{peer} holds at least {} connections; {} of {} TCP connections, with their descriptors and their handshakes at a \
             reconnect, would be spared, and as large a share of those to come",
            count(most),
            count(saved),
            count(first.connections)
        ),
        changes,
    })
    .filter(|proposal| !proposal.changes.is_empty())
}

/// TCP connections under a ceiling that would not be needed; `None` where none would not, or it cannot be told.
fn spared(known: &Known<'_>, ceiling: &Ceiling) -> Option<u64> {
    let each = |(_, count): (_, u64)| count - count.div_ceil(STREAMS);
    let spared: u64 = all(known, ceiling)?.into_iter().flat_map(Peers::at_least).map(each).sum();
    (spared > 0 && spared < ceiling.connections).then_some(spared)
}

/// The peers of the processes under a ceiling.
fn all<'a>(known: &Known<'a>, ceiling: &Ceiling) -> Option<Vec<&'a Peers>> {
    let peers = &known.summary.peers;
    let of = |pid: u32| peers.get(&pid);
    if let Some(pid) = ceiling.scope.strip_prefix("process:") {
        return Some(of(pid.parse().ok()?).into_iter().collect());
    }
    if let Some(path) = ceiling.scope.strip_prefix("cgroup:") {
        let limited = known
            .reading
            .processes
            .iter()
            .filter(|process| process.cgroup_memory.as_ref().is_some_and(|memory| memory.path == path));
        return Some(limited.filter_map(|process| of(process.pid)).collect());
    }
    // Other scopes are not told apart here: only one that holds all connections has all peers.
    (ceiling.connections == known.summary.total().connections).then(|| peers.values().collect())
}
