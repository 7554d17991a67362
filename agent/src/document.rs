//! What Headroom says: the snapshot document and the event stream, which share their objects.
//!
//! Field names are an interface (`headroom/1`): they are added to, never renamed. Times are seconds, sizes bytes,
//! ratios 0–1, 64-bit identifiers strings. What cannot be known is absent or null, never 0.

mod ceiling;
mod connection;
mod event;
mod host;
pub mod json;
mod plan;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use ceiling::{Advice, Ceiling, CostPart, Effect, Kind, Level, Part, Range, Trend, Unit};
pub use connection::{
    Bucket, Connection, Deflate, Evidence, Listener, Memory, Parse, Ping, Pinger, Role, Stalls, Traffic,
    Transport, Upgrade,
};
pub use event::{
    Audience, Body, Envelope, EventWriter, LevelChanged, LinesLost, Started, Stopped, Tick, Vanished,
};
pub use host::{
    Container, Degraded, Descriptors, Host, LeftOut, Losses, Process, ProcessMemory, Runtime, SelfUsage,
};
pub use plan::{Plan, PlannedCompression, PlannedHandshakes, PlannedTraffic};

/// Name and version of the schema, in every document and every event.
pub const SCHEMA: &str = "headroom/1";

/// Everything known at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: String,
    /// When, UTC.
    pub timestamp: Timestamp,
    /// The host and what it lets us see.
    pub host: Host,
    /// Ceilings, the first to be hit first.
    pub ceilings: Vec<Ceiling>,
    /// Processes that hold tracked connections.
    pub processes: Vec<Process>,
    /// Sums by listener since the agent attached, closed connections included.
    pub listeners: Vec<Listener>,
    /// Tracked connections.
    pub connections: Vec<Connection>,
    /// What would move the first ceiling.
    pub advice: Vec<Advice>,
    /// What the agent itself costs.
    #[serde(rename = "self")]
    pub agent: SelfUsage,
}
