//! What is told of handshakes, however they are cut, and that frames are counted exactly behind them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use agent::document::{Connection, Parse, Role, Upgrade};
use anyhow::{Context as _, ensure};
use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket, sockopt};

use crate::process::SOON;
use crate::traffic;
use crate::watch::Watch;
use crate::websocket;

const TARGET: &str = "/chat/room?token=secret&since=5";
const ORIGIN: &str = "https://app.example.org";
const USER_AGENT: &str = "probe/1 (loopback)";
const EXTENSIONS: &str = "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; \
                          client_max_window_bits=12";
/// Beyond the scanner's limit for a head.
const ENDLESS: usize = 9_000;
/// What the server takes for its answer.
const DELAY: Duration = Duration::from_millis(300);
/// Between pieces, so that each is a packet.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn heads_are_told_and_secrets_are_not() -> anyhow::Result<()> {
    for (arguments, query) in [(&[][..], "[redacted]"), (&["--show-query"], "token=secret&since=5")] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut agent = Watch::attach(&[port(&listener)?], arguments)?;
        let fields = format!(
            "Origin: {ORIGIN}\r\nCookie: session=hidden\r\nAuthorization: Basic hidden\r\n\
             user-agent: {USER_AGENT}\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
        );
        let request = websocket::request_head(TARGET, "chat.example.org", &fields);
        let answer = response(&format!(
            "Sec-WebSocket-Protocol: superchat\r\nSec-WebSocket-Extensions: {EXTENSIONS}\r\n"
        ));
        let mut pair = shake(&listener, &[request.as_bytes()], &[answer.as_bytes()])?;
        exact(&mut agent, &mut pair)?;
        let told: Vec<Connection> = agent.opened.iter().chain(agent.latest.values()).cloned().collect();
        ensure!(told.len() == 4, "{told:?}");
        for connection in told {
            let upgrade = connection.upgrade.as_ref().context("no handshake")?;
            let said = |text: &str| Some(text.to_owned());
            let expected = Upgrade {
                path: said("/chat/room"),
                query: said(query),
                host: said("chat.example.org"),
                origin: said(ORIGIN),
                user_agent: said(USER_AGENT),
                subprotocol: said("superchat"),
                extensions: said(EXTENSIONS),
                ..upgrade.clone()
            };
            ensure!(*upgrade == expected, "{upgrade:?} instead of {expected:?}");
            let deflate = connection.deflate.context("no compression")?;
            ensure!(
                (deflate.server_max_window_bits, deflate.client_max_window_bits) == (9, 12)
                    && deflate.server_no_context_takeover
                    && !deflate.client_no_context_takeover,
                "{deflate:?}"
            );
            let text = serde_json::to_string(&connection)?;
            ensure!(!text.contains("hidden"), "a secret got out: {text}");
            ensure!(text.contains("secret") == (query != "[redacted]"), "the query: {text}");
        }
    }
    Ok(())
}

pub(crate) fn latency_and_round_trip_are_those_of_the_peers() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let round_trips = [(Role::Server, round_trip(&server)?), (Role::Client, round_trip(&client)?)];
    let begun = Instant::now();
    client.write_all(websocket::request_head("/", "example.org", "").as_bytes())?;
    websocket::head(&mut server)?;
    std::thread::sleep(DELAY);
    server.write_all(websocket::response().as_bytes())?;
    websocket::opened(&mut client)?;
    let measured = begun.elapsed().as_secs_f64();
    agent.settle()?;
    for (role, round_trip) in round_trips {
        let upgrade = &only(&agent, role)?.upgrade.as_ref().context("no handshake")?;
        let latency = upgrade.latency_seconds.context("no latency")?;
        ensure!(
            DELAY.as_secs_f64() <= latency && latency <= measured,
            "{role:?}: {latency} s, of {measured} s that the client measured"
        );
        let told = upgrade.tcp_handshake_seconds.with_context(|| format!("{role:?}: no TCP handshake"))?;
        let kernel = f64::from(round_trip) / 1e6;
        ensure!((told - kernel).abs() < 1e-9, "{role:?}: {told} s, and TCP says {kernel} s");
    }
    Ok(())
}

/// A name, the request's pieces, the response's pieces, frames behind it in the same packet.
type Cut<'a> = (&'a str, &'a [&'a [u8]], &'a [&'a [u8]], u64);

/// Every way of cutting a handshake, each on a connection of its own.
pub(crate) fn any_cut_of_the_heads_is_followed() -> anyhow::Result<()> {
    let request = websocket::request_head("/cut", "GET.HTTP.example", "X-Get: GET /other HTTP/1.1\r\n");
    let request = request.as_bytes();
    let answer = websocket::response();
    let answer = answer.as_bytes();
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    let sevens: Vec<&[u8]> = answer.chunks(7).collect();
    let bytes_back: Vec<&[u8]> = answer.chunks(1).collect();
    let (begin, rest) = request.split_at(3);
    let thirds: Vec<&[u8]> = request.chunks(request.len() / 3).collect();
    let with_frame = [answer, &websocket::frame(0x81, b"at once", None)].concat();
    let cuts: [Cut<'_>; 7] = [
        ("whole", &[request], &[answer], 0),
        ("three bytes first", &[begin, rest], &[answer], 0),
        ("in thirds", &thirds, &[answer], 0),
        ("byte by byte", &bytes, &[answer], 0),
        ("the response by sevens", &[request], &sevens, 0),
        ("the response byte by byte", &[request], &bytes_back, 0),
        ("a frame with the response", &[request], &[&with_frame], 1),
    ];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    for (number, (name, request, response, early)) in cuts.into_iter().enumerate() {
        let mut pair = shake(&listener, request, response)?;
        if early > 0 {
            pair.client.read_exact(&mut [0; 9])?;
        }
        exact_with(&mut agent, &mut pair, early).with_context(|| format!("{name}, exactness"))?;
        for role in [Role::Server, Role::Client] {
            let upgrade =
                only(&agent, role)?.upgrade.as_ref().with_context(|| format!("{name}: nothing seen"))?;
            let told = (upgrade.path.as_deref(), upgrade.host.as_deref());
            ensure!(told == (Some("/cut"), Some("GET.HTTP.example")), "{name}, {role:?}: {upgrade:?}");
            let latency = upgrade.latency_seconds.context("no latency")?;
            let least = PAUSE.as_secs_f64() * (request.len() + response.len() - 2) as f64;
            ensure!(latency >= least, "{name}, {role:?}: {latency} s, and the pauses are {least} s");
        }
        let losses = agent.settle()?.agent.losses.context("no losses")?;
        ensure!(losses.handshakes == 0, "{name}: {losses:?}");
        drop(pair);
        agent.until("closing", SOON, |_, _, agent| agent.closed.len() == 2 * (number + 1))?;
        agent.latest.clear();
    }
    Ok(())
}

/// With TCP_DEFER_ACCEPT a client's third packet carries the request already, while the server has no socket yet.
pub(crate) fn a_request_that_completes_the_tcp_handshake_is_seen() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let descriptor = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    websocket::defer(&descriptor)?;
    connect(&descriptor, &listener.local_addr()?)?;
    sockopt::set_socket_timeout(descriptor.as_fd(), sockopt::Timeout::Recv, Some(SOON))?;
    let mut client = TcpStream::from(descriptor);
    client.write_all(websocket::request_head("/deferred", "example.org", "").as_bytes())?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SOON))?;
    websocket::head(&mut server)?;
    server.write_all(websocket::response().as_bytes())?;
    websocket::opened(&mut client)?;
    let mut pair = Pair { server, client };
    exact(&mut agent, &mut pair)?;
    for role in [Role::Server, Role::Client] {
        let upgrade = only(&agent, role)?.upgrade.as_ref().context("no handshake")?;
        ensure!(upgrade.path.as_deref() == Some("/deferred"), "{role:?}: {upgrade:?}");
        ensure!(upgrade.latency_seconds.is_some(), "{role:?}: {upgrade:?}");
    }
    Ok(())
}

pub(crate) fn an_upgrade_after_other_requests_is_followed() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let mut pair = connected(&listener)?;
    let body = "GET /inside HTTP/1.1\r\nHost: inside\r\nSec-WebSocket-Key: none\r\n\r\n";
    let post = format!("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let earlier: [(&[&str], &str); 4] = [
        (&["GET /page HTTP/1.1\r\nHost: a\r\n\r\n"], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        (&["GET /none HTTP/1.1\r\nHost: a\r\n\r\n"], "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        (&[&post, body], "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
        (&["HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"], "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ];
    for (request, response) in earlier {
        for piece in request {
            carry(&mut pair.client, &mut pair.server, piece.as_bytes())?;
        }
        carry(&mut pair.server, &mut pair.client, response.as_bytes())?;
    }
    std::thread::sleep(DELAY);
    let begun = Instant::now();
    let request = websocket::request_head("/late", "example.org", "");
    carry(&mut pair.client, &mut pair.server, request.as_bytes())?;
    carry(&mut pair.server, &mut pair.client, websocket::response().as_bytes())?;
    let measured = begun.elapsed().as_secs_f64();
    exact(&mut agent, &mut pair)?;
    for role in [Role::Server, Role::Client] {
        let upgrade = only(&agent, role)?.upgrade.as_ref().context("no handshake")?;
        ensure!(upgrade.path.as_deref() == Some("/late"), "{role:?}: {upgrade:?}");
        ensure!(upgrade.latency_seconds.is_some_and(|latency| latency <= measured), "{role:?}: {upgrade:?}");
        // Round trips of four answers are mixed into TCP's by now.
        ensure!(upgrade.tcp_handshake_seconds.is_none(), "{role:?}: {upgrade:?}");
        let listener = traffic::listener(&agent.settle()?.listeners, port(&listener)?, role)?.clone();
        ensure!(listener.refused.is_empty(), "{listener:?}");
    }
    Ok(())
}

pub(crate) fn a_long_request_is_cut_and_its_frames_are_not() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let request = format!(
        "GET /long HTTP/1.1\r\nCookie: {}\r\nHost: example.org\r\nOrigin: {ORIGIN}\r\n{}",
        "c".repeat(6 << 10),
        websocket::request_head("/", "unused", "").split_once("\r\n").context("no fields")?.1
    );
    let pieces: Vec<&[u8]> = request.as_bytes().chunks(1400).collect();
    let mut pair = shake(&listener, &pieces, &[websocket::response().as_bytes()])?;
    exact(&mut agent, &mut pair)?;
    for role in [Role::Server, Role::Client] {
        let upgrade = only(&agent, role)?.upgrade.as_ref().context("no handshake")?;
        ensure!(upgrade.path.as_deref() == Some("/long"), "{role:?}: {upgrade:?}");
        ensure!(upgrade.host.is_none() && upgrade.origin.is_none(), "{role:?}: {upgrade:?}");
        ensure!(upgrade.latency_seconds.is_some(), "{role:?}: {upgrade:?}");
    }
    Ok(())
}

pub(crate) fn what_is_no_upgrade_is_not_tracked_and_losses_are_told() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut agent = Watch::attach(&[port(&listener)?], &[])?;
    let request = websocket::request_head("/", "example.org", "");
    let filler = "x".repeat(ENDLESS);
    let long = response(&format!("X-Filler: {filler}\r\n"));
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let garbage = format!("HTTP/1.1 101 {filler}");
    // Whether it is lost: the agent gave up on what may have been a WebSocket.
    let heads = [(long.as_str(), true), (other, false), (&garbage, true)];
    let mut kept = Vec::new();
    for (head, _) in heads {
        let mut pair = connected(&listener)?;
        carry(&mut pair.client, &mut pair.server, request.as_bytes())?;
        carry(&mut pair.server, &mut pair.client, head.as_bytes())?;
        for _ in 0..20 {
            carry(&mut pair.server, &mut pair.client, &websocket::frame(0x81, b"unseen", None))?;
        }
        kept.push(pair);
    }
    let tick = agent.settle()?;
    ensure!(agent.latest.is_empty() && tick.connections == 0, "{:?}", agent.latest);
    let lost = heads.iter().filter(|(_, lost)| *lost).count() as u64;
    let losses = tick.agent.losses.context("no losses")?;
    // At both ends.
    ensure!(losses.handshakes == 2 * lost, "{lost} heads were lost at either end: {losses:?}");
    drop(kept);
    let mut pair = shake(&listener, &[request.as_bytes()], &[websocket::response().as_bytes()])?;
    exact(&mut agent, &mut pair)
}

struct Pair {
    server: TcpStream,
    client: TcpStream,
}

fn connected(listener: &TcpListener) -> anyhow::Result<Pair> {
    let address: SocketAddr = listener.local_addr()?;
    let client = TcpStream::connect_timeout(&address, SOON)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
    }
    Ok(Pair { server, client })
}

/// A handshake in pieces, a packet each. What lies behind the response's head is left to be read.
fn shake(listener: &TcpListener, request: &[&[u8]], response: &[&[u8]]) -> anyhow::Result<Pair> {
    let mut pair = connected(listener)?;
    in_pieces(&mut pair.client, request)?;
    websocket::head_of(&mut pair.server, 64 << 10)?;
    in_pieces(&mut pair.server, response)?;
    websocket::opened(&mut pair.client)?;
    Ok(pair)
}

fn in_pieces(stream: &mut TcpStream, pieces: &[&[u8]]) -> anyhow::Result<()> {
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            std::thread::sleep(PAUSE);
        }
        stream.write_all(piece)?;
    }
    Ok(())
}

fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    from.write_all(bytes)?;
    to.read_exact(&mut vec![0; bytes.len()])?;
    Ok(())
}

fn response(fields: &str) -> String {
    let response = websocket::response();
    let (line, rest) = response.split_once("\r\n").unwrap_or((&response, ""));
    format!("{line}\r\n{fields}{rest}")
}

fn exact(agent: &mut Watch, pair: &mut Pair) -> anyhow::Result<()> {
    exact_with(agent, pair, 0)
}

/// Frames of both sides are counted exactly, of which the server has sent `early` ones with its head.
fn exact_with(agent: &mut Watch, pair: &mut Pair, early: u64) -> anyhow::Result<()> {
    const FRAMES: u64 = 5;
    for _ in 0..FRAMES {
        carry(&mut pair.client, &mut pair.server, &websocket::binary(b"from the client"))?;
        carry(&mut pair.server, &mut pair.client, &websocket::frame(0x81, b"back", None))?;
    }
    agent.settle()?;
    for role in [Role::Server, Role::Client] {
        let connection = only(agent, role)?;
        ensure!(connection.parse == Parse::Exact && connection.unparsed_bytes == 0, "{connection:?}");
        let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
        let (client, server) = if role == Role::Server { (received, sent) } else { (sent, received) };
        let counted = [client.frames, client.binary, server.frames, server.text];
        let expected = [FRAMES, FRAMES, FRAMES + early, FRAMES + early].map(Some);
        ensure!(counted == expected, "{role:?}: {counted:?} instead of {expected:?}");
    }
    Ok(())
}

fn only(agent: &Watch, role: Role) -> anyhow::Result<&Connection> {
    let mut found = agent.latest.values().filter(|connection| connection.role == role);
    match (found.next(), found.next()) {
        (Some(connection), None) => Ok(connection),
        (None, _) => anyhow::bail!("nothing is tracked as {role:?}"),
        _ => anyhow::bail!("more than one is tracked as {role:?}"),
    }
}

/// TCP's smoothed round trip, in microseconds.
fn round_trip(stream: &TcpStream) -> anyhow::Result<u32> {
    // SAFETY: all integers, for which zeroes are values; the kernel writes at most `length` bytes.
    let (result, info) = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let result = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        (result, info)
    };
    ensure!(result == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    Ok(info.tcpi_rtt)
}

fn port(listener: &TcpListener) -> std::io::Result<u16> {
    Ok(listener.local_addr()?.port())
}
