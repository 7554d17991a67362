//! Which way a connection came in: by which listener, from which address. And how many did.
//!
//! A parked connection has no room for its address, and a socket that was reset has forgotten it. So addresses that have
//! connections are in a table, and a connection keeps its number in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A listener and an address, in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door(u32);

impl Door {
    const ADDRESS_BITS: u32 = 24;
    /// More listeners cannot be told apart.
    pub(super) const MAX_LISTENERS: usize = 1 << (u32::BITS - Self::ADDRESS_BITS);
    /// Addresses that can be counted; a number beyond any of them is an address nobody counts.
    const MAX_ADDRESSES: usize = (1 << Self::ADDRESS_BITS) - 1;

    fn new(listener: usize, address: Option<usize>) -> Self {
        let address = address.unwrap_or(Self::MAX_ADDRESSES);
        // Both are below their bounds.
        Self((listener as u32) << Self::ADDRESS_BITS | address as u32)
    }

    /// Number of the listener.
    pub(super) fn listener(self) -> usize {
        (self.0 >> Self::ADDRESS_BITS) as usize
    }

    fn address(self) -> Option<usize> {
        Some(self.0 as usize & Self::MAX_ADDRESSES).filter(|address| *address < Self::MAX_ADDRESSES)
    }
}

/// Why there is no place for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many connections as there may be.
    Connections,
    /// As many from this address as there may be.
    Address,
}

/// Counts connections against both limits.
pub(super) struct Porter {
    open: AtomicUsize,
    most: usize,
    addresses: Option<Mutex<Addresses>>,
}

/// Addresses with connections, by number.
struct Addresses {
    most: u32,
    numbers: HashMap<Network, usize>,
    counts: Vec<(Network, u32)>,
    free: Vec<usize>,
}

/// What counts as one address: one of IPv4; 64 bits of IPv6, of which the holder may choose the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        // On a socket for both, IPv4 comes as IPv6.
        match address.to_canonical() {
            IpAddr::V4(address) => Network::V4(address.to_bits()),
            IpAddr::V6(address) => Network::V6((Ipv6Addr::to_bits(address) >> 64) as u64),
        }
    }
}

impl Porter {
    /// Lets `most` in at once, and `per_address` of them from one address.
    pub(super) fn new(most: usize, per_address: Option<u32>) -> Self {
        let addresses = |most| {
            Mutex::new(Addresses { most, numbers: HashMap::new(), counts: Vec::new(), free: Vec::new() })
        };
        Self { open: AtomicUsize::new(0), most, addresses: per_address.map(addresses) }
    }

    /// Connections inside.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Counts one more.
    pub(super) fn enter(&self, listener: usize, address: IpAddr) -> Result<Door, Full> {
        let number = match &self.addresses {
            Some(addresses) => Some(lock(addresses).enter(Network::of(address)).ok_or(Full::Address)?),
            None => None,
        };
        self.count(Door::new(listener, number))
    }

    /// Counts one more that comes in the way of one that is there.
    pub(super) fn enter_beside(&self, door: Door) -> Result<Door, Full> {
        if let (Some(addresses), Some(number)) = (&self.addresses, door.address()) {
            lock(addresses).enter_beside(number).ok_or(Full::Address)?;
        }
        self.count(door)
    }

    fn count(&self, door: Door) -> Result<Door, Full> {
        let room = |open| (open < self.most).then_some(open + 1);
        if self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            self.forget(door);
            return Err(Full::Connections);
        }
        Ok(door)
    }

    /// Counts one less, and says whether it was the last.
    pub(super) fn leave(&self, door: Door) -> bool {
        self.forget(door);
        self.open.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn forget(&self, door: Door) {
        if let (Some(addresses), Some(number)) = (&self.addresses, door.address()) {
            lock(addresses).leave(number);
        }
    }
}

impl Addresses {
    fn enter(&mut self, network: Network) -> Option<usize> {
        if let Some(number) = self.numbers.get(&network).copied() {
            return self.enter_beside(number);
        }
        if self.numbers.len() >= Door::MAX_ADDRESSES || self.most == 0 {
            return None;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.counts.push((network, 0));
            self.counts.len() - 1
        });
        self.counts[number] = (network, 1);
        self.numbers.insert(network, number);
        Some(number)
    }

    fn enter_beside(&mut self, number: usize) -> Option<usize> {
        let (_, count) = self.counts.get_mut(number).filter(|(_, count)| *count < self.most)?;
        *count += 1;
        Some(number)
    }

    fn leave(&mut self, number: usize) {
        let Some((network, count)) = self.counts.get_mut(number) else { return };
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        self.numbers.remove(network);
        self.free.push(number);
        // A crowd of addresses must not be paid for for ever.
        if self.numbers.is_empty() {
            (self.numbers, self.counts, self.free) = (HashMap::new(), Vec::new(), Vec::new());
        } else if self.numbers.capacity() > 8 * self.numbers.len().max(64) {
            self.numbers.shrink_to(2 * self.numbers.len());
        }
    }
}

fn lock(addresses: &Mutex<Addresses>) -> std::sync::MutexGuard<'_, Addresses> {
    // No code panics while holding it.
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(porter: &Porter) -> usize {
        lock(porter.addresses.as_ref().unwrap()).numbers.len()
    }

    #[test]
    fn a_place_is_given_back_to_the_address_it_was_taken_from() {
        let porter = Porter::new(100, Some(2));
        let first = porter.enter(3, ip("192.0.2.1")).unwrap();
        assert_eq!(first.listener(), 3);
        porter.enter(0, ip("192.0.2.1")).unwrap();
        assert_eq!(porter.enter(0, ip("192.0.2.1")), Err(Full::Address));
        assert_eq!(porter.enter(0, ip("::ffff:192.0.2.1")), Err(Full::Address));
        let other = porter.enter(0, ip("192.0.2.2")).unwrap();
        assert!(!porter.leave(first));
        assert!(porter.enter(0, ip("192.0.2.1")).is_ok());
        assert_eq!((porter.open(), known(&porter)), (3, 2));
        porter.leave(other);
        assert_eq!((porter.open(), known(&porter)), (2, 1));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let porter = Porter::new(100, Some(1));
        porter.enter(0, ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(porter.enter(0, ip("2001:db8:0:1:ffff::2")), Err(Full::Address));
        assert!(porter.enter(0, ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn one_that_finds_no_place_costs_its_address_nothing() {
        let porter = Porter::new(1, Some(5));
        let inside = porter.enter(0, ip("192.0.2.1")).unwrap();
        for _ in 0..10 {
            assert_eq!(porter.enter(0, ip("192.0.2.2")), Err(Full::Connections));
        }
        assert_eq!(known(&porter), 1);
        assert!(porter.leave(inside));
        assert_eq!(known(&porter), 0);
    }

    #[test]
    fn only_addresses_with_connections_take_memory() {
        let porter = Porter::new(usize::MAX, Some(1));
        let resident = porter.enter(0, ip("198.51.100.1")).unwrap();
        for round in 0..3_u32 {
            let doors: Vec<_> = (0..10_000)
                .map(|at| porter.enter(0, IpAddr::V4((round << 20 | at).into())).unwrap())
                .collect();
            doors.into_iter().for_each(|door| _ = porter.leave(door));
        }
        let addresses = lock(porter.addresses.as_ref().unwrap());
        assert!(addresses.numbers.capacity() <= 1_024, "{}", addresses.numbers.capacity());
        // Numbers are used again, so the table is as long as the crowd was once.
        assert!(addresses.counts.len() <= 10_001);
        drop(addresses);
        assert!(porter.leave(resident));
        assert_eq!(lock(porter.addresses.as_ref().unwrap()).counts.capacity(), 0);
    }

    #[test]
    fn without_a_limit_for_addresses_nothing_is_kept_of_them() {
        let porter = Porter::new(2, None);
        let door = porter.enter(Door::MAX_LISTENERS - 1, ip("192.0.2.1")).unwrap();
        assert_eq!((door.listener(), door.address()), (Door::MAX_LISTENERS - 1, None));
    }
}
