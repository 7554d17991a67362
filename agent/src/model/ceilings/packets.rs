//! Packets per second of each interface for which it was said how many it can carry: nothing on the host tells.

use super::{Earlier, Inputs, Parts};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{Interface, Rate};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let cost = inputs.rates.packets();
    let limited = inputs.reading.interfaces.iter().filter(|interface| interface.packets_per_second.is_some());
    limited.map(|interface| ceiling(inputs, interface, cost)).collect()
}

fn ceiling(inputs: &Inputs<'_>, interface: &Interface, cost: Option<Rate>) -> Ceiling {
    let used = rate(inputs, interface);
    let how = match (used, cost) {
        (None, _) => "the rate is known from the second reading on",
        (Some(_), Some(_)) => {
            "cost: packets of tracked connections, acknowledgements included, per connection"
        }
        (Some(_), None) => "tracked connections carry nothing at present",
    };
    let connections = inputs.summary.interfaces.get(&interface.index).copied().unwrap_or(0);
    let parts = Parts {
        used,
        limit: interface.packets_per_second,
        connections,
        cost: cost.map(|cost| cost.all),
        parts: cost.map(|cost| cost.parts()).unwrap_or_default(),
        pending: inputs.pending(connections, cost.map(|cost| cost.all)),
        ..Parts::new(
            Kind::Packets,
            format!("interface:{}", interface.name),
            Unit::PacketsPerSecond,
            format!("packets of the busier direction against the given --nic-pps; {how}"),
        )
    };
    parts.ceiling(inputs)
}

/// Packets per second of the busier direction since the earlier reading.
fn rate(inputs: &Inputs<'_>, interface: &Interface) -> Option<u64> {
    let Earlier { reading, elapsed, .. } = inputs.earlier?;
    let before = reading.interfaces.iter().find(|before| before.index == interface.index)?;
    let received = interface.received_packets.checked_sub(before.received_packets)?;
    let transmitted = interface.transmitted_packets.checked_sub(before.transmitted_packets)?;
    Some((received.max(transmitted) as f64 / elapsed.as_secs_f64()).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ceilings::fixture::{find, interface, listener, since};
    use crate::model::{Reading, Summary};

    fn reading(received_packets: u64, transmitted_packets: u64, limit: Option<u64>) -> Reading {
        let interface =
            Interface { received_packets, transmitted_packets, packets_per_second: limit, ..interface() };
        Reading { interfaces: vec![interface], ..Reading::default() }
    }

    #[test]
    fn the_busier_direction_counts() {
        let carried = |packets: u64| {
            let mut listener = listener(1, 80, 500);
            (listener.received.packets, listener.sent.packets) = (packets, 2 * packets);
            [listener]
        };
        let (then, now) = (reading(100, 200, Some(2_000)), reading(5_100, 10_200, Some(2_000)));
        let summary = Summary { interfaces: [(2, 400)].into(), ..Summary::default() };
        // 500 connections sent 5,000 packets in 10 s; the interface 10,000.
        let all = since(&then, &carried(500), &now, &carried(3_000), &summary);
        let packets = find(&all, Kind::Packets, "interface:eth0");
        assert_eq!((packets.used, packets.limit, packets.connections), (Some(1_000), Some(2_000), 400));
        assert_eq!((packets.cost_per_connection, packets.connections_left), (Some(1.0), Some(1_000)));
    }

    #[test]
    fn without_a_given_limit_there_is_no_such_ceiling() {
        let reading = reading(0, 0, None);
        let all = since(&reading, &[], &reading, &[], &Summary::default());
        assert!(all.iter().all(|ceiling| ceiling.kind != Kind::Packets));
    }
}
