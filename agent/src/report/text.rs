//! The border between reports and a terminal.

use std::fmt::{self, Display};

use crate::terminal::printable;

/// Text for people. A line is the only thing that can be added to it, so nothing reaches a terminal past [`printable`](crate::terminal::printable).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(String);

impl Report {
    /// No lines yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one line, whatever is in it.
    pub fn line(&mut self, line: impl Display) {
        let line = line.to_string();
        self.0.push_str(&printable(&line));
        self.0.push('\n');
    }

    /// Adds the lines of another report.
    pub fn append(&mut self, other: &Report) {
        self.0.push_str(&other.0);
    }

    /// Whether it has no lines.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let mut report = Report::new();
        report.line(format_args!("{}: {}", "a\nb", 1));
        let mut all = Report::new();
        all.append(&report);
        all.line("");
        assert_eq!(all.to_string(), "a\\nb: 1\n\n");
    }
}
