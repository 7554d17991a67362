//! What the tests of several kinds of ceilings are made of.

use std::time::Duration;

use super::{Earlier, Inputs, ceilings};
use crate::document::{Ceiling, Kind, Listener, Role, Traffic};
use crate::model::{Costs, Growths, Holder, Interface, Lineages, LinkSpeed, Rates, Reading, Summary};

/// Connections that are open in [`compute`] and [`since`].
const CONNECTIONS: u64 = 500;

/// Between the two readings of [`since`].
const INTERVAL: Duration = Duration::from_secs(10);

/// Ceilings of a first reading.
pub(super) fn compute(reading: &Reading, summary: &Summary) -> Vec<Ceiling> {
    all(None, reading, &[], &Past::default(), summary)
}

/// Ceilings of a second reading, 10 s after the first.
pub(super) fn since(
    then: &Reading,
    listeners_then: &[Listener],
    now: &Reading,
    listeners_now: &[Listener],
    summary: &Summary,
) -> Vec<Ceiling> {
    let opened = listeners_then.iter().map(|listener| listener.opened).sum();
    let earlier = Earlier { reading: then, elapsed: INTERVAL, opened, mean_connections: CONNECTIONS as f64 };
    let mut past = Past::default();
    past.rates.observe(Duration::ZERO, listeners_then.iter());
    past.rates.observe(INTERVAL, listeners_now.iter());
    all(Some(earlier), now, listeners_now, &past, summary)
}

/// What the model has learned by then.
#[derive(Default)]
pub(super) struct Past {
    pub(super) rates: Rates,
    pub(super) growth: Growths,
    pub(super) costs: Costs,
    pub(super) lineages: Lineages,
}

/// Ceilings of any moment.
pub(super) fn all(
    earlier: Option<Earlier<'_>>,
    reading: &Reading,
    listeners: &[Listener],
    past: &Past,
    summary: &Summary,
) -> Vec<Ceiling> {
    ceilings(&Inputs {
        connections: CONNECTIONS,
        reading,
        earlier,
        summary,
        swept: summary,
        listeners,
        rates: &past.rates,
        growth: &past.growth,
        costs: &past.costs,
        lineages: &past.lineages,
    })
}

pub(super) fn find<'a>(all: &'a [Ceiling], kind: Kind, scope: &str) -> &'a Ceiling {
    all.iter().find(|ceiling| ceiling.kind == kind && ceiling.scope == scope).expect("present")
}

/// Processes and how many connections each holds.
pub(super) fn holders(counts: &[(u32, u64)]) -> Summary {
    let holder =
        |(pid, connections): &(u32, u64)| (*pid, Holder { connections: *connections, ..Holder::default() });
    Summary { holders: counts.iter().map(holder).collect(), ..Summary::default() }
}

pub(super) fn interface() -> Interface {
    Interface {
        name: "eth0".into(),
        index: 2,
        received_bytes: 0,
        transmitted_bytes: 0,
        received_packets: 0,
        transmitted_packets: 0,
        framing_bytes: 38,
        counted_bytes: 14,
        speed: LinkSpeed::Unknown("not asked for".into()),
        packets_per_second: None,
    }
}

pub(in crate::model) fn listener(netns: u32, port: u16, connections: u64) -> Listener {
    Listener {
        port,
        role: Role::Server,
        netns,
        connections,
        presumed: 0,
        opened: connections,
        adopted: 0,
        closed: 0,
        received: Traffic::default(),
        sent: Traffic::default(),
        unparsed_bytes: 0,
        refused: Default::default(),
        ping_rtt: Vec::new(),
        pong_delay: Vec::new(),
        stalls: Default::default(),
    }
}
