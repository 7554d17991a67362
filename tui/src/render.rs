//! Drawing: one renderer per file, each from the state to a rectangle.

mod ceilings;
mod columns;
mod connections;
mod detail;
mod footer;
mod gauges;
mod headline;
mod help;
mod lines;
mod listeners;
mod sparklines;
mod tabs;
mod theme;
mod too_small;

use agent::terminal::is_obeyed;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use crate::app::{App, Screen};

pub use theme::Theme;
pub(crate) use too_small::{MIN_HEIGHT, MIN_WIDTH};

/// Draws the whole dashboard.
pub fn draw(frame: &mut Frame, app: &mut App, theme: Theme) {
    draw_all(frame, app, theme);
    disarm(frame.buffer_mut());
}

/// The border to the terminal: whatever was drawn, and by whichever renderer, no cell holds what a terminal obeys. ratatui
/// leaves control characters out itself, and lets characters pass that turn the order of text round.
fn disarm(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if cell.symbol().len() > 1 && cell.symbol().contains(is_obeyed) {
            let plain = cell.symbol().replace(is_obeyed, "");
            cell.set_symbol(if plain.is_empty() { "\u{fffd}" } else { &plain });
        }
    }
}

fn draw_all(frame: &mut Frame, app: &mut App, theme: Theme) {
    let area = frame.area();
    if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
        too_small::draw(frame, area);
        return;
    }
    let [head, gauges, sparklines, tabs, body, foot] = areas(area);
    headline::draw(frame, head, app, theme);
    gauges::draw(frame, gauges, app, theme);
    sparklines::draw(frame, sparklines, app, theme);
    tabs::draw(frame, tabs, app, theme);
    match app.screen() {
        Screen::Connections => connections::draw(frame, body, app, theme),
        Screen::Listeners => listeners::draw(frame, body, app, theme),
        Screen::Ceilings => ceilings::draw(frame, body, app, theme),
    }
    // The pane hides what moves least: the ceilings stay in sight.
    detail::draw(frame, sparklines.union(tabs).union(body), app, theme);
    footer::draw(frame, foot, app, theme);
    help::draw(frame, area, app, theme);
}

/// Sparklines give way first on a low terminal: the table and the ceilings are what people came for.
fn areas(area: Rect) -> [Rect; 6] {
    let sparklines = match area.height {
        ..20 => 0,
        20..32 => 3,
        _ => 5,
    };
    Layout::vertical([
        Constraint::Length(headline::HEIGHT),
        Constraint::Length(gauges::HEIGHT),
        Constraint::Length(sparklines),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(footer::HEIGHT),
    ])
    .areas(area)
}

#[cfg(test)]
mod tests;
