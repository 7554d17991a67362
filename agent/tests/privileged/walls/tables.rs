//! Tables of the kernel that connections fill: connection tracking, and what a user's epoll instances watch. Their sizes are
//! settings of the whole host, lowered for the experiment.

use std::process::Command;

use agent::document::Kind;
use anyhow::ensure;

use super::climb::{Climb, crowd, loader};
use super::row::Row;
use super::servers::{Server, Wrapped};
use super::sysctl::Sysctl;
use crate::process::{Process, SOON, run};
use crate::runner::Skip;
use crate::wire::Namespace;

const ENTRIES: u64 = 3_000;
const WATCHES: u64 = 3_000;
/// Nobody else's processes are this user's.
const USER: &str = "61234";
/// Nor these; the clients have watches of their own, and each user as many as the server's.
const CLIENTS: [&str; 2] = ["61235", "61236"];
const RULES: &str = "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; \
                     add rule inet wall in ct state invalid drop";

/// The server's namespace tracks connections; its clients are elsewhere.
pub(super) fn conntrack() -> anyhow::Result<Row> {
    let (inside, outside) = (Namespace::new()?, Namespace::new()?);
    outside.ip("link add peer0 type veth peer name peer1")?;
    inside.enter(|| outside_to(&outside))?;
    for (namespace, address, link) in
        [(&inside, "10.213.78.1/30", "peer1"), (&outside, "10.213.78.2/30", "peer0")]
    {
        namespace.ip(&format!("addr add {address} dev {link}"))?;
        namespace.ip(&format!("link set {link} up"))?;
    }
    let ruled = inside.enter(|| run(Command::new("nft").arg(RULES), SOON));
    let ruled = ruled.map_err(|error| Skip(format!("nft: {error:#}")))?;
    ensure!(ruled.status.success(), "nft: {}", ruled.stderr.join(" "));
    let _limit = Sysctl::set("/proc/sys/net/netfilter/nf_conntrack_max", ENTRIES)?;
    let how = Wrapped { host: Some("10.213.78.1"), namespace: Some(&inside), ..Wrapped::default() };
    let (server, address) = Server::Reference.start(&how)?;
    let scope = format!("netns:{}", inside.inode()?);
    let mut climb = Climb::start(&server, address.port(), &[], Kind::Conntrack, &scope)?;
    let crowd = crowd(Server::Reference, address, ENTRIES + 1_000, 200, Some(&outside))?;
    climb.until_it_stalls()?;
    climb.finish_at(&server, address.port(), vec![crowd], ENTRIES)
}

/// Moves the other end of the pair here: a namespace is named by one of its threads.
fn outside_to(outside: &Namespace) -> anyhow::Result<()> {
    let here = rustix::thread::gettid().as_raw_nonzero();
    outside.ip(&format!("link set peer1 netns {here}"))
}

/// The server runs as a user of its own.
pub(super) fn epoll_watches() -> anyhow::Result<Row> {
    let _limit = Sysctl::set("/proc/sys/fs/epoll/max_user_watches", WATCHES)?;
    let (server, address) = Server::Reference.start(&as_user(USER))?;
    let mut climb = Climb::start(&server, address.port(), &[], Kind::EpollWatches, &format!("user:{USER}"))?;
    let half = |user: &&str| {
        let command = loader(address, WATCHES * 2 / 3, 100)?;
        Process::start(&mut as_user(user).around(&command))
    };
    let crowds = CLIENTS.iter().map(half).collect::<anyhow::Result<Vec<Process>>>()?;
    climb.until_it_stalls()?;
    climb.finish_at(&server, address.port(), crowds, WATCHES)
}

fn as_user(user: &str) -> Wrapped<'static> {
    Wrapped::by(&["setpriv", "--reuid", user, "--clear-groups"])
}
