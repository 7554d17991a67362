//! The connection table's columns: title, place, text and order of each, defined once.

use agent::document::{Connection, Traffic};
use agent::report::format::{UNKNOWN, age, bytes, count, count_short, known, latency};
use agent::report::words;

use crate::view::View;

/// A column of the connection table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// This host's address.
    Local,
    /// The peer's address.
    Remote,
    /// Server or client.
    Role,
    /// Command and process id.
    Process,
    /// Time since the upgrade.
    Age,
    /// How far the counts can be trusted.
    Parse,
    /// Frames from the peer.
    Received,
    /// Frames to the peer.
    Sent,
    /// Pings and pongs, both directions.
    Pings,
    /// Round trip of the last ping.
    Rtt,
    /// Kernel memory.
    Kernel,
}

/// What a column sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SortKey<'a> {
    Unknown,
    Number(u64),
    Text(&'a str),
}

impl Column {
    /// All columns, left to right.
    pub const ALL: [Column; 11] = [
        Column::Local,
        Column::Remote,
        Column::Role,
        Column::Process,
        Column::Age,
        Column::Parse,
        Column::Received,
        Column::Sent,
        Column::Pings,
        Column::Rtt,
        Column::Kernel,
    ];

    /// The title.
    pub const fn title(self) -> &'static str {
        match self {
            Column::Local => "local",
            Column::Remote => "remote",
            Column::Role => "role",
            Column::Process => "process",
            Column::Age => "age",
            Column::Parse => "parse",
            Column::Received => "in",
            Column::Sent => "out",
            Column::Pings => "ping/pong",
            Column::Rtt => "rtt",
            Column::Kernel => "kernel",
        }
    }

    /// Whether it holds numbers, whose largest comes first and which stand to the right.
    pub const fn largest_first(self) -> bool {
        matches!(
            self,
            Column::Age | Column::Received | Column::Sent | Column::Pings | Column::Rtt | Column::Kernel
        )
    }

    /// The text of a cell. Ages are relative to the view's last event.
    pub fn cell(self, connection: &Connection, view: &View) -> String {
        match self {
            Column::Local => connection.local.clone(),
            Column::Remote => connection.remote.clone(),
            Column::Role => words::role(connection.role).to_owned(),
            Column::Process => process(connection, view),
            Column::Age => known(age_seconds(connection, view), age),
            Column::Parse => words::trust(connection).to_owned(),
            Column::Received => known(connection.received.and_then(|traffic| traffic.frames), count_short),
            Column::Sent => known(connection.sent.and_then(|traffic| traffic.frames), count_short),
            Column::Pings => match (both(connection, |t| t.ping), both(connection, |t| t.pong)) {
                (Some(pings), Some(pongs)) => format!("{}/{}", count(pings), count(pongs)),
                _ => UNKNOWN.to_owned(),
            },
            Column::Rtt => known(connection.ping.rtt_seconds, latency),
            Column::Kernel => known(connection.memory.kernel_bytes, bytes),
        }
    }

    pub(super) fn key<'a>(self, connection: &'a Connection, view: &'a View) -> SortKey<'a> {
        let number = |value: Option<u64>| value.map_or(SortKey::Unknown, SortKey::Number);
        match self {
            Column::Local => SortKey::Text(&connection.local),
            Column::Remote => SortKey::Text(&connection.remote),
            Column::Role => SortKey::Text(words::role(connection.role)),
            Column::Process => match connection.pid {
                None => SortKey::Unknown,
                Some(pid) => view.command(pid).map_or(SortKey::Number(pid.into()), SortKey::Text),
            },
            Column::Age => {
                number(age_seconds(connection, view).map(|seconds| (seconds.max(0.0) * 1e3) as u64))
            }
            Column::Parse => SortKey::Number(connection.parse as u64),
            Column::Received => number(connection.received.and_then(|traffic| traffic.frames)),
            Column::Sent => number(connection.sent.and_then(|traffic| traffic.frames)),
            Column::Pings => number(both(connection, |traffic| Some(traffic.ping? + traffic.pong?))),
            Column::Rtt => number(connection.ping.rtt_seconds.map(|seconds| (seconds * 1e9) as u64)),
            Column::Kernel => number(connection.memory.kernel_bytes),
        }
    }
}

/// `command/pid`, as far as known.
fn process(connection: &Connection, view: &View) -> String {
    match connection.pid {
        None => UNKNOWN.to_owned(),
        Some(pid) => view.command(pid).map_or_else(|| pid.to_string(), |command| format!("{command}/{pid}")),
    }
}

/// Seconds since the upgrade; unknown on connections older than the agent.
pub(crate) fn age_seconds(connection: &Connection, view: &View) -> Option<f64> {
    Some(view.timestamp()?.duration_since(connection.opened?).as_secs_f64())
}

fn both(connection: &Connection, field: fn(&Traffic) -> Option<u64>) -> Option<u64> {
    Some(field(&connection.received?)? + field(&connection.sent?)?)
}
