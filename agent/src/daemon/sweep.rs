//! Sweeps over all connections on a CPU budget.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use agent_ebpf::abi::{Endpoints, Role};
use agent_ebpf::handshake::Deflate;

use crate::kernel::{Probes, ReadError, Socket};
use crate::model::{
    Clock, Destination, Ends, LocalPorts, Place, SlabCost, Summary, address, buffer_bytes, connection,
    estimated_bytes,
};

use super::handshakes::Handshakes;
use super::usage;
use crate::document::{self, Body, Degraded, Vanished};

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

/// What was last reported of each connection: enough to tell whether it changed, and no more.
#[derive(Debug, Default)]
pub(super) struct Reported {
    seen: HashMap<u64, (u64, u32)>,
    generation: u32,
}

impl Reported {
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// A connection that was told of but not visited yet. The fingerprint is none that a visit would take for known: a sweep
    /// may have met it before its event was read, and what it said then has been overridden by the event, which knows less.
    pub(super) fn opened(&mut self, cookie: u64) {
        self.seen.insert(cookie, (0, self.generation));
    }

    pub(super) fn closed(&mut self, cookie: u64) {
        self.seen.remove(&cookie);
    }

    fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether the socket differs from what was reported.
    fn changed(&mut self, socket: &Socket, fingerprint: u64) -> bool {
        match self.seen.get_mut(&socket.connection.cookie) {
            Some((known, generation)) => {
                *generation = self.generation;
                *known != fingerprint
            }
            None => true,
        }
    }

    fn note(&mut self, cookie: u64, fingerprint: u64) {
        self.seen.insert(cookie, (fingerprint, self.generation));
    }

    /// Those that two sweeps in a row did not meet. One is not enough: the close event may still be in the ring buffer.
    fn vanished(&mut self) -> Vec<u64> {
        let generation = self.generation;
        let gone = |seen: u32| generation.wrapping_sub(seen) >= 2;
        let cookies: Vec<u64> =
            self.seen.iter().filter(|(_, (_, seen))| gone(*seen)).map(|(cookie, _)| *cookie).collect();
        self.seen.retain(|_, (_, seen)| !gone(*seen));
        cookies
    }
}

fn fingerprint(socket: &Socket) -> u64 {
    let (connection, memory) = (&socket.connection, &socket.header.memory);
    let mut hasher = DefaultHasher::new();
    (connection.received.counters, connection.sent.counters, memory).hash(&mut hasher);
    (connection.pid, connection.fd, connection.received.parse, connection.sent.parse).hash(&mut hasher);
    (connection.received.stalls, connection.received.stalled_ns, socket.header.retransmitted)
        .hash(&mut hasher);
    hasher.finish()
}

/// The network namespace that the host is read in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Here {
    /// Its inode number.
    pub(super) netns: Option<u32>,
    /// Ports that `connect` chooses from there.
    pub(super) ports: Option<LocalPorts>,
}

/// Adds a socket to the sums.
fn add(summary: &mut Summary, socket: &Socket, slab: Option<SlabCost>, here: &Here) {
    let connection = &socket.connection;
    let buffers = buffer_bytes(&socket.header.memory);
    let fixed = slab.map_or(0, |slab| slab.of(socket.header.endpoints.family));
    let options = u64::try_from(socket.header.memory.omem_alloc).unwrap_or(0);
    let compression = estimated_bytes(Deflate(connection.deflate));
    let holder = summary.holders.entry(connection.pid).or_default();
    holder.connections += 1;
    holder.kernel_bytes += fixed + buffers + options;
    holder.fixed_bytes += fixed;
    holder.buffer_bytes += buffers;
    holder.compression_bytes += compression;
    holder.compressed += u64::from(Deflate(connection.deflate).negotiated());
    let (endpoints, role) = (&socket.header.endpoints, Role::from_u16(connection.role));
    if role != Some(Role::Client) {
        summary.peers.entry(connection.pid).or_default().add(address(endpoints, false).ip());
    }
    let place = match role {
        Some(Role::Client) => {
            Place { netns: endpoints.netns, port: endpoints.remote_port, role: document::Role::Client }
        }
        _ => Place { netns: endpoints.netns, port: endpoints.local_port, role: document::Role::Server },
    };
    *summary.held.entry(place).or_default().entry(connection.pid).or_default() += 1;
    add_end(summary.namespaces.entry(endpoints.netns).or_default(), endpoints, role);
    // Each namespace numbers its interfaces for itself, and has all ports for itself.
    if here.netns.is_none_or(|netns| netns == endpoints.netns) {
        *summary.interfaces.entry(connection.ifindex).or_default() += 1;
        let chosen = |ports: LocalPorts| (ports.first..=ports.last).contains(&endpoints.local_port);
        if role == Some(Role::Client) && here.ports.is_none_or(chosen) {
            let local = address(endpoints, true).ip();
            summary.destinations.add(Destination { local, remote: address(endpoints, false) });
        }
    }
}

/// An address of the host itself is also told by being that of both ends.
fn add_end(ends: &mut Ends, endpoints: &Endpoints, role: Option<Role>) {
    let (local, remote) = (address(endpoints, true).ip(), address(endpoints, false).ip());
    let within = u64::from(local == remote || remote.is_loopback());
    ends.connections += 1;
    match role {
        Some(Role::Client) => ends.clients_within += within,
        _ => ends.servers_within += within,
    }
}

/// One sweep: sums, and an update for each connection that changed where `reported` is given. Returns the sums, the CPU
/// time, and where the sweep could not go.
pub(super) fn sweep(
    probes: &mut impl Probes,
    clock: &Clock,
    slab: Option<SlabCost>,
    here: &Here,
    mut reported: Option<&mut Reported>,
    handshakes: &Handshakes,
    emit: &mut dyn FnMut(Body) -> bool,
) -> Result<(Summary, Duration, Vec<Degraded>), ReadError> {
    let start = usage::thread_cpu();
    let mut summary =
        Summary { fixed_known: slab.is_some(), interfaces_netns: here.netns, ..Summary::default() };
    if let Some(reported) = reported.as_deref_mut() {
        reported.begin();
    }
    let swept = probes.sweep(&mut |socket| {
        add(&mut summary, socket, slab, here);
        let Some(reported) = reported.as_deref_mut() else {
            return;
        };
        let fingerprint = fingerprint(socket);
        if reported.changed(socket, fingerprint)
            && emit(Body::ConnectionUpdated(connection(
                socket,
                clock,
                slab,
                handshakes.of(socket.connection.cookie),
            )))
        {
            // An update that found no room is due again at the next sweep.
            reported.note(socket.connection.cookie, fingerprint);
        }
    })?;
    if let Some(reported) = reported {
        for cookie in reported.vanished() {
            emit(Body::ConnectionVanished(Vanished { id: cookie.to_string() }));
        }
    }
    let cost = usage::thread_cpu().saturating_sub(start) + swept.cpu;
    Ok((summary, cost, swept.degraded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_ebpf::abi;

    #[test]
    fn an_event_that_is_read_after_a_visit_has_the_connection_reported_again() {
        let connection = abi::Connection { cookie: 7, ..abi::Connection::default() };
        let socket = Socket { header: abi::SocketHeader::default(), connection };
        let known = fingerprint(&socket);
        let mut reported = Reported::default();
        reported.note(7, known);
        assert!(!reported.changed(&socket, known));
        reported.opened(7);
        assert!(reported.changed(&socket, known));
    }

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
            add(&mut summary, &socket(netns, role, (own, local_port), (other, 80)), None, &here);
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
            add(&mut summary, &socket(3, Role::Server, server, client), None, &Here::default());
            add(&mut summary, &socket(3, Role::Client, client, server), None, &Here::default());
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
