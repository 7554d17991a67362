//! Scenario files: a series of connection counts, and what may be said of it.

use std::time::Duration;

use agent::cli::parse_duration;
use agent::document::{Level, Trend};
use serde::{Deserialize, Deserializer};

/// A scenario as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// What it is an example of.
    pub(crate) about: String,
    /// Connections that fit.
    pub(crate) limit: u64,
    /// Time between ticks.
    #[serde(default = "one_second", deserialize_with = "duration")]
    pub(crate) interval: Duration,
    /// How long a connection lasts on average: independent comings and goings around the scripted count, by `seed`.
    #[serde(default, deserialize_with = "optional")]
    pub(crate) lifetime: Option<Duration>,
    /// Of the random numbers.
    #[serde(default)]
    pub(crate) seed: u64,
    /// What happens, one after the other, from no connections on.
    pub(crate) segments: Vec<Segment>,
    /// No level above this, ever.
    pub(crate) highest_level: Level,
    /// How often the level of one ceiling may change in all, its first sight not counted.
    pub(crate) most_changes: usize,
    /// What may be said when.
    #[serde(default)]
    pub(crate) expect: Vec<Expect>,
}

/// A stretch of time.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Segment {
    /// The count stays.
    Hold {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The count goes to `to` at an even rate.
    Ramp {
        to: f64,
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The count is `to` from one tick to the next.
    Step { to: f64 },
    /// The process ends with all its connections, and another begins after `down`.
    Restart {
        #[serde(deserialize_with = "duration")]
        down: Duration,
    },
    /// Another process takes over, and the old one drains meanwhile.
    Handover {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The count rises evenly from `low` to `high` and falls back at once, once a `period`.
    Sawtooth {
        low: f64,
        high: f64,
        #[serde(deserialize_with = "duration")]
        period: Duration,
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The count goes up and down between `low` and `high` once a day, from `low` on, and all of it rises by `leak` a day.
    Day {
        low: f64,
        high: f64,
        #[serde(default)]
        leak: f64,
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// A recording: lines of `seconds,count`.
    Recorded { file: String },
}

/// What must hold at a moment, or throughout a stretch of time, for the process's ceiling and for the host's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    #[serde(default, deserialize_with = "optional")]
    pub(crate) from: Option<Duration>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) to: Option<Duration>,
    /// Instead of a time: the first moment at which this share of the limit is in use.
    pub(crate) at_use: Option<f64>,
    /// In how many of the moments it must hold, as a share; all unless told otherwise.
    #[serde(default = "all")]
    pub(crate) share: f64,
    /// The trend is one of these.
    pub(crate) trend: Option<Vec<Trend>>,
    /// The level is one of these.
    pub(crate) level: Option<Vec<Level>>,
    /// The time left is off by this share of the true one at most.
    pub(crate) error: Option<f64>,
    /// The interval holds the true time left.
    #[serde(default)]
    pub(crate) covers: bool,
    /// Width of the interval, as a share of the true time left, at most.
    pub(crate) width: Option<f64>,
    /// No time left is said.
    #[serde(default)]
    pub(crate) no_time: bool,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn all() -> f64 {
    1.0
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}
