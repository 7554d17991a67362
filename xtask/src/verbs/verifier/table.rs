//! The table in docs/verifier.md: text around rows that are read and written here.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, ensure};

/// A figure that is kept.
#[derive(Clone, Copy)]
pub(super) struct Column {
    /// In the table's head.
    pub(super) name: &'static str,
    /// In `headroom-agent check --json`, or what the object says.
    pub(super) key: &'static str,
    /// How much it may grow.
    pub(super) tolerance_percent: u64,
    /// Whether every host with that kernel reports it.
    pub(super) is_everywhere: bool,
}

const fn column(name: &'static str, key: &'static str) -> Column {
    Column { name, key, tolerance_percent: 10, is_everywhere: true }
}

pub(super) const COLUMNS: [Column; 5] = [
    column("instructions", "instructions"),
    column("stack bytes", "stack_bytes"),
    column("verified instructions", "verified_instructions"),
    column("translated bytes", "translated_bytes"),
    // The code for one and the same program depends on the processor and on the mitigations it needs.
    Column { tolerance_percent: 50, is_everywhere: false, ..column("JITed bytes", "jited_bytes") },
];

/// One per column.
pub(super) type Figures = [Option<u64>; COLUMNS.len()];
/// By program.
pub(super) type Row = BTreeMap<String, Figures>;

/// A kernel series, as 6.12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series(u32, u32);

impl Series {
    /// From `uname -r`, as "6.12.99+deb12-cloud-amd64".
    pub(super) fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Up to the line under the table's head.
    before: String,
    rows: BTreeMap<Series, Row>,
    /// From the first line that is no row.
    after: String,
}

/// A figure, as the table writes it.
pub(super) fn cell(figure: Option<u64>) -> String {
    figure.map_or("–".to_owned(), |figure| figure.to_string())
}

impl Table {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let head = text.split_inclusive('\n').take_while(|line| !line.starts_with("|---"));
        let start = head.map(str::len).sum::<usize>();
        let under = text[start..].split_inclusive('\n').next().context("it has no table")?;
        let (before, rest) = text.split_at(start + under.len());
        let end = rest.split_inclusive('\n').take_while(|line| line.starts_with('|')).map(str::len).sum();
        let (lines, after) = rest.split_at(end);
        let mut rows: BTreeMap<Series, Row> = BTreeMap::new();
        for line in lines.lines() {
            let (series, program, figures) = row(line).with_context(|| format!("in the row {line}"))?;
            let twice = rows.entry(series).or_default().insert(program, figures);
            ensure!(twice.is_none(), "two rows for one program: {line}");
        }
        Ok(Self { before: before.to_owned(), rows, after: after.to_owned() })
    }

    /// What is known of a series.
    pub(super) fn of(&self, series: Series) -> Option<&Row> {
        self.rows.get(&series)
    }

    /// Takes other figures for a series.
    pub(super) fn replace(&mut self, series: Series, row: Row) {
        self.rows.insert(series, row);
    }
}

fn row(line: &str) -> anyhow::Result<(Series, String, Figures)> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    ensure!(cells.len() == 2 + COLUMNS.len(), "{} cells", cells.len());
    let mut figures = Figures::default();
    for (figure, text) in figures.iter_mut().zip(&cells[2..]) {
        *figure = match *text {
            "–" => None,
            text => Some(text.parse().with_context(|| format!("{text:?} is no number"))?),
        };
    }
    let series = Series::of_release(cells[0]).with_context(|| format!("{:?} is no kernel", cells[0]))?;
    Ok((series, cells[1].trim_matches('`').to_owned(), figures))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.before)?;
        for (series, row) in &self.rows {
            for (program, figures) in row {
                let figures = figures.map(cell).join(" | ");
                writeln!(f, "| {series} | `{program}` | {figures} |")?;
            }
        }
        f.write_str(&self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n\n| kernel | program | a | b | c | d | e |\n|---|---|---:|---:|---:|---:|---:|\n\
                        | 6.1 | `x` | 1 | 2 | 3 | 4 | – |\n| 6.12 | `x` | 5 | 6 | 7 | 8 | 9 |\n\nText | after.\n";

    #[test]
    fn what_is_read_is_written_again() {
        let table = Table::parse(TEXT).expect("well-formed");
        assert_eq!(table.to_string(), TEXT);
        assert_eq!(table.rows.len(), 2);
        assert_eq!(table.of(Series(6, 1)).expect("a row")["x"], [Some(1), Some(2), Some(3), Some(4), None]);
        assert!(table.of(Series(6, 18)).is_none());
    }

    #[test]
    fn rows_are_replaced_in_order_of_the_numbers() {
        let mut table = Table::parse(TEXT).expect("well-formed");
        table.replace(Series(6, 2), Row::from([("y".to_owned(), [Some(0); 5])]));
        table.replace(Series(6, 12), Row::from([("z".to_owned(), [None; 5])]));
        let text = table.to_string();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| 6")).collect();
        assert_eq!(
            rows,
            [
                "| 6.1 | `x` | 1 | 2 | 3 | 4 | – |",
                "| 6.2 | `y` | 0 | 0 | 0 | 0 | 0 |",
                "| 6.12 | `z` | – | – | – | – | – |"
            ]
        );
        assert!(text.ends_with("\nText | after.\n"));
    }

    #[test]
    fn damage_is_an_error() {
        assert!(Table::parse("no table").is_err());
        assert!(Table::parse(&TEXT.replace("| 5 |", "| five |")).is_err());
        assert!(Table::parse(&TEXT.replace("6.12", "6.1")).is_err(), "twice the same program");
    }

    #[test]
    fn releases_name_their_series() {
        assert_eq!(Series::of_release("6.12.99+deb12-cloud-amd64"), Some(Series(6, 12)));
        assert_eq!(Series::of_release("7.2-rc1"), Some(Series(7, 2)));
        assert_eq!(Series::of_release("next"), None);
        assert!(Series(6, 2) < Series(6, 12));
    }
}
