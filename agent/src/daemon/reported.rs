//! What was last reported of each connection, where each change is: enough to tell whether it changed or is gone, and no more.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::announced::vanished;
use crate::document::Body;
use crate::kernel::{CandidateSocket, Socket};

/// Stands for a fingerprint that no visit has: the connection is to be reported anew.
const NONE: u64 = 0;

#[derive(Debug, Default)]
pub(super) struct Reported {
    seen: HashMap<u64, Seen>,
    generation: u32,
}

#[derive(Debug)]
struct Seen {
    fingerprint: u64,
    generation: u32,
    netns: u32,
}

impl Reported {
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// Has every connection reported anew. That it was reported stays known, so that its end is reported as well.
    pub(super) fn renew(&mut self) {
        self.seen.values_mut().for_each(|seen| seen.fingerprint = NONE);
    }

    /// A connection that was told of but not visited yet. A sweep may have met it before its event was read, and what it said then
    /// has been overridden by the event, which knows less.
    pub(super) fn opened(&mut self, cookie: u64, netns: u32) {
        self.note(cookie, NONE, netns);
    }

    pub(super) fn closed(&mut self, cookie: u64) {
        self.seen.remove(&cookie);
    }

    /// Whether the connection differs from what was reported.
    pub(super) fn changed(&mut self, cookie: u64, fingerprint: u64) -> bool {
        match self.seen.get_mut(&cookie) {
            Some(seen) => {
                seen.generation = self.generation;
                seen.fingerprint != fingerprint
            }
            None => true,
        }
    }

    pub(super) fn note(&mut self, cookie: u64, fingerprint: u64, netns: u32) {
        self.seen.insert(cookie, Seen { fingerprint, generation: self.generation, netns });
    }

    /// Reports those that two sweeps in a row did not meet as vanished. One is not enough: the close event may still be in the ring
    /// buffer. Of a network namespace that was not visited nothing is known.
    pub(super) fn end(&mut self, unvisited: &BTreeSet<u32>, emit: &mut dyn FnMut(Body) -> bool) {
        let generation = self.generation;
        self.seen.retain(|cookie, seen| {
            if unvisited.contains(&seen.netns) {
                seen.generation = generation;
            }
            // One that finds no room is due again after the next sweep.
            generation.wrapping_sub(seen.generation) < 2 || !emit(vanished(*cookie))
        });
        self.generation = generation.wrapping_add(1);
    }
}

/// Differs, as good as surely, where anything differs that a document of the connection shows.
pub(super) fn fingerprint(socket: &Socket) -> u64 {
    let (connection, memory) = (&socket.connection, &socket.header.memory);
    let mut hasher = DefaultHasher::new();
    (connection.received.counters, connection.sent.counters, memory).hash(&mut hasher);
    (connection.pid, connection.fd, connection.received.parse, connection.sent.parse).hash(&mut hasher);
    (connection.received.stalls, connection.received.stalled_ns, socket.header.retransmitted)
        .hash(&mut hasher);
    hasher.finish()
}

/// The same of a connection that is not judged yet.
pub(super) fn fingerprint_of_candidate(candidate: &CandidateSocket) -> u64 {
    let unjudged = &candidate.unjudged;
    let mut hasher = DefaultHasher::new();
    (unjudged.pid, unjudged.fd, unjudged.unparsed_bytes, candidate.header.memory).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(reported: &mut Reported, unvisited: &[u32]) -> Vec<Body> {
        let mut told = Vec::new();
        reported.end(&unvisited.iter().copied().collect(), &mut |body| {
            told.push(body);
            true
        });
        told
    }

    #[test]
    fn an_event_that_is_read_after_a_visit_has_the_connection_reported_again() {
        let mut reported = Reported::default();
        reported.note(7, 99, 1);
        assert!(!reported.changed(7, 99));
        reported.opened(7, 1);
        assert!(reported.changed(7, 99));
    }

    #[test]
    fn connection_of_unvisited_namespace_has_not_vanished() {
        let mut reported = Reported::default();
        reported.note(7, 99, 1);
        reported.note(8, 99, 2);
        let told = [0; 4].map(|_| gone(&mut reported, &[2])).concat();
        assert_eq!(told, [vanished(7)]);
    }

    #[test]
    fn vanished_that_finds_no_room_is_reported_later() {
        let mut reported = Reported::default();
        reported.note(7, 99, 1);
        (0..4).for_each(|_| reported.end(&BTreeSet::new(), &mut |_| false));
        assert_eq!(gone(&mut reported, &[]), [vanished(7)]);
    }

    #[test]
    fn renewed_connections_are_reported_anew_and_still_vanish() {
        let mut reported = Reported::default();
        reported.note(7, 99, 1);
        reported.renew();
        assert!(reported.changed(7, 99));
        assert_eq!([0; 4].map(|_| gone(&mut reported, &[])).concat(), [vanished(7)]);
    }
}
