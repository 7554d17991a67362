//! The event stream: one JSON object a line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Advice, Ceiling, Connection, Degraded, Host, Kind, Level, Listener, Process, SCHEMA, SelfUsage};

/// One line of the stream. The payload stands under the event's own name:
/// `{"schema":…,"seq":…,"timestamp":…,"event":"tick","severity_text":"INFO","severity_number":9,"tick":{…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`SCHEMA`].
    pub schema: String,
    /// Counts up by one a line: a hole is a dropped event. Each reader of a socket has numbers of its own, from 0.
    pub seq: u64,
    /// When, UTC.
    pub timestamp: Timestamp,
    /// Name of the event, and of the payload's key.
    pub event: String,
    /// `INFO`, `WARN`, `ERROR`.
    pub severity_text: String,
    /// OpenTelemetry's number for it: 9, 13, 17.
    pub severity_number: u8,
    /// The payload.
    #[serde(flatten)]
    pub body: Body,
    /// Whom it is for; not written.
    #[serde(skip)]
    pub audience: Audience,
}

/// Whom a line is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Audience {
    /// Every reader of every output. Only these lines are numbered by the engine.
    #[default]
    Everyone,
    /// Readers of a socket that came late and are told what they missed.
    Late,
}

/// What happened. Serialized as an object with one key, the event's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The agent attached.
    AgentStarted(Started),
    /// The state of the host, once per interval.
    Tick(Tick),
    /// An upgrade was seen.
    ConnectionOpened(Connection),
    /// A connection older than the agent was recognised by its frames, or as TLS on a port that was named.
    ConnectionAdopted(Connection),
    /// A sweep found a connection changed. Only where per-connection updates are asked for.
    ConnectionUpdated(Connection),
    /// A connection ended; the counts are final.
    ConnectionClosed(Connection),
    /// A connection that was reported is gone without a close event, which the kernel had no room for.
    ConnectionVanished(Vanished),
    /// A ceiling came nearer, or went away.
    LevelChanged(LevelChanged),
    /// Lines are missing here: whoever reads this was too slow, or the disk was full. Stands in place of the last of them.
    LinesLost(LinesLost),
    /// The agent is about to end.
    AgentStopped(Stopped),
}

/// Payload of `agent_started`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The host and what it lets the agent see.
    pub host: Host,
    /// Time between ticks.
    pub interval_seconds: f64,
    /// Ports that are watched; empty means all.
    pub ports: Vec<u16>,
    /// Events about single connections are of one connection of so many; null: of all.
    #[serde(default)]
    pub sample_connections: Option<u32>,
    /// Most events about single connections a second; null: no such limit.
    #[serde(default)]
    pub max_connection_events: Option<u32>,
}

/// Payload of `tick`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// Tracked connections open now, both roles.
    pub connections: u64,
    /// Connections that are older than the agent, not judged yet, and presumed to be WebSockets; not in `connections`.
    #[serde(default)]
    pub presumed: u64,
    /// Ceilings, the first to be hit first.
    pub ceilings: Vec<Ceiling>,
    /// Processes that hold tracked connections.
    pub processes: Vec<Process>,
    /// Sums by listener since the agent attached.
    pub listeners: Vec<Listener>,
    /// What would move the first ceiling.
    pub advice: Vec<Advice>,
    /// What is missing at present, and why.
    pub degraded: Vec<Degraded>,
    /// What the agent itself costs.
    #[serde(rename = "self")]
    pub agent: SelfUsage,
}

/// Payload of `connection_vanished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vanished {
    /// Socket cookie.
    pub id: String,
}

/// Payload of `level_changed`. What is used is in the `tick` that follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelChanged {
    /// What runs out.
    pub kind: Kind,
    /// Whose limit, as in the ceiling.
    pub scope: String,
    /// The level before; `unknown` where the ceiling was not seen before.
    pub from: Level,
    /// The level now.
    pub to: Level,
    /// What raised or lowered it, in words.
    pub reason: String,
    /// How many more connections fit.
    pub connections_left: Option<u64>,
    /// Seconds until it is hit at the present growth; null where the count is not growing.
    pub seconds_left: Option<f64>,
}

/// Payload of `lines_lost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesLost {
    /// How many, since the line before this one.
    pub lines: u64,
}

/// Payload of `agent_stopped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// `signal` or `duration`.
    pub reason: String,
}

impl Body {
    /// Every name there is. A reader may meet others, from an agent that is newer than itself.
    pub const NAMES: &[&str] = &[
        "agent_started",
        "tick",
        "connection_opened",
        "connection_adopted",
        "connection_updated",
        "connection_closed",
        "connection_vanished",
        "level_changed",
        "lines_lost",
        "agent_stopped",
    ];

    /// The event's name, the same word the payload stands under.
    pub const fn name(&self) -> &'static str {
        match self {
            Body::AgentStarted(_) => "agent_started",
            Body::Tick(_) => "tick",
            Body::ConnectionOpened(_) => "connection_opened",
            Body::ConnectionAdopted(_) => "connection_adopted",
            Body::ConnectionUpdated(_) => "connection_updated",
            Body::ConnectionClosed(_) => "connection_closed",
            Body::ConnectionVanished(_) => "connection_vanished",
            Body::LevelChanged(_) => "level_changed",
            Body::LinesLost(_) => "lines_lost",
            Body::AgentStopped(_) => "agent_stopped",
        }
    }

    fn severity(&self) -> (&'static str, u8) {
        let level = match self {
            Body::Tick(tick) => tick.ceilings.iter().map(|ceiling| ceiling.level).max(),
            Body::LevelChanged(change) => Some(change.to),
            Body::LinesLost(_) => Some(Level::Near),
            _ => None,
        };
        match level {
            Some(Level::Critical) => ("ERROR", 17),
            Some(Level::Near) => ("WARN", 13),
            _ => ("INFO", 9),
        }
    }
}

/// Numbers the lines of one stream.
#[derive(Debug, Default)]
pub struct EventWriter {
    seq: u64,
}

impl EventWriter {
    /// Wraps `body` for the stream.
    pub fn envelope(&mut self, timestamp: Timestamp, body: Body) -> Envelope {
        let seq = self.seq;
        self.seq += 1;
        Envelope::new(seq, timestamp, body)
    }
}

impl Envelope {
    /// A line for readers that came late, who number it for themselves.
    pub fn late(timestamp: Timestamp, body: Body) -> Self {
        Self { audience: Audience::Late, ..Self::new(0, timestamp, body) }
    }

    /// Line `seq` of a stream.
    pub(crate) fn new(seq: u64, timestamp: Timestamp, body: Body) -> Self {
        let (severity_text, severity_number) = body.severity();
        Envelope {
            schema: SCHEMA.to_owned(),
            seq,
            timestamp,
            event: body.name().to_owned(),
            severity_text: severity_text.to_owned(),
            severity_number,
            body,
            audience: Audience::Everyone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_stands_under_the_events_name() {
        let mut writer = EventWriter::default();
        writer.envelope(Timestamp::UNIX_EPOCH, Body::AgentStopped(Stopped { reason: "signal".into() }));
        let second =
            writer.envelope(Timestamp::UNIX_EPOCH, Body::AgentStopped(Stopped { reason: "duration".into() }));
        let line = serde_json::to_string(&second).expect("serializes");
        assert_eq!(
            line,
            r#"{"schema":"headroom/1","seq":1,"timestamp":"1970-01-01T00:00:00Z","event":"agent_stopped","severity_text":"INFO","severity_number":9,"agent_stopped":{"reason":"duration"}}"#
        );
        let back: Envelope = serde_json::from_str(&line).expect("parses");
        assert_eq!(back, second);
        assert!(Body::NAMES.contains(&back.body.name()));
    }
    #[test]
    fn a_level_that_changed_is_as_severe_as_the_new_one() {
        let severity = |to| {
            let changed = LevelChanged {
                kind: Kind::Descriptors,
                scope: "process:7".into(),
                from: Level::Ok,
                to,
                reason: "81% of the limit is used, of 80%".into(),
                connections_left: Some(190),
                seconds_left: None,
            };
            let line = EventWriter::default().envelope(Timestamp::UNIX_EPOCH, Body::LevelChanged(changed));
            let text = serde_json::to_string(&line).expect("serializes");
            assert_eq!(serde_json::from_str::<Envelope>(&text).expect("parses"), line);
            assert!(Body::NAMES.contains(&line.event.as_str()));
            line.severity_text
        };
        assert_eq!([Level::Critical, Level::Near, Level::Ok].map(severity), ["ERROR", "WARN", "INFO"]);
    }
}
