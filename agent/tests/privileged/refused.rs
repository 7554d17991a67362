//! Upgrades that servers refuse.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use agent::document::{Role, Tick};
use anyhow::{Context as _, ensure};

use crate::process::SOON;
use crate::watch::Watch;
use crate::websocket;

/// Statuses with which an upgrade is not granted, and how often.
const REFUSALS: &[(u16, u64)] =
    &[(200, 2), (302, 1), (400, 3), (401, 1), (403, 4), (404, 2), (426, 1), (429, 5), (503, 2)];

pub(crate) fn refusals_are_counted_by_status() -> anyhow::Result<()> {
    // Where all are refused, where some are, and where nobody asked for an upgrade.
    let listeners = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0"));
    let [refusing, mixed, ordinary] = listeners;
    let (refusing, mixed, ordinary) = (refusing?, mixed?, ordinary?);
    let ports =
        [&refusing, &mixed, &ordinary].map(|listener| listener.local_addr().map(|address| address.port()));
    let [refusing_port, mixed_port, ordinary_port] = ports;
    let (refusing_port, mixed_port, ordinary_port) = (refusing_port?, mixed_port?, ordinary_port?);
    let mut agent = Watch::attach(&[refusing_port, mixed_port, ordinary_port], &[])?;
    for (status, times) in REFUSALS {
        for _ in 0..*times {
            asked(&refusing, &[(&websocket::request_head("/", "a", ""), *status)])?;
        }
    }
    let granted = websocket::pair(&mixed)?;
    let upgrade = websocket::request_head("/", "a", "");
    let page = "GET /page HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    let form = "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ";
    asked(&mixed, &[(page, 200), (page, 404), (form, 500), (&upgrade, 403)])?;
    asked(&mixed, &[(&upgrade, 401), (&upgrade, 401), (page, 403)])?;
    asked(&ordinary, &[(page, 200), (page, 404), (form, 403), (page, 302), (page, 503)])?;
    let tick = agent.settle()?;
    for role in [Role::Server, Role::Client] {
        let all = REFUSALS.iter().map(|(status, times)| (status.to_string(), *times)).collect();
        refused(&tick, refusing_port, role, Some(&all))?;
        let some = BTreeMap::from([("401".to_owned(), 2), ("403".to_owned(), 1)]);
        refused(&tick, mixed_port, role, Some(&some))?;
        refused(&tick, ordinary_port, role, None)?;
    }
    ensure!(agent.latest.len() == 2, "{:?}", agent.latest);
    drop(granted);
    Ok(())
}

/// Requests on one connection, answered with these statuses.
fn asked(listener: &TcpListener, exchanges: &[(&str, u16)]) -> anyhow::Result<()> {
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, SOON)?;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
    }
    for (request, status) in exchanges {
        client.write_all(request.as_bytes())?;
        server.read_exact(&mut vec![0; request.len()])?;
        let response = format!("HTTP/1.1 {status} So\r\nContent-Length: 3\r\n\r\nno.");
        server.write_all(response.as_bytes())?;
        client.read_exact(&mut vec![0; response.len()])?;
    }
    Ok(())
}

/// What the listener refused; `None` where it has no reason to be told of.
fn refused(
    tick: &Tick,
    port: u16,
    role: Role,
    expected: Option<&BTreeMap<String, u64>>,
) -> anyhow::Result<()> {
    let listener = tick.listeners.iter().find(|listener| listener.port == port && listener.role == role);
    let Some(expected) = expected else {
        ensure!(listener.is_none(), "nobody asked for an upgrade: {listener:?}");
        return Ok(());
    };
    let listener = listener.with_context(|| format!("{port} as {role:?} is not told of"))?;
    ensure!(listener.refused == *expected, "{port} as {role:?}: {:?}, not {expected:?}", listener.refused);
    Ok(())
}
