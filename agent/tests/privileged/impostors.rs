//! What is no WebSocket is not taken for one, however long it talks.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use agent::document::{Connection, Parse, Role};
use anyhow::{Context as _, bail, ensure};

use crate::process::SOON;
use crate::python;
use crate::watch::Watch;
use crate::websocket;

/// A mistake made once in a thousand packets shows.
const SECONDS: &str = "8";
const PACKETS: u64 = 2_000;
/// The one that cannot be told from a WebSocket inside TLS on a port that was named.
const ENCRYPTED: &str = "tls";

pub(crate) fn no_other_protocol_is_adopted() -> anyhow::Result<()> {
    let mut talk = python::start("impostors.py", &[SECONDS])?;
    let mut names = BTreeMap::new();
    loop {
        let Some(line) = talk.stdout.next(SOON)? else {
            bail!("impostors.py: {}", talk.finish(SOON)?.stderr.join("\n"));
        };
        if line == "ready" {
            break;
        }
        let said = line.strip_prefix("listening ").and_then(|rest| rest.split_once(' '));
        let (port, name) = said.with_context(|| format!("impostors.py said {line}"))?;
        names.insert(port.parse::<u16>()?, name.to_owned());
    }
    // One that must be found, so that an agent which finds nothing fails.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut server, mut client) = websocket::pair(&listener)?;
    let genuine = listener.local_addr()?.port();
    let ports: Vec<u16> = names.keys().copied().chain([genuine]).collect();
    let mut agent = Watch::attach(&ports, &[])?;
    talk.tell("go")?;
    let mut told = None;
    while told.is_none() {
        client.write_all(&websocket::binary(b"genuine"))?;
        server.write_all(&websocket::frame(0x82, b"genuine", None))?;
        client.read_exact(&mut [0; 9])?;
        server.read_exact(&mut [0; 13])?;
        agent.settle()?;
        if !talk.is_running()? {
            told = talk.stdout.next(SOON)?;
        }
    }
    let packets: BTreeMap<String, u64> = serde_json::from_str(&told.context("impostors.py said nothing")?)?;
    let few: Vec<_> = packets.iter().filter(|(_, packets)| **packets < PACKETS).collect();
    ensure!(packets.len() == names.len() && few.is_empty(), "too little was said to tell: {few:?}");
    ensure!(agent.opened.is_empty(), "opened: {:?}", agent.opened);
    let mut found: BTreeMap<&str, Vec<(Role, Parse)>> = BTreeMap::new();
    for connection in &agent.adopted {
        let port = server_port(connection)?;
        let name = names.get(&port).map_or("websocket", String::as_str);
        found.entry(name).or_default().push((connection.role, connection.parse));
    }
    let both = |parse| vec![(Role::Server, parse), (Role::Client, parse)];
    let expected = BTreeMap::from([(ENCRYPTED, both(Parse::Encrypted)), ("websocket", both(Parse::Adopted))]);
    for found in found.values_mut() {
        found.sort();
    }
    ensure!(found == expected, "adopted: {found:?} after {packets:?} packets");
    Ok(())
}

fn server_port(connection: &Connection) -> anyhow::Result<u16> {
    let end = if connection.role == Role::Server { &connection.local } else { &connection.remote };
    let (_, port) = end.rsplit_once(':').with_context(|| format!("no port in {end}"))?;
    Ok(port.parse()?)
}
