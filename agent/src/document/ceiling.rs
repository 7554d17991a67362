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
}

impl Kind {
    /// The name as documents spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::Descriptors => "descriptors",
            Kind::Bandwidth => "bandwidth",
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

/// One limit, where it stands and what it means in connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// What runs out.
    pub kind: Kind,
    /// Whose limit: `host`, `tcp`, `cgroup:/path`, `process:PID`, `interface:NAME`.
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
    /// How many more fit.
    pub connections_left: Option<u64>,
    /// How many fit in all.
    pub connections_max: Option<u64>,
    /// Seconds until it is hit at the present growth; null where the count is not growing or too little is known.
    pub seconds_left: Option<f64>,
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
