//! The first ceiling in words, and where that leaves room the host.

use agent::report;
use agent::report::words;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};

use crate::app::App;
use crate::view::View;

use super::lines::{clip, wrap};
use super::theme::Theme;

pub(super) const HEIGHT: u16 = 2;

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &App, theme: Theme) {
    let view = app.view();
    let first = view.ceilings().iter().find(|ceiling| ceiling.first);
    let style = first.map_or(Style::new(), |ceiling| theme.level(ceiling.level)).add_modifier(Modifier::BOLD);
    let words = wrap(&report::headline(view.ceilings()), area.width.into(), 0);
    let mut lines: Vec<Line> = words.into_iter().map(|line| Line::styled(line, style)).collect();
    // On a narrow terminal the sentence takes both lines: the host's name is known to whoever looks.
    lines.push(Line::styled(host(view), theme.dim()));
    let lines: Vec<Line> = lines.into_iter().take(HEIGHT.into()).map(|line| clip(line, area.width)).collect();
    frame.render_widget(Text::from(lines), area);
}

fn host(view: &View) -> String {
    let mut text = String::new();
    if let Some(host) = view.host() {
        text.push_str(&format!("{} · Linux {} · ", host.name, host.kernel));
    }
    text.push_str(&words::open_connections(view.open(), view.listeners()));
    if let Some(timestamp) = view.timestamp() {
        // Seconds are enough for people; the stream has the rest.
        text.push_str(&format!(" · {timestamp:.0}"));
    }
    text
}
