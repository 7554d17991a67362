//! What so many connections need of a machine, and what there is of it. Arithmetic only.

use std::fmt;

/// Kernel memory of one end of a TCP connection: socket, inode, file, dentry, its places in an epoll set (docs/server.md).
const KERNEL_BYTES: u64 = 3_900;
/// What the load generator keeps of a connection, and what the server does; rounded up.
const LOAD_BYTES: u64 = 1_600;
const SERVER_BYTES: u64 = 128;
/// A WebSocket that is a stream of an HTTP/2 connection, at each end.
const STREAM_BYTES: u64 = 1_100;
/// An HTTP/2 connection's buffers, at each end.
const HTTP2_BYTES: u64 = 25_000;
/// What the agent and its programs keep of one end of a connection; measured with 200,000.
const AGENT_BYTES: u64 = 2_800;
/// A process that does nothing yet.
const PROCESS_BYTES: u64 = 6 << 20;
const PROCESS_TASKS: u64 = 5;
/// Descriptors besides the connections.
const OTHER_DESCRIPTORS: u64 = 64;
/// What must be left over when all is there.
const SPARE_BYTES: u64 = 1 << 30;
/// Connections that one address of a client process carries before it takes the next.
const PER_ADDRESS: u64 = 256;
/// Addresses there are: 127.0.I.J, without those that look like networks' own.
const ADDRESSES: u64 = 256 * 254;

/// What carries the WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    /// With so many streams on each connection.
    Http2(u32),
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) transport: Transport,
    pub(super) websockets: u32,
    pub(super) ping_interval: u32,
    /// Whether the agent watches.
    pub(super) agent: bool,
    pub(super) servers: u32,
    pub(super) clients: u32,
}

/// What the machine has. `None` is unlimited, or not in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) memory_available: u64,
    /// Left of the nearest memory cgroup's limit.
    pub(super) cgroup_left: Option<u64>,
    /// Of one process, whatever its soft limit.
    pub(super) descriptors: Option<u64>,
    /// Left of fs.file-max.
    pub(super) files_left: u64,
    /// Of each client address.
    pub(super) ports: u64,
    pub(super) epoll_watches: Option<u64>,
    /// Left of nf_conntrack_max, where loopback is tracked.
    pub(super) conntrack_left: Option<u64>,
    /// Third field of tcp_mem, in bytes.
    pub(super) tcp_memory: u64,
    /// Left of pids.max and threads-max.
    pub(super) tasks_left: u64,
}

/// One thing that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) what: &'static str,
    pub(super) need: u64,
    /// `None` is enough for anything.
    pub(super) have: Option<u64>,
    bytes: bool,
}

impl Plan {
    /// As many processes as the descriptors of one demand. Which server a connection comes to is chance: each must have room for
    /// more than its share.
    pub(super) fn new(
        transport: Transport,
        websockets: u32,
        ping_interval: u32,
        agent: bool,
        limits: &Limits,
    ) -> Self {
        let mut plan = Self { transport, websockets, ping_interval, agent, servers: 1, clients: 1 };
        let Some(limit) = limits.descriptors else { return plan };
        let room = limit.saturating_sub(OTHER_DESCRIPTORS).max(1);
        let connections = plan.connections();
        plan.clients = u32::try_from(connections.div_ceil(room)).unwrap_or(u32::MAX);
        while plan.fullest_server() > room && plan.servers < u32::MAX {
            plan.servers += 1;
        }
        plan
    }

    /// TCP connections.
    pub(super) fn connections(&self) -> u64 {
        match self.transport {
            Transport::Tcp => u64::from(self.websockets),
            Transport::Http2(streams) => u64::from(self.websockets).div_ceil(u64::from(streams)),
        }
    }

    /// What the fullest of the servers gets: the mean and six standard deviations.
    fn fullest_server(&self) -> u64 {
        let mean = self.connections() as f64 / f64::from(self.servers);
        if self.servers == 1 { mean as u64 } else { (mean + 6.0 * mean.sqrt()).ceil() as u64 }
    }

    /// WebSockets of each client process; in all as many as asked for.
    pub(super) fn shares(&self) -> Vec<u32> {
        let per_connection = match self.transport {
            Transport::Tcp => 1,
            Transport::Http2(streams) => streams,
        };
        // Whole connections, so that none is begun twice.
        let connections = self.connections() as u32;
        let (each, more) = (connections / self.clients, connections % self.clients);
        let mut left = self.websockets;
        (0..self.clients)
            .map(|client| {
                let own = (each + u32::from(client < more)).saturating_mul(per_connection).min(left);
                left -= own;
                own
            })
            .collect()
    }

    /// Addresses that a client with this share uses.
    pub(super) fn addresses(&self, share: u32) -> u32 {
        let connections = match self.transport {
            Transport::Tcp => share,
            Transport::Http2(streams) => share.div_ceil(streams),
        };
        connections.div_ceil(PER_ADDRESS as u32)
    }

    pub(super) fn needs(&self, limits: &Limits) -> Vec<Need> {
        let (connections, websockets) = (self.connections(), u64::from(self.websockets));
        let processes = u64::from(self.servers + self.clients);
        let user = match self.transport {
            Transport::Tcp => websockets * (LOAD_BYTES + SERVER_BYTES),
            Transport::Http2(_) => 2 * (websockets * STREAM_BYTES + connections * HTTP2_BYTES),
        };
        let agent = if self.agent { 2 * connections * AGENT_BYTES } else { 0 };
        let memory = user + agent + 2 * connections * KERNEL_BYTES + processes * PROCESS_BYTES + SPARE_BYTES;
        // What is under way at a time: the pings of a second, each in a page at one of the ends.
        let buffers = websockets / u64::from(self.ping_interval.max(1)) * 2 * 4096;
        let per_process = |connections: u64| connections + OTHER_DESCRIPTORS;
        let addresses: u32 = self.shares().into_iter().map(|share| self.addresses(share)).sum();
        let largest_client = connections.div_ceil(u64::from(self.clients));
        let need = |what, need, have, bytes| Need { what, need, have, bytes };
        vec![
            need("memory (MemAvailable)", memory, Some(limits.memory_available), true),
            need("memory of the cgroup", memory, limits.cgroup_left, true),
            need("descriptors of a server", per_process(self.fullest_server()), limits.descriptors, false),
            need("descriptors of a client", per_process(largest_client), limits.descriptors, false),
            need(
                "open files (fs.file-max)",
                2 * connections + processes * OTHER_DESCRIPTORS,
                Some(limits.files_left),
                false,
            ),
            need("client addresses of 127.0.0.0/16", addresses.into(), Some(ADDRESSES), false),
            need("ports of a client address", PER_ADDRESS.min(largest_client), Some(limits.ports), false),
            need("epoll watches (max_user_watches)", 2 * connections, limits.epoll_watches, false),
            need("tracked connections (nf_conntrack_max)", connections, limits.conntrack_left, false),
            need("TCP buffers (tcp_mem)", buffers, Some(limits.tcp_memory), true),
            need("tasks (pids.max, threads-max)", processes * PROCESS_TASKS, Some(limits.tasks_left), false),
        ]
    }
}

impl Need {
    pub(super) fn lacks(&self) -> u64 {
        self.have.map_or(0, |have| self.need.saturating_sub(have))
    }
}

/// A number for people: bytes in GiB, or a count with its thousands apart.
fn amount(number: u64, bytes: bool) -> String {
    if bytes {
        return format!("{:.2} GiB", number as f64 / f64::from(1 << 30));
    }
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let have = self.have.map_or("no limit".into(), |have| amount(have, self.bytes));
        write!(f, "  {:<40}{:>14} of {have:>14}", self.what, amount(self.need, self.bytes))?;
        match self.lacks() {
            0 => Ok(()),
            lack => write!(f, "   MISSING {}", amount(lack, self.bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            memory_available: 23 << 30,
            cgroup_left: None,
            descriptors: Some(20_000),
            files_left: 2_460_000,
            ports: 28_232,
            epoll_watches: Some(5_491_533),
            conntrack_left: None,
            tcp_memory: 575_802 * 4096,
            tasks_left: 30_000,
        }
    }

    fn lacking(plan: &Plan, limits: &Limits) -> Vec<&'static str> {
        plan.needs(limits).iter().filter(|need| need.lacks() > 0).map(|need| need.what).collect()
    }

    #[test]
    fn a_million_connections_are_shared_out() {
        let plan = Plan::new(Transport::Tcp, 1_000_000, 30, true, &limits());
        assert_eq!((plan.servers, plan.clients), (53, 51));
        assert!(plan.fullest_server() <= 20_000 - OTHER_DESCRIPTORS);
        let shares = plan.shares();
        assert_eq!((shares.len(), shares.iter().sum::<u32>()), (51, 1_000_000));
        assert!(shares.iter().all(|share| *share <= 19_936));
        assert_eq!(lacking(&plan, &limits()), [""; 0]);
    }

    #[test]
    fn streams_are_shared_out_by_whole_connections() {
        let plan = Plan::new(Transport::Http2(100), 2_000_000, 30, false, &limits());
        assert_eq!(plan.connections(), 20_000);
        let shares = plan.shares();
        assert_eq!(shares.iter().sum::<u32>(), 2_000_000);
        assert!(shares.iter().all(|share| share % 100 == 0));
        let odd = Plan::new(Transport::Http2(100), 1_050, 30, false, &limits());
        assert_eq!((odd.connections(), odd.shares()), (11, vec![1_050]));
        assert_eq!(lacking(&plan, &limits()), [""; 0]);
    }

    #[test]
    fn without_a_limit_one_process_is_enough() {
        let limits = Limits { descriptors: None, ..limits() };
        let plan = Plan::new(Transport::Tcp, 1_000_000, 30, true, &limits);
        assert_eq!((plan.servers, plan.clients), (1, 1));
        assert_eq!(plan.shares(), [1_000_000]);
    }

    #[test]
    fn what_is_missing_is_named_and_by_how_much() {
        let plan = Plan::new(Transport::Tcp, 1_000_000, 30, true, &limits());
        let cases: [(&str, Limits); 8] = [
            ("memory (MemAvailable)", Limits { memory_available: 4 << 30, ..limits() }),
            ("memory of the cgroup", Limits { cgroup_left: Some(4 << 30), ..limits() }),
            ("open files (fs.file-max)", Limits { files_left: 2_000_000, ..limits() }),
            ("ports of a client address", Limits { ports: 100, ..limits() }),
            ("epoll watches (max_user_watches)", Limits { epoll_watches: Some(1_999_999), ..limits() }),
            ("tracked connections (nf_conntrack_max)", Limits { conntrack_left: Some(262_144), ..limits() }),
            ("TCP buffers (tcp_mem)", Limits { tcp_memory: 1 << 20, ..limits() }),
            ("tasks (pids.max, threads-max)", Limits { tasks_left: 100, ..limits() }),
        ];
        for (what, limits) in cases {
            assert_eq!(lacking(&plan, &limits), [what]);
        }
        let watches = Limits { epoll_watches: Some(1_999_999), ..limits() };
        let needs = plan.needs(&watches);
        let need = needs.iter().find(|need| need.what.starts_with("epoll")).unwrap();
        assert_eq!(need.lacks(), 1);
        assert!(need.to_string().ends_with("2,000,000 of      1,999,999   MISSING 1"), "{need}");
        // A plan made for more descriptors than there are.
        let few = Limits { descriptors: Some(1_024), ..limits() };
        assert_eq!(lacking(&plan, &few), ["descriptors of a server", "descriptors of a client"]);
    }
}
