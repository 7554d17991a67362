//! Limits that are one number each, to be set with sysctl or in a cgroup.

use super::what_if::Change;
use super::{Known, Proposal, alike, enough, used};
use crate::document::{Ceiling, Kind};

pub(super) fn advise(known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    raise(known, first).into_iter().collect()
}

fn raise(known: &Known<'_>, first: &Ceiling) -> Option<Proposal> {
    let (id, setting) = match (first.kind, first.scope.as_str()) {
        (Kind::Descriptors, "host") => ("raise-file-max", "fs.file-max".to_owned()),
        (Kind::Conntrack, _) => ("raise-conntrack-max", "net.netfilter.nf_conntrack_max".to_owned()),
        (Kind::EpollWatches, _) => ("raise-epoll-watches", "fs.epoll.max_user_watches".to_owned()),
        (Kind::MemoryMaps, _) => ("raise-map-count", "vm.max_map_count".to_owned()),
        (Kind::Tasks, scope) => ("raise-pids-max", format!("pids.max of {}", scope.strip_prefix("cgroup:")?)),
        _ => return None,
    };
    let (limit, raised) = (first.limit?, enough(known, first)?);
    let changed =
        |other: &&Ceiling| alike(other, first) || (other.kind, &other.scope) == (first.kind, &first.scope);
    Some(Proposal {
        id,
        action: format!("raise {setting} from {limit} to {raised}"),
        evidence: format!("{} are in use", used(first)),
        changes: known.ceilings.iter().filter(changed).map(|each| Change::limit(each, raised)).collect(),
    })
}
