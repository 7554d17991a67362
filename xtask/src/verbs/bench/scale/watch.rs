//! The agent beside it, from before the first connection: its event stream is read and all but the last tick forgotten.
//!
//! A stream and not a snapshot, because only an agent that saw the handshakes knows every idle connection at once. A tick has the
//! snapshot's ceilings and processes, and the number of connections instead of each.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::process::{Running, Stop};
use crate::verbs::crowd::privileged;

const ATTACH: Duration = Duration::from_secs(30);

/// `headroom-agent run`.
pub(super) struct Watch {
    running: Running,
    last: Arc<Mutex<Option<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it and waits until it sees. Only connections to `port` are its business: others come and go.
    pub(super) fn start(stop: &Stop, port: &str, log: std::fs::File) -> anyhow::Result<Self> {
        let mut command = privileged("headroom-agent");
        command.args(["run", "--port", port]).stdout(Stdio::piped()).stderr(log);
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

    /// Ends it.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.running.end()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(())
    }
}

/// By its beginning: parsing millions of events would take longer than causing them.
fn is_tick(line: &str) -> bool {
    line.get(..line.len().min(200)).is_some_and(|head| head.contains("\"event\":\"tick\""))
}

/// What of a tick is worth keeping: how many connections, what each costs, which ceiling comes first.
pub(super) fn summary(tick: &Value) -> Value {
    let ceilings = tick["ceilings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_host = |kind: &str| ceilings.iter().find(|one| one["kind"] == kind && one["scope"] == "host");
    serde_json::json!({
        "connections": tick["connections"],
        "first_ceiling": ceilings.iter().find(|ceiling| ceiling["first"] == true).map(brief),
        "memory": of_host("memory").map(brief),
        "descriptors": of_host("descriptors").map(brief),
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
