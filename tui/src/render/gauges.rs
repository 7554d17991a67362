//! One bar per kind of ceiling: the nearest of its kind, or why it is not known.

use agent::document::{Ceiling, Kind, Level};
use agent::report::format::{count, percent, quantity};
use agent::report::scope;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span, Text};

use crate::app::App;

use super::lines::clip;
use super::theme::Theme;

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Descriptors, Kind::Bandwidth];

pub(super) const HEIGHT: u16 = KINDS.len() as u16;

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &App, theme: Theme) {
    let line = |kind: Kind| clip(gauge(kind, app.view().nearest(kind), area.width, theme), area.width);
    frame.render_widget(Text::from(KINDS.map(line).to_vec()), area);
}

fn gauge(kind: Kind, ceiling: Option<&Ceiling>, width: u16, theme: Theme) -> Line<'static> {
    let name = format!("{:<12}", kind.name());
    let known = ceiling.and_then(|ceiling| Some((ceiling, ceiling.utilization?)));
    let Some((ceiling, utilization)) = known else {
        let reason = ceiling.map_or("nothing was measured yet", |ceiling| ceiling.basis.as_str());
        let text = format!("{} unknown: {reason}", Theme::mark(Level::Unknown));
        return Line::from(vec![Span::raw(name), Span::styled(text, theme.level(Level::Unknown))]);
    };
    let style = theme.level(ceiling.level);
    let cells = (width / 5).clamp(10, 40) as usize;
    let filled = filled(utilization, cells);
    let quantity =
        |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| quantity(value, ceiling.unit));
    let left = match ceiling.connections_left {
        Some(left) => format!("{} left", count(left)),
        None => "left unknown".to_owned(),
    };
    let text = format!(
        " {:>4}  {} of {}  {left}  ",
        percent(utilization),
        quantity(ceiling.used),
        quantity(ceiling.limit)
    );
    Line::from(vec![
        Span::raw(name),
        Span::styled(format!("{} ", Theme::mark(ceiling.level)), style),
        Span::styled("█".repeat(filled), style),
        Span::styled("░".repeat(cells - filled), theme.dim()),
        Span::raw(text),
        Span::styled(scope(&ceiling.scope), theme.dim()),
    ])
}

/// Full means full: the last cell is filled at the limit and not before, the first as soon as anything is used.
fn filled(utilization: f64, cells: usize) -> usize {
    if utilization <= 0.0 {
        return 0;
    }
    let filled = (utilization * cells as f64).floor() as usize;
    filled.clamp(1, cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_at_the_limit_only() {
        assert_eq!(filled(0.0, 20), 0);
        assert_eq!(filled(0.001, 20), 1);
        assert_eq!(filled(0.999, 20), 19);
        assert_eq!(filled(1.0, 20), 20);
        assert_eq!(filled(1.7, 20), 20);
    }
}
