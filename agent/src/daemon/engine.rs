//! The engine: asks the probes and the host, feeds the model, and says what came of it. It is told the time and calls
//! nobody back but the `emit` it is given.

mod account;
mod catch_up;
mod listeners;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent_ebpf::abi::{ListenerKey, Stat};

use super::connection_events::{ConnectionEvents, Emit};
use super::settings::{Sample, Settings};
use super::sweep::{Here, Pace, sweep};
use super::tasks::Tasks;
use super::trends::Trends;
use super::usage;
use crate::document::{
    Advice, Body, Ceiling, Connection, Degraded, Host as HostDocument, LeftOut, LevelChanged, Listener,
    Process, ProcessMemory, SCHEMA, Snapshot, Started, Tick,
};
use crate::host::Host;
use crate::kernel::{DESTROY_HOOK, Probes, ReadError, TASK_HOOK};
use crate::model::{
    ClientDestinations, Clock, Earlier, Inputs, Known, Place, Reading, Reconciliation, Summary, advise,
    ceilings,
};
use listeners::add_presumed;

/// Rates are means over this long, so that pings that come every few seconds do not make them jump.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Owners are looked for anew after this long, as sockets may be passed between processes.
const OWNERS_AGE: Duration = Duration::from_secs(60);

/// The agent's state between ticks.
pub struct Engine<P, H> {
    probes: P,
    host: H,
    document: HostDocument,
    hooks: Vec<&'static str>,
    settings: Settings,
    summary: Summary,
    /// Where recognised client connections go.
    destinations: ClientDestinations,
    reconciliation: Reconciliation,
    /// The last that could be read, and when that was.
    listeners: Option<(u64, Vec<Listener>)>,
    refused: BTreeMap<ListenerKey, BTreeMap<u32, u64>>,
    /// What fails at present, and why.
    failing: BTreeMap<&'static str, String>,
    tasks: Tasks,
    /// Where the last sweep could not go.
    unreached: Vec<Degraded>,
    trends: Trends,
    history: VecDeque<Moment>,
    /// How long connections have been open, all together.
    connection_seconds: f64,
    sweeps: Pace,
    owners: Pace,
    events: ConnectionEvents,
    /// Connections older than the agent that have been found, recognised or presumed.
    older: u64,
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
            summary: Summary::default(),
            destinations: ClientDestinations::default(),
            reconciliation: Reconciliation::default(),
            listeners: None,
            refused: BTreeMap::new(),
            failing: BTreeMap::new(),
            tasks: Tasks::default(),
            unreached: Vec::new(),
            trends: Trends::new(settings.thresholds),
            history: VecDeque::new(),
            connection_seconds: 0.0,
            sweeps: Pace::new(budget),
            owners: Pace::new(budget),
            events: ConnectionEvents::new(settings.show_query, settings.updates, slab.ok()),
            older: 0,
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
        let events = &mut self.events;
        let drained = self.probes.events(&mut |event| events.lifecycle(event, clock, emit));
        events.settle(emit);
        self.outcome("life-cycle events", drained);
    }

    /// The end: has the programs stop at one moment, and reads what they told before it.
    pub fn finish(&mut self, clock: &Clock, emit: Emit<'_>) {
        self.probes.switch_off();
        self.drain(clock, emit);
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
            presumed: state.listeners.iter().map(|listener| listener.presumed).sum(),
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
        let mut connections: Vec<Connection> = Vec::new();
        self.events.resend();
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
        let total = self.summary.with_presumed();
        let unowned = total.holders.get(&0).is_some_and(|holder| holder.connections > 0);
        let stale = self.owners.age(now).is_none_or(|age| age >= OWNERS_AGE);
        if self.owners.is_due(now) && (unowned || stale) {
            let start = usage::thread_cpu();
            let events = &mut self.events;
            let found = self.probes.find_owners(&mut |event| events.lifecycle(event, clock, emit));
            self.outcome("iter/task_file", found);
            self.owners.done(now, usage::thread_cpu().saturating_sub(start));
        }
        if !self.sweeps.is_due(now) {
            return;
        }
        let here = Here { netns: self.host.netns(), ports: self.host.local_ports() };
        let ends_are_told = self.hooks.contains(&DESTROY_HOOK);
        self.events.begin_sweep(self.probes.stat(Stat::EventsLost).ok(), ends_are_told);
        let before = self.counted();
        let swept = sweep(&mut self.probes, clock, &here, &mut self.destinations, &mut self.events, emit);
        let Some(outcome) = self.outcome("iter/tcp", swept) else {
            self.sweeps.failed(now);
            return;
        };
        self.drain(clock, emit);
        self.events.end_sweep(&outcome.swept.unvisited, emit);
        self.summary = outcome.summary;
        self.unreached = outcome.swept.degraded;
        if let Some(((before, adopted), (after, _))) = before.zip(self.counted()) {
            // As of before the sweep: one that is recognised during it must not count twice.
            self.summary.adopted = adopted;
            let met = |place: &Place| self.summary.held.get(place).map_or(0, |held| held.values().sum());
            if ends_are_told {
                self.reconciliation.observe(&before, &after, met, &outcome.swept.unvisited);
            }
        }
        let start = usage::thread_cpu();
        if self.hooks.contains(&TASK_HOOK) {
            let read = self.tasks.read(&mut self.probes, &self.summary.with_presumed().holders);
            self.outcome(TASK_HOOK, read);
        }
        self.sweeps.done(now, outcome.cost + usage::thread_cpu().saturating_sub(start));
    }

    /// Open now and recognised. Without close events the totals never fall, and the last sweep knows better; so it does where they
    /// were never read.
    fn connections(&self, listeners: &[Listener]) -> u64 {
        if self.hooks.contains(&DESTROY_HOOK) && self.listeners.is_some() {
            listeners.iter().map(|listener| listener.connections).sum()
        } else {
            self.summary.total().recognised()
        }
    }

    fn state(&mut self, clock: &Clock) -> State {
        let now = clock.monotonic_ns;
        let mut listeners = self.read_listeners(now);
        let swept = self.summary.with_presumed();
        let pids: Vec<u32> = swept.holders.keys().copied().filter(|pid| *pid != 0).collect();
        let mut reading = self.host.read(&pids);
        self.tasks.complete(&mut reading);
        let degraded = std::mem::take(&mut reading.degraded);
        // Without close events the totals never fall, and the last sweep knows better.
        let present = match self.hooks.contains(&DESTROY_HOOK) {
            true => self.summary.present(&listeners),
            false => swept.clone(),
        };
        add_presumed(&mut listeners, &present);
        self.observe(now, &reading, &present, &listeners);
        let open = self.known(&listeners);
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
            swept: &swept,
            listeners: &listeners,
            rates: &self.trends.rates,
            growth: &self.trends.growth,
            costs: &self.trends.costs,
            lineages: &self.trends.lineages,
        });
        let just_swept = self.sweeps.age(now) == Some(Duration::ZERO);
        self.trends.observe_costs(&reading, &present, &ceilings, just_swept);
        let changes = self.trends.levels.observe(Duration::from_nanos(now), &mut ceilings);
        let advice = advise(&Known {
            ceilings: &ceilings,
            reading: &reading,
            summary: &present,
            rates: &self.trends.rates,
        });
        let processes = reading.processes.iter().map(|process| self.process(process, &swept)).collect();
        let window = RATE_WINDOW.as_nanos() as u64;
        while self.history.len() > 1 && self.history[1].at_ns + window <= now {
            self.history.pop_front();
        }
        let opened = listeners.iter().map(|listener| listener.opened).sum();
        let connection_seconds = self.connection_seconds;
        self.history.push_back(Moment { at_ns: now, reading, opened, connection_seconds });
        State { ceilings, changes, processes, listeners, advice, degraded }
    }

    /// Recognised or presumed, open now.
    fn known(&self, listeners: &[Listener]) -> u64 {
        self.connections(listeners) + listeners.iter().map(|listener| listener.presumed).sum::<u64>()
    }

    fn observe(&mut self, now: u64, reading: &Reading, present: &Summary, listeners: &[Listener]) {
        let at = Duration::from_nanos(now);
        self.events.handshakes.bound(self.connections(listeners));
        let older: u64 = listeners.iter().map(|listener| listener.adopted + listener.presumed).sum();
        // Those that are found now have been there all along.
        let late = older.saturating_sub(self.older);
        self.older += late;
        for then in &mut self.history {
            let elapsed = Duration::from_nanos(now.saturating_sub(then.at_ns));
            then.connection_seconds -= late as f64 * elapsed.as_secs_f64();
        }
        self.trends.growth.recognise_total(older);
        self.trends.growth.observe_total(at, self.known(listeners));
        // Interfaces belong to this namespace, and so must what is carried over them.
        let netns = self.host.netns();
        let here = listeners.iter().filter(|listener| netns.is_none_or(|netns| listener.netns == netns));
        self.trends.rates.observe(at, here);
        self.trends.observe(at, present, reading);
    }

    fn process(&self, reading: &crate::model::ProcessReading, swept: &Summary) -> Process {
        let holder = swept.holders.get(&reading.pid).copied().unwrap_or_default();
        Process {
            pid: reading.pid,
            comm: reading.comm.clone(),
            cgroup: reading.cgroup.clone(),
            container: reading.container.clone(),
            pod_uid: reading.pod_uid.clone(),
            connections: holder.recognised(),
            presumed: holder.presumed,
            websockets: holder.recognised(),
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
        let failing = self.failing.iter();
        let failing =
            failing.map(|(probe, reason)| Degraded { probe: (*probe).into(), reason: reason.clone() });
        let lasting = self.document.degraded.iter().chain(&self.unreached).cloned();
        lasting.chain(failing).chain(reading).collect()
    }

    /// Notes that something fails, until it does not.
    fn outcome<T>(&mut self, probe: &'static str, outcome: Result<T, ReadError>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.failing.remove(probe);
                Some(value)
            }
            Err(error) => {
                self.failing.insert(probe, error.to_string());
                None
            }
        }
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
