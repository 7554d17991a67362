//! The agent against TCP at its worst: WebSockets over a wire that loses, repeats, reorders and re-cuts segments, each
//! end in a network namespace of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use agent::document::{Connection, Parse, Role, Tick, Traffic};
use anyhow::{Context as _, anyhow, ensure};

use crate::agent_process::Run;
use crate::pace::patient;
use crate::payload::{Fill, KINDS};
use crate::process::until;
use crate::ss;
use crate::traffic::{self, Counts};
use crate::wire::peers::{self, Pair, Size, Truth};
use crate::wire::{Schedule, Tally, Version, Wire};

const CONNECTIONS: usize = 6;
const SIZE: Size = Size { small: 400, large: 4, fill: None };
/// Little else but payload.
const BULK: Size = Size { small: 30, large: 30, fill: None };
/// How long TCP may take to close what it has trouble to deliver.
const CLOSING: Duration = Duration::from_secs(60);
/// Any number: the schedule of each test is the same in every run.
const SEED: u64 = 0x6865_6164_726f_6f6d;
/// Schedules tried, where a single one might be lucky.
const SEEDS: u64 = 3;

/// Disorder that a bad network comes to at the least: holes at one time, and bytes behind the first.
const DISORDER: (usize, u64) = (2, 16 << 10);
/// Small receive buffers, so that windows close.
const BUFFER: u32 = 48 << 10;

/// A bad network.
const MODERATE: Schedule = Schedule {
    drop: 0.02,
    duplicate: 0.03,
    reorder: 0.05,
    behind: 6,
    at_most: Duration::from_millis(15),
    overlap: 0.05,
    delay: 0.01,
    pause: Duration::from_millis(8),
};

/// What no network does, with nothing that bounds the disorder.
const BRUTAL: Schedule = Schedule {
    drop: 0.06,
    duplicate: 0.10,
    reorder: 0.25,
    behind: 60,
    at_most: Duration::from_millis(60),
    overlap: 0.30,
    delay: 0.02,
    pause: Duration::from_millis(30),
};

/// Everything that leaves the order of new bytes alone.
const REPETITIVE: Schedule = Schedule {
    drop: 0.0,
    duplicate: 0.20,
    reorder: 0.0,
    behind: 0,
    at_most: Duration::ZERO,
    overlap: 0.40,
    delay: 0.02,
    pause: Duration::from_millis(8),
};

pub(crate) fn a_clean_wire_is_exact() -> anyhow::Result<()> {
    for version in [Version::V4, Version::V6] {
        let seen = Trial::new(version).run()?;
        seen.exact().with_context(|| format!("{version:?}"))?;
    }
    Ok(())
}

pub(crate) fn repeated_and_overlapping_segments_are_exact() -> anyhow::Result<()> {
    for version in [Version::V4, Version::V6] {
        let seen = Trial { schedule: REPETITIVE, ..Trial::new(version) }.run()?;
        let tally = seen.tally;
        ensure!(tally.duplicated > 0 && tally.overlapped > 0, "nothing was repeated: {tally:?}");
        seen.exact().with_context(|| format!("{version:?}, {tally:?}"))?;
    }
    Ok(())
}

pub(crate) fn moderate_loss_and_reordering_is_exact_over_ipv4() -> anyhow::Result<()> {
    moderate(Version::V4)
}

pub(crate) fn moderate_loss_and_reordering_is_exact_over_ipv6() -> anyhow::Result<()> {
    moderate(Version::V6)
}

pub(crate) fn handshakes_on_a_bad_network_are_understood() -> anyhow::Result<()> {
    for seed in SEED..SEED + SEEDS {
        moderately_bad(Trial { early: true, seed, ..Trial::new(Version::V4) })?;
    }
    Ok(())
}

fn moderate(version: Version) -> anyhow::Result<()> {
    for seed in SEED..SEED + SEEDS {
        moderately_bad(Trial { seed, ..Trial::new(version) })?;
    }
    Ok(())
}

fn moderately_bad(trial: Trial) -> anyhow::Result<()> {
    let seed = trial.seed;
    let seen = Trial { schedule: MODERATE, buffer: Some(BUFFER), ..trial }.run()?;
    seen.impaired()?;
    let waits: u64 = seen.closed.iter().filter_map(|connection| Some(connection.stalls?.count)).sum();
    ensure!(waits > 0, "nobody waited for a lost segment");
    let disorder = seen.tally.disorder;
    ensure!(
        disorder.holes >= DISORDER.0 && disorder.bytes >= DISORDER.1,
        "the wire is not as bad as it was to be: {disorder:?}"
    );
    seen.exact().with_context(|| format!("seed {seed:#x}, {:?}", seen.tally))
}

pub(crate) fn a_brutal_wire_invents_nothing() -> anyhow::Result<()> {
    for version in [Version::V4, Version::V6] {
        let seen = Trial { schedule: BRUTAL, calm_close: false, ..Trial::new(version) }.run()?;
        seen.impaired()?;
        ensure!(seen.tally.disorder.holes > 2 * DISORDER.0, "the wire was gentle: {:?}", seen.tally);
        seen.honest().with_context(|| format!("{version:?}, {:?}", seen.tally))?;
    }
    Ok(())
}

/// Of each kind of payload on a connection of its own.
pub(crate) fn long_messages_on_a_brutal_wire_invent_nothing() -> anyhow::Result<()> {
    for seed in SEED..SEED + SEEDS {
        let trial =
            Trial { schedule: BRUTAL, calm_close: false, bulk: true, seed, ..Trial::new(Version::V4) };
        let seen = trial.run()?;
        ensure!(seen.tally.disorder.holes > 2 * DISORDER.0, "the wire was gentle: {:?}", seen.tally);
        seen.honest().with_context(|| format!("seed {seed:#x}, {:?}", seen.tally))?;
    }
    Ok(())
}

pub(crate) fn a_reader_that_stalls_is_exact() -> anyhow::Result<()> {
    let stall = Duration::from_secs(2);
    let seen = Trial { buffer: Some(BUFFER), stall, ..Trial::new(Version::V6) }.run()?;
    ensure!(seen.tally.zero_windows > 0, "no window was closed: {:?}", seen.tally);
    seen.exact()
}

/// Each end connects in turn, because only who connects can choose where its numbers begin.
pub(crate) fn sequence_numbers_wrap_exactly() -> anyhow::Result<()> {
    wrapping(Schedule::default())
}

pub(crate) fn sequence_numbers_wrap_exactly_under_loss() -> anyhow::Result<()> {
    wrapping(MODERATE)
}

fn wrapping(schedule: Schedule) -> anyhow::Result<()> {
    for listening in [Role::Server, Role::Client] {
        let trial = Trial {
            schedule,
            listening,
            buffer: Some(BUFFER),
            // Some wrap within the head, most in the middle of the frames.
            first: Some(|index| 0u32.wrapping_sub(2 + 20_000 * index as u32)),
            ..Trial::new(Version::V4)
        };
        let seen = trial.run()?;
        ensure!(seen.tally.wraps >= CONNECTIONS as u64, "sequence numbers did not wrap: {:?}", seen.tally);
        seen.exact().with_context(|| format!("listening {listening:?}, {:?}", seen.tally))?;
    }
    Ok(())
}

/// One wire, and what happens on it.
struct Trial {
    version: Version,
    schedule: Schedule,
    /// It holds for handshakes too.
    early: bool,
    /// It is over before the connections close, so that their ends send nothing again from there on.
    calm_close: bool,
    seed: u64,
    buffer: Option<u32>,
    /// [`BULK`], of each kind of payload in turn.
    bulk: bool,
    /// Readers begin so late.
    stall: Duration,
    /// The WebSocket role of the end that TCP connects to.
    listening: Role,
    /// Sequence number of the n-th connecting end's first byte.
    first: Option<fn(usize) -> u32>,
}

/// What came of it, as both sides tell it.
struct Seen {
    truths: Vec<Truth>,
    closed: Vec<Connection>,
    tick: Tick,
    tally: Tally,
    /// Segments that each socket has sent again before it closed, by its local and remote address.
    retransmitted: BTreeMap<(String, String), u64>,
    early: bool,
    calm_close: bool,
    port: u16,
    /// Namespaces of the servers and of the clients.
    namespaces: [u32; 2],
}

impl Trial {
    fn new(version: Version) -> Self {
        Self {
            version,
            schedule: Schedule::default(),
            early: false,
            calm_close: true,
            seed: SEED,
            buffer: None,
            bulk: false,
            stall: Duration::ZERO,
            listening: Role::Server,
            first: None,
        }
    }

    fn run(self) -> anyhow::Result<Seen> {
        let wire = Wire::new(self.version, self.seed)?;
        if let Some(buffer) = self.buffer {
            wire.bound_receive_buffers(buffer)?;
        }
        let [near, far] = wire.addresses;
        // The port that the agent watches is a server's. A server that connects has the same one every time, and so has to
        // connect to different ones.
        let listeners = if self.listening == Role::Server { 1 } else { CONNECTIONS };
        let listeners = (0..listeners).map(|_| peers::listen(&wire.near, SocketAddr::new(near, 0)));
        let listeners = listeners.collect::<anyhow::Result<Vec<_>>>()?;
        let port = listeners[0].local_addr()?.port();
        let from = SocketAddr::new(far, if self.listening == Role::Server { 0 } else { port });
        if self.early {
            wire.become_hostile(self.schedule)?;
        }
        let mut agent = Run::attach(&["--port", &port.to_string(), "--interval", "500ms"])?;
        let mut pairs = Vec::new();
        for index in 0..CONNECTIONS {
            let listener = &listeners[index % listeners.len()];
            let first = self.first.map(|first| first(index));
            let dialled = peers::dial(&wire.far, from, listener.local_addr()?, first)?;
            let (accepted, _) = listener.accept().context("the wire does not connect")?;
            pairs.push(match self.listening {
                Role::Server => Pair::upgrade(accepted, dialled)?,
                Role::Client => Pair::upgrade(dialled, accepted)?,
            });
        }
        wire.become_hostile(self.schedule)?;
        let exchanged = std::thread::scope(|scope| {
            let exchange = |((seed, pair), (fill, _)): ((u64, _), &(Fill, _))| {
                let size = if self.bulk { Size { fill: Some(*fill), ..BULK } } else { SIZE };
                scope.spawn(move || Pair::exchange(pair, size, self.stall, seed))
            };
            let threads: Vec<_> = (self.seed..).zip(&pairs).zip(KINDS.iter().cycle()).map(exchange).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        let truths = exchanged.into_iter().map(|truth| truth.map_err(|_| anyhow!("a peer panicked"))?);
        let truths =
            truths.collect::<anyhow::Result<Vec<_>>>().with_context(|| format!("{:?}", wire.tally()))?;
        let mut retransmitted = BTreeMap::new();
        for namespace in [&wire.near, &wire.far] {
            until("acknowledging everything", CLOSING, || {
                Ok(namespace.enter(|| ss::unacknowledged(port))?.values().all(|bytes| *bytes == 0))
            })?;
            retransmitted.extend(namespace.enter(|| ss::retransmissions(port))?);
        }
        ensure!(retransmitted.len() == 2 * CONNECTIONS, "ss shows {retransmitted:?}");
        if self.calm_close {
            wire.become_hostile(Schedule::default())?;
        }
        drop(pairs);
        let (closed, tick) = agent.until_closed(2 * CONNECTIONS, patient(CLOSING))?;
        let mut namespaces = [wire.near.inode()?, wire.far.inode()?];
        if self.listening == Role::Client {
            namespaces.reverse();
        }
        let (early, calm_close) = (self.early, self.calm_close);
        Ok(Seen {
            truths,
            closed,
            tick,
            tally: wire.tally()?,
            retransmitted,
            early,
            calm_close,
            port,
            namespaces,
        })
    }
}

impl Seen {
    /// The wire did what it was to do, and TCP noticed.
    fn impaired(&self) -> anyhow::Result<()> {
        let tally = &self.tally;
        let each = [tally.dropped, tally.duplicated, tally.reordered, tally.overlapped, tally.paused];
        ensure!(each.iter().all(|count| *count > 0), "the wire was clean: {tally:?}");
        let retransmitted: u64 = self.retransmitted.values().sum();
        ensure!(retransmitted > 0, "TCP sent nothing again: {tally:?}");
        Ok(())
    }

    /// Every frame and every byte was seen once.
    fn exact(&self) -> anyhow::Result<()> {
        self.each(|who, seen| {
            let [received, sent] = seen.traffic;
            ensure!(
                seen.parse.is_none_or(|parse| parse == Parse::Exact) && seen.unparsed == 0,
                "{who}: {:?} with {} bytes unparsed",
                seen.parse,
                seen.unparsed
            );
            let agent = [&traffic::seen(received), &traffic::seen(sent)];
            traffic::equal(who, agent, [&seen.received, &seen.sent])?;
            let bytes = [traffic::parsed_bytes(received), traffic::parsed_bytes(sent)];
            ensure!(bytes == seen.bytes, "{who}: {bytes:?} bytes of {:?}", seen.bytes);
            Ok(())
        })
    }

    /// What was sent is exact, for a sender's own stream is always in order. Of what was received, nothing is counted that
    /// was not there, nothing twice, and every byte is accounted for.
    fn honest(&self) -> anyhow::Result<()> {
        self.each(|who, seen| {
            let [received, sent] = seen.traffic;
            let (from_peer, to_peer) = (traffic::seen(received), traffic::seen(sent));
            traffic::equal(who, [&seen.received, &to_peer], [&seen.received, &seen.sent])?;
            for (name, truth) in &seen.received {
                let counted = from_peer[name];
                ensure!(counted <= *truth, "{who} received: {counted} {name} of {truth}");
            }
            let bytes = [traffic::parsed_bytes(received) + seen.unparsed, traffic::parsed_bytes(sent)];
            ensure!(bytes == seen.bytes, "{who}: {bytes:?} bytes of {:?}", seen.bytes);
            Ok(())
        })
    }

    /// What a socket sent again is what `ss` says; where the wire stayed bad, closing may have added to it.
    fn resent(&self, connection: &Connection) -> anyhow::Result<()> {
        let stalls = connection.stalls.context("no stalls")?;
        let ends = (connection.local.clone(), connection.remote.clone());
        let told = *self.retransmitted.get(&ends).with_context(|| format!("ss did not show {ends:?}"))?;
        let counted = stalls.retransmitted_segments.context("retransmissions are not known")?;
        ensure!(
            counted == told || (!self.calm_close && counted > told),
            "{ends:?}: {counted} segments sent again, ss says {told}"
        );
        ensure!((stalls.count > 0) == (stalls.seconds > 0.0), "{ends:?}: {stalls:?}");
        Ok(())
    }

    /// Every connection at both ends, and the listener of both ends.
    fn each(&self, check: impl Fn(&str, &Told) -> anyhow::Result<()>) -> anyhow::Result<()> {
        ensure!(self.closed.len() == 2 * CONNECTIONS, "{} connections closed", self.closed.len());
        for (role, netns) in [Role::Server, Role::Client].into_iter().zip(self.namespaces) {
            let (mut received, mut sent, mut bytes) = (traffic::none(), traffic::none(), [0, 0]);
            for truth in &self.truths {
                let (ends, from_peer, to_peer) = match role {
                    Role::Server => ((truth.server, truth.client), &truth.from_client, &truth.from_server),
                    Role::Client => ((truth.client, truth.server), &truth.from_server, &truth.from_client),
                };
                let connection = self.closed.iter().find(|connection| {
                    (&connection.local, &connection.remote) == (&ends.0.to_string(), &ends.1.to_string())
                });
                let connection = connection.with_context(|| format!("nothing closed on {ends:?}"))?;
                ensure!(connection.role == role, "{connection:?} is no {role:?}");
                self.resent(connection)?;
                let lengths = [from_peer.bytes.len() as u64, to_peer.bytes.len() as u64];
                let told = Told {
                    parse: Some(connection.parse),
                    unparsed: connection.unparsed_bytes,
                    traffic: [
                        &connection.received.context("no counts")?,
                        &connection.sent.context("no counts")?,
                    ],
                    received: from_peer.counts.clone(),
                    sent: to_peer.counts.clone(),
                    bytes: lengths,
                };
                check(&format!("{role:?} {} → {}", ends.0, ends.1), &told)?;
                traffic::add(&mut received, &from_peer.counts);
                traffic::add(&mut sent, &to_peer.counts);
                bytes = [bytes[0] + lengths[0], bytes[1] + lengths[1]];
            }
            let listener = traffic::listener(&self.tick.listeners, self.port, role)?;
            ensure!(listener.netns == netns, "{listener:?} is not of the namespace {netns}");
            ensure!(listener.closed == CONNECTIONS as u64, "{listener:?}");
            let own = self.closed.iter().filter(|connection| connection.role == role);
            let stalls: Vec<_> = own.filter_map(|connection| connection.stalls).collect();
            let waits: u64 = stalls.iter().map(|stalls| stalls.count).sum();
            let resent: u64 = stalls.iter().filter_map(|stalls| stalls.retransmitted_segments).sum();
            let told = listener.stalls.retransmitted_segments.context("retransmissions are not known")?;
            // Of retransmissions before the handshake ended, the connection knows and the listener does not. There are some
            // where the wire is bad by then; on a busy host one timer may expire in any handshake.
            let early = if self.early { resent } else { CONNECTIONS as u64 };
            ensure!(
                listener.stalls.count == waits && (told..=told + early).contains(&resent),
                "{waits} waits, {resent} sent again: {listener:?}"
            );
            let told = Told {
                parse: None,
                unparsed: listener.unparsed_bytes,
                traffic: [&listener.received, &listener.sent],
                received,
                sent,
                bytes,
            };
            check(&format!("listener as {role:?}"), &told)?;
        }
        Ok(())
    }
}

/// The agent's account beside the peers'.
struct Told<'a> {
    parse: Option<Parse>,
    unparsed: u64,
    /// Received, sent.
    traffic: [&'a Traffic; 2],
    received: Counts,
    sent: Counts,
    /// Lengths of both streams behind the handshake.
    bytes: [u64; 2],
}
