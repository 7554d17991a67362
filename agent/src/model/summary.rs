//! What a sweep over all connections amounts to. Only sums are kept, so that the agent's memory does not grow with the
//! number of connections.

use std::collections::BTreeMap;

use super::Peers;

/// Sums over the sockets of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holder {
    /// TCP connections.
    pub connections: u64,
    /// Kernel memory of all of them, slab objects included.
    pub kernel_bytes: u64,
    /// The part of it that is slab objects.
    pub fixed_bytes: u64,
    /// The part of it that is buffers (charged to `tcp_mem`).
    pub buffer_bytes: u64,
    /// Estimated compression state of those that negotiated it.
    pub compression_bytes: u64,
    /// How many negotiated it.
    pub compressed: u64,
}

/// Sums of one sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By process id; 0 holds those whose process is not known.
    pub holders: BTreeMap<u32, Holder>,
    /// Whether the fixed part of a connection's memory is known, and so in `kernel_bytes`.
    pub fixed_known: bool,
    /// Peers that hold many of a process's connections which it accepted, by process id.
    pub peers: BTreeMap<u32, Peers>,
    /// Connections by interface index.
    pub interfaces: BTreeMap<u32, u64>,
}

impl Summary {
    /// Sums over all processes.
    pub fn total(&self) -> Holder {
        self.holders.values().fold(Holder::default(), |sum, holder| sum + *holder)
    }
}

impl std::ops::Add for Holder {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            kernel_bytes: self.kernel_bytes + other.kernel_bytes,
            fixed_bytes: self.fixed_bytes + other.fixed_bytes,
            buffer_bytes: self.buffer_bytes + other.buffer_bytes,
            compression_bytes: self.compression_bytes + other.compression_bytes,
            compressed: self.compressed + other.compressed,
        }
    }
}

impl Holder {
    /// Mean kernel memory of a connection.
    pub fn kernel_per_connection(&self) -> Option<f64> {
        mean(self.kernel_bytes, self.connections)
    }

    /// Mean buffer memory of a connection.
    pub fn buffers_per_connection(&self) -> Option<f64> {
        mean(self.buffer_bytes, self.connections)
    }
}

fn mean(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}
