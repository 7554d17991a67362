//! Text that is broken into lines and scrolled.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span, Text};

use crate::app::Scroll;

/// Breaks `text` between words so that no line is wider than `width`, each after `indent` spaces.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let room = width.saturating_sub(indent).max(1);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.iter().map(|line| format!("{}{line}", " ".repeat(indent))).collect()
}

/// Cuts a line to `width` and says so: half a sentence must not read like a whole one.
pub(super) fn clip(line: Line<'static>, width: u16) -> Line<'static> {
    let width = usize::from(width);
    if line.width() <= width {
        return line;
    }
    let mut room = width.saturating_sub(1);
    let mut spans = Vec::new();
    for span in line.spans {
        let text: String = span.content.chars().take(room).collect();
        room -= text.chars().count();
        spans.push(Span::styled(text, span.style));
        if room == 0 {
            break;
        }
    }
    spans.push(Span::raw("…"));
    Line::from(spans).style(line.style)
}

/// Draws the part of `lines` that `scroll` shows.
pub(super) fn draw(frame: &mut Frame, area: Rect, scroll: &mut Scroll, lines: Vec<Line>) {
    let first = scroll.fit(area.height.into(), lines.len());
    let shown: Vec<Line> = lines.into_iter().skip(first).take(area.height.into()).collect();
    frame.render_widget(Text::from(shown), area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_shows() {
        let line = Line::from(vec![Span::raw("one "), Span::raw("two")]);
        assert_eq!(clip(line.clone(), 7).to_string(), "one two");
        assert_eq!(clip(line.clone(), 6).to_string(), "one t…");
        assert_eq!(clip(line, 4).to_string(), "one…");
    }

    #[test]
    fn breaks_between_words() {
        assert_eq!(wrap("one two three", 9, 2), ["  one two", "  three"]);
        assert_eq!(wrap("overlong", 4, 0), ["overlong"]);
        assert_eq!(wrap("", 4, 0), [""]);
    }
}
