//! Connection tracking: the table of each network namespace that holds tracked connections, and of the agent's own.

use super::{Inputs, Parts};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{Conntrack, Ends, Estimate};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let Some(conntrack) = &inputs.reading.conntrack else {
        return Vec::new();
    };
    let own = inputs.reading.netns.map(|own| ceiling(inputs, conntrack, own, "host".into()));
    let others = inputs.summary.namespaces.keys().filter(|netns| Some(**netns) != inputs.reading.netns);
    own.into_iter()
        .chain(others.map(|netns| ceiling(inputs, conntrack, *netns, format!("netns:{netns}"))))
        .collect()
}

fn ceiling(inputs: &Inputs<'_>, conntrack: &Conntrack, netns: u32, scope: String) -> Ceiling {
    let ends = inputs.summary.namespaces.get(&netns).copied().unwrap_or_default();
    let used = conntrack.entries.get(&netns).copied();
    let limit = Some(conntrack.max).filter(|max| *max > 0);
    let (cost, how) = match used {
        None => (None, "entries are not known: no process that holds connections there can be asked".into()),
        Some(used) => cost(used, &ends),
    };
    let what = if limit.is_some() {
        "entries of this network namespace against nf_conntrack_max, which each namespace is held against for itself"
    } else {
        "nf_conntrack_max is 0: no limit"
    };
    let parts = Parts {
        used,
        limit,
        connections: ends.connections,
        cost,
        ..Parts::new(Kind::Conntrack, scope, Unit::Entries, format!("{what}; {how}"))
    };
    parts.ceiling(inputs)
}

/// One entry for a TCP connection, whichever of its ends are here.
fn cost(used: u64, ends: &Ends) -> (Option<Estimate>, String) {
    if used == 0 {
        return (None, "nothing is tracked in this namespace, so connections take none".into());
    }
    if ends.connections == 0 {
        return (None, "no connection to price yet".into());
    }
    let distinct = ends.distinct();
    if used < distinct {
        let some = "fewer entries than connections: not all of them are tracked, and which cannot be told";
        return (None, some.into());
    }
    let cost = Estimate::exact(distinct as f64 / ends.connections as f64);
    let how = if distinct < ends.connections {
        "cost: one entry a connection, which counts at both of its ends where both are here"
    } else {
        "cost: one entry a connection"
    };
    (Some(cost), how.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ceilings::fixture::{compute, find};
    use crate::model::{Reading, Summary};

    fn told(entries: u64, ends: Ends) -> Ceiling {
        let conntrack = Conntrack { max: 10_000, entries: [(1, entries)].into() };
        let reading = Reading { netns: Some(1), conntrack: Some(conntrack), ..Reading::default() };
        let summary = Summary { namespaces: [(1, ends)].into(), ..Summary::default() };
        find(&compute(&reading, &summary), Kind::Conntrack, "host").clone()
    }

    #[test]
    fn a_connection_from_elsewhere_takes_an_entry() {
        let told = told(4_000, Ends { connections: 1_000, ..Ends::default() });
        assert_eq!((told.used, told.limit, told.connections), (Some(4_000), Some(10_000), 1_000));
        assert_eq!((told.cost_per_connection, told.connections_left), (Some(1.0), Some(6_000)));
    }

    #[test]
    fn both_ends_of_a_connection_share_an_entry() {
        let ends = Ends { connections: 1_000, servers_within: 500, clients_within: 500 };
        // 500 connections are 1,000 tracked sockets, and 6,000 entries have room for 12,000 more.
        let told = told(4_000, ends);
        assert_eq!((told.cost_per_connection, told.connections_left), (Some(0.5), Some(12_000)));
    }

    #[test]
    fn what_is_not_tracked_has_no_price() {
        let ends = Ends { connections: 1_000, ..Ends::default() };
        let idle = told(0, ends);
        assert_eq!((idle.used, idle.connections_left), (Some(0), None));
        assert!(idle.basis.contains("nothing is tracked"), "{}", idle.basis);
        let partly = told(999, ends);
        assert_eq!((partly.used, partly.cost_per_connection), (Some(999), None));
        assert!(partly.basis.contains("not all of them are tracked"), "{}", partly.basis);
    }

    #[test]
    fn each_namespace_counts_for_itself_and_one_that_cannot_be_read_is_unknown() {
        let conntrack = Conntrack { max: 100, entries: [(1, 5), (2, 30)].into() };
        let reading = Reading { netns: Some(1), conntrack: Some(conntrack), ..Reading::default() };
        let ends = Ends { connections: 30, ..Ends::default() };
        let summary = Summary { namespaces: [(2, ends), (3, ends)].into(), ..Summary::default() };
        let all = compute(&reading, &summary);
        assert_eq!(find(&all, Kind::Conntrack, "netns:2").connections_left, Some(70));
        let closed = find(&all, Kind::Conntrack, "netns:3");
        assert_eq!((closed.used, closed.limit, closed.connections_left), (None, Some(100), None));
        assert_eq!(find(&all, Kind::Conntrack, "host").connections, 0);
    }

    #[test]
    fn a_kernel_without_it_has_no_such_ceiling() {
        let all = compute(&Reading { netns: Some(1), ..Reading::default() }, &Summary::default());
        assert!(all.iter().all(|ceiling| ceiling.kind != Kind::Conntrack));
    }
}
