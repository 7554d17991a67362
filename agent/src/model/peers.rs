//! Which peers hold many of a process's connections, in little memory however many peers there are.
//!
//! Misra and Gries (1982): a fixed number of counters; a peer that finds none free takes one from each. A counter is never more
//! than the truth, and less by at most 1/17 of all connections.

use std::net::IpAddr;

/// Peers that are told apart at a time.
const COUNTERS: usize = 16;

/// Connections by peer, those with many of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    counters: Vec<(IpAddr, u64)>,
}

impl Peers {
    /// Counts a connection.
    pub fn add(&mut self, peer: IpAddr) {
        if let Some((_, count)) = self.counters.iter_mut().find(|(known, _)| *known == peer) {
            *count += 1;
        } else if self.counters.len() < COUNTERS {
            self.counters.push((peer, 1));
        } else {
            for (_, count) in &mut self.counters {
                *count -= 1;
            }
            self.counters.retain(|(_, count)| *count > 0);
        }
    }

    /// Peers, and how many connections each of them has at least.
    pub fn at_least(&self) -> impl Iterator<Item = (IpAddr, u64)> + '_ {
        self.counters.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_peer_with_many_is_found_among_any_number_with_few() {
        let mut peers = Peers::default();
        for number in 0..100_000u32 {
            peers.add(address(number));
            // It comes when every counter has had an owner.
            if number >= 50_000 {
                peers.add(address(7_777_777));
            }
        }
        let (peer, count) = peers.at_least().max_by_key(|(_, count)| *count).expect("some");
        assert_eq!(peer, address(7_777_777));
        let error = 150_000 / (COUNTERS as u64 + 1);
        assert!((50_000 - error..=50_000).contains(&count), "{count}");
        assert!(peers.counters.len() <= COUNTERS);
    }

    #[test]
    fn few_peers_are_counted_exactly() {
        let mut peers = Peers::default();
        for number in 0..1_000u32 {
            peers.add(address(number % 10));
        }
        assert!(peers.at_least().all(|(_, count)| count == 100));
        assert_eq!(peers.at_least().count(), 10);
    }
}
