//! Pings over a link that a token bucket slows down, until they queue.

use std::process::Command;

use agent::document::Kind;
use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::climb::{Climb, crowd};
use super::row::Row;
use super::servers::{Server, Wrapped};
use crate::process::{SOON, run};
use crate::wire::Namespace;

/// Bits a second.
const RATE: u64 = 2_000_000;
const HOST: &str = "10.213.77.1";
/// Bytes that wait when it is certain that more comes than goes: a quarter of a second's worth. Pings of one moment queue for less.
const QUEUED: u64 = RATE / 8 / 4;
/// Handshakes go over the link as well: few enough a second to be little of it.
const OPENED_A_SECOND: u64 = 20;

pub(super) fn wall() -> anyhow::Result<Row> {
    let namespace = Namespace::new()?;
    let link = Link::to(&namespace)?;
    let pings = ["--ping-interval", "1s", "--ping-payload", "125B"];
    let how = Wrapped { host: Some(HOST), arguments: &pings, ..Wrapped::default() };
    let (server, address) = Server::Reference.start(&how)?;
    let speed = format!("{}={RATE}bit", link.name);
    let scope = format!("interface:{}", link.name);
    let mut climb = Climb::start(&server, address.port(), &["--nic-speed", &speed], Kind::Bandwidth, &scope)?;
    let crowd = crowd(Server::Reference, address, 5_000, OPENED_A_SECOND, Some(&namespace))?;
    // It began when the queue was empty for the last time.
    let (mut waiting, mut actual) = (0, 0);
    while waiting < QUEUED {
        climb.next()?;
        waiting = link.backlog()?;
        if waiting == 0 {
            actual = climb.open();
        }
    }
    drop(crowd);
    Ok(climb.row(actual, RATE))
}

/// A pair of virtual interfaces; the namespace takes both away when it goes.
struct Link {
    name: String,
}

impl Link {
    fn to(namespace: &Namespace) -> anyhow::Result<Self> {
        let name = format!("hrwall{}", std::process::id() % 100_000);
        namespace.ip(&format!("link add peer0 type veth peer name {name}"))?;
        namespace.ip(&format!("link set {name} netns {}", std::process::id()))?;
        namespace.ip("addr add 10.213.77.2/30 dev peer0")?;
        namespace.ip("link set peer0 up")?;
        tool("ip", &format!("addr add {HOST}/30 dev {name}"))?;
        tool("ip", &format!("link set {name} up"))?;
        // Room enough to queue without loss; a burst of one packet at this rate.
        tool("tc", &format!("qdisc add dev {name} root tbf rate {RATE} burst 2000 limit 400000"))?;
        Ok(Self { name })
    }

    /// Bytes that wait in the bucket.
    fn backlog(&self) -> anyhow::Result<u64> {
        let text = tool("tc", &format!("-s -j qdisc show dev {}", self.name))?;
        let all: Value = serde_json::from_str(&text).context("tc printed no JSON")?;
        all[0]["backlog"].as_u64().with_context(|| format!("no backlog in {text}"))
    }
}

fn tool(program: &str, arguments: &str) -> anyhow::Result<String> {
    let ended = run(Command::new(program).args(arguments.split_whitespace()), SOON)?;
    ensure!(ended.status.success(), "{program} {arguments}: {}", ended.stderr.join(" "));
    Ok(ended.stdout.join("\n"))
}
