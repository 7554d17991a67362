//! What is known, folded from the event stream. Pure: the only clock is the events' own.

mod history;

use std::collections::BTreeMap;

use agent::document::{
    Body, Ceiling, Connection, Degraded, Envelope, Host, Kind, Listener, SCHEMA, SelfUsage, Snapshot,
    Started, Tick,
};
use jiff::Timestamp;

pub use history::{History, Sample};

/// Connections kept. A host may hold millions; a table that nobody can read to its end need not hold them all.
pub const CONNECTIONS_KEPT: usize = 50_000;

/// The state of a host as its agent tells it.
#[derive(Debug, Clone, Default)]
pub struct View {
    started: Option<Started>,
    tick: Option<Tick>,
    timestamp: Option<Timestamp>,
    connections: BTreeMap<String, Connection>,
    history: History,
    seq: Option<u64>,
    lost: u64,
    stopped: Option<String>,
}

impl View {
    /// Takes in one event.
    pub fn apply(&mut self, envelope: &Envelope) {
        self.follow(envelope.seq, matches!(envelope.body, Body::AgentStarted(_)));
        self.timestamp = Some(envelope.timestamp);
        match &envelope.body {
            Body::AgentStarted(started) => {
                // Another run of the agent: ids of the one before say nothing about this one, its totals start over.
                self.connections.clear();
                self.history.restart();
                self.stopped = None;
                self.started = Some(started.clone());
            }
            Body::Tick(tick) => {
                self.history.push(envelope.timestamp, tick);
                self.tick = Some(tick.clone());
            }
            Body::ConnectionOpened(connection)
            | Body::ConnectionAdopted(connection)
            | Body::ConnectionUpdated(connection) => self.insert(connection),
            Body::ConnectionClosed(connection) => {
                self.connections.remove(&connection.id);
            }
            // The end was seen only by its absence; the last counts are the ones before it.
            Body::ConnectionVanished(vanished) => {
                self.connections.remove(&vanished.id);
            }
            // The ceilings of each tick have their levels; this is for those who wait for a change.
            Body::LevelChanged(_) => {}
            // The hole before it says the others.
            Body::LinesLost(_) => self.lost += 1,
            Body::AgentStopped(stopped) => self.stopped = Some(stopped.reason.clone()),
        }
    }

    fn follow(&mut self, seq: u64, restarted: bool) {
        if let (Some(before), false) = (self.seq, restarted) {
            self.lost += seq.saturating_sub(before + 1);
        }
        self.seq = Some(seq);
    }

    fn insert(&mut self, connection: &Connection) {
        if self.connections.len() < CONNECTIONS_KEPT || self.connections.contains_key(&connection.id) {
            self.connections.insert(connection.id.clone(), connection.clone());
        }
    }

    /// Time of the last event.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// The host, once the agent has introduced itself.
    pub fn host(&self) -> Option<&Host> {
        self.started.as_ref().map(|started| &started.host)
    }

    /// The last tick.
    pub fn tick(&self) -> Option<&Tick> {
        self.tick.as_ref()
    }

    /// Ceilings, the first to be hit first; empty before the first tick.
    pub fn ceilings(&self) -> &[Ceiling] {
        self.tick.as_ref().map_or(&[], |tick| &tick.ceilings)
    }

    /// Listeners; empty before the first tick.
    pub fn listeners(&self) -> &[Listener] {
        self.tick.as_ref().map_or(&[], |tick| &tick.listeners)
    }

    /// Of one kind's ceilings the nearest whose use is known, else the first, which says what is missing.
    pub fn nearest(&self, kind: Kind) -> Option<&Ceiling> {
        let mut of_kind = self.ceilings().iter().filter(|ceiling| ceiling.kind == kind);
        let first = of_kind.clone().next();
        of_kind.find(|ceiling| ceiling.utilization.is_some()).or(first)
    }

    /// Command name of a process that holds tracked connections.
    pub fn command(&self, pid: u32) -> Option<&str> {
        let processes = &self.tick.as_ref()?.processes;
        processes.iter().find(|process| process.pid == pid).map(|process| process.comm.as_str())
    }

    /// Connections that were reported one by one, in the order of their ids.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    /// A connection by its id.
    pub fn connection(&self, id: &str) -> Option<&Connection> {
        self.connections.get(id)
    }

    /// Connections that are open: the agent's count, or before the first tick those that were reported.
    pub fn open(&self) -> u64 {
        self.tick.as_ref().map_or(self.connections.len() as u64, |tick| tick.connections)
    }

    /// Connections that are only presumed to be WebSockets, beside those of [`View::open`].
    pub fn presumed(&self) -> u64 {
        self.tick.as_ref().map_or(0, |tick| tick.presumed)
    }

    /// Recent ticks.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Events that are missing from the stream, by the holes in its numbering.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Why the agent stopped, if it said so.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// What the agent lacks at present, by its last word on it.
    pub fn degraded(&self) -> &[Degraded] {
        match (&self.tick, self.host()) {
            (Some(tick), _) => &tick.degraded,
            (None, Some(host)) => &host.degraded,
            (None, None) => &[],
        }
    }

    /// All of it as the document that `--json` prints.
    pub fn snapshot(&self) -> Snapshot {
        let tick = self.tick.as_ref();
        let mut host = self.host().cloned().unwrap_or_default();
        host.degraded = self.degraded().to_vec();
        let unlisted = (self.open() + self.presumed()).saturating_sub(self.connections.len() as u64);
        if unlisted > 0 {
            let reason = format!("{unlisted} open connections are not listed: not visited yet, or too many");
            host.degraded.push(Degraded { probe: "connections".into(), reason });
        }
        Snapshot {
            schema: SCHEMA.to_owned(),
            timestamp: self.timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            host,
            ceilings: self.ceilings().to_vec(),
            processes: tick.map_or_else(Vec::new, |tick| tick.processes.clone()),
            listeners: self.listeners().to_vec(),
            connections: self.connections.values().cloned().collect(),
            advice: tick.map_or_else(Vec::new, |tick| tick.advice.clone()),
            agent: tick.map_or_else(SelfUsage::default, |tick| tick.agent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent::document::{Level, LevelChanged};

    use crate::fixture::{self, Recording};

    fn view(envelopes: &[Envelope]) -> View {
        let mut view = View::default();
        envelopes.iter().for_each(|envelope| view.apply(envelope));
        view
    }

    #[test]
    fn connections_come_change_and_go() {
        let mut recording = Recording::new();
        recording.opened(fixture::connection(1)).opened(fixture::connection(2));
        let mut changed = fixture::connection(1);
        changed.unparsed_bytes = 77;
        recording.updated(changed).closed(fixture::connection(2));
        let view = view(&recording.envelopes);
        assert_eq!(view.connections().count(), 1);
        assert_eq!(view.connections().next().map(|c| c.unparsed_bytes), Some(77));
        assert_eq!(view.open(), 1, "no tick yet: what was reported is what is known");
    }

    #[test]
    fn a_connection_may_vanish_without_a_close() {
        let mut recording = Recording::new();
        recording.opened(fixture::connection(1)).vanished("4098");
        assert_eq!(view(&recording.envelopes).connections().count(), 0);
    }

    #[test]
    fn a_level_that_changed_leaves_no_hole() {
        let mut recording = Recording::new();
        recording.tick(fixture::tick(0)).level_changed(LevelChanged {
            kind: Kind::Memory,
            scope: "host".into(),
            from: Level::Ok,
            to: Level::Near,
            reason: "81% of the limit is used, of 80%".into(),
            connections_left: Some(9),
            seconds_left: None,
        });
        recording.tick(fixture::tick(1));
        let view = view(&recording.envelopes);
        assert_eq!(view.lost(), 0);
        assert_eq!(view.history().samples().count(), 2);
    }

    #[test]
    fn a_restarted_agent_starts_over() {
        let mut recording = Recording::new();
        recording.opened(fixture::connection(1));
        let mut envelopes = recording.envelopes;
        envelopes.extend(Recording::new().envelopes);
        let view = view(&envelopes);
        assert_eq!(view.connections().count(), 0);
        assert_eq!(view.lost(), 0, "numbering starts over with the agent");
    }

    #[test]
    fn holes_in_the_numbering_are_counted() {
        let mut envelopes = fixture::recording(4);
        envelopes.remove(3);
        envelopes.remove(3);
        assert_eq!(view(&envelopes).lost(), 2);
    }

    #[test]
    fn the_table_is_bounded_but_known_connections_still_change() {
        let mut view = View::default();
        let mut recording = Recording::new();
        for id in 0..=CONNECTIONS_KEPT as u64 {
            recording.opened(fixture::connection(id));
        }
        let mut changed = fixture::connection(3);
        changed.unparsed_bytes = 77;
        recording.updated(changed);
        recording.envelopes.iter().for_each(|envelope| view.apply(envelope));
        assert_eq!(view.connections().count(), CONNECTIONS_KEPT);
        assert!(view.connections().any(|connection| connection.unparsed_bytes == 77));
    }

    #[test]
    fn the_nearest_known_ceiling_of_a_kind_wins_over_an_unknown_one() {
        let view = view(&fixture::recording(3));
        assert_eq!(view.nearest(Kind::Descriptors).map(|c| c.scope.as_str()), Some("process:1234"));
        assert_eq!(view.nearest(Kind::Bandwidth).and_then(|c| c.utilization), None);
    }

    #[test]
    fn the_snapshot_holds_what_the_stream_said() {
        let snapshot = view(&fixture::recording(3)).snapshot();
        assert_eq!(snapshot.host.name, "localhost");
        assert!(snapshot.ceilings.iter().any(|ceiling| ceiling.first));
        assert_eq!(snapshot.connections.len(), fixture::CONNECTIONS as usize);
    }
}
