//! Ports: what connections from here to one destination use up, as a proxy's do.

use super::{Inputs, Parts};
use crate::document::{Ceiling, Kind, Unit};
use crate::model::{Destination, Estimate};

/// The fullest destinations; the others are further from their ends.
const SHOWN: usize = 3;

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let fullest = inputs.summary.destinations.fullest(SHOWN);
    fullest.into_iter().map(|(destination, count)| ceiling(inputs, destination, count)).collect()
}

fn ceiling(inputs: &Inputs<'_>, destination: Destination, count: u64) -> Ceiling {
    let ports = inputs.reading.local_ports;
    let what = match ports {
        Some(ports) => format!(
            "tracked connections from {} against net.ipv4.ip_local_port_range ({}-{}) less {} reserved; sockets that carry no \
             WebSocket or are in TIME_WAIT use ports too and are not seen",
            destination.local, ports.first, ports.last, ports.reserved
        ),
        None => "net.ipv4.ip_local_port_range cannot be read".to_owned(),
    };
    let more = match inputs.summary.destinations.uncounted {
        0 => String::new(),
        more => format!("; {more} connections to destinations beyond the first 1,024 are not looked at"),
    };
    // An IPv6 address is in brackets.
    let scope = format!("destination:{}", destination.remote);
    let parts = Parts {
        used: Some(count),
        limit: ports.map(|ports| ports.count()),
        connections: count,
        cost: Some(Estimate::exact(1.0)),
        ..Parts::new(Kind::Ports, scope, Unit::Ports, format!("{what}{more}"))
    };
    parts.ceiling(inputs)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::model::ceilings::fixture::{compute, find};
    use crate::model::{LocalPorts, Reading, Summary};

    fn summary(destinations: &[([u8; 4], u16, u64)]) -> Summary {
        let mut summary = Summary::default();
        for (local, port, count) in destinations {
            let remote = SocketAddr::from(([10, 0, 0, 9], *port));
            let destination = Destination { local: IpAddr::from(*local), remote };
            (0..*count).for_each(|_| summary.destinations.add(destination));
        }
        summary
    }

    #[test]
    fn only_the_fullest_destinations_are_ceilings() {
        let ports = LocalPorts { first: 40_000, last: 40_999, reserved: 100 };
        let reading = Reading { local_ports: Some(ports), ..Reading::default() };
        let own = [10, 0, 0, 1];
        let all = compute(&reading, &summary(&[(own, 80, 600), (own, 81, 1), (own, 82, 300), (own, 83, 20)]));
        let found: Vec<&Ceiling> = all.iter().filter(|ceiling| ceiling.kind == Kind::Ports).collect();
        assert_eq!(found.len(), 3);
        let first = find(&all, Kind::Ports, "destination:10.0.0.9:80");
        assert_eq!((first.used, first.limit, first.connections_left), (Some(600), Some(900), Some(300)));
    }

    #[test]
    fn each_local_address_has_all_ports_and_the_fullest_is_told() {
        let all = compute(&Reading::default(), &summary(&[([10, 0, 0, 1], 80, 5), ([10, 0, 0, 2], 80, 6)]));
        let found: Vec<&Ceiling> = all.iter().filter(|ceiling| ceiling.kind == Kind::Ports).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].used, found[0].limit, found[0].connections_left), (Some(6), None, None));
        assert!(found[0].basis.contains("cannot be read"), "{}", found[0].basis);
    }
}
