//! The screens' names, and what narrows the table.

use agent::report::format::count;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::app::{App, Mode, Screen};

use super::lines::clip;
use super::theme::Theme;

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &App, theme: Theme) {
    let mut spans = Vec::new();
    for (number, screen) in (1..).zip(Screen::ALL) {
        let style = if screen == app.screen() { theme.selected() } else { Style::new() };
        spans.push(Span::styled(format!(" {number} {} ", screen.title()), style));
        spans.push(Span::raw(" "));
    }
    if app.is_frozen() {
        spans.push(Span::styled("‖ frozen ", theme.alert()));
    }
    if app.screen() == Screen::Connections {
        let listed = app.view().connections().count() as u64;
        if listed < app.view().open() {
            // The agent tells of single connections within a budget; totals are always complete.
            let text = format!("{} of {} listed ", count(listed), count(app.view().open()));
            spans.push(Span::styled(text, theme.dim()));
        }
        if app.mode() == Mode::Filter || !app.filter().is_empty() {
            let cursor = if app.mode() == Mode::Filter { "█" } else { "" };
            spans.push(Span::styled(format!("filter: {}{cursor}", app.filter()), theme.alert()));
        }
    }
    frame.render_widget(clip(Line::from(spans), area.width), area);
}
