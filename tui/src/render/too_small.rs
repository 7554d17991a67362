//! What is shown where the dashboard does not fit.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Text;

/// Columns below which nothing useful fits.
pub(crate) const MIN_WIDTH: u16 = 60;
/// Rows below which nothing useful fits.
pub(crate) const MIN_HEIGHT: u16 = 15;

pub(super) fn draw(frame: &mut Frame, area: Rect) {
    let text = format!(
        "terminal too small: {}x{}\nneeds {MIN_WIDTH}x{MIN_HEIGHT}, q quits",
        area.width, area.height
    );
    let middle = Rect { y: area.y + area.height.saturating_sub(2) / 2, height: area.height.min(2), ..area };
    frame.render_widget(Text::from(text).centered(), middle.intersection(area));
}
