//! From the last sweep to this moment.
//!
//! Sweeps come on a budget, limits are read at each tick. A count from seconds ago beside a use of now would price the connections
//! that came meanwhile at nothing. What is open at each listener is known at each tick, to the connection: who holds them is taken to
//! be as in the sweep.

use std::collections::BTreeMap;

use super::{Holder, Place, Summary};
use crate::document::Listener;

impl Summary {
    /// The sums as they would be if the sweep were made now. Sockets whose holder is not known yet, because they are younger than
    /// the last look for holders, count for those who hold the others of their listener.
    pub fn present(&self, listeners: &[Listener]) -> Summary {
        let told: BTreeMap<Place, &Listener> =
            listeners.iter().map(|listener| (Place::of(listener), listener)).collect();
        let mut counts: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        let mut namespaces: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for (place, held) in &self.held {
            let swept: u64 = held.values().sum();
            let listener = told.get(place);
            let open = listener.map_or(swept, |listener| listener.connections) as f64;
            let adopted = listener.map_or(0, |listener| listener.adopted) as f64;
            let unknown = held.get(&0).copied().unwrap_or(0);
            // Where most holders are unknown, the known ones stand for nobody but themselves.
            let shared = if unknown <= swept - unknown { swept - unknown } else { swept };
            for (pid, count) in held {
                let absorbed = *pid == 0 && shared < swept;
                let share = if absorbed { 0.0 } else { *count as f64 / shared.max(1) as f64 };
                let sums = counts.entry(*pid).or_default();
                *sums = (sums.0 + open * share, sums.1 + adopted * share);
            }
            let (before, now) = namespaces.entry(place.netns).or_default();
            (*before, *now) = (*before + swept as f64, *now + open);
        }
        let ratio = |netns: u32| namespaces.get(&netns).map_or(1.0, |(before, now)| now / before.max(1.0));
        let mut present = self.clone();
        for (pid, holder) in &mut present.holders {
            let (count, adopted) = counts.get(pid).copied().unwrap_or((holder.connections as f64, 0.0));
            *holder = holder.scaled(count / holder.connections.max(1) as f64);
            holder.adopted = adopted.round() as u64;
        }
        present.holders.retain(|_, holder| holder.connections > 0);
        for (netns, ends) in &mut present.namespaces {
            for count in [&mut ends.connections, &mut ends.servers_within, &mut ends.clients_within] {
                *count = scaled(*count, ratio(*netns));
            }
        }
        // Interfaces are those of one namespace, which the sweep knows by having counted them.
        let own = self.interfaces_netns.map_or(1.0, ratio);
        present.interfaces.values_mut().for_each(|count| *count = scaled(*count, own));
        present
    }
}

impl Holder {
    fn scaled(self, by: f64) -> Self {
        Self {
            connections: scaled(self.connections, by),
            adopted: self.adopted,
            kernel_bytes: scaled(self.kernel_bytes, by),
            fixed_bytes: scaled(self.fixed_bytes, by),
            buffer_bytes: scaled(self.buffer_bytes, by),
            compression_bytes: scaled(self.compression_bytes, by),
            compressed: scaled(self.compressed, by),
        }
    }
}

fn scaled(count: u64, by: f64) -> u64 {
    (count as f64 * by).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Role;
    use crate::model::ceilings::fixture::listener;

    fn swept(held: &[(u16, &[(u32, u64)])]) -> Summary {
        let mut summary = Summary { interfaces_netns: Some(1), ..Summary::default() };
        for (port, pids) in held {
            let place = Place { netns: 1, port: *port, role: Role::Server };
            for (pid, count) in *pids {
                summary.held.entry(place).or_default().insert(*pid, *count);
                let holder = summary.holders.entry(*pid).or_default();
                holder.connections += count;
                holder.kernel_bytes += 4_096 * count;
                summary.namespaces.entry(1).or_default().connections += count;
                *summary.interfaces.entry(2).or_default() += count;
            }
        }
        summary
    }

    fn count(summary: &Summary, pid: u32) -> u64 {
        summary.holders.get(&pid).map_or(0, |holder| holder.connections)
    }

    #[test]
    fn what_came_since_the_sweep_is_its_listeners() {
        let summary = swept(&[(80, &[(7, 100)]), (81, &[(8, 300)])]);
        let present = summary.present(&[listener(1, 80, 150), listener(1, 81, 300)]);
        assert_eq!((count(&present, 7), count(&present, 8)), (150, 300));
        assert_eq!(present.holders[&7].kernel_bytes, 150 * 4_096);
        assert_eq!((present.namespaces[&1].connections, present.interfaces[&2]), (450, 450));
        assert_eq!(summary.present(&[]), summary, "what no listener tells of stands as it was swept");
    }

    #[test]
    fn sockets_younger_than_the_last_look_for_holders_are_shared_out() {
        let summary = swept(&[(80, &[(0, 30), (7, 60), (8, 120)])]);
        let present = summary.present(&[listener(1, 80, 240)]);
        assert_eq!((count(&present, 0), count(&present, 7), count(&present, 8)), (0, 80, 160));
        let mostly = swept(&[(80, &[(0, 90), (7, 10)])]).present(&[listener(1, 80, 200)]);
        assert_eq!((count(&mostly, 0), count(&mostly, 7)), (180, 20));
    }
}
