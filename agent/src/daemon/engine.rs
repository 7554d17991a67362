//! The engine: asks the probes and the host, feeds the model, and says what came of it. It is told the time and calls
//! nobody back but the `emit` it is given.

mod account;
mod catch_up;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent_ebpf::abi::{ListenerKey, ListenerTotals};

use super::handshakes::Handshakes;
use super::settings::{Sample, Settings};
use super::sweep::{Here, Pace, Reported, sweep};
use super::tasks::Tasks;
use super::trends::Trends;
use super::usage;
use crate::document::{
    Advice, Body, Ceiling, Connection, Degraded, Host as HostDocument, LeftOut, LevelChanged, Listener,
    Process, ProcessMemory, SCHEMA, Snapshot, Started, Tick,
};
use crate::host::Host;
use crate::kernel::{DESTROY_HOOK, Lifecycle, Probes, RETRANSMIT_HOOK, TASK_HOOK};
use crate::model::{
    Clock, Earlier, Inputs, Known, Reading, SlabCost, Summary, advise, ceilings, connection, listener, opened,
};

/// Rates are means over this long, so that pings that come every few seconds do not make them jump.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Owners are looked for anew after this long, as sockets may be passed between processes.
const OWNERS_AGE: Duration = Duration::from_secs(60);

/// Where an event goes; `false` where it found no room.
type Emit<'a> = &'a mut dyn FnMut(Body) -> bool;

/// The agent's state between ticks.
pub struct Engine<P, H> {
    probes: P,
    host: H,
    document: HostDocument,
    hooks: Vec<&'static str>,
    settings: Settings,
    slab: Option<SlabCost>,
    summary: Summary,
    tasks: Tasks,
    /// Where the last sweep could not go.
    unreached: Vec<Degraded>,
    trends: Trends,
    history: VecDeque<Moment>,
    /// How long connections have been open, all together.
    connection_seconds: f64,
    sweeps: Pace,
    owners: Pace,
    reported: Reported,
    handshakes: Handshakes,
    /// The next sweep reports every connection.
    resend: bool,
    /// A pass for those who came late is under way.
    catching_up: bool,
    dropped: u64,
    lines_lost: u64,
    left_out: LeftOut,
}

/// What rates are measured from.
struct Moment {
    /// Monotonic time.
    at_ns: u64,
    reading: Reading,
    /// Connections opened by then.
    opened: u64,
    connection_seconds: f64,
}

/// What a tick computes, before it becomes an event or part of a snapshot.
struct State {
    ceilings: Vec<Ceiling>,
    changes: Vec<LevelChanged>,
    processes: Vec<Process>,
    listeners: Vec<Listener>,
    advice: Vec<Advice>,
    degraded: Vec<Degraded>,
}

impl<P: Probes, H: Host> Engine<P, H> {
    /// `document` describes the host; what it lacks further is added as it is found out.
    pub fn new(
        probes: P,
        host: H,
        mut document: HostDocument,
        hooks: Vec<&'static str>,
        settings: &Settings,
    ) -> Self {
        let slab = host.slab().map_err(|reason| {
            document.degraded.push(Degraded { probe: "fixed memory of a connection".into(), reason });
        });
        // Sweeps and owner scans share the budget.
        let budget = settings.sweep_budget / 2.0;
        Self {
            probes,
            host,
            document,
            hooks,
            settings: settings.clone(),
            slab: slab.ok(),
            summary: Summary::default(),
            tasks: Tasks::default(),
            unreached: Vec::new(),
            trends: Trends::new(settings.thresholds),
            history: VecDeque::new(),
            connection_seconds: 0.0,
            sweeps: Pace::new(budget),
            owners: Pace::new(budget),
            reported: Reported::default(),
            handshakes: Handshakes::new(settings.show_query),
            resend: false,
            catching_up: false,
            dropped: 0,
            lines_lost: 0,
            left_out: LeftOut::default(),
        }
    }

    pub(super) fn probes_mut(&mut self) -> &mut P {
        &mut self.probes
    }

    /// Hooks that attached.
    pub fn hooks(&self) -> &[&'static str] {
        &self.hooks
    }

    /// Has connections older than the agent watched until it is known what they are.
    pub fn find_candidates(&mut self) {
        if let Err(error) = self.probes.find_candidates() {
            self.degrade("older connections", error.to_string());
        }
    }

    /// The stream's first event.
    pub fn started(&self) -> Body {
        Body::AgentStarted(Started {
            host: self.document.clone(),
            interval_seconds: self.settings.interval.as_secs_f64(),
            ports: self.settings.ports.clone(),
            sample_connections: self.settings.sample_connections.map(|Sample(one_of)| one_of),
            max_connection_events: self.settings.max_connection_events,
        })
    }

    /// Events that found no room so far, lines that outputs could not take, and events that nobody asked for.
    pub fn note_losses(&mut self, dropped: u64, lines: u64, left_out: LeftOut) {
        (self.dropped, self.lines_lost, self.left_out) = (dropped, lines, left_out);
    }

    /// Life-cycle events since the last call.
    pub fn drain(&mut self, clock: &Clock, emit: Emit<'_>) {
        let (slab, updates) = (self.slab, self.settings.updates);
        let (reported, handshakes) = (&mut self.reported, &mut self.handshakes);
        let drained = self.probes.events(&mut |event| {
            match event {
                Lifecycle::Opened(handshake) => {
                    // Known from now on: should its close be lost, a sweep finds it gone.
                    if updates {
                        reported.opened(handshake.opened.cookie);
                    }
                    let upgrade = handshakes.opened(&handshake);
                    let connection = opened(&handshake.opened, clock, upgrade);
                    emit(match handshake.opened.older {
                        0 => Body::ConnectionOpened(connection),
                        _ => Body::ConnectionAdopted(connection),
                    });
                }
                Lifecycle::Closed(socket) => {
                    let cookie = socket.connection.cookie;
                    let closed = connection(&socket, clock, slab, handshakes.of(cookie));
                    handshakes.closed(cookie);
                    // A close that found no room stays known, and is told of as vanished.
                    if emit(Body::ConnectionClosed(closed)) {
                        reported.closed(cookie);
                    }
                }
            }
        });
        if let Err(error) = drained {
            self.degrade("life-cycle events", error.to_string());
        }
    }

    /// One interval's work: a sweep where one is due, then the host, the model and a `tick`.
    pub fn tick(&mut self, clock: &Clock, emit: Emit<'_>) {
        self.drain(clock, emit);
        self.sweep(clock, emit);
        let state = self.state(clock);
        for change in state.changes {
            emit(Body::LevelChanged(change));
        }
        let tick = Tick {
            connections: self.connections(&state.listeners),
            ceilings: state.ceilings,
            processes: state.processes,
            listeners: state.listeners,
            advice: state.advice,
            degraded: self.degraded(state.degraded),
            agent: self.usage(clock),
        };
        emit(Body::Tick(tick));
    }

    /// Everything at this moment, each connection included.
    pub fn snapshot(&mut self, clock: &Clock) -> Snapshot {
        self.sweeps.hurry();
        self.owners.hurry();
        self.drain(clock, &mut |_| true);
        self.reported.forget();
        let mut connections: Vec<Connection> = Vec::new();
        self.resend = true;
        self.sweep(clock, &mut |body| {
            if let Body::ConnectionUpdated(connection) = body {
                connections.push(connection);
            }
            true
        });
        let state = self.state(clock);
        let mut host = self.document.clone();
        host.degraded = self.degraded(state.degraded);
        Snapshot {
            schema: SCHEMA.to_owned(),
            timestamp: clock.wall,
            host,
            ceilings: state.ceilings,
            processes: state.processes,
            listeners: state.listeners,
            connections,
            advice: state.advice,
            agent: self.usage(clock),
        }
    }

    /// Owners first, so that the sweep finds them noted.
    fn sweep(&mut self, clock: &Clock, emit: Emit<'_>) {
        let now = clock.monotonic_ns;
        let unowned = self.summary.holders.get(&0).is_some_and(|holder| holder.connections > 0);
        let stale = self.owners.age(now).is_none_or(|age| age >= OWNERS_AGE);
        if self.owners.is_due(now) && (unowned || stale) {
            let start = usage::thread_cpu();
            if let Err(error) = self.probes.find_owners() {
                self.degrade("iter/task_file", error.to_string());
            }
            self.owners.done(now, usage::thread_cpu().saturating_sub(start));
        }
        if !self.sweeps.is_due(now) {
            return;
        }
        let reported = (self.settings.updates || self.resend).then_some(&mut self.reported);
        let here = Here { netns: self.host.netns(), ports: self.host.local_ports() };
        match sweep(&mut self.probes, clock, self.slab, &here, reported, &self.handshakes, emit) {
            Ok((summary, cost, unreached)) => {
                self.summary = summary;
                self.unreached = unreached;
                let start = usage::thread_cpu();
                if self.hooks.contains(&TASK_HOOK)
                    && let Err(error) = self.tasks.read(&mut self.probes, &self.summary.holders)
                {
                    self.degrade(TASK_HOOK, error.to_string());
                }
                self.sweeps.done(now, cost + usage::thread_cpu().saturating_sub(start));
                self.resend = false;
                if !self.settings.updates {
                    self.reported.forget();
                }
            }
            Err(error) => {
                self.degrade("iter/tcp", error.to_string());
                self.sweeps.failed(now);
            }
        }
    }

    /// Open now. Without close events the totals never fall, and the last sweep knows better.
    fn connections(&self, listeners: &[Listener]) -> u64 {
        if self.hooks.contains(&DESTROY_HOOK) {
            listeners.iter().map(|listener| listener.connections).sum()
        } else {
            self.summary.total().connections
        }
    }

    fn state(&mut self, clock: &Clock) -> State {
        let now = clock.monotonic_ns;
        let listeners = match self.probes.listeners() {
            Ok(totals) => {
                let mut refused = self.refused();
                // Where every upgrade is refused there is nothing to sum up but that.
                let mut all: BTreeMap<_, _> =
                    refused.keys().map(|key| (*key, ListenerTotals::default())).collect();
                all.extend(totals);
                let watched = self.hooks.contains(&RETRANSMIT_HOOK);
                let told = |(key, totals): (&ListenerKey, &ListenerTotals)| {
                    let mut told = listener(key, totals, &refused.remove(key).unwrap_or_default());
                    told.stalls.retransmitted_segments =
                        told.stalls.retransmitted_segments.filter(|_| watched);
                    told
                };
                all.iter().map(told).collect()
            }
            Err(error) => {
                self.degrade("totals by listener", error.to_string());
                Vec::new()
            }
        };
        let pids: Vec<u32> = self.summary.holders.keys().copied().filter(|pid| *pid != 0).collect();
        let mut reading = self.host.read(&pids);
        self.tasks.complete(&mut reading);
        let degraded = std::mem::take(&mut reading.degraded);
        // Without close events the totals never fall, and the last sweep knows better.
        let present = match self.hooks.contains(&DESTROY_HOOK) {
            true => self.summary.present(&listeners),
            false => self.summary.clone(),
        };
        self.observe(now, &reading, &present, &listeners);
        let open = self.connections(&listeners);
        let since = |then: u64| Duration::from_nanos(now.saturating_sub(then));
        if let Some(last) = self.history.back() {
            self.connection_seconds += open as f64 * since(last.at_ns).as_secs_f64();
        }
        let earlier = self.history.front().filter(|then| then.at_ns < now).map(|then| Earlier {
            reading: &then.reading,
            elapsed: since(then.at_ns),
            opened: then.opened,
            mean_connections: (self.connection_seconds - then.connection_seconds)
                / since(then.at_ns).as_secs_f64(),
        });
        let mut ceilings = ceilings(&Inputs {
            connections: open,
            reading: &reading,
            earlier,
            summary: &present,
            swept: &self.summary,
            listeners: &listeners,
            rates: &self.trends.rates,
            growth: &self.trends.growth,
            costs: &self.trends.costs,
            lineages: &self.trends.lineages,
        });
        let swept = self.sweeps.age(now) == Some(Duration::ZERO);
        self.trends.observe_costs(&reading, &present, &ceilings, swept);
        let changes = self.trends.levels.observe(Duration::from_nanos(now), &mut ceilings);
        let advice = advise(&Known {
            ceilings: &ceilings,
            reading: &reading,
            summary: &present,
            rates: &self.trends.rates,
        });
        let processes = reading.processes.iter().map(|process| self.process(process)).collect();
        let window = RATE_WINDOW.as_nanos() as u64;
        while self.history.len() > 1 && self.history[1].at_ns + window <= now {
            self.history.pop_front();
        }
        let opened = listeners.iter().map(|listener| listener.opened).sum();
        let connection_seconds = self.connection_seconds;
        self.history.push_back(Moment { at_ns: now, reading, opened, connection_seconds });
        State { ceilings, changes, processes, listeners, advice, degraded }
    }

    /// Refused upgrades by listener and status.
    fn refused(&mut self) -> BTreeMap<ListenerKey, BTreeMap<u32, u64>> {
        let mut refused: BTreeMap<ListenerKey, BTreeMap<u32, u64>> = BTreeMap::new();
        match self.probes.refusals() {
            Ok(refusals) => {
                for (refusal, count) in refusals {
                    refused.entry(refusal.listener).or_default().insert(refusal.status, count);
                }
            }
            Err(error) => self.degrade("refused upgrades", error.to_string()),
        }
        refused
    }

    fn observe(&mut self, now: u64, reading: &Reading, present: &Summary, listeners: &[Listener]) {
        let at = Duration::from_nanos(now);
        self.handshakes.bound(self.connections(listeners));
        self.trends.growth.recognise_total(listeners.iter().map(|listener| listener.adopted).sum());
        self.trends.growth.observe_total(at, self.connections(listeners));
        // Interfaces belong to this namespace, and so must what is carried over them.
        let netns = self.host.netns();
        let here = listeners.iter().filter(|listener| netns.is_none_or(|netns| listener.netns == netns));
        self.trends.rates.observe(at, here);
        self.trends.observe(at, present, reading);
    }

    fn process(&self, reading: &crate::model::ProcessReading) -> Process {
        let holder = self.summary.holders.get(&reading.pid).copied().unwrap_or_default();
        Process {
            pid: reading.pid,
            comm: reading.comm.clone(),
            cgroup: reading.cgroup.clone(),
            container: reading.container.clone(),
            pod_uid: reading.pod_uid.clone(),
            connections: holder.connections,
            websockets: holder.connections,
            descriptors: reading.descriptors,
            memory: ProcessMemory {
                resident_bytes: reading.resident_bytes,
                per_connection_bytes: self.trends.own_memory(reading.pid),
                kernel_per_connection_bytes: holder.kernel_per_connection(),
                compression_bytes: (holder.compressed > 0).then_some(holder.compression_bytes),
            },
        }
    }

    /// All that is missing now: for good, and in this reading.
    fn degraded(&self, reading: Vec<Degraded>) -> Vec<Degraded> {
        self.document.degraded.iter().chain(&self.unreached).cloned().chain(reading).collect()
    }

    /// Notes once what does not work.
    fn degrade(&mut self, probe: &str, reason: String) {
        if !self.document.degraded.iter().any(|known| known.probe == probe) {
            self.document.degraded.push(Degraded { probe: probe.into(), reason });
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
