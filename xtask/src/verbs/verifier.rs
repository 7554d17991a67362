//! What the programs take of the verifier's limits, on the kernel that `headroom-agent check` ran on, against the
//! committed figures.

mod table;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use xtask::ebpf::{Contents, STACK_LIMIT, workspace_root};

use self::table::{COLUMNS, Figures, Row, Series, Table};
use crate::skip::Skip;

/// The committed figures.
const FILE: &str = "docs/verifier.md";

/// Checks what the agent said, or takes it for the figures to compare with from now on.
pub(super) fn check(contents: &Contents, document: &str, accept: bool) -> anyhow::Result<()> {
    let said: Value = serde_json::from_str(document).context("headroom-agent check --json: not JSON")?;
    let series = said["kernel"].as_str().and_then(Series::of_release);
    let series = series.with_context(|| format!("no kernel release in {document}"))?;
    let found = found(contents, &said)?;
    println!("{:<9} {:<18} {}", "kernel", "program", COLUMNS.map(|column| column.name).join("  "));
    for (program, figures) in &found {
        let cells = COLUMNS
            .iter()
            .zip(figures)
            .map(|(column, figure)| format!("{:>1$}", table::cell(*figure), column.name.len()));
        println!("{:<9} {program:<18} {}", series.to_string(), cells.collect::<Vec<_>>().join("  "));
    }
    refused(&said, &found)?;
    let path = workspace_root().join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut table = Table::parse(&text).with_context(|| format!("{FILE} is malformed"))?;
    if accept {
        table.replace(series, found);
        std::fs::write(&path, table.to_string()).with_context(|| format!("writing {}", path.display()))?;
        println!("{FILE} has these figures for Linux {series} now");
        return Ok(());
    }
    let Some(expected) = table.of(series) else {
        println!("{FILE} has no figures for Linux {series}: nothing to compare with");
        return Ok(());
    };
    let complaints = complaints(expected, &found);
    if complaints.is_empty() {
        println!("within the figures of {FILE} for Linux {series}");
        return Ok(());
    }
    bail!(
        "Linux {series} and {FILE}: {}; if that is meant, add --accept to `cargo xtask build-ebpf --verify` or \
         `cargo xtask vm-test --kernel {series}`, whichever runs this kernel",
        complaints.join("; ")
    )
}

/// The figures of every program in the object; those of the kernel are absent where it refused the program.
fn found(contents: &Contents, said: &Value) -> anyhow::Result<Row> {
    let programs = said["programs"].as_array().context("headroom-agent check names no programs")?;
    if programs.is_empty() {
        let reason = said["hooks"][0]["reason"].as_str().unwrap_or("no reason is given");
        return Err(Skip(format!("the programs cannot be loaded here: {reason}")).into());
    }
    let by_name: BTreeMap<&str, &Value> =
        programs.iter().filter_map(|program| Some((program["name"].as_str()?, program))).collect();
    let mut found = Row::new();
    for (name, program) in &contents.programs {
        ensure!(
            program.stack_bytes <= STACK_LIMIT,
            "{name} uses {} bytes of stack along its deepest chain of calls ({}); {STACK_LIMIT} is the limit",
            program.stack_bytes,
            program.deepest.join(", ")
        );
        let of_kernel = |key: &str| by_name.get(name.as_str()).and_then(|program| program[key].as_u64());
        let figures: Figures = COLUMNS.map(|column| match column.key {
            "instructions" => Some(program.instructions),
            "stack_bytes" => Some(program.stack_bytes),
            key => of_kernel(key),
        });
        found.insert(name.clone(), figures);
    }
    Ok(found)
}

/// A kernel that takes some of the programs must take those that everything rests on.
fn refused(said: &Value, found: &Row) -> anyhow::Result<()> {
    for hook in said["hooks"].as_array().into_iter().flatten().filter(|hook| hook["available"] == false) {
        let (hook_name, program) = (&hook["hook"], hook["program"].as_str().unwrap_or_default());
        println!("{hook_name} is not available: {}", hook["reason"]);
        ensure!(hook["required"] == false, "{program} was refused: {}", hook["reason"]);
        ensure!(found.contains_key(program), "headroom-agent knows a program {program}, the object does not");
    }
    Ok(())
}

/// Where `found` exceeds `expected`.
fn complaints(expected: &Row, found: &Row) -> Vec<String> {
    let mut complaints = Vec::new();
    for (program, figures) in found {
        let Some(limits) = expected.get(program) else {
            complaints.push(format!("{program} is not in the table"));
            continue;
        };
        for ((column, limit), figure) in COLUMNS.iter().zip(limits).zip(figures) {
            match (limit, figure) {
                (Some(limit), Some(figure)) if *figure * 100 > *limit * (100 + column.tolerance_percent) => {
                    complaints.push(format!(
                        "{program}: {} grew from {limit} to {figure}, by more than {}%",
                        column.name, column.tolerance_percent
                    ));
                }
                (Some(limit), None) if column.is_everywhere => {
                    complaints.push(format!("{program}: {} was {limit} and is not known", column.name));
                }
                _ => {}
            }
        }
    }
    let gone = expected.keys().filter(|program| !found.contains_key(*program));
    complaints.extend(gone.map(|program| format!("{program} is in the table and not in the object")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(programs: &[(&str, [u64; 5])]) -> Row {
        programs.iter().map(|(name, figures)| ((*name).to_owned(), figures.map(Some))).collect()
    }

    #[test]
    fn growth_beyond_the_tolerance_is_named() {
        let expected = row(&[("a", [100, 64, 1000, 800, 500])]);
        assert_eq!(complaints(&expected, &row(&[("a", [110, 64, 1100, 400, 550])])), [""; 0]);
        let grown = complaints(&expected, &row(&[("a", [100, 96, 1101, 800, 500])]));
        assert_eq!(grown.len(), 2, "{grown:?}");
        assert!(grown[0].contains("stack") && grown[0].contains("64 to 96"), "{grown:?}");
        assert!(grown[1].contains("verified") && grown[1].contains("1000 to 1101"), "{grown:?}");
    }

    #[test]
    fn new_refused_and_removed_programs_are_named() {
        let expected = row(&[("a", [1; 5]), ("b", [1; 5])]);
        let mut found = row(&[("a", [1; 5]), ("c", [1; 5])]);
        found.insert("a".into(), [Some(1), Some(1), None, None, None]);
        let complaints = complaints(&expected, &found);
        assert!(complaints.iter().any(|line| line.starts_with("a: ") && line.contains("not known")));
        assert!(complaints.iter().any(|line| line == "c is not in the table"));
        assert!(complaints.iter().any(|line| line.starts_with("b is in the table and not")));
    }
}
