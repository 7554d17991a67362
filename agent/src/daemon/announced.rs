//! Which connections the stream's readers believe to be open: each `connection_opened` or `connection_adopted` is followed by
//! `connection_closed` or `connection_vanished`.
//!
//! Kept are socket cookies alone, 64 bits each, because nearly every end is told by its own event. A sweep looks for missing
//! ends only where some may be missing: the kernel lost an event, or no hook reports ends.

use std::collections::HashSet;

use crate::document::{Body, Vanished};

/// Complete sweeps in a row that must not meet a connection until it has vanished. One is not enough: an iterator may step over a
/// socket while its neighbours in the hash table come and go.
const SWEEPS: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Announced {
    open: HashSet<u64>,
    /// Ended, but the event that says so found no room yet.
    owed: Vec<u64>,
    /// Events that the kernel had lost when ends were last looked for.
    lost: u64,
    search: Option<Search>,
}

/// Looks for connections that are gone.
#[derive(Debug)]
struct Search {
    /// Sorted, with whether the present sweep met it.
    suspects: Vec<u64>,
    met: Vec<bool>,
    sweeps: u32,
}

impl Announced {
    /// An event that opens the connection for the readers was sent.
    pub(super) fn opened(&mut self, cookie: u64) {
        self.open.insert(cookie);
    }

    /// It ended; `sent` says whether the event found room.
    pub(super) fn closed(&mut self, cookie: u64, sent: bool) {
        if self.open.remove(&cookie) && !sent {
            self.owed.push(cookie);
        }
    }

    /// A sweep begins. `lost` is how many events the kernel has lost so far, `None` where it does not say; `ends_are_told` is
    /// whether a hook reports ends.
    pub(super) fn begin(&mut self, lost: Option<u64>, ends_are_told: bool) {
        let lost = lost.unwrap_or(self.lost);
        if let Some(search) = &mut self.search {
            search.met.fill(false);
        } else if lost != self.lost || !ends_are_told {
            self.lost = lost;
            let mut suspects: Vec<u64> = self.open.iter().copied().collect();
            suspects.sort_unstable();
            let met = vec![false; suspects.len()];
            self.search = Some(Search { suspects, met, sweeps: 0 });
        }
    }

    /// The sweep meets a connection.
    pub(super) fn met(&mut self, cookie: u64) {
        if let Some(search) = &mut self.search
            && let Ok(place) = search.suspects.binary_search(&cookie)
        {
            search.met[place] = true;
        }
    }

    /// The sweep has ended, and all life-cycle events that came before its end have been taken. `complete` is whether it went
    /// everywhere.
    pub(super) fn end(&mut self, complete: bool) {
        let Some(mut search) = self.search.take_if(|_| complete) else { return };
        let mut met = search.met.into_iter();
        search.suspects.retain(|cookie| !met.next().unwrap_or(false) && self.open.contains(cookie));
        search.sweeps += 1;
        search.met = vec![false; search.suspects.len()];
        if search.sweeps == SWEEPS {
            search.suspects.iter().for_each(|cookie| self.closed(*cookie, false));
        } else if !search.suspects.is_empty() {
            self.search = Some(search);
        }
    }

    /// Sends what is owed, as far as there is room.
    pub(super) fn settle(&mut self, emit: &mut dyn FnMut(Body) -> bool) {
        self.owed.retain(|cookie| !emit(vanished(*cookie)));
    }
}

/// The event of a connection that is gone.
pub(super) fn vanished(cookie: u64) -> Body {
    Body::ConnectionVanished(Vanished { id: cookie.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(announced: &mut Announced, lost: u64, met: &[u64], complete: bool) -> Vec<Body> {
        announced.begin(Some(lost), true);
        met.iter().for_each(|cookie| announced.met(*cookie));
        announced.end(complete);
        let mut told = Vec::new();
        announced.settle(&mut |body| {
            told.push(body);
            true
        });
        told
    }

    fn opened(cookies: std::ops::Range<u64>) -> Announced {
        let mut announced = Announced::default();
        cookies.for_each(|cookie| announced.opened(cookie));
        announced
    }

    #[test]
    fn connection_missing_from_two_sweeps_after_loss_vanishes_once() {
        let mut announced = opened(0..5);
        assert!(sweep(&mut announced, 0, &[], true).is_empty(), "nothing was lost, so nothing is missing");
        assert!(sweep(&mut announced, 1, &[0, 1, 2], true).is_empty(), "one sweep is not enough");
        assert_eq!(sweep(&mut announced, 1, &[0, 1, 2, 3], true), [vanished(4)]);
        assert!(sweep(&mut announced, 1, &[], true).is_empty());
        assert_eq!(announced.open.len(), 4);
    }

    #[test]
    fn incomplete_sweep_says_nothing_of_what_it_missed() {
        let mut announced = opened(0..2);
        for _ in 0..5 {
            assert!(sweep(&mut announced, 1, &[0], false).is_empty());
        }
        assert!(sweep(&mut announced, 1, &[0], true).is_empty());
        assert_eq!(sweep(&mut announced, 1, &[0], true), [vanished(1)]);
    }

    #[test]
    fn end_that_found_no_room_is_owed_until_there_is_some() {
        let mut announced = opened(0..2);
        announced.closed(0, false);
        announced.closed(1, true);
        announced.closed(9, false);
        announced.settle(&mut |_| false);
        let mut told = Vec::new();
        announced.settle(&mut |body| {
            told.push(body);
            true
        });
        assert_eq!(told, [vanished(0)]);
        announced.settle(&mut |_| panic!("told twice"));
    }

    #[test]
    fn without_reports_of_ends_every_sweep_looks() {
        let mut announced = opened(0..1);
        for _ in 0..SWEEPS {
            announced.begin(Some(0), false);
            announced.end(true);
        }
        assert_eq!(announced.owed, [0]);
    }
}
