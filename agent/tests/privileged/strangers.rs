//! Anybody may send any bytes to any port: what they send makes no connection, and hides none.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use agent::document::{Connection, Parse, Role, Tick};
use anyhow::{Context as _, ensure};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, socket, sockopt};

use crate::process::SOON;
use crate::traffic;
use crate::watch::Watch;
use crate::websocket;

const BARE: &[u8] = b"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n";
const STRANGERS: usize = 300;
/// A TLS 1.3 ServerHello's beginning, which is all that is looked at.
const SERVER_HELLO: &[u8] = &[22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, 0, 0, 0, 0, 0];

/// Accepts whatever comes and reads it all.
struct Sink {
    address: SocketAddr,
}

impl Sink {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
                });
            }
        });
        Ok(Self { address })
    }
}

pub(crate) fn a_101_that_nobody_asked_for_makes_no_connection() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sink = Sink::start()?;
    let port = listener.local_addr()?.port();
    // Every port: what others do on this host meanwhile is left out below.
    let mut agent = Watch::attach(&[], &[])?;
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let mut stranger = TcpStream::connect(sink.address)?;
        stranger.write_all(BARE)?;
        strangers.push(stranger);
    }
    for stranger in &mut strangers {
        stranger.write_all(&websocket::frame(0x81, b"unasked", None))?;
    }
    let tick = agent.settle()?;
    let end = format!(":{}", sink.address.port());
    let fooled: Vec<&Connection> =
        agent.latest.values().filter(|one| one.local.ends_with(&end) || one.remote.ends_with(&end)).collect();
    ensure!(fooled.is_empty(), "{} connections, such as {:?}", fooled.len(), fooled.first());
    let ports: BTreeSet<u16> =
        strangers.iter().map(|one| Ok(one.local_addr()?.port())).collect::<std::io::Result<_>>()?;
    let named = |number: u16| number == sink.address.port() || ports.contains(&number);
    ensure!(tick.listeners.iter().all(|one| !named(one.port)), "{:?}", tick.listeners);
    let losses = tick.agent.losses.context("no losses")?;
    // Each is seen where it is sent and where it is received.
    ensure!(losses.unasked >= STRANGERS as u64, "{losses:?}");
    // A real one is there all the same, with a row of its own.
    let (mut server, mut client) = websocket::pair(&listener)?;
    client.write_all(&websocket::binary(b"real"))?;
    server.read_exact(&mut [0; 10])?;
    let tick = agent.settle()?;
    for role in [Role::Server, Role::Client] {
        let row = traffic::listener(&tick.listeners, port, role)?;
        ensure!(row.connections == 1, "{row:?}");
        let found = agent.latest.values().find(|one| traffic::belongs(one, port, role));
        ensure!(found.is_some_and(|one| one.parse == Parse::Exact), "{found:?}");
    }
    Ok(())
}

/// From a named port, and to it: it is not the server's own word either way.
pub(crate) fn a_named_port_is_the_servers() -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let other = TcpListener::bind("127.0.0.1:0")?;
    // A stranger chooses its own port freely.
    let chosen = TcpListener::bind("127.0.0.9:0")?.local_addr()?.port();
    let mut agent = Watch::attach(&[chosen], &[])?;
    for bytes in [BARE, SERVER_HELLO] {
        let descriptor = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        let source = if bytes == BARE { "127.0.0.7" } else { "127.0.0.8" };
        bind(&descriptor, &SocketAddr::new(source.parse()?, chosen))?;
        connect(&descriptor, &sink.address)?;
        let mut stranger = TcpStream::from(descriptor);
        for _ in 0..8 {
            stranger.write_all(bytes)?;
        }
    }
    // A client that happens to have the port, of a server elsewhere.
    let descriptor = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    bind(&descriptor, &SocketAddr::new("127.0.0.6".parse()?, chosen))?;
    connect(&descriptor, &other.local_addr()?)?;
    let mut client = TcpStream::from(descriptor);
    client.set_read_timeout(Some(SOON))?;
    websocket::ask(&mut client, other.local_addr()?)?;
    let (mut server, _) = other.accept()?;
    websocket::answer(&mut server)?;
    websocket::opened(&mut client)?;
    client.write_all(&websocket::binary(b"elsewhere"))?;
    server.read_exact(&mut [0; 15])?;
    agent.settle()?;
    // The stranger's own end is a process of this host that sends what looks like TLS from a named port: that is believed.
    let fooled: Vec<&Connection> =
        agent.latest.values().filter(|one| one.parse != Parse::Encrypted).collect();
    ensure!(fooled.is_empty(), "{fooled:?}");
    ensure!(agent.latest.values().all(|one| one.role == Role::Server), "{:?}", agent.latest);
    Ok(())
}

/// What comes with the ACK that completes a TCP handshake is shown with the listener's socket.
pub(crate) fn a_listener_is_never_a_connection() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut agent = Watch::attach(&[address.port()], &[])?;
    for bytes in [BARE, SERVER_HELLO, b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".as_slice()] {
        let mut stranger = deferred(address)?;
        stranger.write_all(bytes)?;
        let (mut server, _) = listener.accept()?;
        server.set_read_timeout(Some(SOON))?;
        server.read_exact(&mut vec![0; bytes.len()])?;
    }
    let (mut server, mut client) = websocket::pair(&listener)?;
    client.write_all(&websocket::binary(b"real"))?;
    server.read_exact(&mut [0; 10])?;
    agent.settle()?;
    ensure!(agent.latest.len() == 2, "{:?}", agent.latest);
    let exact = |role| agent.latest.values().any(|one| one.role == role && one.parse == Parse::Exact);
    ensure!(exact(Role::Server) && exact(Role::Client), "{:?}", agent.latest);
    Ok(())
}

/// Connects so that the first bytes come with the third packet of the TCP handshake.
fn deferred(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let descriptor = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    websocket::defer(&descriptor)?;
    connect(&descriptor, &address)?;
    Ok(TcpStream::from(descriptor))
}

/// Strangers that hold requests open, and more than there are places for their heads, take no connection's exactness.
pub(crate) fn unanswered_requests_hide_no_connection() -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut agent = Watch::attach(&[port, sink.address.port()], &[])?;
    let (begun, mut held) = (Instant::now(), Vec::new());
    // A real request that waits for its answer while all the places are taken by others.
    let mut waiting = websocket::request(listener.local_addr()?)?;
    for number in 0..4 * agent_ebpf::abi::EXCHANGE_SLOTS {
        let mut stranger = TcpStream::connect(sink.address)?;
        let head = websocket::request_head(&format!("/{number}"), "stranger", "");
        // Half of them never end theirs.
        let len = if number % 2 == 0 { head.len() } else { head.len() - 2 };
        stranger.write_all(&head.as_bytes()[..len])?;
        held.push(stranger);
        ensure!(begun.elapsed() < 3 * SOON, "{number} strangers");
    }
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SOON))?;
    websocket::answer(&mut server)?;
    websocket::opened(&mut waiting)?;
    for _ in 0..5 {
        waiting.write_all(&websocket::binary(b"real"))?;
        server.read_exact(&mut [0; 10])?;
    }
    let tick = agent.settle()?;
    ensure!(agent.latest.len() == 2, "{:?}", agent.latest);
    let mut without_heads = 0;
    for connection in agent.latest.values() {
        ensure!(connection.parse == Parse::Exact && connection.unparsed_bytes == 0, "{connection:?}");
        let traffic = if connection.role == Role::Server { connection.received } else { connection.sent };
        ensure!(traffic.and_then(|traffic| traffic.binary) == Some(5), "{connection:?}");
        without_heads += u64::from(connection.upgrade.as_ref().is_none_or(|upgrade| upgrade.path.is_none()));
    }
    let losses = tick.agent.losses.context("no losses")?;
    ensure!(losses.heads == without_heads, "{without_heads} without their request, and {losses:?}");
    // None of it lasts.
    drop(held);
    let pair = websocket::pair(&listener)?;
    agent.settle()?;
    let newest = agent.opened.last().context("nothing opened")?;
    ensure!(newest.upgrade.as_ref().is_some_and(|upgrade| upgrade.path.is_some()), "{newest:?}");
    drop(pair);
    Ok(())
}

/// A host's clients may connect to any number of ports: that leaves its servers their rows, and the rows come back.
pub(crate) fn many_destinations_leave_servers_their_rows() -> anyhow::Result<()> {
    let mut agent = Watch::attach(&[], &[])?;
    let open = |number: usize| -> anyhow::Result<Vec<_>> {
        (0..number)
            .map(|_| {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let port = listener.local_addr()?.port();
                Ok((port, websocket::pair(&listener)?))
            })
            .collect()
    };
    let rows = |tick: &Tick, ports: &BTreeSet<u16>, role| {
        let own = tick.listeners.iter().filter(|row| row.role == role && ports.contains(&row.port));
        own.filter(|row| row.opened == 1).count()
    };
    let crowd = open(agent_ebpf::abi::CLIENT_SLOTS + 20)?;
    let ports: BTreeSet<u16> = crowd.iter().map(|(port, _)| *port).collect();
    let tick = agent.settle()?;
    ensure!(
        rows(&tick, &ports, Role::Server) == ports.len(),
        "{} servers",
        rows(&tick, &ports, Role::Server)
    );
    ensure!(rows(&tick, &ports, Role::Client) < agent_ebpf::abi::CLIENT_SLOTS, "more rows than there are");
    let losses = tick.agent.losses.context("no losses")?;
    ensure!(losses.listeners >= 20, "{losses:?}");
    drop(crowd);
    agent.until("the rows of clients that are gone", 3 * SOON, |_, tick, _| {
        rows(tick, &ports, Role::Client) < 20
    })?;
    let crowd = open(100)?;
    let ports: BTreeSet<u16> = crowd.iter().map(|(port, _)| *port).collect();
    let tick = agent.settle()?;
    for role in [Role::Server, Role::Client] {
        ensure!(rows(&tick, &ports, role) == ports.len(), "{role:?}: {} rows", rows(&tick, &ports, role));
    }
    for row in tick.listeners.iter().filter(|row| ports.contains(&row.port)) {
        ensure!((row.connections, row.opened, row.closed) == (1, 1, 0), "counts of another: {row:?}");
    }
    Ok(())
}

/// A request and its answer go opposite ways.
pub(crate) fn nobody_answers_his_own_request() -> anyhow::Result<()> {
    let sink = Sink::start()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut agent = Watch::attach(&[], &[])?;
    let mut stranger = TcpStream::connect(sink.address)?;
    stranger.set_nodelay(true)?;
    for bytes in [websocket::request_head("/", "stranger", "").as_bytes(), websocket::response().as_bytes()] {
        stranger.write_all(bytes)?;
    }
    for _ in 0..20 {
        stranger.write_all(&websocket::frame(0x81, b"to nobody", None))?;
    }
    // The first byte of an answer, from the wrong side: the server's own must be seen all the same.
    let mut client = websocket::request(address)?;
    client.set_nodelay(true)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SOON))?;
    websocket::head(&mut server)?;
    client.write_all(b"H")?;
    server.read_exact(&mut [0])?;
    server.write_all(websocket::response().as_bytes())?;
    websocket::opened(&mut client)?;
    agent.settle()?;
    let at = |address: SocketAddr| format!(":{}", address.port());
    let touches = |one: &Connection, end: &str| one.local.ends_with(end) || one.remote.ends_with(end);
    let fooled: Vec<&Connection> =
        agent.latest.values().filter(|one| touches(one, &at(sink.address))).collect();
    ensure!(fooled.is_empty(), "{fooled:?}");
    let seen = agent.latest.values().filter(|one| touches(one, &at(address)));
    ensure!(seen.clone().count() == 2, "hidden: {:?}", seen.collect::<Vec<_>>());
    Ok(())
}

/// What a chat member says is sent to others, in packets that may begin like anything.
pub(crate) fn a_message_that_looks_like_a_handshake_hides_no_older_connection() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut server, mut client) = websocket::pair(&listener)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let port = listener.local_addr()?.port();
    let mut agent = Watch::attach(&[port], &[])?;
    for text in [websocket::request_head("/", "stranger", ""), websocket::response()] {
        let frame = websocket::frame(0x81, text.as_bytes(), None);
        let (header, payload) = frame.split_at(frame.len() - text.len());
        for piece in [header, payload] {
            server.write_all(piece)?;
            client.read_exact(&mut vec![0; piece.len()])?;
        }
    }
    for number in 0..12u8 {
        let key = [number, number ^ 0x5a, 0x91, number.wrapping_mul(29)];
        client.write_all(&websocket::frame(0x82, &vec![number; 20 + usize::from(number)], Some(key)))?;
        server.read_exact(&mut vec![0; 26 + usize::from(number)])?;
        server.write_all(&websocket::frame(0x81, &vec![b'x'; 5 + usize::from(number)], None))?;
        client.read_exact(&mut vec![0; 7 + usize::from(number)])?;
    }
    agent.settle()?;
    ensure!(agent.opened.is_empty(), "forged: {:?}", agent.opened);
    ensure!(agent.adopted.len() == 2, "{} adopted", agent.adopted.len());
    Ok(())
}
