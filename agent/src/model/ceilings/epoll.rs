//! Epoll watches: for each user whose processes hold connections.

use std::collections::BTreeMap;

use super::{Inputs, Parts, connections};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{Estimate, ProcessReading};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let mut users: BTreeMap<u32, Vec<&ProcessReading>> = BTreeMap::new();
    for process in &inputs.reading.processes {
        if let Some(uid) = process.uid {
            users.entry(uid).or_default().push(process);
        }
    }
    users.into_iter().map(|(uid, processes)| ceiling(inputs, uid, &processes)).collect()
}

fn ceiling(inputs: &Inputs<'_>, uid: u32, processes: &[&ProcessReading]) -> Ceiling {
    let used = processes.iter().filter_map(|process| process.user_watches).max();
    let limit = inputs.reading.epoll_watches_max;
    let connections = connections(inputs.swept, processes.iter().copied());
    let (cost, how) = match used {
        None => (None, "use is not known: iter/task did not load, or has not met these processes yet"),
        _ if connections == 0 => (None, "no connection to price yet"),
        // Each CPU may hold back some, but a server that registers every socket cannot be so far off.
        Some(used) if used < connections / 2 => {
            (None, "fewer watches than connections: they are waited for in another way")
        }
        Some(_) => (Some(Estimate::exact(1.0)), "cost: one watch a connection, its socket's"),
    };
    let what = match limit {
        Some(_) => {
            "descriptors that this user's epoll instances watch, counted in the kernel at the last sweep and exact to \
             max(32, 2 x CPUs) a CPU, against fs.epoll.max_user_watches; an instance is charged to who made it"
        }
        None => "fs.epoll.max_user_watches cannot be read",
    };
    let parts = Parts {
        used,
        limit,
        connections,
        cost,
        ..Parts::new(Kind::EpollWatches, format!("user:{uid}"), Unit::Watches, format!("{what}; {how}"))
    };
    parts.ceiling(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reading;
    use crate::model::ceilings::fixture::{compute, find, holders};

    fn process(pid: u32, uid: u32, watches: Option<u64>) -> ProcessReading {
        ProcessReading { pid, uid: Some(uid), user_watches: watches, ..ProcessReading::default() }
    }

    #[test]
    fn the_processes_of_a_user_share_one_limit() {
        let processes = vec![process(7, 33, Some(950)), process(8, 33, Some(950)), process(9, 0, Some(10))];
        let reading = Reading { processes, epoll_watches_max: Some(1_000), ..Reading::default() };
        let all = compute(&reading, &holders(&[(7, 500), (8, 400), (9, 10)]));
        let user = find(&all, Kind::EpollWatches, "user:33");
        assert_eq!((user.used, user.connections, user.connections_left), (Some(950), 900, Some(50)));
        assert_eq!(find(&all, Kind::EpollWatches, "user:0").connections_left, Some(990));
    }

    #[test]
    fn a_server_without_epoll_takes_no_watches() {
        let reading = Reading {
            processes: vec![process(7, 33, Some(0)), process(8, 34, None)],
            epoll_watches_max: Some(1_000),
            ..Reading::default()
        };
        let all = compute(&reading, &holders(&[(7, 500), (8, 500)]));
        let other = find(&all, Kind::EpollWatches, "user:33");
        assert_eq!((other.used, other.connections_left), (Some(0), None));
        assert!(other.basis.contains("another way"), "{}", other.basis);
        let unseen = find(&all, Kind::EpollWatches, "user:34");
        assert_eq!((unseen.used, unseen.utilization, unseen.connections_left), (None, None, None));
        assert!(unseen.basis.contains("iter/task"), "{}", unseen.basis);
    }
}
