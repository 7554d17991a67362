//! Bandwidth: each interface that carries tracked connections, or whose speed is known.

use super::{Inputs, Parts};
use crate::document::{Ceiling, Kind, Listener, Role, Traffic, Unit};
use crate::model::{Estimate, Interface, LinkSpeed};

/// What Ethernet adds to an IP packet on the wire: header 14, checksum 4, preamble 8, gap 12 (IEEE 802.3).
const ETHERNET: u64 = 38;

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let cost = cost(inputs);
    let carried = |interface: &&Interface| {
        inputs.summary.interfaces.contains_key(&interface.index)
            || matches!(interface.speed, LinkSpeed::Known(..))
    };
    inputs
        .reading
        .interfaces
        .iter()
        .filter(carried)
        .map(|interface| ceiling(inputs, interface, cost))
        .collect()
}

fn ceiling(inputs: &Inputs<'_>, interface: &Interface, cost: Option<f64>) -> Ceiling {
    let connections = inputs.summary.interfaces.get(&interface.index).copied().unwrap_or(0);
    let used = rate(inputs, interface);
    let (limit, basis) = match &interface.speed {
        LinkSpeed::Known(bits, source) => (Some(*bits), format!("the busier direction against {source}")),
        LinkSpeed::Unknown(why) => (None, why.clone()),
    };
    let basis = match (used, cost) {
        (None, _) => format!("{basis}; the rate is known from the second reading on"),
        (Some(_), Some(_)) => {
            format!(
                "{basis}; cost: wire bits of tracked connections, headers and ACKs included, per connection"
            )
        }
        (Some(_), None) => format!("{basis}; tracked connections carry nothing at present"),
    };
    let parts = Parts {
        kind: Kind::Bandwidth,
        scope: format!("interface:{}", interface.name),
        unit: Unit::BitsPerSecond,
        used,
        limit,
        connections,
        cost: cost.map(Estimate::exact),
        parts: Vec::new(),
        basis,
    };
    parts.ceiling()
}

/// Bits per second of the busier direction since the earlier reading.
fn rate(inputs: &Inputs<'_>, interface: &Interface) -> Option<u64> {
    let (reading, _, elapsed) = inputs.earlier?;
    let before = reading.interfaces.iter().find(|before| before.index == interface.index)?;
    let received = interface.received_bytes.checked_sub(before.received_bytes)?;
    let transmitted = interface.transmitted_bytes.checked_sub(before.transmitted_bytes)?;
    Some((received.max(transmitted) as f64 * 8.0 / elapsed.as_secs_f64()) as u64)
}

/// Bits per second and connection of the busier direction, keepalive and messages together, on Ethernet.
fn cost(inputs: &Inputs<'_>) -> Option<f64> {
    let (_, before, elapsed) = inputs.earlier?;
    let (mut received, mut sent) = (0u64, 0u64);
    for listener in inputs.listeners {
        let earlier = before.iter().find(|earlier| same(earlier, listener));
        let wire = |now: &Traffic, then: Option<&Traffic>| {
            let bytes = |traffic: &Traffic| traffic.packet_bytes + traffic.packets * ETHERNET;
            bytes(now).saturating_sub(then.map_or(0, bytes))
        };
        received += wire(&listener.received, earlier.map(|listener| &listener.received));
        sent += wire(&listener.sent, earlier.map(|listener| &listener.sent));
    }
    let bits = received.max(sent) as f64 * 8.0;
    let connections = inputs.connections;
    (connections > 0 && bits > 0.0).then(|| bits / elapsed.as_secs_f64() / connections as f64)
}

fn same(left: &Listener, right: &Listener) -> bool {
    let key = |listener: &Listener| -> (u32, u16, Role) { (listener.netns, listener.port, listener.role) };
    key(left) == key(right)
}
