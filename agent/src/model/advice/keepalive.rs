//! Pings: less often, and with nothing in them.

use super::what_if::{Change, part};
use super::{Known, Proposal};
use crate::document::{Ceiling, Kind, Part};
use crate::report::format::{cost, latency, percent, significant};

pub(super) fn advise(known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    [rarer(known, first), empty(known, first)].into_iter().flatten().collect()
}

fn rarer(known: &Known<'_>, first: &Ceiling) -> Option<Proposal> {
    let keepalive = part(first, Part::Keepalive)?;
    let all = first.cost_per_connection?;
    let halved = |ceiling: &Ceiling| {
        Some(Change::saving(ceiling, Part::Keepalive, part(ceiling, Part::Keepalive)? / 2.0))
    };
    let now = known.rates.mix().and_then(|mix| mix.ping_interval());
    let (from, to) = match now {
        Some(seconds) => (
            format!(" a connection is pinged every {};", latency(seconds)),
            format!(" to {}", latency(2.0 * seconds)),
        ),
        None => (String::new(), String::new()),
    };
    Some(Proposal {
        id: "double-ping-interval",
        action: format!(
            "double the ping interval{to}, as far as NATs and proxies on the way keep silent connections that long"
        ),
        evidence: format!(
            "{from} pings, pongs and their acknowledgements are {} of the {} of a connection ({})",
            cost(keepalive, first.unit),
            cost(all, first.unit),
            percent(keepalive / all)
        )
        .trim_start()
        .to_owned(),
        changes: known.ceilings.iter().filter_map(halved).collect(),
    })
}

fn empty(known: &Known<'_>, first: &Ceiling) -> Option<Proposal> {
    let keepalive = part(first, Part::Keepalive).filter(|_| first.kind == Kind::Bandwidth)?;
    let mix = known.rates.mix()?;
    let payload = mix.control_payload().filter(|payload| *payload >= 1.0)?;
    // A ping's payload goes one way, and with the pong the other.
    let bits = (8.0 * payload * mix.pings_per_second).min(keepalive);
    let lighter = |ceiling: &Ceiling| {
        let bits = part(ceiling, Part::Keepalive)?.min(bits);
        (ceiling.kind == Kind::Bandwidth).then(|| Change::saving(ceiling, Part::Keepalive, bits))
    };
    Some(Proposal {
        id: "empty-pings",
        action: "send pings without a payload".into(),
        evidence: format!(
            "pings and pongs carry {} bytes on average, {} of the {} of a connection",
            significant(payload),
            cost(bits, first.unit),
            cost(first.cost_per_connection?, first.unit)
        ),
        changes: known.ceilings.iter().filter_map(lighter).collect(),
    })
}
