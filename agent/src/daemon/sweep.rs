//! Sweeps over all connections on a CPU budget.

use std::time::Duration;

use agent_ebpf::abi::{Endpoints, SocketHeader};
use agent_ebpf::handshake::Deflate;

use super::connection_events::ConnectionEvents;
use super::usage;
use crate::document::{self, Body};
use crate::kernel::{CandidateSocket, Observation, Probes, ReadError, Socket, Swept};
use crate::model::{
    ClientDestinations, Clock, Destination, Ends, Holder, LocalPorts, Place, SlabCost, Summary, address,
    buffer_bytes, estimated_bytes, presumed, role,
};

/// Pause after a sweep that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Decides when the next sweep is due: its CPU time, spread over the time until the one after it, stays within the
/// budget. Few connections are swept every tick, a million every minute or so.
#[derive(Debug)]
pub(super) struct Pace {
    budget: f64,
    due_ns: u64,
    last_ns: Option<u64>,
    cost: Option<Duration>,
}

impl Pace {
    /// `budget` is a share of one core.
    pub(super) fn new(budget: f64) -> Self {
        Self { budget, due_ns: 0, last_ns: None, cost: None }
    }

    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    pub(super) fn done(&mut self, now_ns: u64, cost: Duration) {
        self.last_ns = Some(now_ns);
        self.cost = Some(cost);
        self.due_ns = now_ns + (cost.as_nanos() as f64 / self.budget) as u64;
    }

    /// Tries again after a pause; what the last sweep said stands, and grows old.
    pub(super) fn failed(&mut self, now_ns: u64) {
        self.due_ns = now_ns + RETRY.as_nanos() as u64;
    }

    /// Has the next tick sweep, whatever the budget says and however fresh the last one is.
    pub(super) fn hurry(&mut self) {
        self.due_ns = 0;
        self.last_ns = None;
    }

    pub(super) fn cost(&self) -> Option<Duration> {
        self.cost
    }

    pub(super) fn age(&self, now_ns: u64) -> Option<Duration> {
        self.last_ns.map(|last| Duration::from_nanos(now_ns.saturating_sub(last)))
    }
}

/// The network namespace that the host is read in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Here {
    /// Its inode number.
    pub(super) netns: Option<u32>,
    /// Ports that `connect` chooses from there.
    pub(super) ports: Option<LocalPorts>,
}

/// A connection as the sums take it.
struct Counted<'a> {
    header: &'a SocketHeader,
    pid: u32,
    end: document::Role,
    deflate: Deflate,
    /// Interface of its handshake, where that is known.
    interface: Option<u32>,
    presumed: bool,
}

impl<'a> Counted<'a> {
    fn tracked(socket: &'a Socket) -> Self {
        let connection = &socket.connection;
        Self {
            header: &socket.header,
            pid: connection.pid,
            end: role(connection.role),
            deflate: Deflate(connection.deflate),
            interface: Some(connection.ifindex),
            presumed: false,
        }
    }

    fn presumed(candidate: &'a CandidateSocket, end: document::Role) -> Self {
        let pid = candidate.unjudged.pid;
        Self { header: &candidate.header, pid, end, deflate: Deflate(0), interface: None, presumed: true }
    }

    fn place(&self) -> Place {
        let endpoints = &self.header.endpoints;
        let port = match self.end {
            document::Role::Server => endpoints.local_port,
            document::Role::Client => endpoints.remote_port,
        };
        Place { netns: endpoints.netns, port, role: self.end }
    }
}

/// Adds a connection to the sums.
fn add(summary: &mut Summary, counted: &Counted<'_>, slab: Option<SlabCost>, here: &Here) {
    let (memory, endpoints) = (&counted.header.memory, &counted.header.endpoints);
    let buffers = buffer_bytes(memory);
    let fixed = slab.map_or(0, |slab| slab.of(endpoints.family));
    let options = u64::try_from(memory.omem_alloc).unwrap_or(0);
    let holder = Holder {
        connections: 1,
        presumed: u64::from(counted.presumed),
        adopted: 0,
        kernel_bytes: fixed + buffers + options,
        fixed_bytes: fixed,
        buffer_bytes: buffers,
        compression_bytes: estimated_bytes(counted.deflate),
        compressed: u64::from(counted.deflate.negotiated()),
    };
    let place = counted.place();
    let held = if counted.presumed {
        summary.presumed.entry(place).or_default().entry(counted.pid).or_default()
    } else {
        *summary.held.entry(place).or_default().entry(counted.pid).or_default() += 1;
        summary.holders.entry(counted.pid).or_default()
    };
    *held = *held + holder;
    if counted.end == document::Role::Server {
        summary.peers.entry(counted.pid).or_default().add(address(endpoints, false).ip());
    }
    add_end(summary.namespaces.entry(endpoints.netns).or_default(), endpoints, counted.end);
    // Each namespace numbers its interfaces for itself, and has all ports for itself.
    if here.netns.is_none_or(|netns| netns == endpoints.netns) {
        if let Some(interface) = counted.interface {
            *summary.interfaces.entry(interface).or_default() += 1;
        }
        let chosen = |ports: LocalPorts| (ports.first..=ports.last).contains(&endpoints.local_port);
        if counted.end == document::Role::Client && here.ports.is_none_or(chosen) {
            let local = address(endpoints, true).ip();
            summary.destinations.add(Destination { local, remote: address(endpoints, false) });
        }
    }
}

/// An address of the host itself is also told by being that of both ends.
fn add_end(ends: &mut Ends, endpoints: &Endpoints, end: document::Role) {
    let (local, remote) = (address(endpoints, true).ip(), address(endpoints, false).ip());
    let within = u64::from(local == remote || remote.is_loopback());
    ends.connections += 1;
    match end {
        document::Role::Client => ends.clients_within += within,
        document::Role::Server => ends.servers_within += within,
    }
}

/// What came of a sweep.
pub(super) struct Outcome {
    pub(super) summary: Summary,
    /// CPU time.
    pub(super) cost: Duration,
    pub(super) swept: Swept,
}

/// One sweep. What it meets and what happens meanwhile is told through `events`.
pub(super) fn sweep(
    probes: &mut impl Probes,
    clock: &Clock,
    here: &Here,
    known: &mut ClientDestinations,
    events: &mut ConnectionEvents,
    emit: &mut dyn FnMut(Body) -> bool,
) -> Result<Outcome, ReadError> {
    let start = usage::thread_cpu();
    let slab = events.slab();
    let mut summary =
        Summary { fixed_known: slab.is_some(), interfaces_netns: here.netns, ..Summary::default() };
    known.begin();
    let swept = probes.sweep(&mut |observation| match observation {
        Observation::Socket(socket) => {
            let counted = Counted::tracked(socket);
            if counted.end == document::Role::Client {
                known.add(&socket.header.endpoints);
            }
            add(&mut summary, &counted, slab, here);
            events.met(socket, clock, emit);
        }
        Observation::Candidate(candidate) => {
            let (grounds, endpoints) = (candidate.unjudged.grounds, &candidate.header.endpoints);
            if let Some(end) = presumed(grounds, endpoints, known) {
                add(&mut summary, &Counted::presumed(candidate, end), slab, here);
                events.met_presumed(candidate, end, emit);
            }
        }
        Observation::Lifecycle(event) => events.lifecycle(event, clock, emit),
    })?;
    let cost = usage::thread_cpu().saturating_sub(start) + swept.cpu;
    Ok(Outcome { summary, cost, swept })
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_ebpf::abi::Role;

    fn socket(netns: u32, role: Role, local: ([u8; 4], u16), remote: ([u8; 4], u16)) -> Socket {
        let mut socket = Socket { header: Default::default(), connection: Default::default() };
        socket.connection.role = role as u16;
        let endpoints = &mut socket.header.endpoints;
        (endpoints.family, endpoints.netns) = (2, netns);
        endpoints.local[..4].copy_from_slice(&local.0);
        endpoints.remote[..4].copy_from_slice(&remote.0);
        (endpoints.local_port, endpoints.remote_port) = (local.1, remote.1);
        socket
    }

    #[test]
    fn ports_are_counted_where_connect_chose_them() {
        let here =
            Here { netns: Some(1), ports: Some(LocalPorts { first: 32_768, last: 60_999, reserved: 0 }) };
        let (own, other) = ([10, 0, 0, 1], [10, 0, 0, 9]);
        let mut summary = Summary::default();
        for (netns, role, local_port) in [
            (1, Role::Client, 40_000),
            (1, Role::Client, 40_001),
            (1, Role::Client, 20_000),
            (2, Role::Client, 40_002),
            (1, Role::Server, 40_003),
        ] {
            add(
                &mut summary,
                &Counted::tracked(&socket(netns, role, (own, local_port), (other, 80))),
                None,
                &here,
            );
        }
        let destination = Destination { local: own.into(), remote: (other, 80).into() };
        assert_eq!(summary.destinations.fullest(5), [(destination, 2)]);
    }

    #[test]
    fn a_connection_within_a_namespace_is_told_from_one_that_leaves_it() {
        let mut summary = Summary::default();
        let (own, other, loopback) = ([10, 0, 0, 1], [10, 0, 0, 9], [127, 0, 0, 1]);
        for (local, remote) in [(own, other), (own, own), (loopback, loopback)] {
            let (server, client) = ((local, 80), (remote, 50_000));
            add(
                &mut summary,
                &Counted::tracked(&socket(3, Role::Server, server, client)),
                None,
                &Here::default(),
            );
            add(
                &mut summary,
                &Counted::tracked(&socket(3, Role::Client, client, server)),
                None,
                &Here::default(),
            );
        }
        let ends = Ends { connections: 6, servers_within: 2, clients_within: 2 };
        assert_eq!(summary.namespaces[&3], ends);
    }

    #[test]
    fn the_pace_keeps_the_budget() {
        let mut pace = Pace::new(0.01);
        assert!(pace.is_due(0));
        pace.done(1_000, Duration::from_millis(30));
        assert!(!pace.is_due(2_999_000_000));
        assert!(pace.is_due(3_000_001_000), "30 ms are 1% of 3 s");
        assert_eq!(pace.age(2_000_001_000), Some(Duration::from_secs(2)));
        pace.hurry();
        assert!(pace.is_due(0));
    }
}
