//! Accept queues: what waits for a server to accept it. They bound a burst, not a count.

use super::{Inputs, Parts};
use crate::document::{Ceiling, Kind, Level, Role, Unit};
use crate::model::{Listening, Overflows};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let here = |netns: u32| inputs.reading.netns.is_none_or(|own| own == netns);
    let tracked = inputs.listeners.iter().filter(|one| one.role == Role::Server && here(one.netns));
    let mut ports: Vec<u16> = tracked.map(|listener| listener.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into_iter().filter_map(|port| ceiling(inputs, port)).collect()
}

/// Nothing where nobody listens on the port any longer.
fn ceiling(inputs: &Inputs<'_>, port: u16) -> Option<Ceiling> {
    let sockets: Vec<&Listening> = inputs.reading.listening.iter().filter(|one| one.port == port).collect();
    // Each socket of a port (SO_REUSEPORT, several addresses) has a queue of its own, and what comes in cannot choose.
    let share = |one: &Listening| one.waiting as f64 / one.backlog.max(1) as f64;
    let fullest = sockets.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let connections = inputs
        .listeners
        .iter()
        .filter(|one| one.role == Role::Server && one.port == port)
        .filter(|one| inputs.reading.netns.is_none_or(|own| own == one.netns))
        .map(|one| one.connections)
        .sum();
    let dropped = dropped(inputs, &sockets);
    let parts = Parts {
        used: Some(fullest.waiting),
        limit: Some(fullest.backlog),
        connections,
        ..Parts::new(
            Kind::AcceptQueue,
            format!("listener:{port}"),
            Unit::Connections,
            basis(inputs, sockets.len(), dropped),
        )
    };
    let mut ceiling = parts.ceiling(inputs);
    // A queue that is empty now was full a moment ago.
    if dropped.is_some_and(|dropped| dropped > 0) {
        ceiling.level = Level::Critical;
    }
    Some(ceiling)
}

/// What these sockets had no room for since the earlier reading; `None` on the first. A socket that was not there then has
/// dropped all it dropped since.
fn dropped(inputs: &Inputs<'_>, sockets: &[&Listening]) -> Option<u64> {
    let before = inputs.earlier?.reading;
    let since = |now: &&Listening| {
        let then = before.listening.iter().find(|then| (then.port, then.inode) == (now.port, now.inode));
        u64::from(now.dropped.wrapping_sub(then.map_or(0, |then| then.dropped)))
    };
    Some(sockets.iter().map(since).sum())
}

fn basis(inputs: &Inputs<'_>, sockets: usize, dropped: Option<u64>) -> String {
    let what = match sockets {
        1 => "connections that wait for accept against the backlog".to_owned(),
        number => {
            format!("the fullest of {number} sockets: connections that wait for accept against the backlog")
        }
    };
    let Some((dropped, earlier)) = dropped.zip(inputs.earlier) else {
        return format!("{what}; bounds a burst, not a count; drops are known from the second reading on");
    };
    let seconds = earlier.elapsed.as_secs_f64();
    let all = match earlier.reading.overflows.zip(inputs.reading.overflows) {
        Some((then, now)) => format!("; in the whole namespace {}", counters(then, now)),
        None => String::new(),
    };
    format!("{what}; bounds a burst, not a count; {dropped} dropped here in the last {seconds:.0} s{all}")
}

fn counters(then: Overflows, now: Overflows) -> String {
    format!(
        "{} ListenOverflows, {} ListenDrops, {} TCPReqQFullDrop, {} TCPReqQFullDoCookies",
        now.overflows.saturating_sub(then.overflows),
        now.drops.saturating_sub(then.drops),
        now.request_drops.saturating_sub(then.request_drops),
        now.cookies.saturating_sub(then.cookies),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ceilings::fixture::{find, listener, since};
    use crate::model::{Reading, Summary};

    const QUIET: Listening = Listening { port: 80, inode: 5, waiting: 3, backlog: 128, dropped: 7 };

    fn reading(listening: &[Listening], overflows: u64) -> Reading {
        let overflows = Some(Overflows { overflows, drops: overflows, ..Overflows::default() });
        Reading { netns: Some(1), listening: listening.to_vec(), overflows, ..Reading::default() }
    }

    fn told(then: &Reading, now: &Reading) -> Ceiling {
        let listeners = [listener(1, 80, 40), listener(2, 80, 1_000)];
        let all = since(then, &listeners, now, &listeners, &Summary::default());
        assert_eq!(all.iter().filter(|ceiling| ceiling.kind == Kind::AcceptQueue).count(), 1);
        find(&all, Kind::AcceptQueue, "listener:80").clone()
    }

    #[test]
    fn a_queue_is_no_count_of_connections() {
        let told = told(&reading(&[QUIET], 9), &reading(&[QUIET], 9));
        assert_eq!((told.used, told.limit, told.level), (Some(3), Some(128), Level::Ok));
        assert_eq!((told.connections, told.cost_per_connection, told.connections_left), (40, None, None));
        assert!(told.basis.contains("not a count; 0 dropped here in the last 10 s"), "{}", told.basis);
    }

    #[test]
    fn a_drop_is_critical_however_empty_the_queue_is_now() {
        let full = Listening { waiting: 0, dropped: 9, ..QUIET };
        let told = told(&reading(&[QUIET], 9), &reading(&[full], 11));
        assert_eq!(told.level, Level::Critical);
        assert!(
            told.basis.contains("2 dropped here") && told.basis.contains("2 ListenOverflows"),
            "{}",
            told.basis
        );
    }

    #[test]
    fn drops_of_other_listeners_are_not_this_ones() {
        let other = |dropped| Listening { port: 81, inode: 6, dropped, ..QUIET };
        let told = told(&reading(&[QUIET, other(0)], 0), &reading(&[QUIET, other(50)], 50));
        assert_eq!(told.level, Level::Ok);
        assert!(
            told.basis.contains("0 dropped here") && told.basis.contains("50 ListenOverflows"),
            "{}",
            told.basis
        );
    }

    #[test]
    fn the_fullest_of_several_sockets_counts() {
        let other = Listening { inode: 6, waiting: 120, dropped: 0, ..QUIET };
        let told = told(&reading(&[QUIET], 0), &reading(&[QUIET, other], 0));
        assert_eq!((told.used, told.level), (Some(120), Level::Near));
        assert!(told.basis.contains("2 sockets"), "{}", told.basis);
    }

    #[test]
    fn nobody_listens_any_longer() {
        let listeners = [listener(1, 80, 40)];
        let (then, now) = (reading(&[QUIET], 0), reading(&[], 0));
        let all = since(&then, &listeners, &now, &listeners, &Summary::default());
        assert!(all.iter().all(|ceiling| ceiling.kind != Kind::AcceptQueue));
    }
}
