//! What a connection costs, part by part, as text.

use crate::document::{Ceiling, Part, Range};

use super::format::{UNKNOWN, cost, count, known};
use super::grid::grid;
use super::headline::scope;
use super::text::Report;
use super::words::part;

/// A row for each ceiling's cost, and below it one for each part of it.
pub(super) fn costs(ceilings: &[Ceiling]) -> Report {
    let header = ["ceiling", "scope", "part", ">per connection", ">interval", ">samples"];
    let mut rows = Vec::new();
    for ceiling in ceilings.iter().filter(|ceiling| ceiling.cost_range.is_some() || !ceiling.parts.is_empty())
    {
        let row = |name: [&str; 3], value: Option<f64>, range: Option<Range>, samples: Option<u64>| {
            let [kind, scope, part] = name.map(str::to_owned);
            let value = known(value, |value| cost(value, ceiling.unit));
            vec![kind, scope, part, value, interval(range, ceiling), known(samples, count)]
        };
        rows.push(row(
            [ceiling.kind.name(), &scope(&ceiling.scope), "all"],
            ceiling.cost_per_connection,
            ceiling.cost_range,
            ceiling.cost_samples,
        ));
        for known in &ceiling.parts {
            rows.push(row(["", "", part(known.part)], Some(known.cost), known.range, Some(known.samples)));
        }
    }
    let mut text = grid(&header, &rows);
    if ceilings.iter().flat_map(|ceiling| &ceiling.parts).any(|known| known.part == Part::Compression) {
        text.line(
            "  compression is an estimate from the negotiated parameters, and within what the process takes",
        );
    }
    text
}

/// The same in one line: `each 38.5 KiB (36.0 KiB to 40.1 KiB, 40 samples): kernel objects 3.70 KiB, the server's own 32.5 KiB`.
/// None where there is nothing to add to the cost itself.
pub fn made_of(ceiling: &Ceiling) -> Option<String> {
    let value = cost(ceiling.cost_per_connection?, ceiling.unit);
    let parts: Vec<String> = ceiling
        .parts
        .iter()
        .map(|known| format!("{} {}", part(known.part), cost(known.cost, ceiling.unit)))
        .collect();
    let sure = ceiling.cost_range.map(|range| {
        let samples = known(ceiling.cost_samples, count);
        format!(" ({}, {samples} samples)", interval(Some(range), ceiling))
    });
    if sure.is_none() && parts.is_empty() {
        return None;
    }
    let made_of = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    Some(format!("each {value}{}{made_of}", sure.unwrap_or_default()))
}

fn interval(range: Option<Range>, ceiling: &Ceiling) -> String {
    let end = |value| cost(value, ceiling.unit);
    match range {
        None => UNKNOWN.to_owned(),
        Some(Range { least, most: None }) => format!("{} or more", end(least)),
        Some(Range { least, most: Some(most) }) => format!("{} to {}", end(least), end(most)),
    }
}
