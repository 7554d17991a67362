//! Which connections that nobody has judged yet are presumed to be WebSockets.
//!
//! An idle WebSocket that is older than the agent shows nothing for as long as it is idle, and holds memory and a descriptor
//! nevertheless. It is presumed to be one where its port speaks for it. HTTP connections that are kept alive on the same port
//! look the same until they speak, which is why a presumption is counted apart and says nothing of frames.

use std::collections::HashSet;
use std::net::SocketAddr;

use agent_ebpf::abi::{Endpoints, grounds};

use super::address;
use crate::document::Role;

/// Destinations that are remembered; a proxy has few, and a crawler must not cost memory without end.
const DESTINATIONS: usize = 1024;

/// Where recognised client connections go, by network namespace.
#[derive(Debug, Clone, Default)]
pub struct ClientDestinations {
    before: HashSet<(u32, SocketAddr)>,
    now: HashSet<(u32, SocketAddr)>,
}

impl ClientDestinations {
    /// A sweep begins: what the one before met still counts, because sweeps meet connections in no order.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Takes a recognised client connection.
    pub fn add(&mut self, endpoints: &Endpoints) {
        if self.now.len() < DESTINATIONS {
            self.now.insert(Self::of(endpoints));
        }
    }

    fn contain(&self, endpoints: &Endpoints) -> bool {
        let destination = Self::of(endpoints);
        self.now.contains(&destination) || self.before.contains(&destination)
    }

    fn of(endpoints: &Endpoints) -> (u32, SocketAddr) {
        (endpoints.netns, address(endpoints, false))
    }
}

/// As which end a connection is presumed to be a WebSocket; `None` where it is not. `found` is what the kernel side found to
/// speak for it, bits of [`grounds`].
pub fn presumed(found: u32, endpoints: &Endpoints, known: &ClientDestinations) -> Option<Role> {
    let has = |bit: u32| found & bit != 0;
    if has(grounds::SERVER_KNOWN) {
        return Some(Role::Server);
    }
    // A remote port alone says nothing: that some client uses WebSockets at port 443 does not make the others' HTTPS such.
    if has(grounds::CLIENT_KNOWN) && known.contain(endpoints) {
        return Some(Role::Client);
    }
    let (local, remote) = (has(grounds::LOCAL_PORT_NAMED), has(grounds::REMOTE_PORT_NAMED));
    match (local, remote) {
        // Servers have the lower ports.
        (true, true) if endpoints.local_port > endpoints.remote_port => Some(Role::Client),
        (true, _) => Some(Role::Server),
        (false, true) => Some(Role::Client),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(local_port: u16, remote_port: u16) -> Endpoints {
        Endpoints { local_port, remote_port, family: 2, netns: 1, ..Endpoints::default() }
    }

    #[test]
    fn grounds_and_ends_decide_the_role() {
        use grounds::*;
        let none = ClientDestinations::default();
        let (low, high) = (endpoints(80, 50_000), endpoints(50_000, 80));
        for (found, ends, role) in [
            (0, low, None),
            (SERVER_KNOWN, low, Some(Role::Server)),
            (SERVER_KNOWN | REMOTE_PORT_NAMED, high, Some(Role::Server)),
            (CLIENT_KNOWN, high, None),
            (LOCAL_PORT_NAMED, low, Some(Role::Server)),
            (REMOTE_PORT_NAMED, high, Some(Role::Client)),
            (LOCAL_PORT_NAMED | REMOTE_PORT_NAMED, low, Some(Role::Server)),
            (LOCAL_PORT_NAMED | REMOTE_PORT_NAMED, high, Some(Role::Client)),
            (LOCAL_PORT_NAMED | CLIENT_KNOWN, low, Some(Role::Server)),
        ] {
            assert_eq!(presumed(found, &ends, &none), role, "{found:#b} {ends:?}");
        }
    }

    #[test]
    fn client_is_presumed_only_at_destination_of_recognised_client() {
        let mut known = ClientDestinations::default();
        known.begin();
        known.add(&endpoints(50_000, 443));
        let other = Endpoints { remote: [9; 16], ..endpoints(50_001, 443) };
        let elsewhere = Endpoints { netns: 2, ..endpoints(50_001, 443) };
        let same = endpoints(50_001, 443);
        let role = |known: &ClientDestinations, ends| presumed(grounds::CLIENT_KNOWN, ends, known);
        assert_eq!(
            [&same, &other, &elsewhere].map(|ends| role(&known, ends)),
            [Some(Role::Client), None, None]
        );
        known.begin();
        assert_eq!(role(&known, &same), Some(Role::Client), "the sweep before still counts");
        known.begin();
        assert_eq!(role(&known, &same), None);
    }
}
