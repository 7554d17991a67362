//! Columns of text.

/// Lays `rows` out under `header`: numbers to the right, words to the left. A column is one of numbers when its header
/// begins with `>`, which is not printed. Nothing is printed for no rows.
pub(super) fn grid(header: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let right: Vec<bool> = header.iter().map(|title| title.starts_with('>')).collect();
    let titles: Vec<String> = header.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
    let width = |column: usize| {
        rows.iter()
            .chain([&titles])
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::new();
    for row in [&titles].into_iter().chain(rows) {
        let mut line = String::from(" ");
        for ((cell, &width), &right) in row.iter().zip(&widths).zip(&right) {
            let cell = printable(cell);
            if right {
                line.push_str(&format!(" {cell:>width$}"));
            } else {
                line.push_str(&format!(" {cell:<width$}"));
            }
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Without control characters: a process may name itself, and a directory be named, after an escape sequence.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "1,000".to_owned()]];
        assert_eq!(grid(&["name", ">n"], &rows), "  name      n\n  a         1\n  bcd   1,000\n");
        assert_eq!(grid(&["name"], &[]), "");
        assert_eq!(grid(&["name"], &[vec!["\x1b[2J\n".to_owned()]]), "  name\n  ?[2J?\n");
    }
}
