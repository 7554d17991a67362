//! The host, its processes, and the agent itself.

use serde::{Deserialize, Serialize};

/// The host and what it lets the agent see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// Lockdown mode (`none`, `integrity`, `confidentiality`); null where the kernel does not say.
    pub lockdown: Option<String>,
    /// Hooks in use.
    pub hooks: Vec<String>,
    /// What is missing, and why.
    pub degraded: Vec<Degraded>,
}

/// A probe or figure that is not available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// What is missing.
    pub probe: String,
    /// Why.
    pub reason: String,
}

/// A process that holds tracked connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id, in the agent's pid namespace.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Memory cgroup path; null where it cannot be read.
    pub cgroup: Option<String>,
    /// The container it is in; null outside of any, and where its manager names cgroups in a way that is not known.
    #[serde(default)]
    pub container: Option<Container>,
    /// UID of the Kubernetes pod it is in; null outside of any.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// TCP connections that carry WebSockets.
    pub connections: u64,
    /// TCP connections that are presumed to; not in `connections`. What they hold is in the figures below.
    #[serde(default)]
    pub presumed: u64,
    /// WebSockets on them.
    pub websockets: u64,
    /// Descriptors.
    pub descriptors: Descriptors,
    /// Memory.
    pub memory: ProcessMemory,
}

/// A container, as far as its cgroup tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Who runs it; null where the cgroup of it is named for nothing but the id, as below a pod.
    pub runtime: Option<Runtime>,
    /// Its id, of 64 hexadecimal digits; its name with `lxc` and `systemd-nspawn`.
    pub id: String,
}

/// What runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, for Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// LXC, LXD, Incus.
    Lxc,
    /// systemd-nspawn.
    SystemdNspawn,
}

/// A process's descriptors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// Open now.
    pub open: Option<u64>,
    /// Soft limit: what `accept` fails at.
    pub soft_limit: Option<u64>,
    /// Hard limit: how far the process may raise the soft one.
    pub hard_limit: Option<u64>,
}

/// A process's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// Resident set.
    pub resident_bytes: Option<u64>,
    /// Its own memory per connection; null until its use was seen at different connection counts.
    pub per_connection_bytes: Option<f64>,
    /// Kernel memory per connection, mean over its sockets.
    pub kernel_per_connection_bytes: Option<f64>,
    /// Estimate for negotiated compression, all connections; null where none negotiated it.
    pub compression_bytes: Option<u64>,
}

/// What the agent itself costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SelfUsage {
    /// CPU time since start, user and system, all threads.
    pub cpu_seconds: f64,
    /// Resident set.
    pub resident_bytes: u64,
    /// Mean run time of the packet programs; null unless `kernel.bpf_stats_enabled` is on.
    pub bpf_ns_per_packet: Option<f64>,
    /// Life-cycle events the kernel had no room for, and events a sink could not take.
    pub events_dropped: u64,
    /// Lines that an output could not take: its disk was full, or a reader of the socket too slow (for each reader it counts anew).
    #[serde(default)]
    pub lines_lost: u64,
    /// Events about single connections that were left out because that was asked for.
    #[serde(default)]
    pub left_out: LeftOut,
    /// What the kernel side had to leave out, by kind; null where that cannot be read.
    pub losses: Option<Losses>,
    /// CPU time of the last sweep over all connections; null before the first.
    pub sweep_seconds: Option<f64>,
    /// Age of the oldest per-connection figure, bounded by the sweep budget; null before the first sweep.
    pub sweep_age_seconds: Option<f64>,
}

/// Events about single connections that are not in the stream because of a setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Of connections outside of the sample (`sample_connections`).
    pub sampled: u64,
    /// Beyond the rate (`max_connection_events`).
    pub limited: u64,
}

/// What the kernel side had to leave out since it attached. All zero on a healthy host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Life-cycle events that found the ring buffer full.
    pub events: u64,
    /// Connections whose listener found no slot for its totals.
    pub listeners: u64,
    /// Upgrades that could not be tracked because socket storage was refused.
    pub storage: u64,
    /// 101 responses whose head was not understood.
    pub handshakes: u64,
    /// Packets that met another of their direction on a second CPU and found no place to be parked; they show up as
    /// unparsed bytes.
    pub packets: u64,
    /// Segments behind a hole of which some could not be kept; where that was no payload, they show up as unparsed bytes.
    pub reordered: u64,
    /// Segments out of order that TCP was going to refuse, and that were left out therefore.
    pub refused: u64,
    /// Refused upgrades of more kinds (listener and status) than are kept.
    pub refusals: u64,
    /// Upgrades whose heads found no place to be kept until the answer: their `upgrade` is null or says less.
    #[serde(default)]
    pub heads: u64,
    /// Responses with status 101 on connections that were not seen to ask for one: they make no connection.
    #[serde(default)]
    pub unasked: u64,
    /// Connections by which the totals of a listener and what sweeps met of it differed for several sweeps; the totals were
    /// corrected by them.
    #[serde(default)]
    pub reconciled: u64,
    /// Connections whose bytes behind a hole made room for those of others; they show up as unparsed bytes likewise.
    #[serde(default)]
    pub spilled: u64,
    /// Holes that TCP has filled with what was not seen here, by any of these losses or for another reason.
    #[serde(default)]
    pub missed: u64,
}
