//! The engine on a kernel and a host that are made up.

use agent_ebpf::abi::{ListenerKey, ListenerTotals, Opened, Refusal, Stat, Task, Unjudged, grounds};
use jiff::Timestamp;

use super::*;
use crate::document::{Evidence, Parse};
use crate::document::{Kind, Level};
use crate::kernel::{CandidateSocket, Handshake, Lifecycle, Observation, ReadError, Socket, Swept};
use crate::model::{HostMemory, Interface, LinkSpeed, LocalPorts, ProcessReading, SlabCost};

/// What the made-up kernel will say next.
#[derive(Default)]
pub(in crate::daemon) struct Kernel {
    pub(in crate::daemon) sockets: Vec<Socket>,
    paged: usize,
    candidates: Vec<CandidateSocket>,
    /// What happens while the next sweep is under way.
    meanwhile: Vec<Lifecycle>,
    /// Events that the ring buffer had no room for.
    lost: u64,
    blind: bool,
    tasks: Vec<Task>,
    events: Vec<Lifecycle>,
    totals: ListenerTotals,
    swept: Swept,
    broken: bool,
}

impl Probes for Kernel {
    fn sweep(&mut self, visit: &mut dyn FnMut(Observation<'_>)) -> Result<Swept, ReadError> {
        if self.broken {
            return Err(ReadError::NoMap("broken"));
        }
        self.sockets.iter().for_each(|socket| visit(Observation::Socket(socket)));
        self.candidates.iter().for_each(|candidate| visit(Observation::Candidate(candidate)));
        self.meanwhile.drain(..).for_each(|event| visit(Observation::Lifecycle(event)));
        Ok(self.swept.clone())
    }

    fn begin_pages(&mut self) -> Result<(), ReadError> {
        self.paged = 0;
        Ok(())
    }

    fn next_page(
        &mut self,
        number: usize,
        visit: &mut dyn FnMut(Observation<'_>),
    ) -> Result<bool, ReadError> {
        let page = self.sockets.iter().skip(self.paged).take(number);
        self.paged += number;
        page.for_each(|socket| visit(Observation::Socket(socket)));
        Ok(self.paged < self.sockets.len())
    }

    fn find_owners(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError> {
        self.events.drain(..).for_each(visit);
        Ok(())
    }

    fn tasks(&mut self, visit: &mut dyn FnMut(&Task)) -> Result<(), ReadError> {
        self.tasks.iter().for_each(visit);
        Ok(())
    }

    fn find_candidates(&mut self) -> Result<(), ReadError> {
        Ok(())
    }

    fn refusals(&mut self) -> Result<Vec<(Refusal, u64)>, ReadError> {
        Ok(Vec::new())
    }

    fn listeners(&mut self) -> Result<Vec<(ListenerKey, ListenerTotals)>, ReadError> {
        if self.blind {
            return Err(ReadError::NoMap("blind"));
        }
        Ok(vec![(ListenerKey { netns: 1, port: 80, role: 1 }, self.totals)])
    }

    fn events(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError> {
        self.events.drain(..).for_each(visit);
        Ok(())
    }

    fn stat(&mut self, stat: Stat) -> Result<u64, ReadError> {
        Ok(if stat == Stat::EventsLost { self.lost } else { 0 })
    }

    fn switch_off(&mut self) {}

    fn packet_nanoseconds(&mut self) -> Option<f64> {
        None
    }
}

pub(in crate::daemon) struct Fixed;

/// The network namespace of the made-up host.
const HERE: u32 = 4_026_531_840;

impl Host for Fixed {
    fn read(&mut self, pids: &[u32]) -> Reading {
        let interface = Interface {
            name: "eth0".into(),
            index: 2,
            received_bytes: 0,
            transmitted_bytes: 0,
            received_packets: 0,
            transmitted_packets: 0,
            framing_bytes: 38,
            counted_bytes: 14,
            speed: LinkSpeed::Known(1_000_000_000, "the driver"),
            packets_per_second: None,
        };
        let memory = Some(HostMemory { total: 1 << 30, available: 1 << 29 });
        let process = |pid: &u32| ProcessReading { pid: *pid, uid: Some(33), ..ProcessReading::default() };
        let processes = pids.iter().map(process).collect();
        Reading { memory, interfaces: vec![interface], processes, ..Reading::default() }
    }

    fn slab(&self) -> Result<SlabCost, String> {
        Ok(SlabCost { ipv4: 4_000, ipv6: 4_100 })
    }

    fn netns(&self) -> Option<u32> {
        Some(HERE)
    }

    fn local_ports(&self) -> Option<LocalPorts> {
        None
    }
}

pub(in crate::daemon) fn socket(cookie: u64) -> Socket {
    let mut socket = Socket { header: Default::default(), connection: Default::default() };
    socket.connection.cookie = cookie;
    socket.connection.role = 1;
    socket
}

fn engine(updates: bool, hooks: Vec<&'static str>) -> Engine<Kernel, Fixed> {
    let settings = Settings { updates, ..Settings::default() };
    Engine::new(Kernel::default(), Fixed, HostDocument::default(), hooks, &settings)
}

/// A moment so late that every sweep is due.
fn at(second: u64) -> Clock {
    Clock { wall: Timestamp::UNIX_EPOCH, monotonic_ns: second * 1_000_000_000_000 }
}

/// The events of one tick; `room` says which of them find room.
fn tick(engine: &mut Engine<Kernel, Fixed>, second: u64, room: impl Fn(&Body) -> bool) -> Vec<Body> {
    let mut told = Vec::new();
    engine.tick(&at(second), &mut |body| {
        let sent = room(&body);
        if sent {
            told.push(body);
        }
        sent
    });
    told
}

fn names(bodies: &[Body]) -> Vec<&'static str> {
    bodies.iter().map(Body::name).collect()
}

#[test]
fn a_connection_is_reported_when_it_changed_and_not_before() {
    let mut engine = engine(true, vec![DESTROY_HOOK]);
    engine.probes.sockets = vec![socket(7)];
    assert_eq!(names(&tick(&mut engine, 1, |_| true)), ["connection_updated", "tick"]);
    assert_eq!(names(&tick(&mut engine, 2, |_| true)), ["tick"]);
    engine.probes.sockets[0].connection.received.counters.frames[1] = 1;
    assert_eq!(names(&tick(&mut engine, 3, |_| true)), ["connection_updated", "tick"]);
}

#[test]
fn a_close_that_found_no_room_is_told_as_vanished() {
    let mut engine = engine(true, vec![DESTROY_HOOK]);
    engine.probes.sockets = vec![socket(7)];
    tick(&mut engine, 1, |_| true);
    engine.probes.sockets.clear();
    engine.probes.events = vec![Lifecycle::Closed(Box::new(socket(7)))];
    let full = |body: &Body| !matches!(body, Body::ConnectionClosed(_));
    assert_eq!(names(&tick(&mut engine, 2, full)), ["tick"]);
    assert_eq!(names(&tick(&mut engine, 3, |_| true)), ["connection_vanished", "tick"]);
    assert_eq!(names(&tick(&mut engine, 4, |_| true)), ["tick"]);
}

#[test]
fn a_connection_that_was_only_opened_vanishes_too() {
    let mut engine = engine(true, vec![DESTROY_HOOK]);
    let opened = Opened { cookie: 9, ..Opened::default() };
    let handshake = Handshake { opened, request: Vec::new(), response: Vec::new() };
    engine.probes.events = vec![Lifecycle::Opened(Box::new(handshake))];
    assert_eq!(names(&tick(&mut engine, 1, |_| true)), ["connection_opened", "tick"]);
    let later = [tick(&mut engine, 2, |_| true), tick(&mut engine, 3, |_| true)].concat();
    assert!(names(&later).contains(&"connection_vanished"), "{:?}", names(&later));
}

#[test]
fn a_late_reader_gets_every_connection_even_without_updates() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.sockets = vec![socket(7), socket(8)];
    assert_eq!(names(&tick(&mut engine, 1, |_| true)), ["tick"]);
    engine.begin_catch_up();
    let mut told = Vec::new();
    while engine.is_catching_up() {
        engine.catch_up(&at(1), 1, &mut |body| told.push(body));
        assert_eq!(names(&tick(&mut engine, 2, |_| true)), ["tick"], "the others are not told again");
    }
    assert_eq!(names(&told), ["connection_updated", "connection_updated"]);
}

#[test]
fn without_close_events_the_sweep_counts() {
    let mut blind = engine(false, vec![]);
    blind.probes.totals.opened = 5;
    blind.probes.sockets = vec![socket(7)];
    let told = tick(&mut blind, 1, |_| true);
    assert!(matches!(told.last(), Some(Body::Tick(tick)) if tick.connections == 1));
    let mut sighted = engine(false, vec![DESTROY_HOOK]);
    sighted.probes.totals.opened = 5;
    sighted.probes.totals.closed = 2;
    let told = tick(&mut sighted, 1, |_| true);
    assert!(matches!(told.last(), Some(Body::Tick(tick)) if tick.connections == 3));
}

#[test]
fn a_sweep_that_fails_is_said_in_the_stream_and_makes_figures_old() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    tick(&mut engine, 1, |_| true);
    engine.probes.broken = true;
    let told = tick(&mut engine, 2, |_| true);
    let Some(Body::Tick(tick)) = told.last() else { panic!("no tick") };
    assert!(tick.degraded.iter().any(|missing| missing.probe == "iter/tcp"), "{:?}", tick.degraded);
    assert_eq!(tick.agent.sweep_age_seconds, Some(1000.0));
}

#[test]
fn an_interface_of_another_namespace_is_not_the_hosts() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.sockets = [(7, HERE), (8, HERE + 1), (9, HERE)]
        .map(|(cookie, netns)| {
            let mut socket = socket(cookie);
            (socket.connection.ifindex, socket.header.endpoints.netns) = (2, netns);
            socket
        })
        .to_vec();
    let told = tick(&mut engine, 1, |_| true);
    let Some(Body::Tick(tick)) = told.last() else { panic!("no tick") };
    let bandwidth = tick.ceilings.iter().find(|ceiling| ceiling.scope == "interface:eth0");
    assert_eq!(bandwidth.map(|ceiling| ceiling.connections), Some(2));
}

#[test]
fn what_only_the_kernel_tells_is_known_where_its_hook_loaded() {
    let used = |hooks: Vec<&'static str>| {
        let mut engine = engine(false, hooks);
        let mut held = socket(7);
        held.connection.pid = 70;
        engine.probes.sockets = vec![held];
        engine.probes.tasks = vec![
            Task { pid: 70, uid: 33, watches: 900, mappings: 40 },
            Task { pid: 71, uid: 33, watches: 900, mappings: 50 },
        ];
        let told = tick(&mut engine, 1, |_| true);
        let Some(Body::Tick(tick)) = told.last() else { panic!("no tick") };
        let used = |scope: &str, kind| {
            let all = tick.ceilings.iter();
            all.filter(|ceiling| ceiling.kind == kind && ceiling.scope == scope)
                .map(|ceiling| ceiling.used)
                .next()
        };
        (used("user:33", Kind::EpollWatches), used("process:70", Kind::MemoryMaps))
    };
    assert_eq!(used(vec![DESTROY_HOOK, TASK_HOOK]), (Some(Some(900)), Some(Some(40))));
    assert_eq!(used(vec![DESTROY_HOOK]), (Some(None), Some(None)));
}

#[test]
fn where_a_sweep_could_not_go_is_said_until_it_can() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    let refused = Degraded { probe: "a namespace".into(), reason: "it is closed".into() };
    engine.probes.swept =
        Swept { cpu: Duration::from_secs(3), degraded: vec![refused.clone()], ..Swept::default() };
    let told = tick(&mut engine, 1, |_| true);
    let Some(Body::Tick(first)) = told.last() else { panic!("no tick") };
    assert!(first.degraded.contains(&refused), "{:?}", first.degraded);
    assert!(first.agent.sweep_seconds > Some(3.0), "other threads' time is the sweep's too");
    engine.probes.swept = Swept::default();
    let told = tick(&mut engine, 2, |_| true);
    let Some(Body::Tick(second)) = told.last() else { panic!("no tick") };
    assert!(!second.degraded.contains(&refused), "{:?}", second.degraded);
}

#[test]
fn a_ceiling_that_is_near_is_told_once_and_before_the_tick_that_shows_it() {
    let mut settings = Settings::default();
    settings.thresholds.ratio.near = 0.4;
    let mut engine = Engine::new(Kernel::default(), Fixed, HostDocument::default(), vec![], &settings);
    let told = tick(&mut engine, 1, |_| true);
    assert_eq!(names(&told), ["level_changed", "tick"]);
    let (Body::LevelChanged(change), Body::Tick(first)) = (&told[0], &told[1]) else { panic!("{told:?}") };
    assert_eq!((change.kind, change.scope.as_str(), change.to), (Kind::Memory, "host", Level::Near));
    let host = first.ceilings.iter().find(|ceiling| ceiling.kind == Kind::Memory && ceiling.scope == "host");
    assert_eq!(host.map(|ceiling| ceiling.level), Some(Level::Near));
    assert_eq!(names(&tick(&mut engine, 2, |_| true)), ["tick"]);
}

fn opened(cookie: u64) -> Lifecycle {
    let opened = Opened { cookie, ..Opened::default() };
    Lifecycle::Opened(Box::new(Handshake { opened, request: Vec::new(), response: Vec::new() }))
}

/// An idle connection to port 80, which is known.
fn candidate(cookie: u64) -> CandidateSocket {
    let mut header = agent_ebpf::abi::SocketHeader::default();
    (header.endpoints.netns, header.endpoints.local_port, header.endpoints.family) = (1, 80, 2);
    let unjudged = Unjudged { cookie, pid: 70, fd: 5, grounds: grounds::SERVER_KNOWN, ..Unjudged::default() };
    CandidateSocket { header, unjudged }
}

fn last_tick(told: &[Body]) -> &Tick {
    let Some(Body::Tick(tick)) = told.last() else { panic!("no tick in {:?}", names(told)) };
    tick
}

#[test]
fn lost_close_without_updates_is_reported_as_vanished() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.events = vec![opened(7), opened(8)];
    engine.probes.sockets = vec![socket(7), socket(8)];
    assert_eq!(names(&tick(&mut engine, 1, |_| true)), ["connection_opened", "connection_opened", "tick"]);
    engine.probes.sockets.pop();
    engine.probes.lost = 1;
    let later: Vec<Body> = (2..8).flat_map(|second| tick(&mut engine, second, |_| true)).collect();
    let ends: Vec<&Body> = later.iter().filter(|body| !matches!(body, Body::Tick(_))).collect();
    assert!(matches!(ends[..], [Body::ConnectionVanished(gone)] if gone.id == "8"), "{ends:?}");
}

#[test]
fn close_that_found_no_room_without_updates_is_reported_as_vanished() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.events = vec![opened(7)];
    tick(&mut engine, 1, |_| true);
    engine.probes.events = vec![Lifecycle::Closed(Box::new(socket(7)))];
    tick(&mut engine, 2, |_| false);
    assert_eq!(names(&tick(&mut engine, 3, |_| true)), ["connection_vanished", "tick"]);
    assert_eq!(names(&tick(&mut engine, 4, |_| true)), ["tick"]);
}

#[test]
fn what_happens_during_a_sweep_is_told_before_it_ends() {
    let mut engine = engine(true, vec![DESTROY_HOOK]);
    engine.probes.sockets = vec![socket(7)];
    engine.probes.meanwhile = vec![opened(8), Lifecycle::Closed(Box::new(socket(7)))];
    let told = names(&tick(&mut engine, 1, |_| true));
    assert_eq!(told, ["connection_updated", "connection_opened", "connection_closed", "tick"]);
}

#[test]
fn totals_that_cannot_be_read_stand_as_they_were_and_say_how_old_they_are() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.totals.opened = 5;
    assert_eq!(last_tick(&tick(&mut engine, 1, |_| true)).connections, 5);
    engine.probes.blind = true;
    let told = tick(&mut engine, 2, |_| true);
    let blind = last_tick(&told);
    assert_eq!((blind.connections, blind.listeners.len()), (5, 1));
    let why = blind.degraded.iter().find(|missing| missing.probe == "totals by listener").expect("told");
    assert!(why.reason.ends_with("is 1000 s old"), "{why:?}");
    engine.probes.blind = false;
    let told = tick(&mut engine, 3, |_| true);
    assert!(last_tick(&told).degraded.iter().all(|missing| missing.probe != "totals by listener"));
}

#[test]
fn totals_that_were_never_read_leave_the_count_to_the_sweep() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.blind = true;
    engine.probes.sockets = vec![socket(7), socket(8)];
    assert_eq!(last_tick(&tick(&mut engine, 1, |_| true)).connections, 2);
}

#[test]
fn phantom_in_the_totals_is_corrected_and_counted() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    (engine.probes.totals.adopted, engine.probes.totals.closed) = (15_001, 15_000);
    let open: Vec<u64> =
        (1..5).map(|second| last_tick(&tick(&mut engine, second, |_| true)).connections).collect();
    assert_eq!(open, [1, 1, 0, 0]);
    let told = tick(&mut engine, 5, |_| true);
    assert_eq!(last_tick(&told).agent.losses.map(|losses| losses.reconciled), Some(1));
}

#[test]
fn presumed_connections_are_counted_apart_and_hold_what_they_hold() {
    let mut engine = engine(false, vec![DESTROY_HOOK]);
    engine.probes.candidates = (1..=30).map(candidate).collect();
    let told = tick(&mut engine, 1, |_| true);
    assert_eq!(names(&told), ["tick"], "no event of the kernel's will tell of their ends");
    let tick_ = last_tick(&told);
    assert_eq!((tick_.connections, tick_.presumed), (0, 30));
    let listener = &tick_.listeners[0];
    assert_eq!((listener.port, listener.connections, listener.presumed), (80, 0, 30));
    let process = &tick_.processes[0];
    assert_eq!((process.pid, process.connections, process.presumed), (70, 0, 30));
    assert_eq!(process.memory.kernel_per_connection_bytes, Some(4_000.0));
    let descriptors = tick_.ceilings.iter().find(|ceiling| ceiling.scope == "process:70");
    assert_eq!(descriptors.map(|ceiling| ceiling.connections), Some(30));
    let snapshot = engine.snapshot(&at(2));
    assert_eq!(snapshot.connections.len(), 30);
    let one = &snapshot.connections[0];
    assert_eq!(
        (one.evidence, one.parse, one.pid, one.fd),
        (Some(Evidence::Presumed), Parse::Unsynced, Some(70), Some(5))
    );
    assert_eq!((one.received, one.sent, one.memory.kernel_bytes), (None, None, Some(4_000)));
}

#[test]
fn presumed_connection_that_is_recognised_moves_over_and_that_is_no_growth() {
    let mut engine = engine(true, vec![DESTROY_HOOK]);
    engine.probes.candidates = (1..=30).map(candidate).collect();
    for second in 1..10 {
        tick(&mut engine, second, |_| true);
    }
    // One after the other they show what they are.
    for second in 10..40 {
        let recognised = engine.probes.candidates.pop().expect("left").unjudged.cookie;
        let mut tracked = socket(recognised);
        (tracked.connection.pid, tracked.header.endpoints) = (70, candidate(0).header.endpoints);
        engine.probes.sockets.push(tracked);
        engine.probes.totals.adopted += 1;
        let mut event = Opened { cookie: recognised, older: 1, ..Opened::default() };
        event.endpoints = tracked.header.endpoints;
        let handshake = Handshake { opened: event, request: Vec::new(), response: Vec::new() };
        engine.probes.events.push(Lifecycle::Opened(Box::new(handshake)));
        let told = tick(&mut engine, second, |_| true);
        let recent = last_tick(&told);
        assert_eq!(recent.connections + recent.presumed, 30, "second {second}");
        assert_eq!(recent.presumed, engine.probes.candidates.len() as u64);
        let adopted = told.iter().filter(|body| matches!(body, Body::ConnectionAdopted(_))).count();
        assert_eq!(adopted, 1);
        let growing = |ceiling: &&Ceiling| ceiling.trend == crate::document::Trend::Growing;
        assert_eq!(recent.ceilings.iter().find(growing), None);
    }
    engine.probes.sockets.clear();
}
