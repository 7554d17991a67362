//! Tables that lose columns, not digits, on a narrow terminal.

use ratatui::text::Span;

/// A column's place in a table.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) title: String,
    /// Columns it wants; it never gets less.
    pub(super) width: usize,
    /// Numbers stand to the right.
    pub(super) right: bool,
    /// The highest goes first when room is short.
    pub(super) rank: u8,
}

const GAP: usize = 1;

/// Which of `fields` fit into `width`, in their order.
pub(super) fn fitting(fields: &[Field], width: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..fields.len()).collect();
    let needed = |kept: &[usize]| kept.iter().map(|&place| fields[place].width + GAP).sum::<usize>();
    while kept.len() > 1 && needed(&kept) > width + GAP {
        // Of equals the rightmost goes.
        let victim = kept.iter().copied().max_by_key(|&place| (fields[place].rank, place));
        kept.retain(|&place| Some(place) != victim);
    }
    kept
}

/// A row of the `kept` fields; `cell` gives a field's text.
pub(super) fn row(fields: &[Field], kept: &[usize], cell: impl Fn(usize) -> String) -> String {
    let mut line = String::new();
    for &place in kept {
        if !line.is_empty() {
            line.push(' ');
        }
        let field = &fields[place];
        let text = shorten(&cell(place), field.width);
        let padding = " ".repeat(field.width.saturating_sub(Span::raw(&text).width()));
        let (before, after) = if field.right { (&*padding, "") } else { ("", &*padding) };
        line.extend([before, &text, after]);
    }
    line
}

/// Cuts the beginning off what is too long: of an address and a path the end says more.
fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    "…".chars().chain(text.chars().skip(length + 1 - width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(width: usize, right: bool, rank: u8) -> Field {
        Field { title: String::new(), width, right, rank }
    }

    #[test]
    fn the_least_important_column_goes_first() {
        let fields = [field(10, false, 0), field(5, true, 9), field(5, true, 1)];
        assert_eq!(fitting(&fields, 22), [0, 1, 2]);
        assert_eq!(fitting(&fields, 21), [0, 2]);
        assert_eq!(fitting(&fields, 3), [0], "something is always shown");
    }

    #[test]
    fn cells_are_aligned_and_long_ones_keep_their_end() {
        let fields = [field(6, false, 0), field(4, true, 0)];
        let cells = ["127.0.0.1:8080", "12"];
        assert_eq!(row(&fields, &[0, 1], |place| cells[place].to_owned()), "…:8080   12");
    }
}
