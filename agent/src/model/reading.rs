//! What the host is asked at each tick. A figure that cannot be had is `None`, and `degraded` says why.

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
    /// Third field of `net.ipv4.tcp_mem`: beyond it, allocations fail.
    pub limit: u64,
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
    /// Packets received since boot.
    pub received_packets: u64,
    /// Packets transmitted since boot.
    pub transmitted_packets: u64,
    /// Bytes that the link adds to each IP packet.
    pub framing_bytes: u64,
    /// The part of them that the byte counters include.
    pub counted_bytes: u64,
    /// Speed.
    pub speed: LinkSpeed,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
