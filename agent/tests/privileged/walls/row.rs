//! What came of an experiment.

use std::path::PathBuf;

use agent::document::Kind;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::binaries;

/// How far up the agent is asked, as shares of the count at which the server failed.
const MARKS: [f64; 3] = [0.25, 0.5, 0.75];

/// What the agent said of the ceiling at one tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) connections: u64,
    pub(super) connections_max: Option<u64>,
    pub(super) first: bool,
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
    fn at(&self, mark: f64) -> anyhow::Result<Said> {
        let share = mark * self.actual as f64;
        let said = self.said.iter().find(|said| said.connections as f64 >= share);
        said.copied().with_context(|| format!("nothing was said at {mark} of {}", self.actual))
    }

    /// How far off the prediction was, as a share of the truth.
    fn error(&self, mark: f64) -> anyhow::Result<f64> {
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
        Ok(self.at(mark)?.first)
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
                if said.first { ", first" } else { "" }
            ),
            (_, Err(error)) | (Err(error), _) => error.to_string(),
        };
        let marks: Vec<String> = MARKS.iter().map(mark).collect();
        format!("{name}: failed at {}; {}", self.actual, marks.join("; "))
    }

    fn json(&self, name: &str) -> Value {
        let mark = |mark: &f64| {
            let said = self.at(*mark).ok();
            json!({
                "at": mark,
                "connections": said.map(|said| said.connections),
                "connections_max": said.and_then(|said| said.connections_max),
                "cost_per_connection": said.and_then(|said| said.cost),
                "first": said.map(|said| said.first),
                "error": self.error(*mark).ok(),
            })
        };
        let marks: Vec<Value> = MARKS.iter().map(mark).collect();
        json!({ "experiment": name, "kind": self.kind, "limit": self.limit, "actual": self.actual, "predicted": marks })
    }
}

/// Rows for a document.
pub(super) fn table(rows: &[(&str, Row)]) -> String {
    let mut text = String::from(
        "| experiment | failed at | predicted at 25% | at 50% | at 75% | first at 50% |\n|---|---|---|---|---|---|\n",
    );
    for (name, row) in rows {
        let cell = |mark: f64| match (row.at(mark), row.error(mark)) {
            (Ok(said), Ok(error)) => {
                format!("{} ({:+.1}%)", said.connections_max.unwrap_or(0), error * 100.0)
            }
            _ => "–".to_owned(),
        };
        let first = row.first_at(0.5).map_or("–", |first| if first { "yes" } else { "no" });
        text.push_str(&format!(
            "| {name} | {} | {} | {} | {} | {first} |\n",
            row.actual,
            cell(0.25),
            cell(0.5),
            cell(0.75)
        ));
    }
    text
}

/// Writes them as JSON beside the binaries.
pub(super) fn write(rows: &[(&str, Row)]) -> anyhow::Result<PathBuf> {
    let path = binaries::folder()?.with_file_name("bench-ceilings.json");
    let all: Vec<Value> = rows.iter().map(|(name, row)| row.json(name)).collect();
    let text = serde_json::to_string_pretty(&json!({ "schema": "headroom-ceilings/1", "rows": all }))?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
