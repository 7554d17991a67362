//! Ceilings and advice.

use serde::{Deserialize, Serialize};

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Memory: the host's, a cgroup's, or the TCP stack's share.
    Memory,
    /// File descriptors: a process's soft limit, or the host's table.
    Descriptors,
    /// A network interface's speed.
    Bandwidth,
    /// Packets per second that a network interface can carry.
    Packets,
    /// Entries of the kernel's connection tracking (`nf_conntrack_max`).
    Conntrack,
    /// Descriptors that one user's epoll instances watch (`fs.epoll.max_user_watches`).
    EpollWatches,
    /// Connections that wait for `accept` on a listening socket.
    AcceptQueue,
    /// Local ports towards one destination, as a proxy uses them up.
    Ports,
    /// Processes and threads: a cgroup's `pids.max`, or the host's `pid_max` and `threads-max`.
    Tasks,
    /// Memory mappings of a process (`vm.max_map_count`).
    MemoryMaps,
    /// Processor time: the host's, or a cgroup's quota.
    Cpu,
}

impl Kind {
    /// Every kind, in the order in which people ask.
    pub const ALL: [Kind; 11] = [
        Kind::Memory,
        Kind::Descriptors,
        Kind::Bandwidth,
        Kind::Packets,
        Kind::Conntrack,
        Kind::EpollWatches,
        Kind::AcceptQueue,
        Kind::Ports,
        Kind::Tasks,
        Kind::MemoryMaps,
        Kind::Cpu,
    ];

    /// The name as documents spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::Descriptors => "descriptors",
            Kind::Bandwidth => "bandwidth",
            Kind::Packets => "packets",
            Kind::Conntrack => "conntrack",
            Kind::EpollWatches => "epoll_watches",
            Kind::AcceptQueue => "accept_queue",
            Kind::Ports => "ports",
            Kind::Tasks => "tasks",
            Kind::MemoryMaps => "memory_maps",
            Kind::Cpu => "cpu",
        }
    }
}

/// Unit of a ceiling's `used`, `limit` and `cost_per_connection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// File descriptors.
    Descriptors,
    /// Bits per second.
    BitsPerSecond,
    /// Packets per second.
    PacketsPerSecond,
    /// Entries of a table.
    Entries,
    /// Watched descriptors.
    Watches,
    /// Connections.
    Connections,
    /// Local ports.
    Ports,
    /// Processes and threads.
    Tasks,
    /// Memory mappings.
    Mappings,
    /// Thousandths of a processor core.
    Millicores,
}

/// How near a ceiling is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The limit or the use is not known.
    Unknown,
    /// Far.
    Ok,
    /// Worth a look.
    Near,
    /// Act now.
    Critical,
}

/// What the number of connections is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// Too little was seen.
    #[default]
    Unknown,
    /// Neither rises nor falls by more than it wavers, or falls.
    Steady,
    /// Rises beyond what it has been before.
    Growing,
    /// Rises towards a height it has had before: a restart, a sawtooth, the morning of a daily cycle.
    Recovering,
}

/// An interval around a number: of a cost, of connections left, of seconds left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The lower end.
    pub least: f64,
    /// The upper end; null where there is none (growth may have ended).
    pub most: Option<f64>,
}

/// One of the things that a connection costs, in the unit of its ceiling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostPart {
    /// Its name.
    pub part: Part,
    /// Per connection.
    pub cost: f64,
    /// Interval; null where the number is a sum over all connections or a definition, not an estimate.
    pub range: Option<Range>,
    /// How many observations (connections, or moments) are behind it.
    pub samples: u64,
}

/// What a cost is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Kernel objects that every socket has (slab).
    KernelFixed,
    /// Socket buffers at their truesize, and socket options.
    KernelBuffers,
    /// The server's own memory.
    Process,
    /// Compression contexts, by their negotiated parameters. Part of a measured `process` and not added to it; of a plan, beside it.
    Compression,
    /// Pings, pongs and their acknowledgements, headers included.
    Keepalive,
    /// Everything else that goes over the wire.
    Application,
}

/// One limit, where it stands and what it means in connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// What runs out.
    pub kind: Kind,
    /// Whose limit: `host`, `tcp`, `cgroup:/path`, `process:PID`, `interface:NAME`, `netns:INODE`, `user:UID`, `listener:PORT`,
    /// `destination:ADDRESS:PORT`, `plan`.
    pub scope: String,
    /// In use now, in `unit`.
    pub used: Option<u64>,
    /// What there is, in `unit`.
    pub limit: Option<u64>,
    /// Unit of the quantities.
    pub unit: Unit,
    /// `used / limit`, 0–1 (more where a limit was lowered under its use).
    pub utilization: Option<f64>,
    /// How near.
    pub level: Level,
    /// Tracked WebSocket connections that count against this limit.
    pub connections: u64,
    /// What one more connection takes of it, in `unit`.
    pub cost_per_connection: Option<f64>,
    /// The cost's interval; null where it is a definition and not an estimate.
    #[serde(default)]
    pub cost_range: Option<Range>,
    /// Observations behind an estimated cost; null where it is a definition.
    #[serde(default)]
    pub cost_samples: Option<u64>,
    /// What the cost is made of, as far as that can be told apart.
    #[serde(default)]
    pub parts: Vec<CostPart>,
    /// How many more fit.
    pub connections_left: Option<u64>,
    /// How many more fit if the cost is at either end of its interval.
    #[serde(default)]
    pub connections_left_range: Option<Range>,
    /// How many fit in all.
    pub connections_max: Option<u64>,
    /// Seconds until it is hit at the present growth; null where the count is not growing or too little is known.
    pub seconds_left: Option<f64>,
    /// Its interval.
    #[serde(default)]
    pub seconds_left_range: Option<Range>,
    /// What the number of connections under this limit is doing.
    #[serde(default)]
    pub trend: Trend,
    /// Whether this is the ceiling that is hit first.
    pub first: bool,
    /// Where the numbers come from, and why one is missing.
    pub basis: String,
}

/// A change that moves a ceiling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// Stable name of the rule.
    pub id: String,
    /// The ceiling it moves.
    pub ceiling: Kind,
    /// What to do.
    pub action: String,
    /// What that does, in connections.
    pub effect: Effect,
    /// The numbers behind it.
    pub evidence: String,
}

/// An advice's effect on the whole host: which ceiling comes next is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Connections that fit now.
    pub connections_max_before: u64,
    /// Connections that fit afterwards.
    pub connections_max_after: u64,
}
