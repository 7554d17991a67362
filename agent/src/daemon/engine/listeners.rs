//! Sums by listener: as the kernel side counts them, corrected by what sweeps meet, and with what is presumed beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_ebpf::abi::{self, ListenerKey, ListenerTotals};

use super::Engine;
use crate::document::{Listener, Role};
use crate::host::Host;
use crate::kernel::{Probes, RETRANSMIT_HOOK, ReadError};
use crate::model::{Counted, Place, Summary, listener, role};

/// What may fail to be read, as `degraded` names it.
const TOTALS: &str = "totals by listener";
const REFUSALS: &str = "refused upgrades";

/// What each listener has counted so far, and the part of it that was adopted.
type Counts = (BTreeMap<Place, Counted>, BTreeMap<Place, u64>);

impl<P: Probes, H: Host> Engine<P, H> {
    /// What listeners have counted so far, and the part of it that was adopted; `None` where that cannot be read. Listeners beyond
    /// those that can be told apart share their totals, and are left out.
    pub(super) fn counted(&mut self) -> Option<Counts> {
        let totals = self.probes.listeners().ok()?;
        let told_apart = totals.iter().filter(|(key, _)| *key != ListenerKey::default());
        let place = |key: &ListenerKey| Place { netns: key.netns, port: key.port, role: role(key.role) };
        let counted = told_apart.clone().map(|(key, totals)| {
            (place(key), Counted { begun: totals.opened + totals.adopted, closed: totals.closed })
        });
        Some((counted.collect(), told_apart.map(|(key, totals)| (place(key), totals.adopted)).collect()))
    }

    /// Sums by listener; those of the last time where they cannot be read now.
    pub(super) fn read_listeners(&mut self, now: u64) -> Vec<Listener> {
        match self.probes.refusals() {
            Ok(refusals) => {
                self.failing.remove(REFUSALS);
                self.refused.clear();
                for (refusal, count) in refusals {
                    self.refused.entry(refusal.listener).or_default().insert(refusal.status, count);
                }
            }
            Err(error) => drop(self.failing.insert(REFUSALS, error.to_string())),
        }
        let totals = match self.probes.listeners() {
            Ok(totals) => totals,
            Err(error) => return self.last_listeners(now, &error),
        };
        self.failing.remove(TOTALS);
        // Where every upgrade is refused there is nothing to sum up but that.
        let mut all: BTreeMap<_, _> =
            self.refused.keys().map(|key| (*key, ListenerTotals::default())).collect();
        all.extend(totals);
        let watched = self.hooks.contains(&RETRANSMIT_HOOK);
        let none = BTreeMap::new();
        let told = |(key, totals): (&ListenerKey, &ListenerTotals)| {
            let mut told = listener(key, totals, self.refused.get(key).unwrap_or(&none));
            told.connections = self.reconciliation.open(&Place::of(&told), told.connections);
            told.stalls.retransmitted_segments = told.stalls.retransmitted_segments.filter(|_| watched);
            told
        };
        let listeners: Vec<Listener> = all.iter().map(told).collect();
        self.listeners = Some((now, listeners.clone()));
        listeners
    }

    fn last_listeners(&mut self, now: u64, error: &ReadError) -> Vec<Listener> {
        let (reason, listeners) = match &self.listeners {
            Some((then, listeners)) => {
                let age = Duration::from_nanos(now.saturating_sub(*then)).as_secs();
                (format!("{error}; what is said of listeners is {age} s old"), listeners.clone())
            }
            None => (error.to_string(), Vec::new()),
        };
        self.failing.insert(TOTALS, reason);
        listeners
    }
}

/// Says of each listener how many presumed connections it has; one that has no others gets a row.
pub(super) fn add_presumed(listeners: &mut Vec<Listener>, present: &Summary) {
    for place in present.presumed.keys() {
        let presumed = present.presumed_at(place);
        if presumed == 0 {
            continue;
        }
        let row = listeners.iter().position(|listener| Place::of(listener) == *place).unwrap_or_else(|| {
            let role = match place.role {
                Role::Server => abi::Role::Server,
                Role::Client => abi::Role::Client,
            };
            let key = ListenerKey { netns: place.netns, port: place.port, role: role as u16 };
            listeners.push(listener(&key, &ListenerTotals::default(), &BTreeMap::new()));
            listeners.len() - 1
        });
        listeners[row].presumed = presumed;
    }
    listeners.sort_by_key(|listener| (listener.netns, listener.port, listener.role));
}
