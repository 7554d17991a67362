//! Streams cut, packed and forged in ways that no well-meaning peer would, through the loaded programs.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use agent::document::{Connection, Parse, Role, Snapshot, Traffic};
use anyhow::{Context as _, bail, ensure};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::agent_process::Settling;
use crate::pace::patient;
use crate::process::SOON;
use crate::{traffic, websocket, wire};

const SETTLE: Duration = Duration::from_secs(6);
/// Frames in one write: a GSO packet on its way through the egress program.
const PACKED: usize = 10_000;

/// A client's empty pong, masked with zeros, and a server's.
const CLIENT_PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const SERVER_PONG: [u8; 2] = [0x8a, 0];

pub(crate) fn any_cut_is_counted_exactly() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let snapshot = Settling::attach(port, patient(SETTLE))?;
    let mut client = websocket::request(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
    }
    websocket::head(&mut server)?;
    // The head in pieces of seven bytes, its last piece with a frame behind it.
    let mut response = websocket::response().into_bytes();
    response.extend([0x81, 2, b'h', b'i']);
    in_pieces(&mut server, &response, 7)?;
    websocket::opened(&mut client)?;
    // Every header form byte by byte, then as many frames as fit into one write, both ways.
    let mut stream = websocket::binary(&[1; 5]);
    stream.extend(websocket::binary(&[2; 300]));
    in_pieces(&mut client, &stream, 1)?;
    let long = websocket::binary(&vec![3; 70_000]);
    client.write_all(&long)?;
    client.write_all(&CLIENT_PONG.repeat(PACKED))?;
    drain(&mut server, stream.len() + long.len() + CLIENT_PONG.len() * PACKED)?;
    server.write_all(&SERVER_PONG.repeat(PACKED))?;
    drain(&mut client, 4 + SERVER_PONG.len() * PACKED)?;

    let snapshot = snapshot.finish(SOON)?;
    for role in [Role::Server, Role::Client] {
        let connection = only(&snapshot, role)?;
        let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
        let (from_client, from_server) =
            if role == Role::Server { (received, sent) } else { (sent, received) };
        ensure!(connection.parse == Parse::Exact && connection.unparsed_bytes == 0, "{connection:?}");
        let packed = PACKED as u64;
        let counted = |traffic: &Traffic| {
            let counts = traffic::seen(traffic);
            ["text", "binary", "pong", "payload_bytes", "frames"].map(|name| counts[name])
        };
        let client = counted(&from_client);
        ensure!(client == [0, 3, packed, 70_305, 3 + packed], "{role:?}, from the client: {client:?}");
        let server = counted(&from_server);
        ensure!(server == [1, 0, packed, 2, 1 + packed], "{role:?}, from the server: {server:?}");
    }
    Ok(())
}

/// TCP drops what lies beyond the window it offered. A program that followed it would take all that comes after for
/// repetitions, and count nothing any more.
pub(crate) fn a_segment_from_beyond_the_window_changes_nothing() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let snapshot = Settling::attach(listener.local_addr()?.port(), SETTLE)?;
    let (mut server, mut client) = websocket::pair(&listener)?;
    let (from, to) = (client.local_addr()?, server.local_addr()?);
    let frame = websocket::binary(b"real");
    client.write_all(&frame)?;
    drain(&mut server, frame.len())?;
    // Wherever the stream stands, some of these are far ahead of it.
    for eighth in 0..8u32 {
        forge(from, to, (eighth << 29, 0), &websocket::binary(b"forged"))?;
    }
    for _ in 0..20 {
        client.write_all(&frame)?;
    }
    drain(&mut server, 20 * frame.len())?;
    let snapshot = snapshot.finish(SOON)?;
    let connection = only(&snapshot, Role::Server)?;
    let received = connection.received.context("no counts")?;
    ensure!(connection.parse == Parse::Exact, "{connection:?}");
    ensure!((received.binary, received.payload_bytes) == (Some(21), Some(84)), "{received:?}");
    Ok(())
}

fn in_pieces(stream: &mut TcpStream, bytes: &[u8], size: usize) -> anyhow::Result<()> {
    for piece in bytes.chunks(size) {
        stream.write_all(piece)?;
        // Long enough for the piece to be on its way by itself.
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

fn drain(stream: &mut TcpStream, bytes: usize) -> anyhow::Result<()> {
    let mut rest = vec![0; bytes];
    stream.read_exact(&mut rest).with_context(|| format!("{bytes} bytes did not come through"))
}

fn only(snapshot: &Snapshot, role: Role) -> anyhow::Result<&Connection> {
    let mut found = snapshot.connections.iter().filter(|connection| connection.role == role);
    match (found.next(), found.next()) {
        (Some(connection), None) => Ok(connection),
        _ => bail!("not exactly one connection as {role:?}"),
    }
}

/// Sends a TCP segment that no socket of this host has made (IPv4, PSH and ACK set).
pub(crate) fn forge(
    from: SocketAddr,
    to: SocketAddr,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> anyhow::Result<()> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { bail!("not IPv4") };
    let mut tcp = Vec::new();
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([5 << 4, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    let sum = wire::tcp_checksum(&[source.octets(), destination.octets()].concat(), &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    // The kernel fills in the total length and the IP header's checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(&tcp);
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    sendto(&raw, &packet, SendFlags::empty(), &SocketAddr::new(to.ip(), 0))?;
    Ok(())
}
