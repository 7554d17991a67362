//! What is logged, to standard error: text for people, or one JSON object a line.
//!
//! An object has the shape of the agent's events: `schema`, `seq`, `timestamp`, `event`, `severity_text`, `severity_number`, and
//! under the event's own name what there is to say about it. Events that have no name of their own are `log`.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Name and version of the objects.
pub const SCHEMA: &str = "headroom-server/1";

/// The event's name where the program gave none.
const UNNAMED: &str = "log";

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
}

/// Logs to standard error from now on: what RUST_LOG selects, or everything from INFO up. `shard` is the number of this
/// process where there are several.
pub fn start(format: Format, shard: Option<usize>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => logger.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => logger.event_format(Objects { shard, seq: AtomicU64::new(0) }).init(),
    }
}

/// Writes an event as an object.
struct Objects {
    shard: Option<usize>,
    /// Of the next.
    seq: AtomicU64,
}

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said(Map::new());
        event.record(&mut said);
        writeln!(out, "{}", self.object(event.metadata().name(), *event.metadata().level(), said.0))
    }
}

impl Objects {
    fn object(&self, name: &str, level: Level, said: Map<String, Value>) -> Value {
        // Where the program gives no name, it is "event FILE:LINE".
        let name = if name.starts_with("event ") { UNNAMED } else { name };
        let (text, number) = severity(level);
        let mut object = Map::new();
        object.insert("schema".into(), SCHEMA.into());
        object.insert("seq".into(), self.seq.fetch_add(1, Ordering::Relaxed).into());
        object.insert("timestamp".into(), Timestamp::now().to_string().into());
        object.insert("event".into(), name.into());
        object.insert("severity_text".into(), text.into());
        object.insert("severity_number".into(), number.into());
        if let Some(shard) = self.shard {
            object.insert("process".into(), shard.into());
        }
        object.insert(name.into(), Value::Object(said));
        Value::Object(object)
    }
}

/// OpenTelemetry's word and number.
fn severity(level: Level) -> (&'static str, u8) {
    match level {
        Level::ERROR => ("ERROR", 17),
        Level::WARN => ("WARN", 13),
        Level::INFO => ("INFO", 9),
        Level::DEBUG => ("DEBUG", 5),
        Level::TRACE => ("TRACE", 1),
    }
}

/// An event's fields.
struct Said(Map<String, Value>);

impl Said {
    fn note(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // What is no number in JSON is null.
        self.note(field, json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_an_object_that_has_its_payload_under_its_name() {
        let objects = Objects { shard: Some(3), seq: AtomicU64::new(7) };
        let said = Map::from_iter([("open".to_owned(), json!(5))]);
        let mut object = objects.object("closing", Level::WARN, said);
        let timestamp = object["timestamp"].take();
        assert!(timestamp.as_str().unwrap().ends_with('Z'));
        assert_eq!(
            object,
            json!({
                "schema": "headroom-server/1", "seq": 7, "timestamp": null, "event": "closing", "severity_text": "WARN",
                "severity_number": 13, "process": 3, "closing": {"open": 5}
            })
        );
        assert_eq!(objects.object("event src/x.rs:3", Level::INFO, Map::new())["event"], "log");
        assert_eq!(objects.object("x", Level::INFO, Map::new())["seq"], 9);
    }
}
