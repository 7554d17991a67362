//! What peers that mean no good can take from those that do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use agent_ebpf::reorder::BUFFERS;
use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::agent_process::Run;
use crate::full_speed::{self, Frames, LOSSY, Senders, Told};
use crate::pace::patient;
use crate::wire::peers::{self, Pair};
use crate::wire::{Version, Wire};
use crate::{segments, websocket};

/// More than there are reorder buffers.
const STRANGERS: usize = BUFFERS + BUFFERS / 4;
/// Longer than a hole keeps others from its buffer.
const STALE: Duration = Duration::from_millis(1_500);
const LONG: Duration = Duration::from_secs(120);
const UPLOAD: usize = 8 << 20;

/// Each of them sends the agent's host a segment behind a hole that is never filled, and none finds a buffer any more.
pub(crate) fn open_holes_of_strangers_cost_nobody_a_frame() -> anyhow::Result<()> {
    beside(STRANGERS, &[3_000])
}

/// The same with fewer that send as much as they may, until there is no room for what they send.
pub(crate) fn bytes_of_strangers_behind_holes_cost_nobody_a_frame() -> anyhow::Result<()> {
    beside(STRANGERS / 3, &[60_000, 60_000])
}

fn beside(strangers: usize, segments: &[usize]) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let wire = Wire::new(Version::V4, 0x6d61_6c69_6365)?;
    let real = peers::listen(&wire.near, SocketAddr::new(wire.addresses[0], 0))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ports = [real.local_addr()?.port(), listener.local_addr()?.port()].map(|port| port.to_string());
    let mut agent = Run::attach(&["--port", &ports[0], "--port", &ports[1], "--interval", "500ms"])?;
    let strangers = (0..strangers).map(|_| websocket::pair(&listener)).collect::<anyhow::Result<Vec<_>>>()?;
    for (server, client) in &strangers {
        hole(client, server.local_addr()?, segments)?;
    }
    agent.until("taking all there is", patient(LONG), |tick, _| {
        tick.agent.losses.is_some_and(|losses| losses.reordered + losses.spilled > 0)
    })?;
    std::thread::sleep(STALE);
    let told = upload(&wire, &real)?;
    let (closed, tick) = agent.until_closed(2, patient(LONG))?;
    let losses = tick.agent.losses.context("no losses")?;
    full_speed::exact(&closed, &told, &losses)?;
    ensure!(losses.spilled > 0, "nobody gave way: {losses:?}");
    // What they had is free when they are gone.
    let number = 2 * strangers.len();
    drop(strangers);
    agent.until_closed(number, patient(LONG))?;
    let told = upload(&wire, &real)?;
    let (closed, tick) = agent.until_closed(2, patient(LONG))?;
    let now = tick.agent.losses.context("no losses")?;
    full_speed::exact(&closed, &told, &now)?;
    ensure!(now.spilled == losses.spilled && now.reordered == losses.reordered, "{losses:?}, then {now:?}");
    Ok(())
}

/// A connection with holes that are filled.
fn upload(wire: &Wire, listener: &TcpListener) -> anyhow::Result<Vec<Told>> {
    let dialled =
        peers::dial(&wire.far, SocketAddr::new(wire.addresses[1], 0), listener.local_addr()?, None)?;
    let (accepted, _) = listener.accept().context("the wire does not connect")?;
    let pair = Pair::upgrade(accepted, dialled)?;
    wire.become_hostile(LOSSY)?;
    let before = wire.tally()?;
    let told = full_speed::exchange(&[pair.into_streams()], (Senders::Both, Frames::Bulk), UPLOAD, 1)?;
    let after = wire.tally()?;
    ensure!(after.dropped > before.dropped && after.reordered > before.reordered, "the wire was clean");
    Ok(told)
}

/// Has the server receive segments of so many bytes that its client never sent, a little ahead of what it did.
fn hole(client: &TcpStream, to: SocketAddr, segments: &[usize]) -> anyhow::Result<()> {
    // TCP_RECV_QUEUE and TCP_SEND_QUEUE of linux/tcp.h.
    let [ack, seq] = [1, 2].map(|queue| sequence(client, queue));
    let (mut seq, ack) = (seq?.wrapping_add(1_000), ack?);
    for bytes in segments {
        segments::forge(client.local_addr()?, to, (seq, ack), &vec![0; *bytes])?;
        seq = seq.wrapping_add(*bytes as u32);
    }
    Ok(())
}

/// The next sequence number of a queue of a socket.
fn sequence(stream: &TcpStream, queue: libc::c_int) -> anyhow::Result<u32> {
    // TCP_REPAIR_OFF_NO_WP: leave without a window probe.
    const OFF: libc::c_int = -1;
    option(stream, libc::TCP_REPAIR, 1)?;
    option(stream, libc::TCP_REPAIR_QUEUE, queue)?;
    let (mut value, mut len) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: both outlive the call, and the option's value has 4 bytes.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    ensure!(got == 0, std::io::Error::last_os_error());
    option(stream, libc::TCP_REPAIR, OFF)?;
    Ok(value)
}

fn option(stream: &TcpStream, option: libc::c_int, value: libc::c_int) -> anyhow::Result<()> {
    // SAFETY: the option's value is an integer of 4 bytes that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(set == 0, std::io::Error::last_os_error());
    Ok(())
}
