//! IPv6, and IPv4 through a socket of IPv6.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use agent::document::{Parse, Role};
use anyhow::{Context as _, ensure};

use crate::agent_process::Settling;
use crate::exchange::{CONNECTIONS, Exchange, announced};
use crate::pace::patient;
use crate::process::SOON;
use crate::python;
use crate::runner::Skip;
use crate::websocket;

/// Messages far longer than the 64 KiB an IPv6 packet may say it has: TCP hands them down in larger ones, with an extension
/// header before TCP's own.
const LARGE: usize = 3 << 20;
const LARGE_MESSAGES: usize = 3;

pub(crate) fn ipv6_is_counted_exactly() -> anyhow::Result<()> {
    exchange("::1", "[::1]")
}

pub(crate) fn ipv4_through_a_dual_stack_listener_is_counted_exactly() -> anyhow::Result<()> {
    exchange("::", "127.0.0.1")
}

/// A server on `listen`, reached over and shown as `host`.
fn exchange(listen: &str, host: &str) -> anyhow::Result<()> {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return Err(Skip(format!("this host has no IPv6: {error}")).into());
    }
    let (server, port) = announced(python::start("server.py", &[listen, "0"])?)?;
    let servers = [server.pid()];
    let holders = [(&servers[..], CONNECTIONS)];
    let url = format!("ws://{host}:{port}/");
    Exchange { url, client: &[], ports: &[port], holders: &holders }.run()?.check(host, port, &servers)
}

pub(crate) fn ipv6_packets_beyond_64_kib_are_counted_exactly() -> anyhow::Result<()> {
    let listener = match TcpListener::bind("[::1]:0") {
        Ok(listener) => listener,
        Err(error) => return Err(Skip(format!("this host has no IPv6: {error}")).into()),
    };
    let snapshot = Settling::attach(listener.local_addr()?.port(), patient(Duration::from_secs(3)))?;
    let (mut server, mut client) = websocket::pair(&listener)?;
    let message = websocket::frame(0x82, &vec![7; LARGE], None);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            (0..LARGE_MESSAGES)
                .try_for_each(|_| message.chunks(4999).try_for_each(|piece| server.write_all(piece)))
        });
        client.read_exact(&mut vec![0; LARGE_MESSAGES * message.len()])?;
        sending.join().map_err(|_| anyhow::anyhow!("sending panicked"))??;
        anyhow::Ok(())
    })?;
    let snapshot = snapshot.finish(SOON)?;
    let losses = snapshot.agent.losses;
    let mut wire = Vec::new();
    for role in [Role::Server, Role::Client] {
        let connection = snapshot.connections.iter().find(|connection| connection.role == role);
        let connection = connection.with_context(|| format!("no connection as {role:?}"))?;
        ensure!(connection.parse == Parse::Exact && connection.unparsed_bytes == 0, "{connection:?}");
        let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
        let from_server = if role == Role::Server { sent } else { received };
        let counts = (from_server.binary, from_server.payload_bytes);
        let expected = (Some(LARGE_MESSAGES as u64), Some((LARGE_MESSAGES * LARGE) as u64));
        ensure!(counts == expected, "{role:?}: {counts:?} instead of {expected:?}");
        let again = connection.stalls.context("no retransmissions")?.retransmitted_segments;
        wire.push((from_server.packets, from_server.packet_bytes, again));
    }
    // What left in one piece was cut before it arrived, and no byte of it is counted that was not on the wire.
    let [(packets, bytes, again), (arrived, arrived_bytes, _)] = wire[..] else { unreachable!() };
    // A packet that met another on a second CPU for too long is left out, and said to be.
    let left_out = losses.context("the losses are not known")?.packets;
    ensure!(
        again > Some(0) || left_out > 0 || (packets, bytes) == (arrived, arrived_bytes),
        "sent and received differ: {wire:?}"
    );
    Ok(())
}
