//! What a sweep over all connections amounts to. Only sums are kept, so that the agent's memory does not grow with the
//! number of connections.

mod present;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Destinations that are counted; a proxy has few, and a crawler must not cost memory without end.
const DESTINATIONS: usize = 1024;

use super::Peers;
use crate::document::{Listener, Role};

/// Sums over the sockets of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holder {
    /// TCP connections, those that are only presumed to carry WebSockets included.
    pub connections: u64,
    /// The part of them that is only presumed to.
    pub presumed: u64,
    /// Of all connections that their listeners have had since the agent attached, those that were older than the agent: this
    /// holder's share. Known at present only ([`Summary::present`]).
    pub adopted: u64,
    /// Kernel memory of all of them, slab objects included.
    pub kernel_bytes: u64,
    /// The part of it that is slab objects.
    pub fixed_bytes: u64,
    /// The part of it that is buffers (charged to `tcp_mem`).
    pub buffer_bytes: u64,
    /// Estimated compression state of those that negotiated it.
    pub compression_bytes: u64,
    /// How many negotiated it.
    pub compressed: u64,
}

/// Sums of one sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By process id; 0 holds those whose process is not known. As a sweep makes them, recognised connections alone; presumed ones
    /// are added by [`Summary::present`] and [`Summary::with_presumed`].
    pub holders: BTreeMap<u32, Holder>,
    /// Recognised connections by listener, and of each by process id.
    pub held: BTreeMap<Place, BTreeMap<u32, u64>>,
    /// Presumed ones likewise, with what they hold.
    pub presumed: BTreeMap<Place, BTreeMap<u32, Holder>>,
    /// Connections that each listener had adopted when the sweep began.
    pub adopted: BTreeMap<Place, u64>,
    /// Whether the fixed part of a connection's memory is known, and so in `kernel_bytes`.
    pub fixed_known: bool,
    /// Peers that hold many of a process's connections which it accepted, by process id.
    pub peers: BTreeMap<u32, Peers>,
    /// Connections by interface index.
    pub interfaces: BTreeMap<u32, u64>,
    /// The network namespace those interfaces are in; `None` where that cannot be told.
    pub interfaces_netns: Option<u32>,
    /// By inode number of the network namespace.
    pub namespaces: BTreeMap<u32, Ends>,
    /// Where connections go that were made from here, in the network namespace whose ports are known.
    pub destinations: Destinations,
}

/// A listener, as its totals are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// A server's own port, a client's remote one.
    pub port: u16,
    /// Which end.
    pub role: Role,
}

impl Place {
    /// That of these totals.
    pub fn of(listener: &Listener) -> Self {
        Self { netns: listener.netns, port: listener.port, role: listener.role }
    }
}

/// Tracked sockets in one network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// All of them.
    pub connections: u64,
    /// Servers' sockets whose other end is in the namespace too, as far as their addresses tell.
    pub servers_within: u64,
    /// Likewise clients'.
    pub clients_within: u64,
}

impl Ends {
    /// TCP connections that they are ends of: two sockets of one connection make one.
    pub fn distinct(&self) -> u64 {
        let within = self.servers_within + self.clients_within;
        self.connections - within + self.servers_within.max(self.clients_within)
    }
}

/// From which address to which address and port: each such pair has all local ports for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// This host's address.
    pub local: IpAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// Tracked client sockets by destination, of a bounded number of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    counts: HashMap<Destination, u64>,
    /// Sockets whose destination found no room.
    pub uncounted: u64,
}

impl Destinations {
    /// Takes a socket.
    pub fn add(&mut self, destination: Destination) {
        if let Some(count) = self.counts.get_mut(&destination) {
            *count += 1;
        } else if self.counts.len() < DESTINATIONS {
            self.counts.insert(destination, 1);
        } else {
            self.uncounted += 1;
        }
    }

    /// Of at most `number` remote ends, the local address with the most sockets; the fullest first.
    pub fn fullest(&self, number: usize) -> Vec<(Destination, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(destination, count)| (*destination, *count)).collect();
        // Addresses break ties, so that the same ones are shown every time.
        all.sort_unstable_by_key(|(destination, count)| (std::cmp::Reverse(*count), *destination));
        let mut fullest: Vec<(Destination, u64)> = Vec::new();
        for (destination, count) in all {
            if fullest.len() == number {
                break;
            }
            if fullest.iter().all(|(fuller, _)| fuller.remote != destination.remote) {
                fullest.push((destination, count));
            }
        }
        fullest
    }
}

impl Summary {
    /// Presumed connections of a listener.
    pub fn presumed_at(&self, place: &Place) -> u64 {
        self.presumed.get(place).map_or(0, |held| held.values().map(|holder| holder.connections).sum())
    }

    /// Sums over all processes.
    pub fn total(&self) -> Holder {
        self.holders.values().fold(Holder::default(), |sum, holder| sum + *holder)
    }
}

impl std::ops::Add for Holder {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            presumed: self.presumed + other.presumed,
            adopted: self.adopted + other.adopted,
            kernel_bytes: self.kernel_bytes + other.kernel_bytes,
            fixed_bytes: self.fixed_bytes + other.fixed_bytes,
            buffer_bytes: self.buffer_bytes + other.buffer_bytes,
            compression_bytes: self.compression_bytes + other.compression_bytes,
            compressed: self.compressed + other.compressed,
        }
    }
}

impl Holder {
    /// Connections that are known to carry WebSockets.
    pub fn recognised(&self) -> u64 {
        self.connections - self.presumed
    }

    /// Connections older than the agent that have been found, recognised or presumed.
    pub fn older(&self) -> u64 {
        self.adopted + self.presumed
    }

    /// Mean kernel memory of a connection.
    pub fn kernel_per_connection(&self) -> Option<f64> {
        mean(self.kernel_bytes, self.connections)
    }

    /// Mean buffer memory of a connection.
    pub fn buffers_per_connection(&self) -> Option<f64> {
        mean(self.buffer_bytes, self.connections)
    }
}

fn mean(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> Destination {
        Destination { local: [127, 0, 0, 1].into(), remote: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn two_ends_here_are_one_connection() {
        let ends = Ends { connections: 10, servers_within: 4, clients_within: 4 };
        assert_eq!(ends.distinct(), 2 + 4);
        let servers = Ends { connections: 10, servers_within: 4, clients_within: 0 };
        assert_eq!(servers.distinct(), 10, "the other ends are not tracked, and there all the same");
    }

    #[test]
    fn destinations_are_bounded_and_say_so() {
        let mut destinations = Destinations::default();
        for _ in 0..2 {
            (1..=1030).for_each(|port| destinations.add(destination(port)));
        }
        destinations.add(destination(7));
        assert_eq!(destinations.uncounted, 2 * 6);
        assert_eq!(destinations.fullest(2), [(destination(7), 3), (destination(1), 2)]);
    }
}
