//! Telling those who come late of every connection, a page at a time, whatever the ordinary sweeps do meanwhile.

use super::Engine;
use crate::document::Body;
use crate::host::Host;
use crate::kernel::{Observation, Probes};
use crate::model::{Clock, presumed};

impl<P: Probes, H: Host> Engine<P, H> {
    /// Begins a pass over all connections.
    pub(in crate::daemon) fn begin_catch_up(&mut self) {
        match self.probes.begin_pages() {
            Ok(()) => self.catching_up = true,
            Err(error) => self.degrade("iter/tcp", error.to_string()),
        }
    }

    /// Whether a pass is under way.
    pub(in crate::daemon) fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// Goes on with the pass by about `number` connections.
    pub(in crate::daemon) fn catch_up(&mut self, clock: &Clock, number: usize, emit: &mut dyn FnMut(Body)) {
        let (events, destinations) = (&self.events, &self.destinations);
        let more = self.probes.next_page(number, &mut |observation| match observation {
            Observation::Socket(socket) => emit(events.update(socket, clock)),
            Observation::Candidate(candidate) => {
                let (grounds, endpoints) = (candidate.unjudged.grounds, &candidate.header.endpoints);
                let end = presumed(grounds, endpoints, destinations);
                if let Some(update) = end.and_then(|end| events.update_presumed(candidate, end)) {
                    emit(update);
                }
            }
            // A page is short: events are read between two of them.
            Observation::Lifecycle(_) => {}
        });
        self.catching_up = match more {
            Ok(more) => more,
            Err(error) => {
                self.degrade("iter/tcp", error.to_string());
                false
            }
        };
    }
}
