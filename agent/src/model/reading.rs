//! What the host is asked at each tick. A figure that cannot be had is `None`, and `degraded` says why.

use std::collections::BTreeMap;

use crate::document::{Container, Degraded, Descriptors};

/// One reading of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Main memory.
    pub memory: Option<HostMemory>,
    /// The TCP stack's buffers.
    pub tcp: Option<TcpMemory>,
    /// The host's file table.
    pub descriptors: Option<HostDescriptors>,
    /// `fs.nr_open`: what no process's descriptor limit may exceed.
    pub descriptors_max: Option<u64>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// The processes asked for that still exist.
    pub processes: Vec<ProcessReading>,
    /// Inode number of the network namespace that all of this is about, processes' own excepted.
    pub netns: Option<u32>,
    /// Connection tracking; none where the kernel has none.
    pub conntrack: Option<Conntrack>,
    /// `fs.epoll.max_user_watches`: for each user.
    pub epoll_watches_max: Option<u64>,
    /// Listening TCP sockets.
    pub listening: Vec<Listening>,
    /// What the TCP stack counts of connections that found no room.
    pub overflows: Option<Overflows>,
    /// Ports that `connect` chooses from.
    pub local_ports: Option<LocalPorts>,
    /// Processes and threads.
    pub tasks: Option<HostTasks>,
    /// `vm.max_map_count`: for each process.
    pub memory_maps_max: Option<u64>,
    /// Processor time.
    pub cpu: Option<HostCpu>,
    /// What could not be read, and why.
    pub degraded: Vec<Degraded>,
}

/// Main memory in bytes (/proc/meminfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
}

/// Buffer memory of all TCP sockets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpMemory {
    /// `TCP: mem` in /proc/net/sockstat, times the page size.
    pub used: u64,
    /// Second field of `net.ipv4.tcp_mem`: beyond it, sockets are given less than they ask for, and segments are dropped.
    pub pressure: u64,
}

/// The host's file table (/proc/sys/fs/file-nr).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostDescriptors {
    /// Allocated file handles.
    pub allocated: u64,
    /// `fs.file-max`.
    pub max: u64,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index, as sockets and packets know it.
    pub index: u32,
    /// Bytes received since boot.
    pub received_bytes: u64,
    /// Bytes transmitted since boot.
    pub transmitted_bytes: u64,
    /// Packets received since boot; several that were merged on the way may count as one.
    pub received_packets: u64,
    /// Packets transmitted since boot; one that the device has yet to cut up may count as one.
    pub transmitted_packets: u64,
    /// What the link adds to each IP packet, in bytes.
    pub framing_bytes: u64,
    /// The part of it that the byte counters include.
    pub counted_bytes: u64,
    /// Speed.
    pub speed: LinkSpeed,
    /// Packets per second that it can carry in one direction, where that was given.
    pub packets_per_second: Option<u64>,
}

/// How fast an interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkSpeed {
    /// Bits per second and where that comes from.
    Known(u64, &'static str),
    /// Why it is not known.
    Unknown(String),
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessReading {
    /// Process id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Memory cgroup path.
    pub cgroup: Option<String>,
    /// The container it is in.
    pub container: Option<Container>,
    /// UID of the Kubernetes pod it is in.
    pub pod_uid: Option<String>,
    /// The cgroup's memory, where it is limited.
    pub cgroup_memory: Option<CgroupMemory>,
    /// Descriptors.
    pub descriptors: Descriptors,
    /// Resident set in bytes.
    pub resident_bytes: Option<u64>,
    /// Anonymous resident memory in bytes: what the process itself allocated.
    pub anonymous_bytes: Option<u64>,
    /// Real user, to whom what it does is charged.
    pub uid: Option<u32>,
    /// Threads.
    pub threads: u64,
    /// Processor time since its start, user and system, all threads.
    pub cpu_seconds: f64,
    /// Inode number of its network namespace.
    pub netns: Option<u32>,
    /// Memory mappings, as of the last sweep.
    pub memory_maps: Option<u64>,
    /// Descriptors that the epoll instances of its user watch, over all of that user's processes, as of the last sweep.
    pub user_watches: Option<u64>,
    /// The limited cgroup of tasks it is in.
    pub cgroup_tasks: Option<CgroupTasks>,
    /// The cgroup with a quota of processor time it is in.
    pub cgroup_cpu: Option<CgroupCpu>,
}

/// A cgroup with a limit of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupTasks {
    /// The group that owns the limit: the process's own or an ancestor.
    pub path: String,
    /// `pids.current`.
    pub used: u64,
    /// `pids.max`.
    pub limit: u64,
}

/// A cgroup with a quota of processor time.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupCpu {
    /// The group that owns the quota: the process's own or an ancestor.
    pub path: String,
    /// The quota in thousandths of a core (`cpu.max`, or `cpu.cfs_quota_us` over `cpu.cfs_period_us`).
    pub millicores: u64,
    /// What the group has used since it was made, in seconds; none where the hierarchy does not count it.
    pub used_seconds: Option<f64>,
}

/// Connection tracking of the kernel (nf_conntrack).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conntrack {
    /// `nf_conntrack_max`: one number, and each network namespace is held against it for itself. 0: no limit.
    pub max: u64,
    /// Entries by inode number of the network namespace, of those that could be read.
    pub entries: BTreeMap<u32, u64>,
}

/// A listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Its port.
    pub port: u16,
    /// Its inode number, by which it is known again.
    pub inode: u32,
    /// Connections that wait for `accept` (`sk_ack_backlog`).
    pub waiting: u64,
    /// How many may wait (`sk_max_ack_backlog`): the lower of listen(2)'s backlog and `net.core.somaxconn`.
    pub backlog: u64,
    /// Connections and requests it had no room for since it listens (`sk_drops`; wraps).
    pub dropped: u32,
}

/// What the TCP stack of a network namespace counts since boot (/proc/net/netstat).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflows {
    /// `ListenOverflows`: an accept queue was full.
    pub overflows: u64,
    /// `ListenDrops`: connections and requests dropped, for that reason or another.
    pub drops: u64,
    /// `TCPReqQFullDrop`: requests dropped as too many were half open.
    pub request_drops: u64,
    /// `TCPReqQFullDoCookies`: requests answered with a SYN cookie for that reason.
    pub cookies: u64,
}

/// Local ports that `connect` chooses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPorts {
    /// The first of `net.ipv4.ip_local_port_range`.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Those of them that `net.ipv4.ip_local_reserved_ports` keeps back.
    pub reserved: u16,
}

impl LocalPorts {
    /// How many there are.
    pub fn count(&self) -> u64 {
        (u64::from(self.last) + 1).saturating_sub(u64::from(self.first) + u64::from(self.reserved))
    }
}

/// Processes and threads of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTasks {
    /// How many there are (/proc/loadavg).
    pub used: u64,
    /// `kernel.pid_max`.
    pub pid_max: u64,
    /// `kernel.threads-max`.
    pub threads_max: u64,
}

/// Processor time of the host (/proc/stat).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostCpu {
    /// Seconds since boot in which a core was not idle, summed over cores; interrupts, and time taken by a hypervisor,
    /// included.
    pub busy_seconds: f64,
    /// Cores that are online.
    pub cores: u64,
}

/// A limited memory cgroup, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMemory {
    /// The group that owns the limit: the process's own or an ancestor.
    pub path: String,
    /// `memory.current` (v2) or `memory.usage_in_bytes` (v1), less the file pages that nobody uses.
    pub used: u64,
    /// `memory.max` or `memory.limit_in_bytes`.
    pub limit: u64,
}

/// Slab objects that every TCP connection costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlabCost {
    /// Bytes of an IPv4 connection.
    pub ipv4: u64,
    /// Bytes of an IPv6 connection.
    pub ipv6: u64,
}
