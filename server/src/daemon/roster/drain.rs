//! Telling everybody that the server is going away.

use super::{CHUNK, Departure, Farewell, Roster, Wake};
use crate::daemon::table::{DRAIN, Entry, Stage};
use crate::daemon::wire::{Outgoing, Written};

impl Roster {
    /// From now on nobody is parked, and newcomers hear at once that they are too late.
    pub(crate) fn begin_drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.hubs.values().for_each(|hub| hub.pulse.raise(DRAIN));
    }

    /// One more than the highest descriptor that may have a connection.
    pub(crate) fn extent(&self) -> usize {
        self.lock().table.len()
    }

    /// Sends Close to some connections from descriptor `from` on and says where to go on. A parked one gets it where it
    /// is, and stays there until its peer answers.
    pub(crate) fn drain(&self, from: usize, departures: &mut Vec<Departure>) -> Option<usize> {
        let mut state = self.lock();
        let end = (from + CHUNK).min(state.table.len());
        for descriptor in from..end {
            let parked = match state.table.get_mut(descriptor) {
                Some(Entry::Active(beat)) => {
                    beat.pulse.raise(DRAIN);
                    continue;
                }
                Some(Entry::Parked(parked)) if parked.stage == Stage::Open => parked,
                Some(Entry::Parked(_) | Entry::Vacant) | None => continue,
            };
            match Outgoing::close_away().write(&parked.socket) {
                Written::Whole => parked.stage = Stage::Closing,
                // Nothing of it has gone out, or nothing can: its task sees to that.
                Written::Partly(backlog) if backlog.untouched() => {
                    let wake = Wake { bits: DRAIN, ..Wake::default() };
                    departures.extend(self.wake(&mut state, descriptor, wake));
                }
                Written::Broken => {
                    let wake = Wake { bits: DRAIN, ..Wake::default() };
                    departures.extend(self.wake(&mut state, descriptor, wake));
                }
                Written::Partly(backlog) => {
                    let Some(parked) = self.remove(&mut state, descriptor) else { continue };
                    let (socket, door) = (parked.socket, parked.idle.door);
                    let farewell = Farewell { socket, door, tail: Vec::new(), backlog: Some(backlog) };
                    departures.push(Departure::Farewell(farewell));
                }
            }
        }
        (end < state.table.len()).then_some(end)
    }
}
