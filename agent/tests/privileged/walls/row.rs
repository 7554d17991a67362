//! What came of an experiment.

use agent::document::Kind;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// How far up the agent is asked, as shares of the count at which the server failed.
pub(super) const MARKS: [f64; 3] = [0.25, 0.5, 0.75];

/// What the agent said of the ceiling at one tick.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// Connections the server had at that moment, by its descriptors.
    pub(super) open: u64,
    /// The same by the agent.
    pub(super) connections: u64,
    pub(super) connections_max: Option<u64>,
    /// Whether it was called the first to be hit, and what was.
    pub(super) is_first: bool,
    pub(super) first: Option<String>,
    pub(super) cost: Option<f64>,
}

/// An experiment's outcome.
pub(crate) struct Row {
    pub(super) kind: Kind,
    pub(super) limit: u64,
    /// Connections that were open when the server failed, by the count of their other ends.
    pub(super) actual: u64,
    pub(super) said: Vec<Said>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line("it"))
    }
}

impl Row {
    /// The first tick by which that share of the connections was open.
    pub(super) fn at(&self, mark: f64) -> anyhow::Result<&Said> {
        let share = mark * self.actual as f64;
        let said = self.said.iter().find(|said| said.open as f64 >= share);
        said.with_context(|| format!("nothing was said at {mark} of {}", self.actual))
    }

    /// How far off the prediction was, as a share of the truth.
    pub(super) fn error(&self, mark: f64) -> anyhow::Result<f64> {
        let said = self.at(mark)?;
        let max = said.connections_max.with_context(|| format!("no prediction at {mark}: {said:?}"))?;
        Ok(max as f64 / self.actual as f64 - 1.0)
    }

    /// Fails where a prediction was off by more than the share given for its mark.
    pub(super) fn holds(&self, wanted: &[(f64, f64)]) -> anyhow::Result<()> {
        for (mark, within) in wanted {
            let error = self.error(*mark)?;
            // Two of the last connections may be on their way when a server fails.
            let within = within.max(2.0 / self.actual as f64);
            ensure!(error.abs() <= within, "{:+.2}% at {mark}: {self:?}", 100.0 * error);
        }
        Ok(())
    }

    /// Whether this was called the first ceiling.
    pub(super) fn first_at(&self, mark: f64) -> anyhow::Result<bool> {
        Ok(self.at(mark)?.is_first)
    }

    /// In one line.
    pub(super) fn line(&self, name: &str) -> String {
        let mark = |mark: &f64| match (self.at(*mark), self.error(*mark)) {
            (Ok(said), Ok(error)) => format!(
                "at {:.0}% said {} ({:+.1}%, {:.0} each{})",
                mark * 100.0,
                said.connections_max.unwrap_or(0),
                error * 100.0,
                said.cost.unwrap_or(0.0),
                match &said.first {
                    _ if said.is_first => ", first".to_owned(),
                    Some(first) => format!(", {first} first"),
                    None => String::new(),
                }
            ),
            (_, Err(error)) | (Err(error), _) => error.to_string(),
        };
        let marks: Vec<String> = MARKS.iter().map(mark).collect();
        format!("{name}: failed at {}; {}", self.actual, marks.join("; "))
    }

    pub(super) fn json(&self) -> Value {
        let mark = |mark: &f64| {
            let said = self.at(*mark).ok();
            json!({
                "at": mark,
                "open": said.map(|said| said.open),
                "connections": said.map(|said| said.connections),
                "connections_max": said.and_then(|said| said.connections_max),
                "cost_per_connection": said.and_then(|said| said.cost),
                "first": said.and_then(|said| said.first.as_ref()),
                "error": self.error(*mark).ok(),
            })
        };
        let marks: Vec<Value> = MARKS.iter().map(mark).collect();
        json!({ "limit": self.limit, "actual": self.actual, "predicted": marks })
    }
}
