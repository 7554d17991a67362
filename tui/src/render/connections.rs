//! The connection table.

use agent::document::Connection;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Text};

use crate::app::{App, Column};

use super::columns::{Field, fitting, row};
use super::theme::Theme;

/// Widest an address gets while other columns are short of room: an IPv4 address with its port.
const ADDRESS: usize = 21;

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &mut App, theme: Theme) {
    let height = usize::from(area.height).saturating_sub(1);
    let mut table = app.table;
    let lines = {
        let rows = app.rows();
        let selected = app.position(&rows);
        let first = table.reveal(selected, height, rows.len());
        let shown = &rows[first.min(rows.len())..rows.len().min(first + height)];
        lines(app, shown, selected - first.min(selected), area.width.into(), theme)
    };
    app.table = table;
    frame.render_widget(Text::from(lines), area);
}

fn lines(
    app: &App,
    shown: &[&Connection],
    selected: usize,
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let fields = Column::ALL.map(|column| field(app, column, shown));
    let kept = fitting(&fields, width);
    let mut lines =
        vec![Line::styled(row(&fields, &kept, |place| fields[place].title.clone()), theme.title())];
    for (place, connection) in shown.iter().enumerate() {
        let text = row(&fields, &kept, |place| Column::ALL[place].cell(connection, app.view()));
        let style = if place == selected { theme.selected() } else { Style::new() };
        lines.push(Line::styled(text, style));
    }
    if shown.is_empty() {
        let text = match (app.filter(), app.view().open() + app.view().presumed()) {
            ("", 0) => "no WebSocket connection is open",
            ("", _) => "connections are open, but none was reported one by one yet",
            _ => "no connection matches the filter",
        };
        lines.push(Line::styled(text, theme.dim()));
    }
    lines
}

fn field(app: &App, column: Column, shown: &[&Connection]) -> Field {
    let (width, rank) = match column {
        Column::Remote => (address(shown, |connection| &connection.remote), 0),
        Column::Local => (address(shown, |connection| &connection.local), 3),
        Column::Kernel => (9, 1),
        Column::Rtt => (8, 2),
        Column::Parse => (9, 4),
        Column::Process => (14, 5),
        Column::Age => (5, 6),
        Column::Received => (8, 7),
        Column::Sent => (8, 8),
        Column::Pings => (11, 9),
        Column::Role => (7, 10),
    };
    let sort = app.sort();
    let title = match (column == sort.column, sort.descending()) {
        (true, true) => format!("{}▼", column.title()),
        (true, false) => format!("{}▲", column.title()),
        (false, _) => column.title().to_owned(),
    };
    // The column that sorts is the one people look at.
    let rank = if column == sort.column { 0 } else { rank };
    Field { title, width, right: column.largest_first(), rank }
}

fn address(shown: &[&Connection], of: impl Fn(&Connection) -> &str) -> usize {
    shown.iter().map(|connection| of(connection).len()).max().unwrap_or(0).clamp(9, ADDRESS)
}
