//! Streams as fast as both ends can: bulk data on loopback, where segments are 64 KiB long, where TCP's receive buffers
//! overflow, and where one connection's segments are on two CPUs at once.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use agent::document::{Connection, Losses, Parse, Role};
use anyhow::{Context as _, anyhow, ensure};
use fastrand::Rng;

use crate::agent_process::Run;
use crate::pace::patient;
use crate::traffic::{self, Counts};
use crate::websocket;
use crate::wire::peers::{self, Pair};
use crate::wire::{Schedule, Version, Wire};

/// How long the uploads of a test may take on a busy host.
const LONG: Duration = Duration::from_secs(300);
/// Uploads at one time, and how often.
const AT_ONCE: usize = 48;
const ROUNDS: u64 = 2;
/// Bytes of payload that a stream carries.
const UPLOAD: usize = 64 << 20;

/// A wire that TCP gets some speed out of all the same.
pub(crate) const LOSSY: Schedule = Schedule {
    drop: 0.002,
    duplicate: 0.005,
    reorder: 0.005,
    behind: 30,
    at_most: Duration::from_millis(5),
    overlap: 0.005,
    delay: 0.0005,
    pause: Duration::from_millis(5),
};

/// Which end of a connection sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Senders {
    Client,
    Server,
    Both,
}

/// What they send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Frames {
    /// Of 125 bytes to a mebibyte.
    Bulk,
    /// Of 125 bytes, each in a packet of its own.
    Small,
    /// As small as they can be, which a packet holds thousands of and the programs work on for a millisecond.
    Tiny,
}

pub(crate) fn uploads_are_exact() -> anyhow::Result<()> {
    on_loopback(Senders::Client, Frames::Bulk)
}

pub(crate) fn downloads_are_exact() -> anyhow::Result<()> {
    on_loopback(Senders::Server, Frames::Bulk)
}

pub(crate) fn both_ways_is_exact() -> anyhow::Result<()> {
    on_loopback(Senders::Both, Frames::Bulk)
}

/// TCP refuses or drops what a receive buffer has no room for, and its peer sends it again.
pub(crate) fn receive_buffers_that_are_too_small_are_exact() -> anyhow::Result<()> {
    let wire = Wire::new(Version::V4, 0x6f76_6572)?;
    let [near, far] = wire.addresses;
    // Windows are offered as for ordinary packets, and tiny ones take more of a buffer than that.
    for namespace in [&wire.near, &wire.far] {
        namespace.sysctl("ipv4/tcp_rmem", "4096 40000 40000")?;
        namespace.sysctl("ipv4/tcp_wmem", "4096 4194304 4194304")?;
    }
    let listener = peers::listen(&wire.near, SocketAddr::new(near, 0))?;
    let address = listener.local_addr()?;
    let mut agent = Run::attach(&["--port", &address.port().to_string(), "--interval", "500ms"])?;
    let before = wire.near.enter(netstat)?;
    let mut told = Vec::new();
    for seed in 0..4 {
        wire.become_hostile(Schedule::default())?;
        let dialled = peers::dial(&wire.far, SocketAddr::new(far, 0), address, None)?;
        let (accepted, _) = listener.accept().context("the wire does not connect")?;
        let pair = Pair::upgrade(accepted, dialled)?;
        wire.become_hostile(Schedule { drop: 0.02, reorder: 0.1, ..LOSSY })?;
        let kind = (Senders::Client, Frames::Small);
        told.extend(exchange(&[pair.into_streams()], kind, UPLOAD / 64, seed)?);
    }
    let (closed, tick) = agent.until_closed(2 * told.len(), patient(LONG))?;
    let befell = wire.near.enter(|| moved(&before))?;
    let pressure = ["TCPToZeroWindowAdv", "TCPRcvCollapsed"].map(|name| befell.contains_key(name));
    ensure!(pressure == [true, true], "the buffers sufficed: {befell:?}");
    let losses = tick.agent.losses.context("no losses")?;
    exact(&closed, &told, &losses).with_context(|| format!("{befell:?}"))
}

pub(crate) fn tiny_frames_are_exact() -> anyhow::Result<()> {
    on_loopback(Senders::Both, Frames::Tiny)
}

fn on_loopback(senders: Senders, frames: Frames) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut agent = Run::attach(&["--port", &port.to_string(), "--interval", "500ms"])?;
    let before = netstat()?;
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let pairs = (0..AT_ONCE).map(|_| websocket::pair(&listener)).collect::<anyhow::Result<Vec<_>>>()?;
        let bytes = if frames == Frames::Bulk { UPLOAD } else { UPLOAD / 32 };
        told.extend(exchange(&pairs, (senders, frames), bytes, round)?);
    }
    let (closed, tick) = agent.until_closed(2 * told.len(), patient(LONG))?;
    let losses = tick.agent.losses.context("no losses")?;
    exact(&closed, &told, &losses).with_context(|| format!("{:?}", moved(&before)))
}

/// On a wire that loses, reorders and repeats, with receive buffers as large as TCP likes.
pub(crate) fn a_bad_wire_is_exact() -> anyhow::Result<()> {
    let wire = Wire::new(Version::V4, 0x7570_6c6f_6164)?;
    let [near, far] = wire.addresses;
    let listener = peers::listen(&wire.near, SocketAddr::new(near, 0))?;
    let address = listener.local_addr()?;
    let mut agent = Run::attach(&["--port", &address.port().to_string(), "--interval", "500ms"])?;
    let mut told = Vec::new();
    for (seed, senders) in [(1, Senders::Client), (2, Senders::Server), (3, Senders::Both)] {
        wire.become_hostile(Schedule::default())?;
        let dialled = peers::dial(&wire.far, SocketAddr::new(far, 0), address, None)?;
        let (accepted, _) = listener.accept().context("the wire does not connect")?;
        let pair = Pair::upgrade(accepted, dialled)?;
        wire.become_hostile(LOSSY)?;
        told.extend(exchange(&[pair.into_streams()], (senders, Frames::Bulk), UPLOAD, seed)?);
    }
    let (closed, tick) = agent.until_closed(2 * told.len(), patient(LONG))?;
    let tally = wire.tally()?;
    let losses = tick.agent.losses.context("no losses")?;
    ensure!(tally.dropped > 100 && tally.disorder.bytes > 1 << 20, "the wire was gentle: {tally:?}");
    exact(&closed, &told, &losses).with_context(|| format!("{tally:?}"))
}

/// What one connection carried, by the role of the sender.
#[derive(Debug)]
pub(crate) struct Told {
    server: SocketAddr,
    client: SocketAddr,
    from_server: Counts,
    from_client: Counts,
}

/// All pairs at once.
pub(crate) fn exchange(
    pairs: &[(TcpStream, TcpStream)],
    (senders, frames): (Senders, Frames),
    bytes: usize,
    seed: u64,
) -> anyhow::Result<Vec<Told>> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, (server, client)) in pairs.iter().enumerate() {
            let [down, up] = match senders {
                Senders::Client => [0, bytes],
                Senders::Server => [bytes, 0],
                Senders::Both => [bytes, bytes],
            };
            let seed = seed << 32 | index as u64;
            threads.push([
                scope.spawn(move || send(server, frames, down, false, seed)),
                scope.spawn(move || send(client, frames, up, true, !seed)),
            ]);
            scope.spawn(move || drain(server, frames));
            scope.spawn(move || drain(client, frames));
        }
        let counts = threads.into_iter().map(|each| {
            let [server, client] = each.map(|thread| thread.join());
            anyhow::Ok([
                server.map_err(|_| anyhow!("a sender panicked"))??,
                client.map_err(|_| anyhow!("a sender panicked"))??,
            ])
        });
        let counts = counts.collect::<anyhow::Result<Vec<_>>>()?;
        pairs
            .iter()
            .zip(counts)
            .map(|((server, client), [from_server, from_client])| {
                Ok(Told {
                    server: server.local_addr()?,
                    client: client.local_addr()?,
                    from_server,
                    from_client,
                })
            })
            .collect()
    })
}

/// Zeros in frames of every size, pings among them, and a close; then no more.
fn send(
    mut stream: &TcpStream,
    frames: Frames,
    bytes: usize,
    masked: bool,
    seed: u64,
) -> anyhow::Result<Counts> {
    let (mut random, mut counts) = (Rng::with_seed(seed), traffic::none());
    let mut left = bytes;
    stream.set_nodelay(true)?;
    while frames == Frames::Small && left > 0 {
        stream
            .write_all(&zeros(0x82, 125, masked.then(|| random.u32(..).to_ne_bytes())))
            .context("sending")?;
        left = left.saturating_sub(125);
        traffic::count(&mut counts, 0x82, 125)?;
    }
    while frames == Frames::Tiny && left > 0 {
        let frame = websocket::frame(0x81, &[], masked.then_some([0; 4]));
        let number = random.usize(1..20_000);
        stream.write_all(&frame.repeat(number)).context("sending")?;
        left = left.saturating_sub(number * frame.len());
        traffic::add(&mut counts, &Counts::from([("frames", number as u64), ("text", number as u64)]));
    }
    while left > 0 {
        // As many small ones as large ones, by their number of digits.
        let length = 125usize << random.u32(0..13);
        let length = random.usize(length..=2 * length).min(1 << 20).min(left);
        left -= length;
        let mut push = |first: u8, length: usize| {
            traffic::count(&mut counts, first, length)?;
            let key = masked.then(|| random.u32(..).to_ne_bytes());
            stream.write_all(&zeros(first, length, key)).context("sending")
        };
        push(0x82, length)?;
        if left.is_multiple_of(16) {
            push(0x89, 8)?;
        }
    }
    let close = websocket::frame(0x88, &1000u16.to_be_bytes(), masked.then_some([0; 4]));
    traffic::count(&mut counts, 0x88, 2)?;
    stream.write_all(&close).context("closing")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(counts)
}

/// A frame of zeros, which the mask turns into itself over and over. Made fast even where tests are not optimised.
fn zeros(first: u8, length: usize, key: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = websocket::header(first, length, key);
    let payload = key.unwrap_or_default().repeat(length.div_ceil(4));
    frame.extend_from_slice(&payload[..length]);
    frame
}

/// Reads to the end; small frames so slowly that they fill the receive buffer.
fn drain(mut stream: &TcpStream, frames: Frames) -> anyhow::Result<()> {
    let mut buffer = vec![0; if frames == Frames::Small { 4 << 10 } else { 256 << 10 }];
    while stream.read(&mut buffer).context("reading")? > 0 {
        if frames == Frames::Small {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Every frame of every connection was seen once, at both ends.
pub(crate) fn exact(closed: &[Connection], told: &[Told], losses: &Losses) -> anyhow::Result<()> {
    // More than one where a port was used again: in the order of their opening, as they were told.
    let mut found: BTreeMap<(String, String), Vec<&Connection>> = BTreeMap::new();
    for connection in closed {
        found.entry((connection.local.clone(), connection.remote.clone())).or_default().push(connection);
    }
    for same in found.values_mut() {
        same.sort_by_key(|connection| std::cmp::Reverse(connection.opened));
    }
    let mut find = |local: SocketAddr, remote: SocketAddr| {
        found.get_mut(&(local.to_string(), remote.to_string()))?.pop()
    };
    let mut wrong = Vec::new();
    for each in told {
        for role in [Role::Server, Role::Client] {
            let (local, remote, received, sent) = match role {
                Role::Server => (each.server, each.client, &each.from_client, &each.from_server),
                Role::Client => (each.client, each.server, &each.from_server, &each.from_client),
            };
            let connection = find(local, remote).with_context(|| format!("nothing closed on {local}"))?;
            let seen = [connection.received.context("no counts")?, connection.sent.context("no counts")?];
            let seen = seen.map(|traffic| traffic::seen(&traffic));
            let equal = traffic::equal("", [&seen[0], &seen[1]], [received, sent]);
            if connection.parse != Parse::Exact || connection.unparsed_bytes > 0 || equal.is_err() {
                wrong.push((
                    role,
                    connection.parse,
                    connection.unparsed_bytes,
                    connection.stalls,
                    equal.err().map(|error| error.to_string()),
                ));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {}: {wrong:?}, {losses:?}", wrong.len(), 2 * told.len());
    Ok(())
}

/// The kernel's own counts of what befell TCP segments.
fn netstat() -> anyhow::Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat")?;
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("TcpExt: ")).collect();
    let [names, values] = lines[..] else { anyhow::bail!("no TcpExt") };
    Ok(names
        .split(' ')
        .map(str::to_owned)
        .zip(values.split(' ').map(|value| value.parse().unwrap_or(0)))
        .collect())
}

/// Those that moved since.
fn moved(before: &BTreeMap<String, u64>) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut moved = netstat()?;
    moved.retain(|name, value| {
        *value = value.saturating_sub(*before.get(name).unwrap_or(&0));
        *value > 0
    });
    Ok(moved)
}
