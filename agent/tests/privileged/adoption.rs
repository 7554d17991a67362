//! Connections that were open before the agent came.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use agent::document::{Connection, Parse, Role};
use anyhow::{Context as _, ensure};

use crate::agent_process::Settling;
use crate::pace::patient;
use crate::process::SOON;
use crate::runner::Skip;
use crate::traffic::{self, Counts};
use crate::watch::{self, Watch};
use crate::websocket;

/// Turns of a conversation that suffice by far to show what a connection is.
const TURNS: usize = 10;
const PAIRS: usize = 3;
/// Payload lengths around every change of the header's form.
const SIZES: &[usize] = &[0, 1, 125, 126, 127, 65_535, 65_536, 300_000];
const LONG_MESSAGE: usize = 6 << 20;

/// Both ends of one connection, in this process.
struct Pair {
    server: TcpStream,
    client: TcpStream,
}

pub(crate) fn older_connections_are_adopted_and_counted_exactly_from_then_on() -> anyhow::Result<()> {
    let mut listeners = vec![TcpListener::bind("127.0.0.1:0")?];
    match TcpListener::bind("[::1]:0") {
        Ok(listener) => listeners.push(listener),
        Err(error) => return Err(Skip(format!("this host has no IPv6: {error}")).into()),
    }
    let mut pairs = Vec::new();
    for listener in &listeners {
        for _ in 0..PAIRS {
            pairs.push(Pair::open(listener)?);
        }
    }
    let ports = listeners.iter().map(port).collect::<Result<Vec<_>, _>>()?;
    let mut agent = Watch::attach(&ports, &[])?;
    for pair in &mut pairs {
        pair.converse(TURNS)?;
    }
    let tick = agent.settle_holders()?;
    for port in ports {
        for role in [Role::Server, Role::Client] {
            let told = watch::adopted(&tick, port, role);
            ensure!(told == PAIRS as u64, "the listener of {port} as {role:?} adopted {told}");
        }
    }
    ensure!(agent.opened.is_empty(), "older connections are said to have been opened: {:?}", agent.opened);
    ensure!(agent.adopted.len() == 2 * pairs.len(), "{} were adopted", agent.adopted.len());
    let before = states(&agent, &pairs)?;
    for pair in &pairs {
        for (role, own, other) in pair.ends() {
            recognised(&before[&ends(own, other)?], role, own)?;
        }
    }
    for pair in &mut pairs {
        pair.exchange(&everything(false), &everything(true))?;
    }
    agent.settle()?;
    counted(&agent, &pairs, &before)?;
    let closing = 2 * pairs.len();
    drop(pairs);
    agent.until("closing", SOON, |_, _, agent| agent.closed.len() >= closing)?;
    ensure!(agent.closed.iter().all(|connection| connection.opened.is_none()), "an opening was made up");
    Ok(())
}

pub(crate) fn a_snapshot_shows_what_was_adopted() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut pair = Pair::open(&listener)?;
    let snapshot = Settling::attach(port(&listener)?, patient(Duration::from_secs(2)))?;
    pair.converse(TURNS)?;
    let snapshot = snapshot.finish(SOON)?;
    ensure!(snapshot.connections.len() == 2, "{:?}", snapshot.connections);
    for (role, own, other) in pair.ends() {
        let ends = ends(own, other)?;
        let mut all = snapshot.connections.iter();
        let shown = all.find(|shown| (&shown.local, &shown.remote) == (&ends.0, &ends.1));
        recognised(shown.with_context(|| format!("no {ends:?}"))?, role, own)?;
    }
    Ok(())
}

/// The server pings once, at any point of the conversation in which the connection is recognised, and the answer comes when
/// it is known.
pub(crate) fn bytes_and_pings_from_before_are_in_the_books() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut pairs = Vec::new();
    for _ in 0..TURNS {
        pairs.push(Pair::open(&listener)?);
    }
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let ping = websocket::frame(0x89, b"from before", None);
    let mut said = 0;
    for (before, pair) in pairs.iter_mut().enumerate() {
        pair.converse(before)?;
        transfer(&mut pair.server, &mut pair.client, &ping, usize::MAX)?;
        pair.converse(TURNS - before)?;
        transfer(&mut pair.client, &mut pair.server, &client_frame(0x8a, b"from before"), usize::MAX)?;
        // One that is seen whole, so that what is missed or not asked for would be told.
        transfer(&mut pair.server, &mut pair.client, &websocket::frame(0x89, b"now", None), usize::MAX)?;
        transfer(&mut pair.client, &mut pair.server, &client_frame(0x8a, b"now"), usize::MAX)?;
        said = (TURNS * "turn n".len() + "from before".len() + "now".len()) as u64;
    }
    let frames = TURNS as u64 + 2;
    let [from_client, from_server] = [said + 6 * frames, said + 2 * frames];
    let tick = agent.settle()?;
    let mut unparsed = BTreeMap::new();
    for (role, own, other) in pairs.iter().flat_map(Pair::ends) {
        let ends = ends(own, other)?;
        let connection = agent.connection(&ends.0, &ends.1)?;
        let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
        let (client, server) = if role == Role::Server { (received, sent) } else { (sent, received) };
        let bytes = (client.stream_bytes, server.stream_bytes);
        ensure!(
            bytes == (from_client, from_server),
            "{bytes:?} of {from_client} and {from_server}: {connection:?}"
        );
        let parsed = traffic::parsed_bytes(&received) + traffic::parsed_bytes(&sent);
        ensure!(
            connection.unparsed_bytes > 0 && connection.unparsed_bytes + parsed == from_client + from_server,
            "{connection:?}"
        );
        let ping = connection.ping;
        ensure!((ping.missed, ping.unsolicited) == (Some(0), Some(0)), "{ping:?}");
        ensure!(ping.rtt_seconds.is_some(), "{ping:?}");
        *unparsed.entry(role).or_insert(0) += connection.unparsed_bytes;
    }
    for (role, unparsed) in unparsed {
        let listener = traffic::listener(&tick.listeners, port(&listener)?, role)?;
        ensure!(listener.unparsed_bytes == unparsed, "{unparsed} unparsed: {listener:?}");
    }
    Ok(())
}

/// A listener on a port below those that clients get, as servers have: frames of a server alone are no evidence without.
fn low_port() -> anyhow::Result<TcpListener> {
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    let free = (first..first + 500).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.context("no port is free")
}

/// The other side never says a word.
pub(crate) fn one_direction_is_enough() -> anyhow::Result<()> {
    let listener = low_port()?;
    let mut pairs = [Pair::open(&listener)?, Pair::open(&listener)?];
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let (pushed, told) = (websocket::frame(0x81, b"pushed to the client", None), client_frame(0x82, b"sent"));
    let say = |pairs: &mut [Pair; 2], times: usize| {
        for _ in 0..times {
            let [pushing, sending] = pairs;
            transfer(&mut pushing.server, &mut pushing.client, &pushed, usize::MAX)?;
            transfer(&mut sending.client, &mut sending.server, &told, usize::MAX)?;
            // A packet each.
            std::thread::sleep(Duration::from_millis(2));
        }
        anyhow::Ok(())
    };
    say(&mut pairs, 40)?;
    agent.settle()?;
    ensure!(agent.adopted.len() == 4, "{} ends were adopted", agent.adopted.len());
    let before = states(&agent, &pairs)?;
    say(&mut pairs, 50)?;
    agent.settle()?;
    for (pair, from_server) in pairs.iter().zip([true, false]) {
        for (role, own, other) in pair.ends() {
            let ends = ends(own, other)?;
            let [received, sent] = watch::between(&before[&ends], agent.connection(&ends.0, &ends.1)?)?;
            let (speaking, silent) =
                if (role == Role::Server) == from_server { (sent, received) } else { (received, sent) };
            let name = if from_server { "text" } else { "binary" };
            ensure!((speaking["frames"], speaking[name]) == (50, 50), "{role:?} {ends:?}: {speaking:?}");
            ensure!(silent["stream_bytes"] == 0, "{role:?} {ends:?}: {silent:?}");
        }
    }
    Ok(())
}

/// The agent comes in the middle of a message of some megabytes, while the server pushes.
pub(crate) fn a_long_message_under_way_is_no_hindrance() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut pairs = [Pair::open(&listener)?];
    let payload: Vec<u8> =
        (0..LONG_MESSAGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let message = client_frame(0x82, &payload);
    let (first, rest) = message.split_at(message.len() / 3);
    let [pair] = &mut pairs;
    transfer(&mut pair.client, &mut pair.server, first, usize::MAX)?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let pushed = websocket::frame(0x81, b"meanwhile", None);
    for piece in rest.chunks(64 << 10) {
        transfer(&mut pair.client, &mut pair.server, piece, usize::MAX)?;
        transfer(&mut pair.server, &mut pair.client, &pushed, usize::MAX)?;
    }
    pair.converse(2 * TURNS)?;
    agent.settle_holders()?;
    ensure!(agent.adopted.len() == 2, "{} ends were adopted", agent.adopted.len());
    let before = states(&agent, &pairs)?;
    for (role, own, other) in pairs[0].ends() {
        recognised(&before[&ends(own, other)?], role, own)?;
    }
    pairs[0].exchange(&everything(false), &everything(true))?;
    agent.settle()?;
    counted(&agent, &pairs, &before)
}

pub(crate) fn what_closed_before_it_was_known_leaves_nothing() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let number = port(&listener)?;
    let (silent, mut brief, mut lasting) =
        (Pair::open(&listener)?, Pair::open(&listener)?, Pair::open(&listener)?);
    let mut agent = Watch::attach(&[number], &[])?;
    brief.converse(1)?;
    drop((silent, brief));
    // That others go on must not depend on those that went.
    lasting.converse(TURNS)?;
    let tick = agent.settle()?;
    ensure!(agent.adopted.len() == 2 && agent.latest.len() == 2, "{:?}", agent.latest);
    ensure!(agent.opened.is_empty() && agent.closed.is_empty(), "{:?} {:?}", agent.opened, agent.closed);
    for role in [Role::Server, Role::Client] {
        let listener = traffic::listener(&tick.listeners, number, role)?;
        let told = (listener.connections, listener.adopted, listener.opened, listener.closed);
        ensure!(told == (1, 1, 0, 0), "{listener:?}");
    }
    Ok(())
}

/// The TCP connection is older than the agent, its upgrade is not: nothing of it need be guessed.
pub(crate) fn an_upgrade_on_an_older_connection_is_exact() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(SOON))?;
    }
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    // What is left of the answer before it looks like a frame.
    let body = b"\x82\x20of a body that was under way";
    server.write_all(body)?;
    client.read_exact(&mut [0; 30])?;
    client.write_all(websocket::request_head("/late", "example.org", "").as_bytes())?;
    websocket::head(&mut server)?;
    server.write_all(websocket::response().as_bytes())?;
    websocket::opened(&mut client)?;
    let mut pair = Pair { server, client };
    pair.exchange(&everything(false), &everything(true))?;
    agent.settle()?;
    for (role, own, other) in pair.ends() {
        let ends = ends(own, other)?;
        let connection = agent.connection(&ends.0, &ends.1)?;
        ensure!(connection.role == role && connection.parse == Parse::Exact, "{connection:?}");
        let path = connection.upgrade.as_ref().and_then(|upgrade| upgrade.path.as_deref());
        ensure!(path == Some("/late"), "{connection:?}");
        let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
        let [from_peer, to_peer] = expected(role);
        for (seen, expected) in [(traffic::seen(&received), from_peer), (traffic::seen(&sent), to_peer)] {
            let expected: Counts = expected.into_iter().filter(|(name, _)| seen.contains_key(name)).collect();
            ensure!(seen == expected, "{role:?}: {seen:?} instead of {expected:?}");
        }
    }
    Ok(())
}

impl Pair {
    fn open(listener: &TcpListener) -> anyhow::Result<Self> {
        let (server, client) = websocket::pair(listener)?;
        for stream in [&server, &client] {
            stream.set_nodelay(true)?;
        }
        Ok(Self { server, client })
    }

    fn ends(&self) -> [(Role, &TcpStream, &TcpStream); 2] {
        [(Role::Server, &self.server, &self.client), (Role::Client, &self.client, &self.server)]
    }

    /// Messages of both sides in turn.
    fn converse(&mut self, turns: usize) -> anyhow::Result<()> {
        for turn in 0..turns {
            let said = format!("turn {turn}");
            transfer(&mut self.client, &mut self.server, &client_frame(0x81, said.as_bytes()), usize::MAX)?;
            let answer = websocket::frame(0x81, said.as_bytes(), None);
            transfer(&mut self.server, &mut self.client, &answer, usize::MAX)?;
        }
        Ok(())
    }

    /// Frames of the client, then of the server, cut where no frame ends.
    fn exchange(&mut self, client: &[Vec<u8>], server: &[Vec<u8>]) -> anyhow::Result<()> {
        transfer(&mut self.client, &mut self.server, &client.concat(), 3001)?;
        transfer(&mut self.server, &mut self.client, &server.concat(), 4999)
    }
}

/// Sends bytes in pieces and waits until all have arrived.
fn transfer(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8], piece: usize) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let sending =
            scope.spawn(|| bytes.chunks(piece.min(bytes.len())).try_for_each(|piece| from.write_all(piece)));
        let mut arrived = vec![0; bytes.len()];
        to.read_exact(&mut arrived)?;
        sending.join().map_err(|_| anyhow::anyhow!("sending panicked"))??;
        ensure!(arrived == bytes, "what arrived is not what was sent");
        Ok(())
    })
}

fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    websocket::frame(first, payload, Some([0x37, 0xfa, 0x21, 0x3d]))
}

/// A message of each size, one in fragments with a ping between them, one compressed as far as can be seen, a pong.
fn everything(from_server: bool) -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| match from_server {
        true => websocket::frame(first, payload, None),
        false => client_frame(first, payload),
    };
    let mut frames: Vec<_> = SIZES.iter().map(|size| frame(0x82, &vec![0x81; *size])).collect();
    frames.extend([
        frame(0x01, b"in "),
        frame(0x00, b"three "),
        frame(0x89, b"still there?"),
        frame(0x80, b"pieces"),
        frame(0xc1, b"compressed"),
        frame(0x8a, b"unasked"),
    ]);
    frames
}

/// What [`everything`] of both sides amounts to: received, sent.
fn expected(role: Role) -> [Counts; 2] {
    let direction = |from_server: bool| {
        let stream: usize = everything(from_server).iter().map(Vec::len).sum();
        let data: usize = SIZES.iter().sum::<usize>() + "in three pieces".len() + "compressed".len();
        let control = "still there?".len() + "unasked".len();
        let counts = [
            ("frames", SIZES.len() + 6),
            ("text", 2),
            ("binary", SIZES.len()),
            ("continuation", 2),
            ("ping", 1),
            ("pong", 1),
            ("close", 0),
            ("payload_bytes", data),
            ("control_bytes", control),
            ("header_bytes", stream - data - control),
            ("compressed_frames", 1),
            ("stream_bytes", stream),
        ];
        counts.into_iter().map(|(name, count)| (name, count as u64)).collect()
    };
    [direction(role == Role::Client), direction(role == Role::Server)]
}

type States = BTreeMap<(String, String), Connection>;

/// What the agent last said of both ends of all pairs.
fn states(agent: &Watch, pairs: &[Pair]) -> anyhow::Result<States> {
    let mut states = BTreeMap::new();
    for (_, own, other) in pairs.iter().flat_map(Pair::ends) {
        let ends = ends(own, other)?;
        states.insert(ends.clone(), agent.connection(&ends.0, &ends.1)?.clone());
    }
    Ok(states)
}

/// Between `before` and what was last said, exactly [`everything`] went by at both ends of all pairs.
fn counted(agent: &Watch, pairs: &[Pair], before: &States) -> anyhow::Result<()> {
    for (role, own, other) in pairs.iter().flat_map(Pair::ends) {
        let ends = ends(own, other)?;
        let seen = watch::between(&before[&ends], agent.connection(&ends.0, &ends.1)?)?;
        let expected = expected(role);
        let last = agent.connection(&ends.0, &ends.1)?;
        ensure!(seen == expected, "{role:?}: {seen:?} instead of {expected:?}: {last:?}");
    }
    Ok(())
}

fn recognised(connection: &Connection, role: Role, own: &TcpStream) -> anyhow::Result<()> {
    ensure!(connection.role == role && connection.parse == Parse::Adopted, "not as {role:?}: {connection:?}");
    ensure!(connection.opened.is_none() && connection.upgrade.is_none(), "made up: {connection:?}");
    let holder = Some((std::process::id(), own.as_raw_fd() as u32));
    ensure!(connection.pid.zip(connection.fd) == holder, "{holder:?} holds {connection:?}");
    Ok(())
}

/// As documents write addresses.
fn ends(own: &TcpStream, other: &TcpStream) -> anyhow::Result<(String, String)> {
    Ok((own.local_addr()?.to_string(), other.local_addr()?.to_string()))
}

fn port(listener: &TcpListener) -> std::io::Result<u16> {
    Ok(listener.local_addr()?.port())
}
