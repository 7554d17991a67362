//! Columns of text.

use super::text::Report;
use crate::terminal::printable;

/// Lays `rows` out under `header`: numbers to the right, words to the left. A column is one of numbers when its header
/// begins with `>`, which is not printed. Nothing is printed for no rows.
pub(super) fn grid(header: &[&str], rows: &[Vec<String>]) -> Report {
    let mut report = Report::new();
    if rows.is_empty() {
        return report;
    }
    let right: Vec<bool> = header.iter().map(|title| title.starts_with('>')).collect();
    let titles: Vec<String> = header.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
    // Before their widths are taken: what is written out is wider.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell).into_owned()).collect()).collect();
    let width = |column: usize| {
        rows.iter()
            .chain([&titles])
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for row in [&titles].into_iter().chain(&rows) {
        let mut line = String::from(" ");
        for ((cell, &width), &right) in row.iter().zip(&widths).zip(&right) {
            if right {
                line.push_str(&format!(" {cell:>width$}"));
            } else {
                line.push_str(&format!(" {cell:<width$}"));
            }
            line.push(' ');
        }
        report.line(line.trim_end());
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "1,000".to_owned()]];
        assert_eq!(grid(&["name", ">n"], &rows).to_string(), "  name      n\n  a         1\n  bcd   1,000\n");
        assert!(grid(&["name"], &[]).is_empty());
        let rows = [vec!["\x1b\n".to_owned(), "1".to_owned()]];
        assert_eq!(grid(&["name", ">n"], &rows).to_string(), "  name      n\n  \\u{1b}\\n  1\n");
    }
}
