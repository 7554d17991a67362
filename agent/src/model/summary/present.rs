//! From the last sweep to this moment.
//!
//! Sweeps come on a budget, limits are read at each tick. A count from seconds ago beside a use of now would price the connections
//! that came meanwhile at nothing. What is open at each listener is known at each tick, to the connection: who holds them is taken to
//! be as in the sweep.
//!
//! Presumed connections stand as they were swept, but for those that were recognised since: these are among their listener's.

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
        let left = |place: &Place| {
            let presumed = self.presumed_at(place);
            let adopted = told.get(place).map_or(0, |listener| listener.adopted);
            let since = adopted.saturating_sub(self.adopted.get(place).copied().unwrap_or(0));
            presumed.saturating_sub(since) as f64 / presumed.max(1) as f64
        };
        for place in self.presumed.keys() {
            let presumed = self.presumed_at(place) as f64;
            let (before, now) = namespaces.entry(place.netns).or_default();
            (*before, *now) = (*before + presumed, *now + presumed * left(place));
        }
        let ratio = |netns: u32| namespaces.get(&netns).map_or(1.0, |(before, now)| now / before.max(1.0));
        let mut present = self.clone();
        for (pid, holder) in &mut present.holders {
            let (count, adopted) = counts.get(pid).copied().unwrap_or((holder.connections as f64, 0.0));
            *holder = holder.scaled(count / holder.connections.max(1) as f64);
            holder.adopted = adopted.round() as u64;
        }
        present.add_presumed(left);
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

    /// The sums as they were swept, presumed connections included.
    pub fn with_presumed(&self) -> Summary {
        let mut all = self.clone();
        all.add_presumed(|_| 1.0);
        all
    }

    /// Adds to the holders what is left of the presumed connections of each listener, as a share.
    fn add_presumed(&mut self, left: impl Fn(&Place) -> f64) {
        for (place, held) in &mut self.presumed {
            let left = left(place);
            for (pid, presumed) in held {
                *presumed = presumed.scaled(left);
                let holder = self.holders.entry(*pid).or_default();
                *holder = *holder + *presumed;
            }
        }
    }
}

impl Holder {
    fn scaled(self, by: f64) -> Self {
        Self {
            connections: scaled(self.connections, by),
            presumed: scaled(self.presumed, by),
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
    fn presumed_connections_count_once_when_they_are_recognised() {
        let mut summary = swept(&[(80, &[(7, 1)])]);
        let place = Place { netns: 1, port: 80, role: Role::Server };
        let idle = Holder { connections: 30, presumed: 30, kernel_bytes: 30 * 4_096, ..Holder::default() };
        summary.presumed.entry(place).or_default().insert(7, idle);
        summary.namespaces.entry(1).or_default().connections += 30;
        summary.adopted.insert(place, 1);
        let told = |adopted| {
            let listener = Listener { adopted, opened: 0, ..listener(1, 80, adopted) };
            let present = summary.present(&[listener]);
            let holder = present.holders[&7];
            let ends = present.namespaces[&1].connections;
            (holder.connections, holder.presumed, holder.kernel_bytes, ends, present.presumed_at(&place))
        };
        assert_eq!(told(1), (31, 30, 31 * 4_096, 31, 30));
        assert_eq!(told(11), (31, 20, 31 * 4_096, 31, 20), "ten were recognised since the sweep");
        assert_eq!(told(41), (41, 0, 41 * 4_096, 41, 0), "more than were presumed");
        assert_eq!(summary.with_presumed().holders[&7].recognised(), 1);
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
