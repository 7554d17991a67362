//! The edges of a handshake: what stands before the request, what a client sends before its answer, and how quick an answer
//! may be.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use agent::document::{Connection, Parse, Role};
use anyhow::{Context as _, ensure};

use crate::pace::gentle;
use crate::process::SOON;
use crate::traffic;
use crate::watch::Watch;
use crate::websocket;

/// One after the other.
const CONNECTIONS: u32 = 20_000;

/// Where the network is as fast as a memory copy, a 101 may be there before the client's own send has returned.
pub(crate) fn a_quick_answer_is_exact_at_both_ends() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut agent = Watch::attach(&[address.port()], &[])?;
    let each = gentle(CONNECTIONS) as u32;
    // On the other processor, and never asleep: its answer races the end of the client's system call.
    let server = std::thread::spawn(move || (0..each).try_for_each(|_| answer_at_once(&listener)));
    for _ in 0..each {
        let mut client = websocket::request(address)?;
        websocket::opened(&mut client)?;
        client.write_all(&websocket::binary(b"one"))?;
        client.read_exact(&mut [0; 5])?;
    }
    server.join().ok().context("the server panicked")??;
    let number = 2 * each as usize;
    let tick = agent.until("closing", 6 * SOON, |_, tick, agent| {
        let losses = tick.agent.losses.map_or(0, |losses| losses.events) as usize;
        tick.connections == 0 && agent.closed.len() + losses >= number
    })?;
    let losses = tick.agent.losses.context("no losses")?;
    let mut without = 0;
    for connection in &agent.closed {
        ensure!(connection.parse == Parse::Exact && connection.unparsed_bytes == 0, "{connection:?}");
        let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
        ensure!((received.frames, sent.frames) == (Some(1), Some(1)), "{connection:?}");
        let path = connection.upgrade.as_ref().and_then(|upgrade| upgrade.path.as_deref());
        without += u64::from(path != Some("/"));
    }
    // What is null was counted as lost.
    ensure!(
        without <= losses.heads + losses.events && losses.handshakes == 0,
        "{without} without a path, {losses:?}"
    );
    ensure!(losses.heads <= u64::from(each) / 100, "{losses:?}");
    Ok(())
}

fn answer_at_once(listener: &TcpListener) -> anyhow::Result<()> {
    let (mut server, _) = listener.accept()?;
    server.set_nonblocking(true)?;
    let (mut head, mut buffer, begun) = (Vec::new(), [0; 1024], Instant::now());
    while !head.ends_with(b"\r\n\r\n") {
        match server.read(&mut buffer) {
            Ok(read) => head.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(begun.elapsed() < SOON, "no request");
    }
    server.write_all(websocket::response().as_bytes())?;
    server.write_all(&websocket::frame(0x81, b"two", None))?;
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(SOON))?;
    server.read_exact(&mut [0; 9])?;
    Ok(())
}

pub(crate) fn a_proxys_header_hides_nothing() -> anyhow::Result<()> {
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\0\x50".as_slice();
    let request = websocket::request_head("/behind", "example.org", "");
    for (name, header) in [("version 1", v1), ("version 2", v2)] {
        for together in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut agent = Watch::attach(&[listener.local_addr()?.port()], &[])?;
            let (mut client, mut server) = connected(&listener)?;
            if together {
                client.write_all(&[header, request.as_bytes()].concat())?;
                server.read_exact(&mut vec![0; header.len()])?;
            } else {
                client.write_all(header)?;
                server.read_exact(&mut vec![0; header.len()])?;
                client.write_all(request.as_bytes())?;
            }
            websocket::answer(&mut server)?;
            websocket::opened(&mut client)?;
            client.write_all(&websocket::binary(b"real"))?;
            server.read_exact(&mut [0; 10])?;
            agent.settle()?;
            for role in [Role::Server, Role::Client] {
                let connection = only(&agent, role).with_context(|| format!("{name}, {together}"))?;
                let path = connection.upgrade.as_ref().and_then(|upgrade| upgrade.path.as_deref());
                ensure!(connection.parse == Parse::Exact, "{name}, {together}: {connection:?}");
                ensure!(path == Some("/behind"), "{name}, {together}: {connection:?}");
            }
        }
    }
    Ok(())
}

/// RFC 6455 section 4.1 has a client wait for the answer; one that does not has sent frames that nobody followed.
pub(crate) fn frames_before_the_answer_are_unparsed_and_said_so() -> anyhow::Result<()> {
    for together in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let mut agent = Watch::attach(&[port], &[])?;
        let (mut client, mut server) = connected(&listener)?;
        let request = websocket::request_head("/", "example.org", "");
        let early = websocket::frame(0x82, b"did not wait", Some([1, 2, 3, 4]));
        if together {
            client.write_all(&[request.as_bytes(), &early].concat())?;
        } else {
            client.write_all(request.as_bytes())?;
            client.write_all(&early)?;
        }
        websocket::head(&mut server)?;
        server.read_exact(&mut vec![0; early.len()])?;
        server.write_all(websocket::response().as_bytes())?;
        websocket::opened(&mut client)?;
        for number in 0..20u8 {
            let key = [number, 77, number.wrapping_mul(31), 9];
            client.write_all(&websocket::frame(0x82, &[number; 20], Some(key)))?;
            server.read_exact(&mut [0; 26])?;
            server.write_all(&websocket::frame(0x81, b"back", None))?;
            client.read_exact(&mut [0; 6])?;
        }
        let tick = agent.settle()?;
        for role in [Role::Server, Role::Client] {
            let connection = only(&agent, role)?;
            ensure!(connection.parse != Parse::Exact, "{together}: {connection:?}");
            ensure!(connection.unparsed_bytes >= early.len() as u64, "{together}: {connection:?}");
            let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
            let (from_client, from_server) =
                if role == Role::Server { (received, sent) } else { (sent, received) };
            ensure!(from_client.binary <= Some(20), "{together}: {connection:?}");
            ensure!(from_server.text == Some(20), "{together}: {connection:?}");
            ensure!(from_client.stream_bytes == early.len() as u64 + 20 * 26, "{together}: {connection:?}");
            let listener = traffic::listener(&tick.listeners, port, role)?;
            ensure!(listener.unparsed_bytes == connection.unparsed_bytes, "{together}: {listener:?}");
        }
    }
    Ok(())
}

fn connected(listener: &TcpListener) -> anyhow::Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
    }
    Ok((client, server))
}

fn only(agent: &Watch, role: Role) -> anyhow::Result<&Connection> {
    let mut found = agent.latest.values().filter(|connection| connection.role == role);
    let connection = found.next().with_context(|| format!("nothing is tracked as {role:?}"))?;
    ensure!(found.next().is_none(), "more than one is tracked as {role:?}");
    Ok(connection)
}
