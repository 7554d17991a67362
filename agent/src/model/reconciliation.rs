//! Totals against what sweeps really meet.
//!
//! A listener's open connections are what it opened and adopted less what was closed, counted by events at the sockets. An event that
//! is missed, or counted twice, stays in that sum for good. A sweep counts anew, but takes time, and connections come and go
//! meanwhile. So a difference counts only as far as those cannot explain it, and only where it lasts.

use std::collections::{BTreeMap, BTreeSet};

use super::Place;

/// Complete sweeps in a row that must find a difference.
const SWEEPS: usize = 3;

/// What a listener had counted at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Opened and adopted.
    pub begun: u64,
    /// Closed.
    pub closed: u64,
}

/// Corrections of the totals.
#[derive(Debug, Clone, Default)]
pub struct Reconciliation {
    places: BTreeMap<Place, Differences>,
    repaired: u64,
}

#[derive(Debug, Clone, Default)]
struct Differences {
    /// Of the last sweeps: open by the totals and not met, or, negative, met and not open by the totals.
    recent: [i64; SWEEPS],
    correction: i64,
}

impl Reconciliation {
    /// Takes a sweep: the counts before and after it, and how many recognised connections it met. Of listeners in an unvisited
    /// network namespace it says nothing.
    pub fn observe(
        &mut self,
        before: &BTreeMap<Place, Counted>,
        after: &BTreeMap<Place, Counted>,
        met: impl Fn(&Place) -> u64,
        unvisited: &BTreeSet<u32>,
    ) {
        self.places.retain(|place, _| after.contains_key(place));
        for (place, after) in after.iter().filter(|(place, _)| !unvisited.contains(&place.netns)) {
            let before = before.get(place).copied().unwrap_or_default();
            let met = signed(met(place));
            // Open all the while, at least; open at any time meanwhile, at most.
            let least = signed(before.begun) - signed(after.closed);
            let most = signed(after.begun) - signed(before.closed);
            let difference = (least - met).max(0) + (most - met).min(0);
            let known = self.places.entry(*place).or_default();
            known.recent.rotate_left(1);
            known.recent[SWEEPS - 1] = difference;
            let correction = known.lasting();
            self.repaired += correction.unsigned_abs().saturating_sub(known.correction.unsigned_abs());
            known.correction = correction;
        }
    }

    /// Connections that are open at a listener, by its totals and what is known of their errors.
    pub fn open(&self, place: &Place, by_totals: u64) -> u64 {
        let correction = self.places.get(place).map_or(0, |known| known.correction);
        by_totals.saturating_add_signed(correction.saturating_neg())
    }

    /// How many connections the totals were corrected by so far.
    pub fn repaired(&self) -> u64 {
        self.repaired
    }
}

impl Differences {
    /// The smallest difference, where all are to the same side.
    fn lasting(&self) -> i64 {
        if self.recent.iter().all(|difference| *difference > 0) {
            self.recent.into_iter().min().unwrap_or(0)
        } else if self.recent.iter().all(|difference| *difference < 0) {
            self.recent.into_iter().max().unwrap_or(0)
        } else {
            0
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Role;

    const PLACE: Place = Place { netns: 1, port: 80, role: Role::Server };

    fn counts(begun: u64, closed: u64) -> BTreeMap<Place, Counted> {
        BTreeMap::from([(PLACE, Counted { begun, closed })])
    }

    fn still(reconciliation: &mut Reconciliation, begun: u64, closed: u64, met: u64) -> u64 {
        let counts = counts(begun, closed);
        reconciliation.observe(&counts, &counts, |_| met, &BTreeSet::new());
        reconciliation.open(&PLACE, begun - closed)
    }

    #[test]
    fn phantom_is_taken_out_after_it_lasted_and_counted_once() {
        let mut totals = Reconciliation::default();
        let open = [0; 4].map(|_| still(&mut totals, 15_001, 15_000, 0));
        assert_eq!((open, totals.repaired()), ([1, 1, 0, 0], 1));
        assert_eq!(still(&mut totals, 15_011, 15_000, 10), 10, "ten came since");
        assert_eq!(still(&mut totals, 15_011, 15_001, 10), 10, "the close came after all");
        assert_eq!(totals.repaired(), 1);
    }

    #[test]
    fn connection_that_totals_miss_is_added() {
        let mut totals = Reconciliation::default();
        let open = [0; 3].map(|_| still(&mut totals, 10, 10, 2));
        assert_eq!((open, totals.repaired()), ([0, 0, 2], 2));
    }

    #[test]
    fn connections_that_come_and_go_during_sweeps_are_no_difference() {
        let mut totals = Reconciliation::default();
        for round in 0..10 {
            // 100 come and 100 go during each sweep, which meets any number of them.
            let (before, after) =
                (counts(1_000 + 100 * round, 100 * round), counts(1_100 + 100 * round, 100 * (round + 1)));
            for met in [900, 1_100] {
                totals.observe(&before, &after, |_| met, &BTreeSet::new());
            }
        }
        assert_eq!((totals.open(&PLACE, 1_000), totals.repaired()), (1_000, 0));
    }

    #[test]
    fn unvisited_namespace_is_left_alone() {
        let mut totals = Reconciliation::default();
        for _ in 0..5 {
            totals.observe(&counts(5, 0), &counts(5, 0), |_| 0, &BTreeSet::from([1]));
        }
        assert_eq!(totals.open(&PLACE, 5), 5);
    }
}
