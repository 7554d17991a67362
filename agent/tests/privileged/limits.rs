//! Limits other than memory and descriptors: what the agent says of them is what the kernel says in another place.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::document::{Ceiling, Kind, Level};
use anyhow::{Context as _, bail, ensure};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use crate::agent_process::{Run, Settling};
use crate::binaries;
use crate::load;
use crate::namespaces::ticks_until;
use crate::pace::patient;
use crate::process::{Process, SOON, run, until};
use crate::python;
use crate::runner::Skip;
use crate::websocket;
use crate::wire::Namespace;

const SETTLE: Duration = Duration::from_secs(4);
/// Connections of the load generator.
const CONNECTIONS: usize = 10;
/// Nobody's.
const UID: u32 = 61_235;
/// Descriptors that are watched as that user.
const WATCHES: u64 = 5_000;

fn find<'a>(all: &'a [Ceiling], kind: Kind, scope: &str) -> anyhow::Result<&'a Ceiling> {
    let found = all.iter().find(|ceiling| ceiling.kind == kind && ceiling.scope == scope);
    found.with_context(|| {
        let known: Vec<_> = all.iter().map(|ceiling| (ceiling.kind.name(), &ceiling.scope)).collect();
        format!("no ceiling {} of {scope}: {known:?}", kind.name())
    })
}

fn number(path: impl AsRef<Path>) -> anyhow::Result<u64> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim().parse()?)
}

/// A namespace is held against the table's limit by itself, wherever the agent looks from.
pub(crate) fn conntrack_is_counted_in_each_namespace() -> anyhow::Result<()> {
    let namespace = Namespace::new()?;
    track_connections(&namespace)?;
    let (server, address) = namespace.enter(load::server)?;
    let outside = Settling::attach(address.port(), patient(SETTLE))?;
    let inside = namespace.enter(|| Settling::attach(address.port(), patient(SETTLE)))?;
    let clients = namespace.enter(|| load::load(address, CONNECTIONS, 5, &[]))?;
    let (outside, inside) = (outside.finish(SOON)?, inside.finish(SOON)?);
    let folder = "/proc/sys/net/netfilter";
    let count = namespace.enter(|| number(format!("{folder}/nf_conntrack_count")))?;
    let max = number(format!("{folder}/nf_conntrack_max"))?;
    ensure!(count == CONNECTIONS as u64, "{count} entries in a namespace with {CONNECTIONS} connections");
    for (snapshot, scope) in [(&outside, format!("netns:{}", namespace.inode()?)), (&inside, "host".into())] {
        let ceiling = find(&snapshot.ceilings, Kind::Conntrack, &scope)?;
        ensure!((ceiling.used, ceiling.limit) == (Some(count), Some(max)), "{count} of {max}: {ceiling:?}");
        // Both ends are there, and share an entry.
        ensure!(ceiling.connections == 2 * count && ceiling.cost_per_connection == Some(0.5), "{ceiling:?}");
        ensure!(ceiling.connections_left == Some(2 * (max - count)), "{ceiling:?}");
    }
    drop((server, clients));
    Ok(())
}

/// The kernel tracks connections where a rule asks for their state.
fn track_connections(namespace: &Namespace) -> anyhow::Result<()> {
    let rules = "add table inet headroom; \
                 add chain inet headroom seen { type filter hook prerouting priority 0; }; \
                 add rule inet headroom seen ct state new counter";
    let ended = namespace.enter(|| run(Command::new("nft").arg(rules), SOON));
    let ended = ended.map_err(|error| Skip(format!("connections cannot be tracked here: {error:#}")))?;
    if !ended.status.success() {
        return Err(Skip(format!("connections cannot be tracked here: {}", ended.stderr.join(" "))).into());
    }
    Ok(())
}

/// A user's epoll watches and a process's mappings, neither of which is read from where this test reads them.
pub(crate) fn watches_and_mappings_are_the_kernels() -> anyhow::Result<()> {
    let (_server, address) = load::server()?;
    let snapshot = Settling::attach(address.port(), patient(SETTLE))?;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let watcher = python::start("many_watches.py", &[&host, &port, &UID.to_string(), &WATCHES.to_string()])?;
    if watcher.stdout.after("ready")?.is_none() {
        bail!("nothing is watched: {}", watcher.finish(SOON)?.stderr.join(" "));
    }
    let before = mapped(watcher.pid())?;
    let snapshot = snapshot.finish(SOON)?;
    let ceiling = find(&snapshot.ceilings, Kind::EpollWatches, &format!("user:{UID}"))?;
    let slack = slack()?;
    let used = ceiling.used.with_context(|| format!("no use: {ceiling:?}"))?;
    ensure!(used.abs_diff(WATCHES) <= slack, "{WATCHES} watches, give or take {slack}: {ceiling:?}");
    ensure!(ceiling.limit == Some(number("/proc/sys/fs/epoll/max_user_watches")?), "{ceiling:?}");
    ensure!(ceiling.connections == 1, "{ceiling:?}");
    mappings(&snapshot.ceilings, watcher.pid(), before)
}

/// The same of a server, whose watches its /proc/PID/fdinfo lists: the agent leaves that alone, as it holds the server up.
pub(crate) fn a_servers_watches_are_those_of_its_user() -> anyhow::Result<()> {
    const WATCHED: usize = 300;
    let mut server = Command::new(binaries::path("headroom-server")?);
    server.args(["--listen", "ws://127.0.0.1:0"]).uid(UID);
    let server = Process::start(&mut server).map_err(|error| Skip(format!("as another user: {error:#}")))?;
    let address = server.stdout.after("listening on ws://")?.context("headroom-server did not start")?;
    let address: SocketAddr = address.parse()?;
    let snapshot = Settling::attach(address.port(), patient(2 * SETTLE))?;
    let _clients = load::load(address, WATCHED, 1, &[])?;
    let before = mapped(server.pid())?;
    let snapshot = snapshot.finish(SOON)?;
    let watches = watches(server.pid())?;
    ensure!(watches > WATCHED as u64, "{watches} watches of {WATCHED} connections and a listener");
    let ceiling = find(&snapshot.ceilings, Kind::EpollWatches, &format!("user:{UID}"))?;
    let (used, slack) = (ceiling.used.with_context(|| format!("no use: {ceiling:?}"))?, slack()?);
    ensure!(used.abs_diff(watches) <= slack, "{watches} watches, give or take {slack}: {ceiling:?}");
    ensure!(ceiling.connections == WATCHED as u64, "{ceiling:?}");
    mappings(&snapshot.ceilings, server.pid(), before)
}

/// What the process's epoll instances watch. Several descriptors may lead to one, and then they list the same.
fn watches(pid: u32) -> anyhow::Result<u64> {
    let mut lists = HashSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        lists.insert(
            text.lines().filter(|line| line.starts_with("tfd:")).map(str::to_owned).collect::<Vec<_>>(),
        );
    }
    Ok(lists.iter().map(Vec::len).sum::<usize>() as u64)
}

/// What CPUs may hold back of a percpu_counter (lib/percpu_counter.c, `compute_batch_value`).
fn slack() -> anyhow::Result<u64> {
    let cpus = std::thread::available_parallelism()?.get() as u64;
    Ok(cpus * (2 * cpus).max(32))
}

/// What the process has mapped now.
fn mapped(pid: u32) -> anyhow::Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    // What the kernel maps for everybody at the end of the address space is listed, and is nobody's.
    Ok(maps.lines().filter(|line| !line.ends_with("[vsyscall]")).count() as u64)
}

/// The agent's count was taken between `before` and now; a server that is idle gives memory back meanwhile.
fn mappings(ceilings: &[Ceiling], pid: u32, before: u64) -> anyhow::Result<()> {
    let now = mapped(pid)?;
    let ceiling = find(ceilings, Kind::MemoryMaps, &format!("process:{pid}"))?;
    let between = before.min(now)..=before.max(now);
    ensure!(
        ceiling.used.is_some_and(|used| between.contains(&used)),
        "{before} mappings, then {now}: {ceiling:?}"
    );
    ensure!(ceiling.limit == Some(number("/proc/sys/vm/max_map_count")?), "{ceiling:?}");
    Ok(())
}

/// What waits is what `ss` shows, and a queue that overflowed is critical.
pub(crate) fn a_full_accept_queue_is_told() -> anyhow::Result<()> {
    const BACKLOG: u64 = 5;
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listen(&socket, BACKLOG as i32)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    let scope = format!("listener:{}", address.port());
    let mut agent = Run::attach(&["--port", &address.port().to_string(), "--interval", "200ms"])?;
    // Without a WebSocket nobody knows that the port is of interest.
    let _pair = websocket::pair(&listener)?;
    // One more than may wait does wait (`sk_acceptq_is_full`).
    let waiting: Vec<TcpStream> =
        (0..=BACKLOG).map(|_| TcpStream::connect_timeout(&address, SOON)).collect::<Result<_, _>>()?;
    let used = waiting.len() as u64;
    let (waits, may_wait) = queue(address)?;
    ensure!((waits, may_wait) == (used, BACKLOG), "ss shows {waits} of {may_wait}");
    let tick = ticks_until(&mut agent, |tick| {
        find(&tick.ceilings, Kind::AcceptQueue, &scope)
            .is_ok_and(|ceiling| ceiling.used == Some(used) && ceiling.basis.contains(" 0 dropped here"))
    })?;
    let full = find(&tick.ceilings, Kind::AcceptQueue, &scope)?;
    ensure!(full.limit == Some(BACKLOG) && full.connections_left.is_none(), "{full:?}");
    // The queue is emptied at once, and what was dropped meanwhile is told all the same.
    let refused = TcpStream::connect_timeout(&address, Duration::from_millis(300));
    ensure!(refused.is_err(), "a queue of {BACKLOG} took {} connections", used + 1);
    for _ in 0..used {
        listener.accept()?;
    }
    let tick = ticks_until(&mut agent, |tick| {
        find(&tick.ceilings, Kind::AcceptQueue, &scope)
            .is_ok_and(|ceiling| ceiling.used == Some(0) && ceiling.level == Level::Critical)
    })?;
    let dropped = find(&tick.ceilings, Kind::AcceptQueue, &scope)?;
    ensure!(!dropped.basis.contains(" 0 dropped here"), "{dropped:?}");
    Ok(())
}

/// `LISTEN 6 5 127.0.0.1:1234 …`: how many wait, and how many may.
fn queue(address: SocketAddr) -> anyhow::Result<(u64, u64)> {
    let ended = run(Command::new("ss").args(["-ltnH", "src", &address.to_string()]), SOON)?;
    let line = ended.stdout.first().with_context(|| format!("ss: {}", ended.stderr.join(" ")))?;
    let mut words = line.split_whitespace().skip(1);
    let mut next = || -> anyhow::Result<u64> { Ok(words.next().context("ss says too little")?.parse()?) };
    Ok((next()?, next()?))
}

/// The kernel refuses a connection when the agent says that none is left.
pub(crate) fn ports_end_where_it_is_said() -> anyhow::Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("ipv4/ip_local_port_range", "40000 40029")?;
    namespace.sysctl("ipv4/ip_local_reserved_ports", "40007,40010-40011,50000")?;
    let listener = namespace.enter(|| Ok(TcpListener::bind("127.0.0.1:1234")?))?;
    let address = listener.local_addr()?;
    let snapshot = namespace.enter(|| Settling::attach(address.port(), patient(SETTLE)))?;
    let pairs = namespace
        .enter(|| (0..CONNECTIONS).map(|_| websocket::pair(&listener)).collect::<Result<Vec<_>, _>>())?;
    let snapshot = snapshot.finish(SOON)?;
    let ceiling = find(&snapshot.ceilings, Kind::Ports, "destination:127.0.0.1:1234")?;
    ensure!((ceiling.used, ceiling.limit) == (Some(pairs.len() as u64), Some(27)), "{ceiling:?}");
    let more = namespace.enter(|| {
        let mut open = Vec::new();
        loop {
            match TcpStream::connect_timeout(&address, SOON) {
                Ok(stream) => open.push(stream),
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => return Ok(open.len()),
                Err(error) => bail!("connection {}: {error}", open.len() + 1),
            }
        }
    })?;
    ensure!(ceiling.connections_left == Some(more as u64), "{more} more could be made: {ceiling:?}");
    Ok(())
}

/// Limits of tasks and processor time of a cgroup, in whichever hierarchy has them here.
pub(crate) fn limits_of_a_cgroup_are_ceilings() -> anyhow::Result<()> {
    let (tasks, cpu) = (Group::new("pids")?, Group::new("cpu")?);
    let (server, address) = load::server()?;
    tasks.write("pids.max", "77")?;
    match cpu.unified {
        true => cpu.write("cpu.max", "30000 100000")?,
        false => cpu.write("cpu.cfs_quota_us", "30000")?,
    }
    for group in [&tasks, &cpu] {
        group.write("cgroup.procs", &server.pid().to_string())?;
    }
    let mut agent = Run::attach(&["--port", &address.port().to_string(), "--interval", "200ms"])?;
    // Far more than a third of a core could do.
    let (url, connections) = (format!("ws://{address}/echo"), CONNECTIONS.to_string());
    let load = ["--url", &url, "--connections", &connections, "--message-rate", "20000", "--duration", "1m"];
    let clients = Process::start(Command::new(binaries::path("headroom-load")?).args(load))?;
    let before = throttled(&cpu)?;
    let tick = ticks_until(&mut agent, |tick| {
        find(&tick.ceilings, Kind::Cpu, &cpu.scope)
            .is_ok_and(|ceiling| ceiling.used.is_some_and(|used| used > 250))
    })?;
    ensure!(throttled(&cpu)? > before, "the kernel held nothing back");
    let ceiling = find(&tick.ceilings, Kind::Cpu, &cpu.scope)?;
    ensure!(ceiling.limit == Some(300) && ceiling.connections == CONNECTIONS as u64, "{ceiling:?}");
    ensure!(ceiling.used.is_some_and(|used| used <= 330), "a quota of 300 millicores: {ceiling:?}");
    let ceiling = find(&tick.ceilings, Kind::Tasks, &tasks.scope)?;
    let current = number(tasks.path.join("pids.current"))?;
    ensure!((ceiling.used, ceiling.limit) == (Some(current), Some(77)), "{current} tasks: {ceiling:?}");
    ensure!(ceiling.connections == CONNECTIONS as u64, "{ceiling:?}");
    drop((server, clients));
    Ok(())
}

/// A cgroup in the hierarchy of one controller, removed when dropped.
struct Group {
    path: PathBuf,
    scope: String,
    unified: bool,
}

impl Group {
    fn new(controller: &str) -> anyhow::Result<Self> {
        let mounts = procfs::process::Process::myself()?.mountinfo()?;
        let v1 = mounts
            .iter()
            .find(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key(controller));
        let unified = mounts.iter().find(|mount| {
            let controllers = std::fs::read_to_string(mount.mount_point.join("cgroup.subtree_control"));
            let has = |text: String| text.split_whitespace().any(|one| one == controller);
            mount.fs_type == "cgroup2" && controllers.is_ok_and(has)
        });
        let mount = v1.or(unified).ok_or_else(|| Skip(format!("no cgroup hierarchy has {controller}")))?;
        let name = format!("headroom-test-{}", std::process::id());
        let path = mount.mount_point.join(&name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path, scope: format!("cgroup:/{name}"), unified: v1.is_none() })
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path.join(file);
        std::fs::write(&path, text).with_context(|| format!("writing {text} to {}", path.display()))
    }
}

/// How often the group's quota ended before its period did.
fn throttled(group: &Group) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(group.path.join("cpu.stat"))?;
    let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    Ok(count.context("no nr_throttled in cpu.stat")?.parse()?)
}

impl Drop for Group {
    fn drop(&mut self) {
        // Where both controllers share a hierarchy the other group has removed it.
        let gone = || !self.path.exists() || std::fs::remove_dir(&self.path).is_ok();
        let _ = until("removing a cgroup", Duration::from_secs(2), || Ok(gone()));
    }
}
