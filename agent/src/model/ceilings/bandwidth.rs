//! Bandwidth: each interface that carries tracked connections, or whose speed is known.

use super::{Earlier, Inputs, Parts};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{Interface, LinkSpeed};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let carried = |interface: &&Interface| {
        inputs.summary.interfaces.contains_key(&interface.index)
            || matches!(interface.speed, LinkSpeed::Known(..))
    };
    inputs.reading.interfaces.iter().filter(carried).map(|interface| ceiling(inputs, interface)).collect()
}

fn ceiling(inputs: &Inputs<'_>, interface: &Interface) -> Ceiling {
    let connections = inputs.summary.interfaces.get(&interface.index).copied().unwrap_or(0);
    let used = rate(inputs, interface);
    let cost = inputs.rates.bits(interface.framing_bytes);
    let (limit, basis) = match &interface.speed {
        LinkSpeed::Known(bits, source) => (Some(*bits), format!("the busier direction against {source}")),
        LinkSpeed::Unknown(why) => (None, why.clone()),
    };
    let basis = match (used, cost) {
        (None, _) => format!("{basis}; the rate is known from the second reading on"),
        (Some(_), Some(_)) => format!(
            "{basis}; cost: bits of tracked connections on the wire, headers, ACKs and {} bytes of framing a packet \
             included, per connection over up to two minutes",
            interface.framing_bytes
        ),
        (Some(_), None) => format!("{basis}; tracked connections carry nothing at present"),
    };
    Parts {
        used,
        limit,
        connections,
        pending: inputs.pending(connections, cost.map(|cost| cost.all)),
        cost: cost.map(|cost| cost.all),
        parts: cost.map(|cost| cost.parts()).unwrap_or_default(),
        ..Parts::new(Kind::Bandwidth, format!("interface:{}", interface.name), Unit::BitsPerSecond, basis)
    }
    .ceiling(inputs)
}

/// Bits per second of the busier direction since the earlier reading, as the link carries them.
fn rate(inputs: &Inputs<'_>, interface: &Interface) -> Option<u64> {
    let Earlier { reading, elapsed, .. } = inputs.earlier?;
    let before = reading.interfaces.iter().find(|before| before.index == interface.index)?;
    let framing = interface.framing_bytes.saturating_sub(interface.counted_bytes);
    let carried = |bytes: u64, bytes_before: u64, packets: u64, packets_before: u64| -> Option<u64> {
        Some(bytes.checked_sub(bytes_before)? + packets.checked_sub(packets_before)? * framing)
    };
    let received = carried(
        interface.received_bytes,
        before.received_bytes,
        interface.received_packets,
        before.received_packets,
    )?;
    let transmitted = carried(
        interface.transmitted_bytes,
        before.transmitted_bytes,
        interface.transmitted_packets,
        before.transmitted_packets,
    )?;
    Some((received.max(transmitted) as f64 * 8.0 / elapsed.as_secs_f64()) as u64)
}
