//! The agent beside it, from before the first connection: its event stream is read and all but the last tick forgotten.
//!
//! A stream and not a snapshot, because only an agent that saw the handshakes knows every idle connection at once. A tick has the
//! snapshot's ceilings and processes, and the number of connections instead of each.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Place;
use crate::process::{Running, Stop};

const ATTACH: Duration = Duration::from_secs(30);
/// Share of a core for visits of the connections. With the usual hundredth, one of two million sockets would come every few minutes.
const SWEEP_BUDGET: &str = "0.2";
const VISIT: Duration = Duration::from_secs(180);

/// `headroom-agent run`.
pub(super) struct Watch {
    running: Running,
    last: Arc<Mutex<Option<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it and waits until it sees. Only connections to `port` are its business: others come and go.
    pub(super) fn start(stop: &Stop, place: &Place, port: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(place.binaries.join("headroom-agent"));
        let log = File::create(place.folder.join("agent.log"))?;
        command
            .args(["run", "--port", port, "--sweep-budget", SWEEP_BUDGET])
            .stdout(Stdio::piped())
            .stderr(log);
        let mut running = Running::start(&mut command)?;
        let pipe = running.child.stdout.take().context("no stdout")?;
        let last = Arc::new(Mutex::new(None));
        let reader = std::thread::spawn({
            let last = Arc::clone(&last);
            move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    // Of millions of lines, only the few that are ticks are kept or parsed.
                    if is_tick(&line) {
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                    }
                }
            }
        });
        let mut watch = Self { running, last, reader: Some(reader) };
        stop.wait_for("attaching the agent", ATTACH, || {
            if let Some(status) = watch.running.child.try_wait()? {
                bail!("headroom-agent ended with {status}");
            }
            Ok(watch.tick()?.map(drop))
        })?;
        Ok(watch)
    }

    pub(super) fn process(&self) -> u32 {
        self.running.child.id()
    }

    /// The last tick, if there was one.
    pub(super) fn tick(&self) -> anyhow::Result<Option<Value>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(line) = last else { return Ok(None) };
        let event: Value = serde_json::from_str(&line).context("the agent's tick is no JSON")?;
        Ok(Some(event["tick"].clone()))
    }

    /// A tick whose last visit of the connections began after `since` and knows what they cost, or the last one if none
    /// comes in time.
    pub(super) fn visited(&self, stop: &Stop, since: Instant) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let tick = self.tick()?.context("the agent said nothing")?;
            if is_fresh(&tick, since.elapsed().as_secs_f64()) || begun.elapsed() > VISIT {
                return Ok(tick);
            }
            stop.pause(Duration::from_secs(1))?;
        }
    }

    /// Ends it.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.running.end()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(())
    }
}

/// Whether the visit is no older than `seconds`, with room for what it takes itself, and the price of a connection is known.
fn is_fresh(tick: &Value, seconds: f64) -> bool {
    let number = |pointer: &str| tick.pointer(pointer).and_then(Value::as_f64);
    let (age, takes) = (number("/self/sweep_age_seconds"), number("/self/sweep_seconds"));
    let priced = of_host(tick, "memory").is_some_and(|memory| !memory["cost_per_connection"].is_null());
    priced && age.zip(takes).is_some_and(|(age, takes)| age + takes < seconds)
}

/// The host's ceiling of a kind.
fn of_host<'a>(tick: &'a Value, kind: &str) -> Option<&'a Value> {
    let ceilings = tick["ceilings"].as_array()?;
    ceilings.iter().find(|one| one["kind"] == kind && one["scope"] == "host")
}

/// By its beginning: parsing millions of events would take longer than causing them.
fn is_tick(line: &str) -> bool {
    line.get(..line.len().min(200)).is_some_and(|head| head.contains("\"event\":\"tick\""))
}

/// What of a tick is worth keeping: how many connections, what each costs, which ceiling comes first.
pub(super) fn summary(tick: &Value) -> Value {
    let ceilings = tick["ceilings"].as_array().map(Vec::as_slice).unwrap_or_default();
    serde_json::json!({
        "connections": tick["connections"],
        "first_ceiling": ceilings.iter().find(|ceiling| ceiling["first"] == true).map(brief),
        "memory": of_host(tick, "memory").map(brief),
        "descriptors": of_host(tick, "descriptors").map(brief),
        "self": tick["self"],
        "degraded": tick["degraded"],
    })
}

fn brief(ceiling: &Value) -> Value {
    let fields = ["kind", "scope", "used", "limit", "unit", "connections", "cost_per_connection"];
    let more = ["cost_range", "parts", "connections_left", "connections_max", "basis"];
    fields.into_iter().chain(more).map(|field| (field.to_owned(), ceiling[field].clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_told_by_their_beginning() {
        assert!(is_tick("{\"schema\":\"headroom/1\",\"seq\":7,\"event\":\"tick\",\"tick\":{}}"));
        let opened = "{\"schema\":\"headroom/1\",\"event\":\"connection_opened\",\"path\":\"/x\"}";
        assert!(!is_tick(opened));
        assert!(!is_tick(&format!("{}\"event\":\"tick\"", "é".repeat(400))));
    }

    #[test]
    fn a_tick_is_fresh_when_its_visit_is_and_found_a_price() {
        let tick = |age: f64, price: Value| {
            serde_json::json!({
                "self": { "sweep_age_seconds": age, "sweep_seconds": 0.5 },
                "ceilings": [{ "kind": "memory", "scope": "host", "cost_per_connection": price }],
            })
        };
        assert!(is_fresh(&tick(3.0, 1.0.into()), 10.0));
        assert!(!is_fresh(&tick(9.6, 1.0.into()), 10.0));
        assert!(!is_fresh(&tick(3.0, Value::Null), 10.0));
        assert!(!is_fresh(&serde_json::json!({}), 10.0));
    }

    #[test]
    fn a_summary_names_the_first_ceiling_and_the_hosts_memory() {
        let tick = serde_json::json!({ "connections": 5, "ceilings": [
            { "kind": "memory", "scope": "cgroup:/a", "cost_per_connection": 1.0, "first": false },
            { "kind": "memory", "scope": "host", "cost_per_connection": 7.5, "first": false },
            { "kind": "descriptors", "scope": "process:3", "first": true, "connections_left": 9 },
        ]});
        let summary = summary(&tick);
        assert_eq!(summary["connections"], 5);
        assert_eq!(summary["memory"]["cost_per_connection"], 7.5);
        assert_eq!(summary["first_ceiling"]["scope"], "process:3");
        assert_eq!(summary["descriptors"], Value::Null);
    }
}
