//! A rendered screen as an SVG picture, for documents that show the dashboard.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// Size of a cell in pixels: what common monospace fonts have at [`FONT_SIZE`].
const CELL: (f64, f64) = (8.4, 18.0);
const FONT_SIZE: f64 = 14.0;
/// Space around the screen.
const MARGIN: f64 = 12.0;
const FOREGROUND: &str = "#d4d4d4";
const BACKGROUND: &str = "#1e1e1e";

/// Draws `buffer`.
pub(crate) fn render(buffer: &Buffer) -> String {
    let area = buffer.area;
    let width = f64::from(area.width) * CELL.0 + 2.0 * MARGIN;
    let height = f64::from(area.height) * CELL.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"{FONT_SIZE}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for row in 0..area.height {
        let cells = &buffer.content[usize::from(row) * usize::from(area.width)..][..usize::from(area.width)];
        draw_row(&mut svg, row, cells);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Cells that look alike become one text: a screen is a few hundred elements instead of thousands.
fn draw_row(svg: &mut String, row: u16, cells: &[Cell]) {
    let mut column = 0;
    for run in cells.chunk_by(|a, b| look(a) == look(b) && block(a) == block(b)) {
        draw_run(svg, row, column, run);
        column += run.len();
    }
}

fn draw_run(svg: &mut String, row: u16, column: usize, run: &[Cell]) {
    let Look { foreground, background, bold } = look(&run[0]);
    let (x, y) = (MARGIN + column as f64 * CELL.0, MARGIN + f64::from(row) * CELL.1);
    let width = run.len() as f64 * CELL.0;
    if background != BACKGROUND {
        let (height, fill) = (CELL.1, background);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{fill}\"/>"
        );
    }
    if let Some(eighths) = block(&run[0]) {
        // As a shape: the glyphs of most fonts do not fill their line, which leaves stripes in bars and curves.
        let height = CELL.1 * f64::from(eighths) / 8.0;
        let top = y + CELL.1 - height;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{top:.2}\" width=\"{width:.1}\" height=\"{height:.2}\" fill=\"{foreground}\"/>"
        );
        return;
    }
    let text: String = run.iter().map(Cell::symbol).collect();
    if text.trim().is_empty() {
        return;
    }
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    // The length is given so that columns stay aligned whatever font the reader has.
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{baseline:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" \
         xml:space=\"preserve\" fill=\"{foreground}\"{weight}>{text}</text>",
        baseline = y + CELL.1 * 0.75,
        text = escape(&text),
    );
}

/// Height in eighths of a block element that stands on the baseline.
fn block(cell: &Cell) -> Option<u32> {
    let character = cell.symbol().chars().next()?;
    ('▁'..='█').contains(&character).then(|| character as u32 - '▁' as u32 + 1)
}

#[derive(PartialEq)]
struct Look {
    foreground: &'static str,
    background: &'static str,
    bold: bool,
}

fn look(cell: &Cell) -> Look {
    let (foreground, background) = (color(cell.fg, FOREGROUND), color(cell.bg, BACKGROUND));
    let bold = cell.modifier.contains(Modifier::BOLD);
    if cell.modifier.contains(Modifier::REVERSED) {
        Look { foreground: background, background: foreground, bold }
    } else {
        Look { foreground, background, bold }
    }
}

/// The 16 colours as most terminals show them on a dark ground. The dashboard uses no others.
fn color(color: Color, default: &'static str) -> &'static str {
    match color {
        Color::Black => "#000000",
        Color::Red => "#f14c4c",
        Color::Green => "#23d18b",
        Color::Yellow => "#e5c07b",
        Color::Blue => "#3b8eea",
        Color::Magenta => "#d670d6",
        Color::Cyan => "#29b8db",
        Color::Gray => "#cccccc",
        Color::DarkGray => "#8a8a8a",
        Color::LightRed => "#ff7b72",
        Color::LightGreen => "#7ee787",
        Color::LightYellow => "#f5f543",
        Color::LightBlue => "#79c0ff",
        Color::LightMagenta => "#e2a6e2",
        Color::LightCyan => "#76e3ea",
        Color::White => "#ffffff",
        Color::Reset | Color::Rgb(..) | Color::Indexed(_) => default,
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn text_is_escaped_and_runs_keep_their_place() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 1, "a<&>", Style::new().fg(Color::Red));
        buffer.set_string(6, 1, "x", Style::new().add_modifier(Modifier::REVERSED));
        buffer.set_string(0, 0, "▂▂█", Style::new());
        let svg = render(&buffer);
        assert!(svg.contains(">a&lt;&amp;&gt;</text>"), "{svg}");
        assert!(svg.contains("fill=\"#f14c4c\""), "{svg}");
        assert!(svg.contains(&format!(
            "<rect x=\"62.4\" y=\"30.0\" width=\"8.4\" height=\"18\" fill=\"{FOREGROUND}\""
        )));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(
            svg.contains("y=\"25.50\" width=\"16.8\" height=\"4.50\""),
            "two quarter blocks are one shape: {svg}"
        );
        assert_eq!(svg.matches("<text").count(), 2, "blank cells draw nothing");
    }
}
