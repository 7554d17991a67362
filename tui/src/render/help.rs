//! The help overlay, from the same table as the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear};

use crate::app::{App, BINDINGS, Mode};

use super::lines;
use super::theme::Theme;

const WIDTH: u16 = 58;

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &mut App, theme: Theme) {
    if app.mode() != Mode::Help {
        return;
    }
    let entry = |keys: String, help: &str| {
        Line::from(vec![Span::styled(format!(" {keys:<11}"), theme.key()), Span::raw(help.to_owned())])
    };
    let mut text: Vec<Line> = BINDINGS
        .iter()
        .filter(|binding| binding.modes != [Mode::Filter])
        .map(|binding| entry(binding.names(), binding.help))
        .collect();
    text.extend([Line::raw(""), Line::styled(" while typing a filter", theme.title())]);
    text.extend(
        BINDINGS
            .iter()
            .filter(|binding| binding.modes == [Mode::Filter])
            .map(|binding| entry(binding.names(), binding.help)),
    );
    // The last two rows keep the footer, which says how to close this.
    let room = Rect { height: area.height.saturating_sub(2), ..area };
    let height = (text.len() as u16 + 2).min(room.height);
    let popup = room.centered(Constraint::Length(WIDTH.min(room.width)), Constraint::Length(height));
    let hidden = text.len() > usize::from(height.saturating_sub(2));
    let title = if hidden { " keys (↓ for more) " } else { " keys " };
    let block = Block::bordered().title(Span::styled(title, theme.title()));
    let inner = block.inner(popup);
    frame.render_widget(Clear, popup);
    frame.render_widget(block, popup);
    lines::draw(frame, inner, &mut app.text, text);
}
