//! What came of all experiments: a table for people, a document for machines.

use std::path::PathBuf;

use agent::document::Kind;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::row::{MARKS, Row};
use crate::binaries;

/// An experiment and what came of each time it was made.
pub(super) struct Outcome {
    pub(super) name: &'static str,
    /// At least one.
    pub(super) rows: Vec<Row>,
}

/// How near a prediction is to be at each of the marks, as a share of the truth. Of bandwidth nothing is asked before half of the
/// way: rates take their time.
fn wanted(kind: Kind) -> [Option<f64>; MARKS.len()] {
    match kind {
        Kind::Memory => [Some(0.10), Some(0.05), Some(0.05)],
        Kind::Bandwidth => [None, Some(0.10), Some(0.10)],
        _ => [Some(0.01); MARKS.len()],
    }
}

impl Outcome {
    fn kind(&self) -> Kind {
        self.rows[0].kind
    }

    /// Median of the errors at a mark; none where a prediction was missing more often than not.
    fn error(&self, mark: f64) -> Option<f64> {
        let errors: Vec<f64> = self.rows.iter().filter_map(|row| row.error(mark).ok()).collect();
        (2 * errors.len() > self.rows.len()).then(|| median(errors))
    }

    fn actual(&self) -> f64 {
        median(self.rows.iter().map(|row| row.actual as f64).collect())
    }

    /// Whether the medians are as near as they are wanted to be; two connections may be on their way when a server fails.
    fn holds(&self) -> bool {
        let near = |(mark, within): (&f64, Option<f64>)| {
            let Some(within) = within.map(|within| within.max(2.0 / self.actual())) else { return true };
            self.error(*mark).is_some_and(|error| error.abs() <= within)
        };
        MARKS.iter().zip(wanted(self.kind())).all(near)
    }

    /// What was called the first ceiling half of the way up.
    fn first(&self) -> String {
        let other = |row: &Row| {
            let said = row.at(0.5).ok()?;
            if said.is_first { None } else { Some(said.first.clone().unwrap_or_else(|| "none".to_owned())) }
        };
        self.rows.iter().find_map(other).unwrap_or_else(|| "this".to_owned())
    }

    fn json(&self) -> Value {
        let runs: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let errors: Vec<Value> =
            MARKS.iter().map(|mark| json!({ "at": mark, "error": self.error(*mark) })).collect();
        json!({
            "experiment": self.name,
            "kind": self.kind().name(),
            "actual": self.actual(),
            "errors": errors,
            "holds": self.holds(),
            "first": self.first(),
            "runs": runs,
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Rows for a document: medians.
pub(super) fn table(results: &[Outcome]) -> String {
    let mut text = String::from(
        "| experiment | limit | failed at | off at 25% | at 50% | at 75% | as near as wanted | first at 50% |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for result in results {
        let cell = |mark: f64| {
            result.error(mark).map_or("–".to_owned(), |error| format!("{:+.1}%", 100.0 * error))
        };
        text.push_str(&format!(
            "| {} | {} | {:.0} | {} | {} | {} | {} | {} |\n",
            result.name,
            result.rows[0].limit,
            result.actual(),
            cell(0.25),
            cell(0.5),
            cell(0.75),
            if result.holds() { "yes" } else { "no" },
            result.first(),
        ));
    }
    text
}

/// Writes them as JSON into the target directory.
pub(super) fn write(results: &[Outcome]) -> anyhow::Result<PathBuf> {
    let folder = binaries::folder()?.with_file_name("bench-ceilings");
    let path = folder.join("result.json");
    let all: Vec<Value> = results.iter().map(Outcome::json).collect();
    let text = serde_json::to_string_pretty(&json!({ "schema": "headroom-ceilings/1", "experiments": all }))?;
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text));
    written.with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
